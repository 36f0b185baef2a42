"""Smallest eigenpairs of a lattice's Laplacian, by one interface."""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rwalk import aggregation, graph
from rwalk.eigen import chebyshev, columns, lanczos, lobpcg, reference, start
from rwalk.eigen.pencil import Pencil, combine, gram, pencil_of
from rwalk.graph import Lattice
from rwalk.stencil import neighbours, placed_like, reciprocal

Method = Literal["lobpcg", "chebyshev", "lanczos", "scipy", "dense"]
MILD = 10  # degree of the filter on the start: takes out the corners that aggregates and pieces have
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
    residual: float = 1.0,
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
        residual: root mean square over the pairs, relative to lambda_K; the values' error falls with its square.
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
    y0 = None if x0 is None else _unscale(pencil, x0)
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


def _unscale(pencil: Pencil, vectors: Any) -> jax.Array:
    return placed_like(vectors, pencil.near_null) * pencil.near_null[:, None]


def _iterate(
    lattice: Lattice, pencil: Pencil, k: int, block: int, method: str, y0: jax.Array | None, rules: dict[str, Any]
) -> lobpcg.Result:
    hierarchy, steps = aggregation.build(pencil.operator, pencil.near_null)
    mass = columns.weight(pencil)
    key = rules["key"]
    if y0 is None:
        values, first = start.coarse(pencil, steps, k)
        first = columns.mild(pencil, first, MILD)
    else:
        values, first = columns.rayleigh_ritz(pencil.operator, mass, (y0[:, :block],), k)
    extra = start.pieces(lattice, pencil, 1.5 * float(values[min(k, len(values)) - 1]), most=block)
    fill = columns.random_block(pencil, jax.random.fold_in(key, 0), block - first.shape[1])
    # The constant keeps its place: together with it the pieces may be dependent, which the projection sorts out.
    blocks = first, lobpcg.doubtful(pencil, fill), columns.mild(pencil, extra, MILD)
    values, first = columns.rayleigh_ritz(pencil.operator, mass, tuple(x for x in blocks if x.shape[1]), block)
    if method == "lobpcg":
        return lobpcg.lobpcg(pencil, hierarchy, values, first, k, **rules)
    if method == "lanczos":
        return lanczos.lanczos(pencil, first, k, **rules)
    return chebyshev.filtered(pencil, first, k, **rules)


@functools.partial(jax.jit, static_argnames="normalised")
def _basis(lattice: Lattice, pencil: Pencil, found: lobpcg.Result, normalised: bool) -> Basis:
    """Rayleigh quotients in order, vectors q = D^-1/2 y, and what goes with them.

    The quotients are sums over edges: A y itself would lose small values to cancellation.
    """
    parts, y = columns.slabs(lattice.shape), found.vectors
    q = pencil.root[:, None] * y
    energies = jnp.zeros(y.shape[1], y.dtype)
    for w, there in zip(lattice.weights, neighbours(q, lattice.shape, lattice.offsets, 0), strict=True):
        energies = energies + columns.sums(w.reshape(-1, 1) * (there - q) ** 2, parts)
    values = energies / columns.sums(columns.weighed(pencil.mass.diagonal, y**2), parts)
    norms = columns.residual_norms(pencil.operator, pencil.mass.diagonal, values, y)
    order = jnp.argsort(values)
    mass = graph.mass(lattice, normalised=normalised)
    trace = (graph.degree(lattice).ravel() * reciprocal(mass)).sum()
    return Basis(
        values[order],
        q[:, order],
        mass,
        trace,
        (mass > 0).sum(),
        pencil.top,
        norms[order] / values[order[-1]],
        jnp.asarray(found.steps),
        jnp.asarray(found.converged),
    )


__all__ = ["METHODS", "Basis", "Method", "combine", "gram", "smallest_eigenpairs"]
