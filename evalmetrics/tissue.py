"""Unordered classes of intensity against tissue maps, and a soft map against itself.

Legend: N brain voxels, L distinct intensities, K classes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from evalmetrics import arrays, mixture
from evalmetrics.scores import Scores, score


class Tissues(NamedTuple):
    """Brain voxels of a T1 image with their tissue probabilities."""

    levels: np.ndarray
    """[L] distinct intensities, ascending, float32."""
    counts: np.ndarray
    """[L] voxels of each, float32."""
    level_of: np.ndarray
    """[N] level of each voxel."""
    reference: np.ndarray
    """[3, N] probabilities of grey matter, white matter and the rest, float32."""


class TissueScores(NamedTuple):
    """Outcome of `tissue_mixture`."""

    scores: Scores
    mixture: mixture.Mixture


def tissues(t1: np.ndarray, grey: np.ndarray, white: np.ndarray) -> Tissues:
    """Collect the brain voxels, which are those with a positive intensity.

    Args:
        t1: `[*spatial]` skull-stripped intensities, 0 outside the brain.
        grey: `[*spatial]` probability of grey matter.
        white: `[*spatial]` probability of white matter.

    Returns:
        Tissues; the rest is what grey and white matter leave of one, at least 0.

    Raises:
        ValueError: shapes differ, or no voxel has a positive intensity.
    """
    t1, grey, white = (np.asarray(x, np.float32) for x in (t1, grey, white))
    if not t1.shape == grey.shape == white.shape:
        raise ValueError(f"t1, grey and white must share a shape, got {t1.shape}, {grey.shape} and {white.shape}")
    brain = t1 > 0
    if not brain.any():
        raise ValueError("t1 has no voxel with a positive intensity; pass a skull-stripped image")
    levels, index, counts = np.unique(t1[brain], return_inverse=True, return_counts=True)
    grey, white = grey[brain], white[brain]
    reference = np.stack([grey, white, np.maximum(1 - grey - white, 0)])
    return Tissues(levels, counts.astype(np.float32), index.astype(np.int32), reference)


def tissue_mixture(
    brain: Tissues, classes: int, *, tolerance: float = 1e-3, iterations: int = 1000, **options: Any
) -> TissueScores:
    """Fit a Gaussian mixture to the intensities and score its posteriors, K unordered soft regions, against tissue.

    Equal intensities have equal posteriors, so the mixture is fitted to the histogram: the same sums, L terms each.

    Args:
        brain: from `tissues`.
        classes: K.
        tolerance: of `mixture.fit`; the scores depend on it, report it.
        iterations: of `mixture.fit`.
        **options: of `score`.

    Returns:
        TissueScores; three classes fit the three tissues best.
    """
    fitted = mixture.fit(brain.levels, classes, weights=brain.counts, tolerance=tolerance, iterations=iterations)
    soft = mixture.posterior(fitted, brain.levels)[:, brain.level_of]
    return TissueScores(score(brain.reference, soft, **options), fitted)


class SelfSimilarity(NamedTuple):
    """Scores of a soft map against itself, `[]` each."""

    matched: jax.Array
    """Macro score of this package: 1."""
    product: jax.Array
    """Soft Dice in product form, below 1 for any map that is not crisp."""


def soft_self_similarity(soft: ArrayLike) -> SelfSimilarity:
    """Score a soft map against itself, by this package and by the product form of soft Dice.

    product = 2 sum p q / (sum p + sum q) with q = p, over all regions and voxels

    Args:
        soft: `[K, *spatial]` probabilities.

    Returns:
        SelfSimilarity.

    Source: Milletari et al. 2016 discuss the forms of soft Dice; here as a caution.
    """
    soft = arrays.to_jax(soft, "soft")
    flat = soft.reshape(-1)
    return SelfSimilarity(score(soft, soft).macro, jnp.vdot(flat, flat) / flat.sum())
