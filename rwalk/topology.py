"""A basis carried to a graph of other voxels: masks, crops, growth, other resolutions, supervoxels, single edges.

Legend: K pairs, n voxels of the graph before, m of the graph after. Source: derived here (arXiv 1607.04174 announces
updates of the topology in its abstract).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import graph, multigrid, solve
from rwalk.edges import Edges
from rwalk.eigen import Basis, ritz
from rwalk.eigen.columns import EXACT
from rwalk.graph import Lattice
from rwalk.stencil import apply, congruent, reciprocal, restricted
from rwalk.update import refit
from rwalk.weights import edges_between

LARGEST_PIECES = 64  # components whose indicators are added, the largest first
EXTENSION_STEPS = 15  # of conjugate gradients that extend vectors to new voxels
EXTENSION_TOLERANCE = 1e-2

Box = tuple[tuple[int, int], ...]


def with_edges(lattice: Lattice, here: Any, there: Any, weights: Any) -> Lattice:
    """The graph with other weights on some edges between neighbours; zero takes an edge away.

    Args:
        lattice: the graph.
        here: `[m]` flat indices.
        there: `[m]` flat indices of neighbours of these, on either side.
        weights: `[m]`, not negative.

    Returns:
        The graph; it has the same shape.

    Raises:
        ValueError: two voxels are not neighbours in this lattice, not of the graph, or a weight is negative.
    """
    here, there, weights = np.asarray(here), np.asarray(there), np.asarray(weights)
    if (weights < 0).any():
        raise ValueError(f"weights must not be negative, got {weights.min():g}")
    known = {offset: index for index, offset in enumerate(lattice.offsets)}
    active = np.asarray(lattice.active)
    changed = np.array(lattice.weights)
    places = np.stack(np.unravel_index(np.stack([here, there]), lattice.shape), -1)  # [2, m, space]
    for first, second, weight in zip(*places.tolist(), weights, strict=True):
        step = tuple(b - a for a, b in zip(first, second, strict=True))
        start = first
        if step not in known:
            step, start = tuple(-s for s in step), second
        if step not in known or not (active[tuple(first)] and active[tuple(second)]):
            raise ValueError(
                f"{tuple(first)} and {tuple(second)} are no neighbours in this graph; rwalk.woodbury joins any voxels"
            )
        changed[(known[step], *start)] = weight
    return Lattice(jnp.asarray(changed), lattice.active, lattice.offsets)


def keep(lattice: Lattice, region: Any) -> Lattice:
    """The graph within a region `[*shape]` bool: edges across its border are cut."""
    active = lattice.active & jnp.asarray(region, bool)
    inside = edges_between(active, lattice.offsets)
    return Lattice(jnp.where(inside, lattice.weights, 0), active, lattice.offsets)


def crop(lattice: Lattice, box: Box) -> Lattice:
    """The graph within a box, from and to along each axis, as a smaller lattice; a ValueError if it is not within."""
    window = _window(box, lattice.shape)
    return keep(Lattice(lattice.weights[(slice(None), *window)], lattice.active[window], lattice.offsets), True)


def _window(box: Box, shape: tuple[int, ...]) -> tuple[slice, ...]:
    within = (0 <= low < high <= size for (low, high), size in zip(box, shape, strict=False))
    if len(box) != len(shape) or not all(within):
        raise ValueError(f"the box {box} is not within a lattice of shape {shape}; give 0 <= from < to <= size an axis")
    return tuple(slice(low, high) for low, high in box)


def rows_in(vectors: jax.Array, shape: tuple[int, ...], box: Box) -> jax.Array:
    """The part of `[n, K]` that lies in a box; raises like `crop`."""
    return vectors.reshape(*shape, -1)[_window(box, shape)].reshape(-1, vectors.shape[1])


def rows_into(vectors: jax.Array, shape: tuple[int, ...], box: Box) -> jax.Array:
    """`[n, K]` of a box put into a lattice of this shape, zero around it; raises like `crop`."""
    window, whole = _window(box, shape), jnp.zeros((*shape, vectors.shape[1]), vectors.dtype)
    inner = vectors.reshape(*(high - low for low, high in box), -1)
    return whole.at[window].set(inner).reshape(math.prod(shape), -1)


def restrict(
    basis: Basis,
    lattice: Lattice,
    vectors: jax.Array | None = None,
    *,
    key: jax.Array | None = None,
    degree: int = 40,
    normalised: bool = True,
) -> Basis:
    """A basis for a graph that lost voxels or edges and may have fallen into pieces.

    The rows that are left, with the indicator of each component, whose value is zero: a cut makes modes that no
    combination of the old ones can show.

    Args:
        basis: pairs before the change.
        lattice: the graph now.
        vectors: `[m, K]` those pairs on the voxels of `lattice`; the basis's own where the shape is the same.
        key: of the random vectors that stand for what the cut has added.
        degree: of the filter.
        normalised: R is the degree.

    Returns:
        The basis.

    Raises:
        ValueError: no two voxels of the graph are joined.
    """
    vectors = basis.vectors if vectors is None else vectors
    mass = graph.mass(lattice, normalised=normalised)
    extra = indicators(lattice, vectors.dtype)
    return refit(lattice, vectors, basis.values.size, mass=mass, degree=degree, extra=extra, key=key)


def indicators(lattice: Lattice, dtype: Any) -> jax.Array:
    """`[n, p]`, one on each connected component of two voxels or more, the largest `LARGEST_PIECES` of them."""
    pieces = graph.components(lattice).ravel()
    sizes = np.bincount(pieces[pieces >= 0])
    chosen = [piece for piece in np.argsort(-sizes, kind="stable")[:LARGEST_PIECES] if sizes[piece] > 1]
    return jnp.asarray(pieces[:, None] == np.asarray(chosen, int)[None], dtype)


def grow(
    basis: Basis,
    lattice: Lattice,
    vectors: jax.Array,
    known: Any,
    *,
    key: jax.Array,
    degree: int = 40,
    normalised: bool = True,
) -> Basis:
    """A basis for a graph that gained voxels.

    Each vector is extended harmonically: L q = 0 on the new voxels, a few steps of conjugate gradients.

    Args:
        basis: pairs of the smaller graph.
        lattice: the larger graph.
        vectors: `[m, K]` those pairs on its voxels, anything on the new ones; see `rows_into`.
        known: `[*shape]` bool, the voxels of the smaller graph.
        key: of the random vectors that stand for modes of the new voxels.
        degree: of the filter.
        normalised: R is the degree.

    Returns:
        The basis.
    """
    mass = graph.mass(lattice, normalised=normalised)
    extended = _extend(lattice, vectors, (mass > 0) & ~jnp.asarray(known, bool).ravel())
    extra = indicators(lattice, vectors.dtype)
    return refit(lattice, extended, basis.values.size, mass=mass, degree=degree, extra=extra, key=key)


@jax.jit
def _extend(lattice: Lattice, vectors: jax.Array, new: jax.Array) -> jax.Array:
    base = graph.stencil_of(lattice)
    known = jnp.where(new[None], 0, vectors.T)
    right = jnp.where(new[None], -apply(base, known), 0)
    operator = restricted(base, new)
    unit = jnp.sqrt(reciprocal(operator.diagonal))
    scaled = congruent(operator, unit)
    hierarchy = multigrid.setup(scaled, jnp.where(new, reciprocal(unit), 0))
    precondition = functools.partial(multigrid.vcycle, hierarchy, degree=2)
    x, *_ = solve.conjugate_gradients(
        functools.partial(apply, scaled),
        precondition,
        unit[None] * right,
        jnp.zeros_like(right),
        EXTENSION_TOLERANCE,
        EXTENSION_STEPS,
    )
    return jnp.where(new[None], unit[None] * x, known).T


def coarsen(basis: Basis, lattice: Lattice, factor: int = 2, *, degree: int = 40) -> tuple[Lattice, Basis]:
    """Graph and basis of cubes of voxels: L_c = P^T L P, R_c = P^T R, Q_c = P^T R Q / R_c, filtered and projected.

    Args:
        basis: pairs of `lattice`.
        lattice: the fine graph.
        factor: voxels along the edge of a cube.
        degree: of the filter.

    Returns:
        The coarse graph, and its basis for the mass R_c (not the coarse degree: edges within a cube count).
    """
    coarse = graph.coarsen(lattice, factor)
    pooled = functools.partial(graph.pool, factor=factor)
    mass = pooled(basis.mass.reshape(lattice.shape)).ravel()
    weighted = (basis.mass[:, None] * basis.vectors).T.reshape(-1, *lattice.shape)
    vectors = jax.vmap(pooled)(weighted).reshape(weighted.shape[0], -1) * reciprocal(mass)[None]
    mass = jnp.where(graph.degree(coarse).ravel() > 0, mass, 0)
    return coarse, refit(coarse, vectors.T, basis.values.size, mass=mass, degree=degree)


def refine(
    basis: Basis,
    shape: tuple[int, ...],
    lattice: Lattice,
    factor: int = 2,
    *,
    degree: int = 40,
    normalised: bool = True,
) -> Basis:
    """A basis of a finer graph: every voxel takes the value of its cube, then filter and projection.

    Args:
        basis: pairs of the coarse graph.
        shape: of the coarse graph.
        lattice: the fine graph.
        factor: voxels along the edge of a cube.
        degree: of the filter.
        normalised: R is the degree.

    Returns:
        The basis.
    """
    blocks = basis.vectors.T.reshape(-1, *shape)
    fine = jax.vmap(lambda x: graph.repeat(x, lattice.shape, factor))(blocks).reshape(blocks.shape[0], -1)
    mass = graph.mass(lattice, normalised=normalised)
    return refit(lattice, fine.T, basis.values.size, mass=mass, degree=degree)


def supervoxels(basis: Basis, lattice: Lattice, parts: Any) -> tuple[Edges, Basis]:
    """Graph and basis of a partition: L_c = P^T L P, R_c = P^T R, Ritz pairs within Q_c = P^T R Q / R_c.

    Args:
        basis: pairs of `lattice`.
        lattice: the graph of voxels.
        parts: `[*shape]` integers, part of each voxel, 0..m-1; -1 leaves a voxel out.

    Returns:
        The edges between the parts, and the basis on them; what `rwalk.online` answers from.

    Raises:
        ValueError: the shape is not the lattice's, or there are no more parts than pairs.
    """
    parts = np.asarray(parts)
    size = int(parts.max()) + 1
    if parts.shape != lattice.shape or size <= basis.values.size:
        raise ValueError(
            f"parts must have the lattice's shape {lattice.shape} and more than {basis.values.size} parts (the pairs), "
            f"got {parts.shape} and {size}"
        )
    edges = pooled_edges(lattice, parts, size)
    flat = jnp.asarray(np.where(parts.ravel() >= 0, parts.ravel(), size))
    mass = jax.ops.segment_sum(basis.mass, flat, size + 1)[:size]
    mass = jnp.where(edges.degree() > 0, mass, 0)
    sums = jax.ops.segment_sum(basis.mass[:, None] * basis.vectors, flat, size + 1)[:size]
    vectors = sums * reciprocal(mass)[:, None]
    product = edges.apply(vectors.T)
    energies = jnp.matmul(product, vectors, precision=EXACT)
    masses = jnp.matmul(vectors.T * mass[None], vectors, precision=EXACT)
    values, chosen = ritz.coefficients(masses, energies, basis.values.size, ritz.unit(masses))
    vectors = jnp.matmul(vectors, jnp.asarray(chosen, vectors.dtype), precision=EXACT)
    small = jnp.asarray(values, vectors.dtype)
    left = (edges.apply(vectors.T) - small[:, None] * mass[None] * vectors.T) * jnp.sqrt(reciprocal(mass))[None]
    residual = jnp.linalg.norm(left, axis=1) * reciprocal(small[-1])
    degrees = edges.degree()
    return edges, Basis(
        small,
        vectors,
        mass,
        (degrees * reciprocal(mass)).sum(),
        (mass > 0).sum(),
        2 * (degrees * reciprocal(mass)).max(),
        residual,
        jnp.zeros((), jnp.int32),
        jnp.isfinite(residual).all(),
    )


def pooled_edges(lattice: Lattice, parts: np.ndarray, size: int) -> Edges:
    """Edges between parts, each the sum of the edges of voxels across their border; on the host."""
    index = np.arange(parts.size).reshape(parts.shape)
    flat, pairs, strengths = parts.ravel(), [], []
    for w, offset in zip(np.asarray(lattice.weights), lattice.offsets, strict=True):
        here = tuple(slice(max(-o, 0), s - max(o, 0)) for o, s in zip(offset, parts.shape, strict=True))
        there = tuple(slice(max(o, 0), s - max(-o, 0)) for o, s in zip(offset, parts.shape, strict=True))
        ends = np.sort(flat[np.stack([index[here].ravel(), index[there].ravel()])], 0)
        good = (ends[0] >= 0) & (ends[0] != ends[1]) & (w[here].ravel() > 0)
        pairs.append(ends[0][good].astype(np.int64) * size + ends[1][good])
        strengths.append(w[here].ravel()[good])
    found, where = np.unique(np.concatenate(pairs), return_inverse=True)
    weights = np.bincount(where, np.concatenate(strengths), len(found))
    dtype = lattice.weights.dtype
    return Edges(jnp.asarray(found // size), jnp.asarray(found % size), jnp.asarray(weights, dtype), size)
