"""How unlike two images are at each voxel under each displacement of a search window.

Legend: d axes of space, C channels, S displacements, all whole numbers of voxels.
Source: ssd, ncc: textbook; mind: Heinrich et al. 2012 (the descriptor with six or four neighbours).
"""

import functools
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Kind = Literal["ssd", "ncc", "mind"]
KINDS = ("ssd", "ncc", "mind")
LEAST = 1e-6  # variance that counts as none, in units of the image's


def window(radius: int, dimensions: int) -> np.ndarray:
    """All displacements of a cube, `[S, d]` int32, S = (2 radius + 1)^d, zero in the middle."""
    return np.array(list(itertools.product(range(-radius, radius + 1), repeat=dimensions)), np.int32)


def box(x: jax.Array, radius: int) -> jax.Array:
    """Mean over the cube round each voxel, `[*shape]`; beyond the border the border's value goes on."""
    if radius == 0:
        return x
    for axis, size in enumerate(x.shape):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = jnp.pad(x, pad, mode="edge")
        parts = [lax.slice_in_dim(padded, s, s + size, axis=axis) for s in range(2 * radius + 1)]
        x = sum(parts[1:], parts[0]) / len(parts)
    return x


def displaced(x: jax.Array, shift: jax.Array, radius: int) -> jax.Array:
    """x(i + shift) of `[C, *shape]` already continued by `radius` voxels on every side: `[C, *shape]` of the inside."""
    inside = [size - 2 * radius for size in x.shape[1:]]
    begin = jnp.concatenate([jnp.zeros(1, shift.dtype), shift + radius])
    return lax.dynamic_slice(x, list(begin), [x.shape[0], *inside])


def extended(x: jax.Array, radius: int) -> jax.Array:
    """`[C, *shape]` with `radius` voxels more on every side, which repeat the border."""
    return jnp.pad(x, [(0, 0)] + [(radius, radius)] * (x.ndim - 1), mode="edge")


def mind(image: jax.Array, *, patch: int = 1, reach: int = 1) -> jax.Array:
    """Self-similarity: exp(-D_r / V), D_r the mean squared difference of the patches at i and i + r, V their mean.

    Args:
        image: `[*shape]`.
        patch: radius of the patches.
        reach: distance of the neighbours r, two along each axis.

    Returns:
        `[2 d, *shape]` in (0, 1], one for the most similar neighbour.
    """
    padded = extended(image[None], reach)
    shifts = [sign * reach * np.eye(image.ndim, dtype=np.int32)[a] for a in range(image.ndim) for sign in (1, -1)]
    distances = jnp.stack([box((image - displaced(padded, jnp.asarray(s), reach)[0]) ** 2, patch) for s in shifts])
    local = distances.mean(0)
    local = jnp.clip(local, 1e-3 * local.mean(), 1e3 * local.mean())
    features = jnp.exp(-distances / jnp.maximum(local, jnp.finfo(image.dtype).tiny)[None])
    return features / features.max(0)[None]


@functools.partial(jax.jit, static_argnames=("radius", "kind", "patch", "symmetric"))
def costs(
    fixed: jax.Array, moving: jax.Array, *, radius: int, kind: Kind, patch: int, symmetric: bool = False
) -> jax.Array:
    """Dissimilarity of F(i) and M(i + d_s) for all displacements of a window.

    ssd:  mean over the patch of (F - M)^2, over the variance of F
    ncc:  1 - correlation over the patch, in [0, 2]; one where either has no contrast
    mind: mean absolute difference of the descriptors, in [0, 1]

    Args:
        fixed: F `[*shape]`.
        moving: M `[*shape]` on the same grid.
        radius: of the window.
        kind: which.
        patch: radius of the patch, voxels.
        symmetric: average c_s(i) = diss(F(i), M(i + d_s)) and c_s(i - d_s) = diss(F(i - d_s), M(i)). Of equal images
            c_s(i) prefers the side on which they change less, the average is the same for d and -d.

    Returns:
        `[S, *shape]`, in the order of `window`.

    Raises:
        ValueError: unknown kind, or shapes that differ.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; allowed are {', '.join(KINDS)}")
    if fixed.shape != moving.shape:
        raise ValueError(f"fixed and moving must have one shape, got {fixed.shape} and {moving.shape}")
    shifts = jnp.asarray(window(radius, fixed.ndim))
    cost = _cost_of(fixed, moving, radius, kind, patch)
    if not symmetric:
        return lax.map(cost, shifts)

    def both(shift: jax.Array) -> jax.Array:
        here = cost(shift)
        return (here + displaced(extended(here[None], radius), -shift, radius)[0]) / 2

    return lax.map(both, shifts)


def _cost_of(
    fixed: jax.Array, moving: jax.Array, radius: int, kind: Kind, patch: int
) -> Callable[[jax.Array], jax.Array]:
    """The dissimilarity of one displacement `[d]` at all voxels `[*shape]`, what they share computed once."""
    variance = jnp.maximum(fixed.var(), jnp.finfo(fixed.dtype).tiny)
    if kind == "mind":
        features, others = mind(fixed, patch=patch), extended(mind(moving, patch=patch), radius)
        return lambda s: jnp.abs(features - displaced(others, s, radius)).mean(0)
    if kind == "ssd":
        others = extended(moving[None], radius)
        return lambda s: box((fixed - displaced(others, s, radius)[0]) ** 2, patch) / variance
    means = jnp.stack([box(moving, patch), box(moving**2, patch)])
    spread = jnp.stack([moving, means[0], jnp.maximum(means[1] - means[0] ** 2, 0)])
    others, mean = extended(spread, radius), box(fixed, patch)
    own = jnp.maximum(box(fixed**2, patch) - mean**2, 0)
    least = LEAST * variance

    def correlation(shift: jax.Array) -> jax.Array:
        m, m_mean, m_variance = displaced(others, shift, radius)
        product = box(fixed * m, patch) - mean * m_mean
        seen = (own > least) & (m_variance > least)
        return jnp.where(seen, product / jnp.sqrt(jnp.where(seen, own * m_variance, 1)), 0)

    return lambda s: 1 - correlation(s)
