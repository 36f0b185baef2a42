"""What to begin with: the smallest pairs of a coarse level, and small pieces with weak borders.

Legend: n voxels; blocks are `[n, k]`.
"""

import jax
import numpy as np
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from rwalk import graph
from rwalk.aggregation import DENSE
from rwalk.blas import one_thread
from rwalk.eigen.pencil import Pencil
from rwalk.graph import Lattice
from rwalk.stencil import on_host, placed_like, to_sparse

THRESHOLDS = (0.3, 0.1, 0.03, 0.01, 0.003)  # of the largest weight
LARGEST_PIECE = 0.02  # of all voxels


def coarse(
    pencil: Pencil, steps: list[tuple[sparse.csr_array, sparse.csr_array]], count: int
) -> tuple[np.ndarray, jax.Array]:
    """A first block from the finest of the coarse levels that is small enough.

    Args:
        pencil: A, B.
        steps: of `rwalk.aggregation.build`.
        count: vectors wanted, k.

    Returns:
        Their Ritz values `[k]` and the block `[n, k]`; fewer where there are no more.
    """
    sizes = [matrix.shape[0] for _, matrix in steps]
    depth = next((i + 1 for i, size in enumerate(sizes) if size <= max(4 * DENSE, 6 * count)), len(steps))
    matrix = steps[depth - 1][1] if depth else to_sparse(pencil.operator)
    mass = sparse.csr_array(sparse.diags_array(on_host(pencil.mass.diagonal).astype(float)))
    for p, _ in steps[:depth]:
        mass = sparse.csr_array(p.T @ mass @ p)
    values, vectors = _smallest(matrix, mass, count)
    x = vectors.astype(pencil.near_null.dtype)
    for p, _ in reversed(steps[:depth]):
        x = p.astype(x.dtype) @ x
    return values, placed_like(x, pencil.near_null)


def _smallest(matrix: sparse.csr_array, mass: sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest pairs of a coarse pencil, roughly: `[k]` and `[m, k]`, k = count or fewer."""
    live = np.flatnonzero(mass.diagonal() > 0)
    a, b = matrix[live][:, live], mass[live][:, live]
    with one_thread():
        if len(live) <= max(DENSE, 3 * count):
            last = min(count, len(live)) - 1
            values, vectors = linalg.eigh(a.toarray(), b.toarray(), subset_by_index=(0, last))
        else:
            guess, a, b = np.cos(np.arange(len(live))), sparse.csc_matrix(a), sparse.csc_matrix(b)
            values, vectors = eigsh(a, count, b, sigma=-1e-6, v0=guess, tol=1e-2)
    whole = np.zeros((matrix.shape[0], vectors.shape[1]))
    whole[live] = vectors
    return np.sort(values), whole


def pieces(lattice: Lattice, pencil: Pencil, limit: float, most: int) -> jax.Array:
    """Small sets of voxels with weak borders, as vectors: modes that no coarse lattice can show.

    The components of the graph whose edges are cut at some thresholds; a set S is taken if its Rayleigh quotient
    cut(S) / mass(S) is below `limit`, the smallest first, unless half of it is taken already.

    Args:
        lattice: the graph.
        pencil: of the graph.
        limit: of the Rayleigh quotient.
        most: sets at most.

    Returns:
        `[n, p]`, D^1/2 on the set, p <= most.
    """
    found = [candidate for share in THRESHOLDS for candidate in _components(lattice, pencil, share, limit)]
    found.sort(key=lambda candidate: candidate[0])
    taken = np.zeros(lattice.active.size, bool)
    chosen: list[np.ndarray] = []
    for _, members in found:
        if len(chosen) < most and taken[members].mean() <= 0.5:
            taken[members] = True
            chosen.append(members)
    near_null = on_host(pencil.near_null)
    x = np.zeros((taken.size, len(chosen)), near_null.dtype)
    for column, members in enumerate(chosen):
        x[members, column] = near_null[members]
    return placed_like(x, pencil.near_null)


def _components(lattice: Lattice, pencil: Pencil, share: float, limit: float) -> list[tuple[float, np.ndarray]]:
    weights = on_host(lattice.weights).astype(float)
    n = lattice.active.size
    index = np.arange(n).reshape(lattice.shape)
    ends = [_ends(index, offset) for offset in lattice.offsets]
    strengths = [w[tuple(slice(max(-o, 0), s - max(o, 0)) for o, s in zip(offset, lattice.shape, strict=True))].ravel()
                 for w, offset in zip(weights, lattice.offsets, strict=True)]  # fmt: skip
    here, there = (np.concatenate([pair[side] for pair in ends]) for side in (0, 1))
    strength = np.concatenate(strengths)
    strong = strength > share * strength.max()
    links = sparse.coo_array((np.ones(strong.sum()), (here[strong], there[strong])), shape=(n, n))
    number, labels = connected_components(links, directed=False)
    inner = labels[here] == labels[there]
    degrees = on_host(jax.jit(graph.degree)(lattice)).astype(float).ravel()
    mass = np.bincount(labels, degrees * on_host(pencil.mass.diagonal).astype(float), number)
    cut = np.bincount(labels, degrees, number) - 2 * np.bincount(labels[here[inner]], strength[inner], number)
    size = np.bincount(labels, minlength=number)
    good = np.flatnonzero((mass > 0) & (size <= LARGEST_PIECE * n) & (cut < limit * mass))
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], good)
    return [(cut[g] / mass[g], order[f : f + size[g]]) for g, f in zip(good, first, strict=True)]


def _ends(index: np.ndarray, offset: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    here = tuple(slice(max(-o, 0), s - max(o, 0)) for o, s in zip(offset, index.shape, strict=True))
    there = tuple(slice(max(o, 0), s - max(-o, 0)) for o, s in zip(offset, index.shape, strict=True))
    return index[here].ravel(), index[there].ravel()
