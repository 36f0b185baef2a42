"""Multigrid whose coarse unknowns follow strong edges: for eigenvectors, and for systems of extreme contrast.

Cubes of voxels tie a thin structure to what lies beside it, which no smoother repairs. Here every voxel joins the
neighbour to which its edge is strongest, and the trees that arise are the aggregates. They are found on the host;
the V-cycle runs on the device, on blocks turned to `[n, k]`, in which sparse products read whole rows. Sizes of coarse
levels are rounded up to a few, so that images of one shape share one compiled program.

Legend: n unknowns of a level, m of the next coarser one, k vectors.
Source: Vanek, Mandel and Brezina 1996 (smoothed aggregation); the aggregates are one round of Boruvka 1926.
"""

import functools
from dataclasses import dataclass, field
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
from rwalk.stencil import Stencil, apply_columns, on_host, placed_like, to_sparse

JITTER = 0.1  # of an edge's strength: among equal edges every voxel would join the one on the same side
DROPPED = 1e-7  # share of the largest eigenvalue below which the coarsest matrix of a rounded operator is singular
DROPPED_EXACT = 1e-15  # the same where the matrix is known in float64
DENSE = 700  # unknowns up to which a matrix is diagonalised as a dense one
STALLED = 0.9  # a step to more unknowns than this share of the finer ones is not worth it
NEGLIGIBLE = 3e-8  # length in the norm of A, of one's own, below which a vector counts as annihilated
DAMPING = 1.5  # over the largest eigenvalue: best for the upper two thirds of the spectrum
EXACT = lax.Precision.HIGHEST
GROWTH = 1.25  # ratio of the sizes to which coarse levels are rounded up


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Level:
    """One operator and the way to the next coarser one.

    Attributes:
        operator: A with unit diagonal, a lattice's stencil or a sparse matrix.
        transfer: P `[n, m]`: `Smoothed`, or `Pieces` where every voxel follows its aggregate.
        top: `[]`, not below the largest eigenvalue of A.
    """

    operator: Any
    transfer: Any
    top: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Smoothed:
    """P and P^T as sparse matrices. Several devices hold each a whole copy of what they are multiplied by."""

    prolongation: Any
    restriction: Any

    def prolong(self, x: jax.Array) -> jax.Array:
        """P x, `[m, k]` to `[n, k]`."""
        return self.prolongation @ x

    def restrict(self, x: jax.Array) -> jax.Array:
        """P^T x, `[n, k]` to `[m, k]`."""
        return self.restriction @ x


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pieces:
    """P with one entry a row: several devices hold each the rows of its voxels.

    Attributes:
        labels: `[n]` aggregate of each voxel.
        shares: `[n]` entry of P, zero where there is no aggregate.
        count: m.
    """

    labels: jax.Array
    shares: jax.Array
    count: int = field(metadata={"static": True})

    def prolong(self, x: jax.Array) -> jax.Array:
        """P x, `[m, k]` to `[n, k]`."""
        return self.shares[:, None] * x.at[self.labels].get(mode="promise_in_bounds")

    def restrict(self, x: jax.Array) -> jax.Array:
        """P^T x, `[n, k]` to `[m, k]`."""
        return jax.ops.segment_sum(self.shares[:, None] * x, self.labels, self.count)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hierarchy:
    """Levels from fine to coarse, and F of the pseudo-inverse F F^T of the coarsest operator, `[m, m]`.

    Twice the factor and not once the product: rounding then changes what a weakly held mode weighs, not its shape.
    Of a matrix that could not be made small it is the diagonal `[m]` of a pseudo-inverse.
    """

    levels: tuple[Level, ...]
    factor: Any


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
    operator: Stencil, near_null: Any, *, matrix: sparse.csr_array | None = None, coarsest: int = DENSE
) -> tuple[Hierarchy, list[tuple[sparse.csr_array, sparse.csr_array]]]:
    """Build the hierarchy of a lattice's operator, on the host.

    A lattice of three axes keeps its first prolongation unsmoothed, or the rows of the coarse matrix would be long.

    Args:
        operator: A, symmetric, positive semi-definite, with unit diagonal.
        near_null: `[n]`, not negative; zero on voxels that the coarse levels shall leave alone.
        matrix: A in float64 without singular parts where `near_null` is positive; by default as the operator has it,
            whose rounding hides what is below it.
        coarsest: unknowns of the last level at most, where there are edges to get there.

    Returns:
        The hierarchy, and for each step to a coarser level P and the coarse matrix, as `scipy.sparse` has them.
    """
    dtype, space = operator.diagonal.dtype, len(operator.shape)
    shared = functools.partial(placed_like, like=operator.diagonal, whole=True)
    dropped = DROPPED if matrix is None else DROPPED_EXACT
    matrix, vector = to_sparse(operator) if matrix is None else matrix, on_host(near_null).astype(float)
    finer: Any = operator
    levels: list[Level] = []
    steps: list[tuple[sparse.csr_array, sparse.csr_array]] = []
    top = 2.0
    while matrix.shape[0] > coarsest:
        smooth = bool(levels) or space < 3
        p, coarse, following = _coarser(matrix, vector, top, smooth=smooth)
        if not 0 < p.shape[1] < STALLED * matrix.shape[0]:
            break  # next to nothing is coupled any more
        transfer = _smoothed(p, _rows(finer), dtype) if smooth else _pieces(p, operator.diagonal)
        levels.append(Level(finer, transfer, np.asarray(top, dtype)))
        steps.append((p, coarse))
        m = rounded(coarse.shape[0])
        matrix, vector, finer = coarse, following, _move(coarse, (m, m), dtype)
        top = largest_of(matrix)
    found = Hierarchy(tuple(levels), _bottom(matrix, coarsest, _rows(finer), dropped).astype(dtype))
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else shared(leaf), found), steps


def rounded(size: int) -> int:
    """The next of a few sizes: powers of `GROWTH`."""
    power = int(np.ceil(np.log(max(size, 1)) / np.log(GROWTH)))
    return int(np.ceil(GROWTH ** next(p for p in range(max(power - 1, 0), power + 2) if np.ceil(GROWTH**p) >= size)))


def _rows(operator: Any) -> int:
    return operator.size if isinstance(operator, Stencil) else operator.shape[0]


def _smoothed(p: sparse.csr_array, rows: int, dtype: Any) -> Smoothed:
    m = rounded(p.shape[1])
    return Smoothed(_move(p, (rows, m), dtype), _move(p.T, (m, rows), dtype))


def _pieces(p: sparse.csr_array, like: jax.Array) -> Pieces:
    filled = np.diff(p.indptr) > 0
    labels, shares = np.zeros(p.shape[0], np.int32), np.zeros(p.shape[0], like.dtype)
    labels[filled], shares[filled] = p.indices, p.data
    return Pieces(placed_like(labels, like), placed_like(shares, like), rounded(p.shape[1]))


def _bottom(matrix: sparse.csr_array, coarsest: int, size: int, dropped: float) -> np.ndarray:
    """F, see `Hierarchy`."""
    if matrix.shape[0] > coarsest:
        diagonal = np.pad(matrix.diagonal(), (0, size - matrix.shape[0]))
        return np.where(diagonal > 0, 0.5, 0)  # a damped Jacobi step
    with one_thread():
        values, vectors = linalg.eigh(matrix.toarray())
        kept = values > dropped * values[-1]
        factor = np.where(kept, vectors / np.sqrt(np.where(kept, values, 1)), 0)
        return np.pad(factor, (0, size - matrix.shape[0]))


def _move(matrix: Any, shape: tuple[int, int], dtype: Any) -> Any:
    """A sparse matrix for the device, rows in order, filled up to a shape and a number of entries with zeros."""
    matrix = sparse.csr_matrix(matrix)
    matrix.sort_indices()
    extra = rounded(matrix.nnz) - matrix.nnz
    data, indices = np.pad(matrix.data.astype(dtype), (0, extra)), np.pad(matrix.indices, (0, extra))
    indptr = np.pad(matrix.indptr, (0, shape[0] - matrix.shape[0]), mode="edge")
    indptr[-1] += extra  # they stand in the last row
    entries: Any = (data, indices, indptr)
    return device.BCSR(entries, shape=shape, indices_sorted=False, unique_indices=False)


def product(operator: Any, x: jax.Array) -> jax.Array:
    """A x of a stencil or a sparse matrix, `[n, k]`."""
    return apply_columns(operator, x) if isinstance(operator, Stencil) else operator @ x


def vcycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """`cycle` on rows, `[k, n]` to `[k, n]`, turned in memory: XLA would else take that for a matter of naming axes."""
    rows = Layout((0, 1))
    return with_layout_constraint(cycle(hierarchy, with_layout_constraint(b.T, rows)), rows).T


def cycle(hierarchy: Hierarchy, b: jax.Array) -> jax.Array:
    """One symmetric V-cycle from zero, a damped Jacobi step before and after: about A^-1 b, symmetric and positive.

    Args:
        hierarchy: of A.
        b: `[n, k]`.

    Returns:
        `[n, k]`.
    """
    return _cycle(hierarchy, 0, b)


def _cycle(hierarchy: Hierarchy, depth: int, b: jax.Array) -> jax.Array:
    if depth == len(hierarchy.levels):
        if hierarchy.factor.ndim == 1:
            return hierarchy.factor[:, None] * b
        weights = jnp.matmul(hierarchy.factor.T, b, precision=EXACT)
        return jnp.matmul(hierarchy.factor, weights, precision=EXACT)
    level = hierarchy.levels[depth]
    damping = DAMPING / level.top
    coarse = level.transfer.restrict(b - damping * product(level.operator, b))
    x = damping * b + level.transfer.prolong(_cycle(hierarchy, depth + 1, coarse))
    return x + damping * (b - product(level.operator, lax.optimization_barrier(x)))
