"""Smallest eigenpairs of a lattice's Laplacian, by one interface."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import aggregation, graph
from rwalk.eigen import chebyshev, columns, lanczos, lobpcg, reference, start
from rwalk.eigen.pencil import Pencil, pencil_of
from rwalk.graph import Lattice
from rwalk.stencil import neighbours, on_host, placed_like, reciprocal

Method = Literal["lobpcg", "chebyshev", "lanczos", "scipy", "dense"]
MILD = 10  # degree of the filter on the start: takes out the corners that aggregates and pieces have
FEW = 8  # voxels a pair below which the matrix is written out
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
        ValueError: unknown method, or one that does not find so many pairs of so many coupled voxels.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}; allowed are {', '.join(METHODS)}")
    pencil = pencil_of(lattice, normalised=normalised)
    coupled = int((pencil.mass.diagonal > 0).sum())
    if (fault := unfit(k, coupled, method)) is not None:
        raise ValueError(fault)
    y0 = None if x0 is None else _unscale(pencil, x0)
    if method == "dense":
        found = reference.dense(pencil, k)
    elif method == "scipy":
        found = reference.shift_invert(pencil, k, x0=y0, **plan)
    else:
        if coupled < FEW * k:  # a block of vectors is nearly the whole space, where iterating makes no sense
            return describe(lattice, pencil, *reference.dense(pencil, k)[1:])
        key = jax.random.key(0) if key is None else key
        block = k + (max(8, k // 5) if guards is None else guards)
        rules = {"tol": tol, "residual": residual, "maximum": maximum, "key": key, **plan}
        found = _iterate(lattice, pencil, k, block, method, y0, rules)
    return describe(lattice, pencil, *found[1:])


def unfit(k: int, coupled: int, method: Method) -> str | None:
    """What keeps a method from finding k pairs of so many coupled voxels, in one line; None if nothing does."""
    large = coupled > reference.LARGEST_DENSE
    if method == "dense" and large:
        return f"method=dense: {coupled} coupled voxels, {reference.LARGEST_DENSE} are allowed; use lobpcg"
    most = coupled - 1 if method == "scipy" else coupled // FEW if large else coupled
    return None if 0 < k <= most else f"k={k} pairs of {coupled} coupled voxels; ask for 1 to {most}"


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


def describe(
    lattice: Lattice,
    pencil: Pencil,
    y: jax.Array,
    steps: jax.Array | int = 0,
    converged: jax.Array | bool = True,
    values: jax.Array | None = None,
) -> Basis:
    """The basis of given vectors q = D^-1/2 y, in the order of their values.

    Args:
        lattice: the graph.
        pencil: its eigenproblem.
        y: `[n, K]`, taken as they are, of B-norm one or nearly.
        steps: to be noted.
        converged: to be noted, unless a residual is not finite.
        values: `[K]`; by default Rayleigh quotients, as sums over edges: A y would lose small ones to cancellation.

    Returns:
        The basis.
    """
    if values is None:  # the sums in a program of their own: see `columns.residual_norms`
        values = _quotients(pencil, y, _strains(lattice, pencil, y))
    norms = columns.residual_norms(pencil.operator, pencil.mass.diagonal, values, y)
    order = np.argsort(on_host(values), kind="stable")
    if (np.diff(order) < 0).any():  # else the block need not be copied
        values, norms, y = (_permuted(x, order) for x in (values, norms, y))
    return _basis(lattice, pencil, y, values, norms, steps, converged)


@jax.jit
def _strains(lattice: Lattice, pencil: Pencil, y: jax.Array) -> jax.Array:
    """Energy of each edge, at the voxel that it begins from, `[n, K]`."""
    q = pencil.root[:, None] * y
    pairs = zip(lattice.weights, neighbours(q, lattice.shape, lattice.offsets, 0), strict=True)
    return sum((w.reshape(-1, 1) * (there - q) ** 2 for w, there in pairs), jnp.zeros_like(q))


@jax.jit
def _quotients(pencil: Pencil, y: jax.Array, strains: jax.Array) -> jax.Array:
    parts = columns.slabs(pencil.operator.shape)
    masses = columns.sums(columns.weighed(pencil.mass.diagonal, y**2), parts)
    return columns.sums(strains, parts) * reciprocal(masses)


@jax.jit
def _permuted(x: jax.Array, order: Any) -> jax.Array:
    return x[..., order]


@jax.jit
def _basis(
    lattice: Lattice, pencil: Pencil, y: jax.Array, values: jax.Array, norms: jax.Array, steps: Any, converged: Any
) -> Basis:
    return Basis(
        values,
        pencil.root[:, None] * y,
        pencil.measure,
        (graph.degree(lattice).ravel() * reciprocal(pencil.measure)).sum(),
        (pencil.measure > 0).sum(),
        pencil.top,
        norms * reciprocal(values[-1]),
        jnp.asarray(steps, jnp.int32),
        jnp.asarray(converged) & jnp.isfinite(norms).all(),
    )
