"""What else to begin with: small pieces with weak borders.

Legend: n voxels; blocks are `[k, n]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from rwalk import graph
from rwalk.eigen.pencil import Pencil
from rwalk.graph import Lattice

THRESHOLDS = (0.3, 0.1, 0.03, 0.01, 0.003)  # of the largest weight
LARGEST_PIECE = 0.02  # of all voxels


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
        `[p, n]`, D^1/2 on the set, p <= most.
    """
    found = [candidate for share in THRESHOLDS for candidate in _components(lattice, pencil, share, limit)]
    found.sort(key=lambda candidate: candidate[0])
    taken = np.zeros(lattice.active.size, bool)
    chosen: list[np.ndarray] = []
    for _, members in found:
        if len(chosen) < most and taken[members].mean() <= 0.5:
            taken[members] = True
            chosen.append(members)
    x = np.zeros((len(chosen), taken.size))
    near_null = np.asarray(pencil.near_null)
    for row, members in zip(x, chosen, strict=True):
        row[members] = near_null[members]
    return jnp.asarray(x, pencil.near_null.dtype)


def _components(lattice: Lattice, pencil: Pencil, share: float, limit: float) -> list[tuple[float, np.ndarray]]:
    weights = np.asarray(lattice.weights, np.float64)
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
    degrees = np.asarray(graph.degree(lattice), np.float64).ravel()
    mass = np.bincount(labels, degrees * np.asarray(pencil.mass.diagonal, np.float64), number)
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
