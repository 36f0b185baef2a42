"""A basis made fit for a graph whose weights have changed, at a small part of the cost of a new one.

Legend: K pairs, n voxels; L0, R0 of the graph before, L, R after, dL = L - L0, dR = R - R0; blocks are `[k, n]`.
Derived here from the abstract of arXiv 1607.04174 (reconstruction) and standard perturbation theory.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rwalk import graph
from rwalk.eigen import Basis, ritz, smallest_eigenpairs
from rwalk.eigen.pencil import Pencil, amplify
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, reciprocal
from rwalk.weights import shift

Mode = Literal["stale", "first_order", "ritz", "filtered"]
MODES = ("stale", "first_order", "ritz", "filtered")
EXACT = jax.lax.Precision.HIGHEST
MILD = 2.5  # a filter of degree m begins at top (MILD/m)^2 at least
STRONG = 3.8  # its degree is at most this times (top / edge)^1/2: a gain above 1e3 makes float32 blocks dependent
SPARE = 4  # random vectors beside those that are missing
BEYOND = 1.1  # the edge lies above the last wanted value


def pencil_of(lattice: Lattice, mass: jax.Array) -> Pencil:
    """The eigenproblem L q = lambda R q for any mass R `[n]`, zero on voxels without an edge."""
    degrees = graph.degree(lattice).ravel()
    root = jnp.sqrt(reciprocal(degrees))
    scaled = mass * root**2
    empty = Stencil(scaled, jnp.zeros((0, mass.size), mass.dtype), lattice.shape, ())
    top = 2 * reciprocal(jnp.where(scaled > 0, scaled, jnp.inf).min())
    return Pencil(congruent(graph.stencil_of(lattice), root), empty, root, jnp.sqrt(degrees), top)


@jax.jit
def describe(lattice: Lattice, mass: jax.Array, vectors: jax.Array, steps: jax.Array | int = 0) -> Basis:
    """A basis with these vectors and their Rayleigh quotients on a graph; `converged` says no more than finite.

    Args:
        lattice: the graph.
        mass: `[n]` R.
        vectors: `[n, K]`, taken as they are, of R-norm one or nearly.
        steps: to be noted.

    Returns:
        The basis, its pairs in ascending order.
    """
    blocks = vectors.T.reshape(-1, *lattice.shape)
    energies = jnp.zeros(blocks.shape[0], blocks.dtype)
    for w, offset in zip(lattice.weights, lattice.offsets, strict=True):
        # Differences along edges: q L q itself would lose small values to cancellation.
        energies = energies + (w[None] * (shift(blocks, offset) - blocks) ** 2).reshape(blocks.shape[0], -1).sum(1)
    norms = (mass[:, None] * vectors**2).sum(0)
    values = energies * reciprocal(norms)
    order = jnp.argsort(values)
    return _basis(lattice, mass, values[order], vectors[:, order], steps)


def _basis(lattice: Lattice, mass: jax.Array, values: jax.Array, vectors: jax.Array, steps: jax.Array | int) -> Basis:
    degrees = graph.degree(lattice).ravel()
    inverse = reciprocal(mass)
    left = apply(graph.stencil_of(lattice), vectors.T) - values[:, None] * mass[None] * vectors.T
    residual = jnp.sqrt((left**2 * inverse[None]).sum(1)) * reciprocal(values[-1])
    scaled = jnp.where(mass > 0, mass * reciprocal(degrees), jnp.inf)
    return Basis(
        values,
        vectors,
        mass,
        (degrees * inverse).sum(),
        (mass > 0).sum(),
        2 * reciprocal(scaled.min()),
        residual,
        jnp.asarray(steps, jnp.int32),
        jnp.isfinite(residual).all(),
    )


def refit(
    lattice: Lattice,
    vectors: jax.Array,
    count: int,
    *,
    mass: jax.Array,
    degree: int = 20,
    rounds: int = 1,
    extra: jax.Array | None = None,
) -> Basis:
    """The best pairs of a graph within a span that is near the wanted one: filter it, then Rayleigh and Ritz.

    Args:
        lattice: the graph.
        vectors: `[n, m]`, m >= count, of a similar graph; need not be orthogonal.
        count: pairs wanted, K.
        mass: `[n]` R.
        degree: of the Chebyshev filter; 0 projects only, which is never worse than the vectors were.
        rounds: of filter and projection.
        extra: `[n, e]` further vectors of the span: indicators of components, say.

    Returns:
        The basis.
    """
    pencil = _pencil(lattice, mass)
    block = _scaled(vectors, pencil.near_null)
    blocks = (block,) if extra is None or not extra.shape[1] else (block, _scaled(extra, pencil.near_null))
    size = sum(part.shape[0] for part in blocks)
    top, taken = float(pencil.top), 0
    values, block = ritz.rayleigh_ritz(pencil.operator, pencil.mass, blocks, size if degree else count)
    wanted = float(values[min(count, len(values)) - 1])
    if degree and len(values) < count:  # what is left of the vectors on a smaller graph may be dependent
        fresh = jax.random.normal(jax.random.key(0), (count - len(values) + SPARE, mass.size), block.dtype)
        blocks = (block, fresh * pencil.near_null[None])
        values, block = ritz.rayleigh_ritz(pencil.operator, pencil.mass, blocks, size)
    for _ in range(rounds if degree else 0):
        # A wanted value above the edge could meet a zero of the polynomial, and its vector be lost.
        edge = min(max(BEYOND * wanted, top * (MILD / degree) ** 2), 0.9 * top)
        steps = max(min(degree, int(STRONG * math.sqrt(top / edge))), 2)
        block = _filter(pencil, block, jnp.asarray(edge, block.dtype), steps)
        values, block = ritz.rayleigh_ritz(pencil.operator, pencil.mass, (block,), size)
        wanted, taken = float(values[min(count, len(values)) - 1]), taken + steps
    return describe(lattice, mass, _unscaled(block[:count], pencil.root), taken)


_pencil = jax.jit(pencil_of)


@jax.jit
def _scaled(vectors: jax.Array, near_null: jax.Array) -> jax.Array:
    return (vectors * near_null[:, None]).T


@jax.jit
def _unscaled(block: jax.Array, root: jax.Array) -> jax.Array:
    return (block * root[None]).T


@jax.jit
def _filter(pencil: Pencil, block: jax.Array, edge: jax.Array, degree: int) -> jax.Array:
    block = amplify(pencil, block, edge, degree)
    lengths = jnp.linalg.norm(block, axis=1, keepdims=True)
    return block * reciprocal(lengths)


@jax.jit
def first_order(basis: Basis, before: Lattice, after: Lattice, mass: jax.Array) -> Basis:
    """The pairs to first order in the change, for L q = lambda R q.

    With N_ji = q_j^T (dL - lambda_i dR) q_i: lambda_i + N_ii, and
    q_i + sum_{j != i} N_ji / (lambda_i - lambda_j) q_j - 1/2 (q_i^T dR q_i) q_i + complement, the last being
    (R0^-1 (dL - lambda_i dR) q_i - Q N_i) / (lambda_i - nu), nu the mean of the values that are not known.

    Args:
        basis: pairs of `before`.
        before: the graph they belong to.
        after: the graph now, of the same shape.
        mass: `[n]` R of `after`.

    Returns:
        The basis; its vectors are no longer orthonormal to second order.

    Source: reconstruction of arXiv 1607.04174 from its abstract; Rayleigh 1894.
    Differs: vectors whose values lie too close for the formula are not mixed; that only turns them within their span.
    """
    q, values = basis.vectors, basis.values
    change = apply(graph.stencil_of(after), q.T).T - apply(graph.stencil_of(before), q.T).T
    moved = change - (mass - basis.mass)[:, None] * q * values[None]
    n = jnp.matmul(q.T, moved, precision=EXACT)
    gaps = values[None] - values[:, None]
    mix = jnp.where(jnp.abs(n) < jnp.abs(gaps) / 2, n / jnp.where(gaps == 0, 1, gaps), 0)
    weights = ((mass - basis.mass)[:, None] * q**2).sum(0)
    nu = jnp.maximum(
        (basis.trace - values.sum()) / jnp.maximum(basis.size - values.size, 1).astype(values.dtype), values[-1]
    )
    outside = reciprocal(basis.mass)[:, None] * moved - jnp.matmul(q, n, precision=EXACT)
    distance = jnp.minimum(values - nu, -jnp.finfo(values.dtype).eps)
    vectors = q * (1 - weights / 2)[None] + jnp.matmul(q, mix, precision=EXACT) + outside / distance[None]
    shifted = values + jnp.diagonal(n)
    order = jnp.argsort(shifted)
    vectors = jnp.where((mass > 0)[:, None], vectors, 0)
    return _basis(after, mass, jnp.maximum(shifted[order], 0), vectors[:, order], 0)


def reweight(
    basis: Basis,
    before: Lattice,
    after: Lattice,
    *,
    mode: Mode = "filtered",
    degree: int = 30,
    rounds: int = 2,
    normalised: bool = True,
) -> Basis:
    """A basis for a graph whose weights have changed: another beta, some edges, a mask.

    Args:
        basis: pairs of `before`.
        before: the graph they belong to.
        after: the graph now, of the same shape.
        mode: `stale` leaves the basis as it is, `first_order` is perturbation theory (the paper's), `ritz` finds the
            best pairs within the old span, `filtered` within that span after a Chebyshev filter of the new graph.
        degree: of the filter.
        rounds: of filter and projection.
        normalised: R is the degree, as when the basis was computed.

    Returns:
        The basis.

    Raises:
        ValueError: unknown mode, or graphs of different shapes.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}; allowed are {', '.join(MODES)}")
    if before.shape != after.shape or before.offsets != after.offsets:
        raise ValueError(
            f"the graphs have shapes {before.shape} and {after.shape}, or other neighbours; use rwalk.topology"
        )
    mass = _mass(after, normalised=normalised)
    if mode == "stale":
        return basis
    if mode == "first_order":
        return first_order(basis, before, after, mass)
    return refit(
        after, basis.vectors, basis.values.size, mass=mass, degree=degree if mode == "filtered" else 0, rounds=rounds
    )


_mass = functools.partial(jax.jit, static_argnames="normalised")(graph.mass)


def append(basis: Basis, lattice: Lattice, count: int, **options: Any) -> Basis:
    """More pairs of the same graph, starting from those that are known.

    Args:
        basis: its pairs.
        lattice: the graph.
        count: pairs wanted in all.
        options: of `rwalk.eigen.smallest_eigenpairs`.

    Returns:
        The larger basis.
    """
    return smallest_eigenpairs(lattice, count, x0=basis.vectors, **options)
