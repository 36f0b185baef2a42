"""What painting needs beside the solver: brushes, boxes, densities of intensities, and what is shown of an answer.

Legend: L labels, n voxels of the image, flat in C order.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import deflate
from rwalk.prepared import Prepared

FLOOR = 0.02  # share of the range of intensities below which a label's deviation is not believed


class Region(NamedTuple):
    """A box of voxels round a centre, as far as `half` to each side."""

    centre: tuple[int, ...]
    half: int


class Posed(NamedTuple):
    """A question: the graph, made ready, and the seeds on it.

    Attributes:
        ready: the graph.
        positions: `[M]` flat indices of the seeds.
        labels: `[M]`.
        priors: `[L, n]`, or None.
    """

    ready: Prepared
    positions: np.ndarray
    labels: np.ndarray
    priors: jax.Array | None


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


@functools.partial(jax.jit, static_argnames="regions")
def densities(image: jax.Array, active: jax.Array, at: jax.Array, labels: jax.Array, regions: int) -> jax.Array:
    """Probability of each label from the intensity: a normal density per label, fitted to its seeds.

    Args:
        image: `[C, n]`.
        active: `[n]` bool.
        at: `[M]` flat indices of the seeds, n or more where there is none.
        labels: `[M]`.
        regions: L.

    Returns:
        `[L, n]`, sums to one on active voxels, zero elsewhere; a label without seeds has none of it.

    Source: as `rwalk.seeding.intensity_priors`, which is the reference on the host.
    """
    own = (labels[None] == jnp.arange(regions, dtype=labels.dtype)[:, None]) & (at < active.size)[None]
    count = own.sum(1).astype(image.dtype)
    share = own.astype(image.dtype) / jnp.maximum(count, 1)[:, None]
    there = image.at[:, at].get(mode="clip")  # [C, M]
    high = jnp.where(active[None], image, -jnp.inf).max(1)
    low = jnp.where(active[None], image, jnp.inf).min(1)
    floor = (FLOOR * (high - low)) ** 2 + jnp.finfo(image.dtype).tiny
    mean = jnp.matmul(share, there.T, precision=jax.lax.Precision.HIGHEST)  # [L, C]
    squares = (there[None] - mean[:, :, None]) ** 2
    variance = jnp.maximum((share[:, None] * squares).sum(2), floor[None])
    logs = []
    for label in range(regions):  # one array a label: reductions over labels would be slow
        squares = (image - mean[label][:, None]) ** 2 / variance[label][:, None]
        log = -0.5 * (functools.reduce(jnp.add, squares) + jnp.log(variance[label]).sum())
        logs.append(jnp.where(count[label] > 0, log, -jnp.inf))
    most = functools.reduce(jnp.maximum, logs)
    weights = [jnp.exp(log - most) for log in logs]
    total = functools.reduce(jnp.add, weights)
    return jnp.stack([jnp.where(active, weight / total, 0) for weight in weights])


def pose(ready: Prepared, image: jax.Array, active: np.ndarray, seeds: np.ndarray, kind: str, regions: int) -> Posed:
    """The question that seeds ask.

    Args:
        ready: the graph.
        image: `[C, n]`.
        active: `[n]` bool, its voxels.
        seeds: `[n]`, -1 where there is none; those off the graph do not count.
        kind: `seeds`, `priors` (the seeds fit the densities alone) or `both`.
        regions: L.

    Returns:
        The question.
    """
    places = np.flatnonzero((seeds >= 0) & active)
    p = None
    if kind != "seeds":
        p = densities(image, ready.active, *deflate.padded(places, seeds[places], active.size), regions)
    places = places[:0] if kind == "priors" else places
    return Posed(ready, places, seeds[places], p)


@jax.jit
def shown(x: jax.Array, pointwise: jax.Array, active: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What is shown of an answer, in one program.

    Args:
        x: `[L, n]`.
        pointwise: `[n]` or `[]`, no probability is further off.
        active: `[n]` bool.

    Returns:
        Probabilities `[L, n]`, zero off the graph; labels `[n]`, -1 where there is none; the largest error `[]`, one at
        most; the share of voxels whose label that of each does not settle `[]`.
    """
    rows = [jnp.clip(row, 0, 1) for row in x]
    total = functools.reduce(jnp.add, rows)
    inverse = jnp.where(active & (total > 0), 1 / jnp.where(total > 0, total, 1), 0)
    x = jnp.stack([row * inverse for row in rows])
    most, second, label = x[0], jnp.full_like(x[0], -jnp.inf), jnp.zeros(active.shape, jnp.int8)
    for number in range(1, len(x)):
        label = jnp.where(x[number] > most, jnp.int8(number), label)
        second, most = jnp.maximum(second, jnp.minimum(most, x[number])), jnp.maximum(most, x[number])
    share = (active & (most - second <= 2 * pointwise)).sum() / jnp.maximum(active.sum(), 1)
    error = jnp.where(active, jnp.broadcast_to(pointwise, active.shape), 0).max()
    return x, jnp.where(active & (most > 0), label, jnp.int8(-1)), jnp.minimum(error, 1), share
