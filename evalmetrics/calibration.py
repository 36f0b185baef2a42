"""Whether the probabilities of a map can be believed: Brier score, calibration error and the reliability table.

Legend: K regions, N voxels, B bins of equal width over [0, 1]. One pass gives additive sums, from which every figure
follows; sums of blocks, devices or cases are merged by addition.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evalmetrics import arrays
from evalmetrics.chunks import sum_chunks

CHUNK = 2048


class Bins(NamedTuple):
    """Sums over the voxels whose probability falls into each bin."""

    weight: jax.Array
    """[..., B] weight of the voxels, or their number."""
    confidence: jax.Array
    """[..., B] sum of the probabilities."""
    correct: jax.Array
    """[..., B] weight of the voxels that are what the probability says."""


class Calibration(NamedTuple):
    """Additive sums of `calibration_sums`."""

    weight: jax.Array
    """[] weight of all voxels."""
    squared: jax.Array
    """[K] sum of (probability - truth)^2 of each region."""
    top: Bins
    """[B] by the probability of the most probable region."""
    region: Bins
    """[K, B] by the probability of each region, which is right where the voxel belongs to it."""


class Reliability(NamedTuple):
    """Reliability table: in a calibrated map `accuracy` equals `confidence` in every bin."""

    edges: jax.Array
    """[B + 1] bounds of the bins; a bin holds its upper bound, the first holds 0 too."""
    share: jax.Array
    """[B] or [K, B] share of the voxels in the bin."""
    confidence: jax.Array
    """[B] or [K, B] mean probability; NaN in a bin without voxels."""
    accuracy: jax.Array
    """[B] or [K, B] how often the probability came true; NaN in a bin without voxels."""


def calibration_sums(reference: Any, prediction: Any, *, bins: int = 15, weights: Any = None) -> Calibration:
    """Sum up what the calibration of a probabilistic map against a label map needs, in one pass.

    Args:
        reference: label map `[*spatial]`, integers; a voxel whose label is outside 0..K-1 (-1, say) is left out.
        prediction: soft map `[K, *spatial]` of probabilities in [0, 1].
        bins: number of bins of equal width.
        weights: `[*spatial]` non-negative weights or a mask.

    Returns:
        Calibration, in the dtype of `prediction`.

    Raises:
        TypeError: the reference holds no integers, or the prediction no floats.
        ValueError: the grids differ, or there are no bins.
    """
    reference, prediction = arrays.to_jax(reference, "reference"), arrays.to_jax(prediction, "prediction")
    if not jnp.issubdtype(reference.dtype, jnp.integer):
        raise TypeError(f"reference must be a label map of integers, got {reference.dtype}; take an argmax first")
    if not jnp.issubdtype(prediction.dtype, jnp.floating):
        raise TypeError(f"prediction must be a soft map of probabilities, got {prediction.dtype}")
    weights = None if weights is None else arrays.to_jax(weights, "weights")
    arrays.check_layout(reference, prediction, weights)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}; 10 or 15 are usual")
    flat = prediction.reshape(prediction.shape[0], -1)
    return _sum_up(reference.ravel(), flat, None if weights is None else weights.ravel(), bins)


@functools.partial(jax.jit, static_argnames="bins")
def _sum_up(reference: jax.Array, prediction: jax.Array, weights: jax.Array | None, bins: int) -> Calibration:
    regions, dtype = len(prediction), prediction.dtype

    def sums(block: tuple[jax.Array, jax.Array, jax.Array | None]) -> Calibration:
        labels, probability, weight = block
        truth = labels[None, :].astype(jnp.int32) == jnp.arange(regions)[:, None]
        known = truth.any(0).astype(dtype)
        weight = known if weight is None else known * weight.astype(dtype)
        best = jnp.argmax(probability, axis=0)[None, :]
        top, right = (jnp.take_along_axis(x, best, 0)[0] for x in (probability, truth))
        return Calibration(
            weight.sum(),
            (weight[None, :] * (probability - truth.astype(dtype)) ** 2).sum(1),
            _fill(top, right, weight, bins),
            jax.vmap(_fill, in_axes=(0, 0, None, None))(probability, truth, weight, bins),
        )

    return sum_chunks(sums, (reference, prediction, weights), CHUNK)


def _fill(probability: jax.Array, right: jax.Array, weight: jax.Array, bins: int) -> Bins:
    # Bins are open below: ceil sends an edge down, and only 0 would leave the range.
    which = jnp.clip(jnp.ceil(probability * bins).astype(jnp.int32) - 1, 0, bins - 1)
    columns = jnp.stack([weight, weight * probability, weight * right.astype(weight.dtype)])
    return Bins(*jnp.zeros((3, bins), weight.dtype).at[:, which].add(columns))


def merge(first: Calibration, second: Calibration) -> Calibration:
    """Sums over the voxels of both; regions and bins must agree.

    Raises:
        ValueError: the numbers of regions or of bins differ.
    """
    if first.region.weight.shape != second.region.weight.shape:
        raise ValueError(
            "sums of equal [regions, bins] are needed to merge, got "
            f"{first.region.weight.shape} and {second.region.weight.shape}"
        )
    return jax.tree.map(jnp.add, first, second)


def brier_score(sums: Calibration) -> jax.Array:
    """Brier score: mean over voxels of the squared distance of the probabilities to the truth.

    BS = sum_x w(x) sum_k (p_k(x) - [label(x) = k])^2 / sum_x w(x)

    Args:
        sums: of `calibration_sums`.

    Returns:
        `[]` in [0, 2], 0 best; NaN where no voxel was summed.

    Source: Brier 1950, in its original form over all classes.
    """
    return sums.squared.sum() / sums.weight


def expected_calibration_error(sums: Calibration) -> jax.Array:
    """Expected calibration error of the most probable region: mean gap between confidence and accuracy.

    ECE = sum_b |sum_{x in b} w(x) (confidence(x) - [right(x)])| / sum_x w(x)

    Args:
        sums: of `calibration_sums`.

    Returns:
        `[]` in [0, 1]; NaN where no voxel was summed.

    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    return _mean_gap(sums.top, sums.weight)


def classwise_calibration_error(sums: Calibration) -> jax.Array:
    """Calibration error of each region's own probability, `[K]`; their mean is the classwise ECE.

    Args:
        sums: of `calibration_sums`.

    Returns:
        `[K]` in [0, 1]; NaN where no voxel was summed.

    Source: Kull et al. 2019.
    """
    return _mean_gap(sums.region, sums.weight)


def maximum_calibration_error(sums: Calibration) -> jax.Array:
    """Largest gap between confidence and accuracy over the bins that hold a voxel, `[]`.

    Args:
        sums: of `calibration_sums`.

    Source: Naeini et al. 2015.
    """
    gap = jnp.abs(sums.top.confidence - sums.top.correct)
    return (gap / jnp.where(sums.top.weight > 0, sums.top.weight, 1)).max()


def _mean_gap(bins: Bins, weight: jax.Array) -> jax.Array:
    return jnp.abs(bins.confidence - bins.correct).sum(-1) / weight


def reliability(sums: Calibration, *, by_region: bool = False) -> Reliability:
    """Reliability table, of the most probable region or of each region's own probability.

    Args:
        sums: of `calibration_sums`.
        by_region: one table for each region.

    Returns:
        Reliability with rows `[B]`, or `[K, B]`.

    Source: Murphy & Winkler 1977; DeGroot & Fienberg 1983.
    """
    bins = sums.region if by_region else sums.top
    count = bins.weight.shape[-1]
    filled = bins.weight > 0
    confidence, accuracy = (
        jnp.where(filled, x / jnp.where(filled, bins.weight, 1), jnp.nan) for x in (bins.confidence, bins.correct)
    )
    return Reliability(jnp.linspace(0, 1, count + 1), bins.weight / sums.weight, confidence, accuracy)
