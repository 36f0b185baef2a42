"""What painting needs beside the solver: brushes, boxes, densities of intensities, and what is shown of an answer.

Legend: L labels, n voxels of the image, flat in C order.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import online

FLOOR = 0.02  # share of the range of intensities below which a label's deviation is not believed


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


@functools.partial(jax.jit, static_argnames="regions")
def densities(image: jax.Array, active: jax.Array, seeds: jax.Array, regions: int) -> jax.Array:
    """Probability of each label from the intensity: a normal density per label, fitted to its seeds.

    Args:
        image: `[C, n]`.
        active: `[n]` bool.
        seeds: `[n]`, -1 where there is none.
        regions: L.

    Returns:
        `[L, n]`, sums to one on active voxels, zero elsewhere; a label without seeds has none of it.

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
    x = jnp.where(active[None], online.to_simplex(x), 0)
    best = x.argmax(0)
    others = jnp.where(jnp.arange(len(x))[:, None] == best[None], -jnp.inf, x).max(0)
    open_ = active & (x.max(0) - others <= 2 * pointwise)
    share = open_.sum() / jnp.maximum(active.sum(), 1)
    error = jnp.where(active, jnp.broadcast_to(pointwise, active.shape), 0).max()
    return x, jnp.where(active & (x.max(0) > 0), best, -1).astype(jnp.int8), jnp.minimum(error, 1), share
