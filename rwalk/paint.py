"""Answers while somebody paints: arrays keep their shapes whatever is painted, so that nothing compiles again.

Seeds are padded to one of a few numbers with voxels that stand beside the image, of mass one and without an edge: a
seed there tells nobody anything. `Canvas` is a graph with these voxels behind its own.

Legend: L labels, n voxels of the image, N with those beside it, M seeds.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import graph, online
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, reciprocal

SIZES = (64, 256, 1024)  # of the small system; more seeds than the last are thinned for it, evenly
FLOOR = 0.02  # share of the range of intensities below which a label's deviation is not believed


class Canvas(NamedTuple):
    """A graph and its basis, both with rows beside the image.

    Attributes:
        lattice: the graph, its first axis longer than the image's.
        laplacian: L.
        basis: pairs, zero beside the image; the mass is one there.
        n: voxels of the image, which come first.
    """

    lattice: Lattice
    laplacian: Stencil
    basis: Basis
    n: int


class Answer(NamedTuple):
    """What is shown.

    Attributes:
        x: `[L, N]` probabilities.
        pointwise: `[]` no probability is further off, whatever the basis; infinite for seeds alone.
    """

    x: jax.Array
    pointwise: jax.Array


class Region(NamedTuple):
    """A box of voxels round a centre, as far as `half` to each side."""

    centre: tuple[int, ...]
    half: int


def discs(centres: np.ndarray, axis: int, radius: float, mask: np.ndarray) -> np.ndarray:
    """Flat indices of the voxels of a mask within a radius of a centre, in the slice across an axis.

    Args:
        centres: `[m, d]` indices.
        axis: of the slice, for a volume; an image is its own.
        radius: in voxels.
        mask: `[*shape]` bool.

    Returns:
        Each index once, in ascending order.
    """
    d, reach = mask.ndim, int(radius)
    steps = np.stack(np.meshgrid(*([np.arange(-reach, reach + 1)] * d), indexing="ij"), -1).reshape(-1, d)
    steps = steps[(steps**2).sum(1) <= radius**2]
    steps = steps[steps[:, axis] == 0] if d == 3 else steps
    points = (centres[:, None] + steps[None]).reshape(-1, d)
    points = points[((points >= 0) & (points < mask.shape)).all(1)]
    flat = np.unique(np.ravel_multi_index(tuple(points.T), mask.shape))
    return flat[mask.ravel()[flat]]


def box(shape: tuple[int, ...], region: Region) -> np.ndarray:
    """The voxels of a region, `[*shape]` bool."""
    inside = np.zeros(shape, bool)
    inside[tuple(slice(max(c - region.half, 0), c + region.half + 1) for c in region.centre)] = True
    return inside


def extend(lattice: Lattice) -> Lattice:
    """The graph with as many rows of voxels without an edge behind it as seeds may have to be padded."""
    rows = -(-SIZES[-1] // math.prod(lattice.shape[1:]))
    beyond = [(0, rows), *[(0, 0)] * (len(lattice.shape) - 1)]
    return Lattice(jnp.pad(lattice.weights, [(0, 0), *beyond]), jnp.pad(lattice.active, beyond), lattice.offsets)


def widen(basis: Basis, lattice: Lattice) -> Basis:
    """A basis with rows of zeros for a graph of `extend`."""
    more = lattice.active.size - basis.mass.size
    return basis._replace(vectors=jnp.pad(basis.vectors, [(0, more), (0, 0)]), mass=jnp.pad(basis.mass, (0, more)))


def canvas(lattice: Lattice, basis: Basis, n: int) -> Canvas:
    """What the answers need, from a graph of `extend` and a basis of `widen`."""
    beside = jnp.arange(basis.mass.size) >= n
    held = basis._replace(mass=jnp.where(beside, 1, basis.mass).astype(basis.mass.dtype))
    return Canvas(lattice, graph.stencil_of(lattice), held, n)


def padded(positions: np.ndarray, labels: np.ndarray, n: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Seeds and as many beside the image as are missing, `[size]` each."""
    missing = size - len(positions)
    beside = n + np.arange(missing)
    every = np.concatenate([positions, beside]), np.concatenate([labels, np.zeros(missing, int)])
    return jnp.asarray(every[0], jnp.int32), jnp.asarray(every[1], jnp.int32)


def size_for(count: int) -> int:
    """The number that so many seeds are padded to; the largest where they are more."""
    return next((size for size in SIZES if count <= size), SIZES[-1])


@functools.partial(jax.jit, static_argnames="regions")
def densities(image: jax.Array, active: jax.Array, seeds: jax.Array, regions: int) -> jax.Array:
    """Probability of each label from the intensity: a normal density per label, fitted to its seeds.

    Args:
        image: `[C, N]`.
        active: `[N]` bool.
        seeds: `[N]`, -1 where there is none.
        regions: L.

    Returns:
        `[L, N]`, sums to one on active voxels, zero elsewhere; a label without seeds has none of it.

    Source: as `rwalk.seeding.intensity_priors`, which is the reference on the host.
    """
    own = (seeds[None] == jnp.arange(regions, dtype=seeds.dtype)[:, None]) & active[None]
    count = own.sum(1).astype(image.dtype)
    share = own.astype(image.dtype) / jnp.maximum(count, 1)[:, None]
    high = jnp.where(active[None], image, -jnp.inf).max(1)
    low = jnp.where(active[None], image, jnp.inf).min(1)
    floor = (FLOOR * (high - low)) ** 2 + jnp.finfo(image.dtype).tiny
    exact = jax.lax.Precision.HIGHEST
    mean = jnp.matmul(share, image.T, precision=exact)  # [L, C]
    squares = (image[None] - mean[:, :, None]) ** 2
    variance = jnp.maximum((share[:, None] * squares).sum(2), floor[None])
    logs = -0.5 * ((squares / variance[:, :, None]).sum(1) + jnp.log(variance).sum(1)[:, None])
    logs = jnp.where((count > 0)[:, None], logs, -jnp.inf)
    return jnp.where(active[None], jax.nn.softmax(logs, 0), 0)


def ask(
    canvas: Canvas,
    image: jax.Array,
    seeds: np.ndarray,
    regions: int,
    *,
    kind: str,
    gamma: float,
    polish: int,
    normalised: bool = True,
) -> Answer:
    """Answer from the basis.

    Args:
        canvas: graph and basis.
        image: `[C, N]`.
        seeds: `[N]`, -1 where there is none, and beside the image.
        regions: L.
        kind: `seeds`, `priors` (the seeds fit the densities alone) or `both`.
        gamma: weight of the priors.
        polish: Chebyshev steps after the basis.
        normalised: R is the degree.

    Returns:
        The answer, the labels of seeds on coupled voxels kept unless `kind` is `priors`.
    """
    active = canvas.lattice.active.ravel()
    flat = jnp.asarray(seeds, jnp.int32)
    places = np.flatnonzero((seeds >= 0) & (np.asarray(canvas.basis.mass) > 0))
    size = size_for(len(places))
    chosen = places[np.linspace(0, len(places) - 1, min(len(places), size)).astype(int)]
    at = padded(chosen, seeds[chosen], canvas.n, size)
    if kind == "seeds":
        x = online.seeds(canvas.basis, *at, regions)
        return Answer(keep(x, flat, active), jnp.asarray(jnp.inf, x.dtype))
    p = densities(image, active, flat, regions)
    if kind == "priors":
        found = online.priors(canvas.basis, canvas.laplacian, p, gamma, polish=polish)
        return Answer(found.x, found.pointwise.max())
    x = keep(online.both(canvas.basis, canvas.laplacian, p, gamma, *at, polish=polish), flat, active)
    return Answer(x, furthest(canvas, x, p, flat, gamma, normalised=normalised))


@jax.jit
def keep(x: jax.Array, seeds: jax.Array, active: jax.Array) -> jax.Array:
    """`[L, N]` with the labels of the seeds put in and zero off the graph."""
    own = (seeds[None] == jnp.arange(x.shape[0], dtype=seeds.dtype)[:, None]).astype(x.dtype)
    return jnp.where(active[None], jnp.where((seeds >= 0)[None], own, x), 0)


@functools.partial(jax.jit, static_argnames="normalised")
def furthest(
    canvas: Canvas, x: jax.Array, p: jax.Array, seeds: jax.Array, gamma: Any, *, normalised: bool = True
) -> jax.Array:
    """Max |r_i| / (gamma R_i) over the voxels without a seed, at which x is exact, `[]`; see `rwalk.bounds`."""
    mass = graph.mass(canvas.lattice, normalised=normalised)
    residual = mass[None] * (gamma * (p - x)) - apply(canvas.laplacian, x)
    free = (seeds < 0)[None]
    return jnp.where(free, jnp.abs(residual) * reciprocal(mass)[None], 0).max() / gamma
