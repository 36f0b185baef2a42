"""What a report shows beside the scores of a case: calibration and surface distances."""

from collections.abc import Iterable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from evalmetrics import calibration as calibrated
from evalmetrics.surface import surface_scores
from evalmetrics.volumes import Volume


def calibration(blocks: Iterable[tuple[Any, Any]], match: np.ndarray) -> dict[str, float]:
    """Brier score and expected calibration error of a soft prediction against labels.

    Args:
        blocks: labels `[N]` and probabilities `[K', N]`.
        match: `[n]` prediction region of each label; a label without one leaves its voxels out.

    Returns:
        `brier` and `ece`.
    """
    total = None
    for reference, prediction in blocks:
        there = np.where(match < prediction.shape[0], match, -1).astype(np.int32)
        part = calibrated.calibration_sums(jnp.asarray(there)[np.asarray(reference, np.int32)], prediction)
        total = part if total is None else calibrated.merge(total, part)
    if total is None:
        return {}
    return {
        "brier": float(calibrated.brier_score(total)),
        "ece": float(calibrated.expected_calibration_error(total)),
    }


def surface(
    reference: Volume,
    prediction: Volume,
    match: np.ndarray,
    spacing: Any,
    tolerance: float,
    empty: Literal["one", "zero", "skip"],
) -> dict[str, list[float]]:
    """Surface distances of matched regions, of the most probable labels where a map is soft.

    Args:
        reference: label or soft map.
        prediction: label or soft map.
        match: `[n]` prediction region of each reference region.
        spacing: size of a voxel, mm.
        tolerance: of the normalised surface Dice, mm.
        empty: what a region that is empty on both sides is worth.

    Returns:
        `hausdorff95`, `average_distance` and `surface_dice`, `[n]` each.
    """
    labels = [
        np.asarray(side.data).argmax(0) if side.soft else np.asarray(side.data) for side in (reference, prediction)
    ]
    found = surface_scores(
        *labels,
        spacing=spacing,
        tolerance=tolerance,
        regions=(len(reference.names), len(prediction.names)),
        match=match,
        empty="nan" if empty == "skip" else empty,
    )
    return {
        "hausdorff95": found.hausdorff.tolist(),
        "average_distance": found.average.tolist(),
        "surface_dice": found.dice.tolist(),
    }
