"""Multigrid whose coarse unknowns follow strong edges: what preconditions the eigensolver, and where it begins.

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
from scipy.sparse.linalg import eigsh

from rwalk.eigen import ritz
from rwalk.eigen.pencil import EXACT, Pencil
from rwalk.multigrid import largest_of
from rwalk.stencil import Stencil, strides, to_sparse

JITTER = 0.1  # of an edge's strength: among equal edges every voxel would join the one on the same side
DROPPED = 1e-7  # share of the largest eigenvalue below which the coarsest matrix counts as singular
DENSE = 700  # unknowns up to which a matrix is diagonalised as a dense one
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
    """Levels from fine to coarse, and the pseudo-inverse `[m, m]` of the coarsest operator."""

    levels: tuple[Level, ...]
    inverse: jax.Array


def aggregates(matrix: sparse.csr_array, near_null: np.ndarray) -> np.ndarray:
    """Trees of strongest edges: for every unknown the number of its aggregate, `[n]`."""
    n = matrix.shape[0]
    rows, columns = np.repeat(np.arange(n), np.diff(matrix.indptr)), matrix.indices
    strength = np.where(rows == columns, 0, -matrix.data * near_null[rows] * near_null[columns])
    strength = strength * (1 + JITTER * _noise(np.minimum(rows, columns), np.maximum(rows, columns)))
    filled = np.flatnonzero(np.diff(matrix.indptr))
    most = np.zeros(n)
    most[filled] = np.maximum.reduceat(strength, matrix.indptr[filled])
    best = np.flatnonzero((strength == most[rows]) & (strength > 0))
    links = sparse.coo_array((np.ones(len(best), bool), (rows[best], columns[best])), shape=(n, n))
    return connected_components(links, directed=False)[1]


def _noise(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) that look random, the same for the same pair (the finaliser of splitmix64)."""
    mixed = low.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + high.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2**24


def _coarser(
    matrix: sparse.csr_array, mass: sparse.csr_array, near_null: np.ndarray, top: float, smooth: bool
) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array, np.ndarray]:
    """P, P^T A P with unit diagonal, P^T B P and the next near-null vector."""
    labels = aggregates(matrix, near_null)
    n, m = len(labels), int(labels.max()) + 1
    p = sparse.csr_array((near_null, labels, np.arange(n + 1)), shape=(n, m))
    if smooth:
        p = sparse.csr_array(p - 4 / (3 * top) * (matrix @ p))
    coarse = sparse.csr_array(p.T @ (matrix @ p))
    size = np.sqrt(np.maximum(coarse.diagonal(), 0))
    unit = sparse.diags_array(np.divide(1, size, out=np.zeros_like(size), where=size > 0))
    p = sparse.csr_array(p @ unit)
    return p, sparse.csr_array(unit @ coarse @ unit), sparse.csr_array(p.T @ mass @ p), size


def setup(pencil: Pencil, count: int, *, coarsest: int = DENSE) -> tuple[Hierarchy, np.ndarray, jax.Array]:
    """Build the hierarchy, and a first block from one of its coarse levels.

    A lattice of three axes keeps its first prolongation unsmoothed, or the rows of the coarse matrix would be long.

    Args:
        pencil: A, B.
        count: vectors wanted, k.
        coarsest: unknowns of the last level at most.

    Returns:
        The hierarchy, the Ritz values `[k]` of the first block, and the block `[k, n]`; fewer where there are no more.
    """
    dtype = pencil.near_null.dtype
    matrix, near_null = to_sparse(pencil.operator), np.asarray(pencil.near_null, np.float64)
    mass = sparse.csr_array(sparse.diags_array(np.asarray(pencil.mass.diagonal, np.float64)))
    operator: Any = pencil.operator
    levels: list[Level] = []
    top, values, first = 2.0, np.zeros(0), None
    while matrix.shape[0] > coarsest:
        p, following, mass, near_null = _coarser(
            matrix, mass, near_null, top, smooth=bool(levels) or len(pencil.operator.shape) < 3
        )
        if p.shape[1] > 0.9 * p.shape[0]:
            break  # nothing is coupled any more
        levels.append(Level(operator, _move(p, dtype), _move(p.T, dtype), jnp.asarray(top, dtype)))
        matrix, operator = following, _move(following, dtype)
        top = largest_of(matrix)
        if first is None and matrix.shape[0] <= max(4 * DENSE, 6 * count):
            values, first = _prolonged(levels, matrix, mass, count)
    if first is None:
        values, first = _prolonged(levels, matrix, mass, count)
    return Hierarchy(tuple(levels), jnp.asarray(_pseudo_inverse(matrix), dtype)), values, first


def _prolonged(
    levels: list[Level], matrix: sparse.csr_array, mass: sparse.csr_array, count: int
) -> tuple[np.ndarray, jax.Array]:
    """The smallest pairs of a coarse pencil, vectors brought up to the first level."""
    values, vectors = _smallest(matrix, mass, count)
    x = jnp.asarray(vectors, levels[0].top.dtype if levels else None)
    for level in reversed(levels):
        x = level.prolongation @ x
    return values, x.T


def _move(matrix: Any, dtype: Any) -> Any:
    """A sparse matrix on the device, rows in order."""
    matrix = sparse.csr_matrix(matrix)
    matrix.sort_indices()
    data, indices, indptr = jnp.asarray(matrix.data, dtype), *map(jnp.asarray, (matrix.indices, matrix.indptr))
    return device.BCSR((data, indices, indptr), shape=matrix.shape, indices_sorted=True, unique_indices=True)


def _pseudo_inverse(matrix: sparse.csr_array) -> np.ndarray:
    with ritz.one_thread():
        values, vectors = linalg.eigh(matrix.toarray())
        kept = values > DROPPED * values[-1]
        return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T


def _smallest(matrix: sparse.csr_array, mass: sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest pairs of a coarse pencil, roughly: `[k]` and `[m, k]`, k = count or fewer."""
    live = np.flatnonzero(mass.diagonal() > 0)
    a, b = matrix[live][:, live], mass[live][:, live]
    with ritz.one_thread():
        if len(live) <= max(DENSE, 3 * count):
            last = min(count, len(live)) - 1
            values, vectors = linalg.eigh(a.toarray(), b.toarray(), subset_by_index=(0, last))
        else:
            start, a, b = np.cos(np.arange(len(live))), sparse.csc_matrix(a), sparse.csc_matrix(b)
            values, vectors = eigsh(a, count, b, sigma=-1e-6, v0=start, tol=1e-2)
    whole = np.zeros((matrix.shape[0], vectors.shape[1]))
    whole[live] = vectors
    return np.sort(values), whole


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
        return jnp.matmul(hierarchy.inverse, b, precision=EXACT)
    level = hierarchy.levels[depth]
    damping = DAMPING / level.top
    x = damping * b
    coarse = level.restriction @ (b - product(level.operator, x))
    x = x + level.prolongation @ _cycle(hierarchy, depth + 1, coarse)
    return x + damping * (b - product(level.operator, lax.optimization_barrier(x)))
