"""Multigrid whose coarse unknowns follow strong edges: for eigenvectors, and for systems of extreme contrast.

Cubes of voxels tie a thin structure to what lies beside it, which no smoother repairs. Here every voxel joins the
neighbour to which its edge is strongest, and the trees that arise are the aggregates. They are found on the host;
the V-cycle runs on the device, on blocks turned to `[n, k]`, in which sparse products read whole rows.

Legend: n unknowns of a level, m of the next coarser one, k vectors.
Source: Vanek, Mandel and Brezina 1996 (smoothed aggregation); the aggregates are one round of Boruvka 1926.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import sparse as device
from jax.experimental.layout import Layout, with_layout_constraint
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components

from rwalk.blas import one_thread
from rwalk.multigrid import largest_of
from rwalk.stencil import Stencil, strides, to_sparse

JITTER = 0.1  # of an edge's strength: among equal edges every voxel would join the one on the same side
DROPPED = 1e-7  # share of the largest eigenvalue below which the coarsest matrix counts as singular
DENSE = 700  # unknowns up to which a matrix is diagonalised as a dense one
STALLED = 0.9  # a step to more unknowns than this share of the finer ones is not worth it
NEGLIGIBLE = 1e-7  # length in the norm of A, of one's own, below which a vector counts as annihilated
DAMPING = 1.5  # over the largest eigenvalue: best for the upper two thirds of the spectrum
LARGEST = 2**24  # entries of a block that a V-cycle takes at once


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Level:
    """One operator and the way to the next coarser one.

    Attributes:
        operator: A with unit diagonal, a lattice's stencil or a sparse matrix.
        prolongation: P `[n, m]`.
        restriction: P^T.
        top: `[]`, not below the largest eigenvalue of A.
    """

    operator: Any
    prolongation: Any
    restriction: Any
    top: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hierarchy:
    """Levels from fine to coarse, and the pseudo-inverse of the coarsest operator, `[m, m]` or its diagonal `[m]`."""

    levels: tuple[Level, ...]
    inverse: jax.Array


def aggregates(matrix: sparse.csr_array, near_null: np.ndarray) -> np.ndarray:
    """Trees of strongest edges: for every unknown the number of its aggregate, -1 where `near_null` is zero, `[n]`."""
    n = matrix.shape[0]
    rows, columns = np.repeat(np.arange(n), np.diff(matrix.indptr)), matrix.indices
    strength = np.where(rows == columns, 0, -matrix.data * near_null[rows] * near_null[columns])
    strength = strength * (1 + JITTER * _noise(np.minimum(rows, columns), np.maximum(rows, columns)))
    filled = np.flatnonzero(np.diff(matrix.indptr))
    most = np.zeros(n)
    most[filled] = np.maximum.reduceat(strength, matrix.indptr[filled])
    best = np.flatnonzero((strength == most[rows]) & (strength > 0))
    links = sparse.coo_array((np.ones(len(best), bool), (rows[best], columns[best])), shape=(n, n))
    trees, live = connected_components(links, directed=False)[1], near_null > 0
    labels = np.full(n, -1)
    labels[live] = np.unique(trees[live], return_inverse=True)[1]
    return labels


def _noise(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random, the same for the same pair (the finaliser of splitmix64)."""
    mixed = low.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + high.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2**24


def _coarser(
    matrix: sparse.csr_array, near_null: np.ndarray, top: float, smooth: bool
) -> tuple[sparse.csr_array, sparse.csr_array, np.ndarray]:
    """P, P^T A P with unit diagonal, and the next near-null vector.

    An aggregate that is a component of its own is left out: A annihilates it, there is nothing to correct.
    """
    labels = aggregates(matrix, near_null)
    live = labels >= 0
    n, m = len(labels), int(labels.max(initial=-1)) + 1
    p = sparse.csr_array((near_null[live], labels[live], np.append(0, np.cumsum(live))), shape=(n, m))
    if smooth:
        p = sparse.csr_array(p - 4 / (3 * top) * (matrix @ p))
    coarse = sparse.csr_array(p.T @ (matrix @ p))
    length = np.sqrt(np.asarray(p.multiply(p).sum(0)).ravel())
    size = np.sqrt(np.maximum(coarse.diagonal(), 0))
    kept = np.flatnonzero(size > NEGLIGIBLE * length)
    unit = sparse.diags_array(1 / size[kept])
    p = sparse.csr_array(p[:, kept] @ unit)
    return p, sparse.csr_array(unit @ coarse[kept][:, kept] @ unit), size[kept]


def build(
    operator: Stencil, near_null: jax.Array, *, coarsest: int = DENSE
) -> tuple[Hierarchy, list[tuple[sparse.csr_array, sparse.csr_array]]]:
    """Build the hierarchy of a lattice's operator, on the host.

    A lattice of three axes keeps its first prolongation unsmoothed, or the rows of the coarse matrix would be long.

    Args:
        operator: A, symmetric, positive semi-definite, with unit diagonal.
        near_null: `[n]`, not negative; zero on voxels that the coarse levels shall leave alone.
        coarsest: unknowns of the last level at most, where there are edges to get there.

    Returns:
        The hierarchy, and for each step to a coarser level P and the coarse matrix, as `scipy.sparse` has them.
    """
    dtype = operator.diagonal.dtype
    matrix, vector = to_sparse(operator), np.asarray(near_null, np.float64)
    finer: Any = operator
    levels: list[Level] = []
    steps: list[tuple[sparse.csr_array, sparse.csr_array]] = []
    top = 2.0
    while matrix.shape[0] > coarsest:
        p, coarse, following = _coarser(matrix, vector, top, smooth=bool(levels) or len(operator.shape) < 3)
        if not 0 < p.shape[1] < STALLED * matrix.shape[0]:
            break  # next to nothing is coupled any more
        levels.append(Level(finer, _move(p, dtype), _move(p.T, dtype), jnp.asarray(top, dtype)))
        steps.append((p, coarse))
        matrix, vector, finer = coarse, following, _move(coarse, dtype)
        top = largest_of(matrix)
    return Hierarchy(tuple(levels), jnp.asarray(_bottom(matrix, coarsest), dtype)), steps


def _bottom(matrix: sparse.csr_array, coarsest: int) -> np.ndarray:
    """The pseudo-inverse `[m, m]`; of a matrix that could not be made small that of its diagonal `[m]`."""
    if matrix.shape[0] > coarsest:
        return np.where(matrix.diagonal() > 0, 0.5, 0)  # a damped Jacobi step
    with one_thread():
        values, vectors = linalg.eigh(matrix.toarray())
        kept = values > DROPPED * values[-1]
        return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


def _move(matrix: Any, dtype: Any) -> Any:
    """A sparse matrix on the device, rows in order."""
    matrix = sparse.csr_matrix(matrix)
    matrix.sort_indices()
    data, indices, indptr = jnp.asarray(matrix.data, dtype), *map(jnp.asarray, (matrix.indices, matrix.indptr))
    return device.BCSR((data, indices, indptr), shape=matrix.shape, indices_sorted=True, unique_indices=True)


def product(operator: Any, x: jax.Array) -> jax.Array:
    """A x of a stencil or a sparse matrix, `[n, k]`."""
    if not isinstance(operator, Stencil):
        return operator @ x
    here, n = jnp.arange(x.shape[0]), x.shape[0]
    result = operator.diagonal[:, None] * x
    for band, jump in zip(operator.bands, strides(operator.shape, operator.offsets), strict=True):
        there = jnp.clip(here + jump, 0, n - 1)  # where that is another voxel the band is zero
        result = result + band[:, None] * x.at[there].get(mode="promise_in_bounds")
    return result


def vcycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """One symmetric V-cycle from zero, a damped Jacobi step before and after: about A^-1 b, symmetric and positive.

    Args:
        hierarchy: of A.
        b: `[k, n]`.

    Returns:
        `[k, n]`.
    """
    k, n = b.shape
    group = next(size for size in range(k, 0, -1) if k % size == 0 and size <= max(LARGEST // n, 1))
    if group == k:
        return _turned(hierarchy, b)
    return lax.map(lambda rows: _turned(hierarchy, rows), b.reshape(k // group, group, n)).reshape(k, n)


def _turned(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """The V-cycle on the transposed block, which XLA would else take for a matter of naming the axes."""
    rows = Layout((0, 1))
    return with_layout_constraint(_cycle(hierarchy, 0, with_layout_constraint(b.T, rows)), rows).T


def _cycle(hierarchy: Hierarchy, depth: int, b: jax.Array) -> jax.Array:
    if depth == len(hierarchy.levels):
        if hierarchy.inverse.ndim == 1:
            return hierarchy.inverse[:, None] * b
        return jnp.matmul(hierarchy.inverse, b, precision=lax.Precision.HIGHEST)
    level = hierarchy.levels[depth]
    damping = DAMPING / level.top
    x = damping * b
    coarse = level.restriction @ (b - product(level.operator, x))
    x = x + level.prolongation @ _cycle(hierarchy, depth + 1, coarse)
    return x + damping * (b - product(level.operator, lax.optimization_barrier(x)))
