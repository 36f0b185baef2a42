"""Edge weights of a lattice, by the conventions in use; a beta means another thing in each.

Legend: C channels, E edge directions, an edge belongs to the voxel it starts from: `[E, *shape]`.
"""

import functools
import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

Convention = Literal["gaussian", "skimage", "grady", "noise"]
Scale = Literal["one", "max", "var", "mad"]
CONVENTIONS = ("gaussian", "skimage", "grady", "noise")
SCALES = ("one", "max", "var", "mad")
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def shift(x: jax.Array, offset: tuple[int, ...]) -> jax.Array:
    """Value at voxel i + offset, zero where that is outside; the last `len(offset)` axes are those of the lattice."""
    lead = x.ndim - len(offset)
    cut, pad = [slice(None)] * lead, [(0, 0)] * lead
    for step, size in zip(offset, x.shape[lead:], strict=True):
        low, high = max(step, 0), size + min(step, 0)
        cut.append(slice(low, max(high, low)))
        pad.append((min(max(-step, 0), size), min(max(step, 0), size)))
    return jnp.pad(x[tuple(cut)], pad)


def forward_offsets(dimensions: int, *, diagonal: bool = False) -> tuple[tuple[int, ...], ...]:
    """Half of the neighbours of a voxel, one of each pair: 2 or 4 directions in the plane, 3 or 13 in space."""
    steps = itertools.product((-1, 0, 1), repeat=dimensions)
    ahead = [step for step in steps if step > (0,) * dimensions]
    return tuple(step for step in ahead if diagonal or sum(map(abs, step)) == 1)


def edges_between(active: jax.Array, offsets: tuple[tuple[int, ...], ...]) -> jax.Array:
    """Which edges exist, `[E, *shape]`: both ends are `active`."""
    return jnp.stack([active & shift(active, offset) for offset in offsets])


def squared_differences(
    image: jax.Array, offsets: tuple[tuple[int, ...], ...], spacing: tuple[float, ...] | None = None
) -> jax.Array:
    """Sum over channels of (I(i + o) - I(i))^2, `[E, *shape]`, over |o h|^2 if `spacing` h is given."""
    lengths = [1.0] * len(offsets) if spacing is None else [math.hypot(*_scaled(o, spacing)) for o in offsets]
    return jnp.stack([((shift(image, o) - image) ** 2).sum(0) / h**2 for o, h in zip(offsets, lengths, strict=True)])


def _scaled(offset: tuple[int, ...], spacing: tuple[float, ...]) -> list[float]:
    return [step * edge for step, edge in zip(offset, spacing, strict=True)]


def geometry(offsets: tuple[tuple[int, ...], ...], spacing: tuple[float, ...]) -> list[float]:
    """Factor (h_min / |o h|)^2 of each direction: conductances of the continuous problem, one on cubes."""
    return [(min(spacing) / math.hypot(*_scaled(offset, spacing))) ** 2 for offset in offsets]


def _masked_mean(x: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.where(where, x, 0).sum() / jnp.maximum(where.sum(), 1).astype(x.dtype)


def scale_of(image: jax.Array, squared: jax.Array, exists: jax.Array, active: jax.Array, scale: Scale) -> jax.Array:
    """What |dI|^2 is divided by: 1, its largest value, the image's variance, or its robust noise variance.

    The last is (1.4826 median |dI|)^2 over the edges. It is never zero: a constant image is divided by one.
    """
    match scale:
        case "one":
            value = jnp.ones((), image.dtype)
        case "max":
            value = jnp.where(exists, squared, 0).max()
        case "var":
            means = jnp.stack([_masked_mean(channel, active) for channel in image])
            centred = (image - means.reshape((-1,) + (1,) * active.ndim)) ** 2
            value = _masked_mean(centred.sum(0), active)
        case "mad":
            value = MAD_TO_DEVIATION**2 * jnp.nanmedian(jnp.where(exists, squared, jnp.nan))
        case _:
            raise ValueError(f"scale={scale!r}; allowed are {', '.join(SCALES)}")
    return jnp.where(value > 0, value, 1)


@functools.partial(jax.jit, static_argnames=("offsets", "convention", "scale", "eps", "spacing", "radius"))
def edge_weights(
    image: jax.Array,
    active: jax.Array,
    beta: jax.Array,
    *,
    offsets: tuple[tuple[int, ...], ...],
    convention: Convention = "gaussian",
    scale: Scale = "max",
    eps: float = 1e-4,
    spacing: tuple[float, ...] | None = None,
    radius: int = 0,
) -> jax.Array:
    """Weights of all edges.

    gaussian: g (exp(-beta |dI|^2 / s) + eps), g the factor of `geometry`
    skimage:  exp(-beta |dI/h|^2 / (10 std(I) sqrt(C))) + 1e-10, std over the whole image, the root for C > 1 only
    grady:    exp(-beta d) + 1e-5, d = |dI| mapped linearly onto [0, 1]
    noise:    exp(-m |dM|^2 / (8 var)) + eps, M the mean over the m voxels of a box: the overlap (Bhattacharyya
              coefficient) of what two voxels' true values may be, under additive normal noise of one variance

    Args:
        image: `[C, *shape]`.
        active: `[*shape]` bool, the voxels of the graph.
        beta: `[]`; not used by `noise`, whose only parameter is the variance, taken from the image (see `scale_of`).
        offsets: directions, see `forward_offsets`.
        convention: which of the formulas.
        scale: s of `gaussian`.
        eps: smallest weight of `gaussian` and `noise`.
        spacing: edge lengths of a voxel, ones by default.
        radius: of the box of `noise`; 0 is the voxel alone.

    Returns:
        `[E, *shape]` in the image's dtype, zero where there is no edge.

    Raises:
        ValueError: unknown convention or scale, or shapes that do not fit.

    Source: gaussian: Grady 2006, eq. 1, the scale is ours; grady: `makeweights` of Grady's toolbox; skimage:
        scikit-image 0.26; noise: Drees et al. 2022, case of constant variance, sigma^2/m for the mean of m values.
    Differs: the boxes of `noise` are centred, the paper may move them away from edges.
    """
    if image.shape[1:] != active.shape or any(len(offset) != active.ndim for offset in offsets):
        raise ValueError(f"image must be [channels, *{active.shape}] with offsets to fit, got {image.shape}, {offsets}")
    lengths = (1.0,) * active.ndim if spacing is None else spacing
    exists = edges_between(active, offsets)
    if convention == "gaussian":
        squared = squared_differences(image, offsets)
        raw = jnp.exp(-beta * squared / scale_of(image, squared, exists, active, scale)) + eps
        raw = jnp.stack([g * w for g, w in zip(geometry(offsets, lengths), raw, strict=True)])
    elif convention == "skimage":
        squared = squared_differences(image, offsets, lengths)
        root = math.sqrt(image.shape[0])
        deviation = image.std()
        raw = jnp.exp(-beta * squared / (10 * root * jnp.where(deviation > 0, deviation, 1))) + 1e-10
    elif convention == "grady":
        raw = jnp.exp(-beta * _normalised(squared_differences(image, offsets), exists)) + 1e-5
    elif convention == "noise":
        means, samples = _box_means(_in_units_of_noise(image, offsets, exists, active), active, radius)
        fewest = jnp.stack([jnp.minimum(samples, shift(samples, offset)) for offset in offsets])
        raw = jnp.exp(-fewest * squared_differences(means, offsets) / 8) + eps
    else:
        raise ValueError(f"convention={convention!r}; allowed are {', '.join(CONVENTIONS)}")
    return jnp.where(exists, raw, 0)


def _normalised(squared: jax.Array, exists: jax.Array) -> jax.Array:
    # The root of zero has no derivative: take it where there is a difference only.
    distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
    low = jnp.where(exists, distance, jnp.inf).min()
    high = jnp.where(exists, distance, -jnp.inf).max()
    return (distance - low) / jnp.where(high > low, high - low, 1)


def _in_units_of_noise(image: jax.Array, offsets: tuple[tuple[int, ...], ...], exists: Any, active: Any) -> jax.Array:
    channels = [channel[None] for channel in image]
    squared = [squared_differences(channel, offsets) for channel in channels]
    # The difference of two voxels has twice the variance of one.
    variance = [scale_of(c, s, exists, active, "mad") / 2 for c, s in zip(channels, squared, strict=True)]
    return jnp.concatenate([c / jnp.sqrt(v) for c, v in zip(channels, variance, strict=True)])


def _box_means(image: jax.Array, active: jax.Array, radius: int) -> tuple[jax.Array, jax.Array]:
    samples = active.astype(image.dtype)
    total = jnp.where(active[None], image, 0)
    for axis in range(active.ndim):
        steps = [tuple(delta * (a == axis) for a in range(active.ndim)) for delta in range(-radius, radius + 1)]
        total = sum((shift(total, step) for step in steps), jnp.zeros_like(total))
        samples = sum((shift(samples, step) for step in steps), jnp.zeros_like(samples))
    return total / jnp.maximum(samples, 1)[None], jnp.maximum(samples, 1)


@functools.partial(jax.jit, static_argnames=("offsets", "scale", "eps", "spacing"))
def weights_by_beta(
    image: jax.Array,
    active: jax.Array,
    weights: jax.Array,
    *,
    offsets: tuple[tuple[int, ...], ...],
    scale: Scale = "max",
    eps: float = 1e-4,
    spacing: tuple[float, ...] | None = None,
) -> jax.Array:
    """Derivative of the `gaussian` weights with respect to beta: -(|dI|^2 / s) (w - g eps), again weights of a lattice.

    Args:
        image: `[C, *shape]`, as given to `edge_weights`; so are `active` and the options.
        active: `[*shape]` bool.
        weights: `[E, *shape]`, its result.
        offsets: directions.
        scale: s.
        eps: smallest weight.
        spacing: edge lengths of a voxel.

    Returns:
        `[E, *shape]`, not positive.
    """
    lengths = (1.0,) * active.ndim if spacing is None else spacing
    exists = edges_between(active, offsets)
    squared = squared_differences(image, offsets)
    factor = squared / scale_of(image, squared, exists, active, scale)
    above = jnp.stack([w - g * eps for g, w in zip(geometry(offsets, lengths), weights, strict=True)])
    return jnp.where(exists, -factor * above, 0)
