"""Smallest eigenpairs of a lattice's Laplacian, by one interface."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rwalk import aggregation, graph
from rwalk.eigen import chebyshev, lanczos, lobpcg, reference, ritz, start
from rwalk.eigen.pencil import Pencil, combine, gram, pencil_of, random_block
from rwalk.graph import Lattice

Method = Literal["lobpcg", "chebyshev", "lanczos", "scipy", "dense"]
METHODS = ("lobpcg", "chebyshev", "lanczos", "scipy", "dense")


class Basis(NamedTuple):
    """Smallest eigenpairs L q = lambda R q with Q^T R Q = 1, and what online solves need beside them; a pytree.

    Attributes:
        values: `[K]`, ascending.
        vectors: `[n, K]`, zero on voxels that are not coupled.
        mass: `[n]` R.
        trace: `[]` of R^-1 L.
        size: `[]` number of coupled voxels.
        top: `[]`, not below the largest eigenvalue.
        residual: `[K]`, |R^-1/2 (L q - lambda R q)| / lambda_K.
        steps: `[]` of the solver on the finest level.
        converged: `[]` bool.
    """

    values: jax.Array
    vectors: jax.Array
    mass: jax.Array
    trace: jax.Array
    size: jax.Array
    top: jax.Array
    residual: jax.Array
    steps: jax.Array
    converged: jax.Array


def smallest_eigenpairs(
    lattice: Lattice,
    k: int,
    *,
    method: Method = "lobpcg",
    normalised: bool = True,
    x0: jax.Array | None = None,
    tol: float = 1e-3,
    residual: float = 0.5,
    maximum: int = 60,
    guards: int | None = None,
    key: jax.Array | None = None,
    **plan: Any,
) -> Basis:
    """Find the K smallest eigenpairs of a lattice's Laplacian.

    Args:
        lattice: the graph.
        k: pairs wanted, K.
        method: `lobpcg` preconditioned by multigrid, `chebyshev` filters, `lanczos`, `scipy` shift-invert,
            or `dense`.
        normalised: R is the degree, else one.
        x0: `[n, m]` vectors near the wanted ones, those of a similar graph: a warm start.
        tol: relative change of the sum of the values at which the iteration is at rest.
        residual: of every pair, relative to lambda_K; the values' error falls with its square.
        maximum: steps at most.
        guards: vectors beside the wanted ones; a fifth of K, 8 at least, by default.
        key: of random vectors.
        plan: further options of `rwalk.eigen.lobpcg.lobpcg`, `rwalk.eigen.chebyshev.filtered`,
            `rwalk.eigen.lanczos.lanczos` or `rwalk.eigen.reference.shift_invert`.

    Returns:
        The basis; `converged` says whether the stopping rule was met.

    Raises:
        ValueError: unknown method, or K is not below the number of coupled voxels.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}; allowed are {', '.join(METHODS)}")
    pencil = pencil_of(lattice, normalised=normalised)
    coupled = int((pencil.mass.diagonal > 0).sum())
    if not 0 < k <= coupled:
        raise ValueError(f"k={k} pairs of {coupled} coupled voxels; ask for 1 to {coupled}")
    y0 = None if x0 is None else _unscale(pencil, jnp.asarray(x0))
    if method == "dense":
        found = reference.dense(pencil, k)
    elif method == "scipy":
        found = reference.shift_invert(pencil, k, x0=y0, **plan)
    else:
        if coupled < 8 * k:  # a block of vectors is nearly the whole space, where iterating makes no sense
            return _basis(lattice, pencil, reference.dense(pencil, k), normalised)
        key = jax.random.key(0) if key is None else key
        block = k + (max(8, k // 5) if guards is None else guards)
        rules = {"tol": tol, "residual": residual, "maximum": maximum, "key": key, **plan}
        found = _iterate(lattice, pencil, k, block, method, y0, rules)
    return _basis(lattice, pencil, found, normalised)


def _unscale(pencil: Pencil, vectors: jax.Array) -> jax.Array:
    return (vectors * pencil.near_null[:, None]).T


def _iterate(
    lattice: Lattice, pencil: Pencil, k: int, block: int, method: str, y0: jax.Array | None, rules: dict[str, Any]
) -> lobpcg.Result:
    hierarchy, steps = aggregation.build(pencil.operator, pencil.near_null)
    values, first = start.coarse(pencil, steps, block)
    key = rules["key"]
    if y0 is not None:
        values, first = ritz.rayleigh_ritz(pencil.operator, pencil.mass, (y0[:block],), block)
    extra = start.pieces(lattice, pencil, 1.5 * float(values[min(k, len(values)) - 1]), most=block)
    fill = random_block(pencil, jax.random.fold_in(key, 1), block - first.shape[0])
    if y0 is None:
        first = lobpcg.prefilter(pencil, first, rules.get("filter_degree", 20))
    # The constant keeps its place: together with it the pieces may be dependent, which the projection sorts out.
    blocks = tuple(part for part in (first, lobpcg.prefilter(pencil, fill, 20), extra) if part.shape[0])
    values, first = ritz.rayleigh_ritz(pencil.operator, pencil.mass, blocks, block)
    if method == "lobpcg":
        return lobpcg.lobpcg(pencil, hierarchy, values, first, k, **rules)
    if method == "lanczos":
        return lanczos.lanczos(pencil, first, k, **rules)
    return chebyshev.filtered(pencil, first, k, **rules)


def _basis(lattice: Lattice, pencil: Pencil, found: lobpcg.Result, normalised: bool) -> Basis:
    y = found.vectors
    values = _energies(lattice, pencil, y)
    order = jnp.argsort(values)
    values, y = values[order], y[order]
    norms = lobpcg.residual_norms(pencil.operator, pencil.mass, values, y)
    mass = graph.mass(lattice, normalised=normalised)
    diagonal = jnp.where(mass > 0, graph.degree(lattice).ravel() / jnp.where(mass > 0, mass, 1), 0)
    return Basis(
        values,
        (pencil.root[:, None] * y.T),
        mass,
        diagonal.sum(),
        (mass > 0).sum(),
        pencil.top,
        norms / values[-1],
        jnp.asarray(found.steps),
        jnp.asarray(found.converged),
    )


@jax.jit
def _energies(lattice: Lattice, pencil: Pencil, y: jax.Array) -> jax.Array:
    """Rayleigh quotients from differences along edges: A y itself would lose small values to cancellation."""
    from rwalk.weights import shift

    q = (pencil.root[None] * y).reshape(-1, *lattice.shape)
    total = jnp.zeros(y.shape[0], y.dtype)
    for w, offset in zip(lattice.weights, lattice.offsets, strict=True):
        total = total + (w[None] * (shift(q, offset) - q) ** 2).reshape(y.shape[0], -1).sum(1)
    return total / (pencil.mass.diagonal[None] * y**2).sum(1)


__all__ = ["METHODS", "Basis", "Method", "combine", "gram", "smallest_eigenpairs"]
