"""Distances between the surfaces of regions, in 2-D and 3-D, through the library surface-distance.

Legend: K reference regions, K' predicted regions, n = max(K, K'). On the host: the library works in NumPy and SciPy.
Surfaces run between voxels, and every element counts with its length or area, so the figures do not depend on how
finely a flat face is cut.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import ndimage

Empty = Literal["one", "zero", "nan"]
EMPTY = ("one", "zero", "nan")


class SurfaceScores(NamedTuple):
    """Surface measures of matched regions, `[n]` float64 each, in reference order."""

    hausdorff: np.ndarray
    """Robust Hausdorff distance, in the unit of the spacing."""
    average: np.ndarray
    """Average symmetric surface distance, in the unit of the spacing."""
    dice: np.ndarray
    """Share of both surfaces that lies within the tolerance of the other, in [0, 1]."""


def surface_scores(
    reference: Any,
    prediction: Any,
    *,
    spacing: Sequence[float],
    tolerance: float,
    percent: float = 95.0,
    regions: tuple[int, int] | None = None,
    match: Any = None,
    empty: Empty = "one",
) -> SurfaceScores:
    """Compare the surface of each reference region with that of the region matched to it.

    With S, T the surfaces and d(x, T) the distance of a surface element to the nearest element of T, weighted by area:
    hausdorff = max of the two `percent` percentiles of d; average = mean of d over both surfaces together;
    dice = area of both with d <= tolerance / area of both.

    A region that is empty on one side only is as far away as can be: distances are infinite, dice is 0.

    Args:
        reference: label map `[*spatial]` of 2 or 3 axes, integers; a label outside 0..K-1 belongs to no region.
        prediction: label map of the same shape.
        spacing: size of a voxel along each axis; 2 or 3 positive numbers.
        tolerance: distance that counts as no error, in the unit of the spacing.
        percent: percentile of the robust Hausdorff distance; 100 is the Hausdorff distance itself.
        regions: (K, K'), counted where it is not given.
        match: `[n]` predicted region of each reference region, as in `Scores.match`; None takes region i for region i.
        empty: regions that are empty on both sides: "one" is perfect (0, 0, 1), "zero" is worst (inf, inf, 0), "nan"
            is not a number.

    Returns:
        SurfaceScores.

    Raises:
        ValueError: shapes, spacing, tolerance, percent, match or `empty` do not fit.
        TypeError: a map does not hold integers.

    Source: Nikolov et al. 2021 (surface Dice); Huttenlocher et al. 1993 (percentile of the Hausdorff distance).
    """
    maps = np.asarray(reference), np.asarray(prediction)
    _check(maps, spacing, tolerance, percent, empty)
    counts = regions or tuple(max(int(labels.max(initial=0)) + 1, 1) for labels in maps)
    slots = max(counts)
    match = np.arange(slots) if match is None else np.asarray(match)
    if match.shape != (slots,):
        raise ValueError(f"match must have one entry for each of {slots} regions, got shape {match.shape}")
    boxes = [_boxes(labels, count) for labels, count in zip(maps, counts, strict=True)]
    rows = np.empty((slots, 3))
    for i, j in enumerate(match.tolist()):
        first, second = boxes[0].get(i), boxes[1].get(j)
        if first is None and second is None:
            rows[i] = {"one": (0, 0, 1), "zero": (np.inf, np.inf, 0), "nan": (np.nan,) * 3}[empty]
        elif first is None or second is None:
            rows[i] = np.inf, np.inf, 0
        else:
            window = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True)
            )
            masks = maps[0][window] == i, maps[1][window] == j
            rows[i] = _compare(*masks, tuple(map(float, spacing)), tolerance, percent)
    return SurfaceScores(*rows.T)


def _check(
    maps: tuple[np.ndarray, np.ndarray], spacing: Sequence[float], tolerance: float, percent: float, empty: str
) -> None:
    for name, labels in zip(("reference", "prediction"), maps, strict=True):
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"{name} must hold integer labels, got {labels.dtype}; take an argmax of a soft map first")
    if maps[0].shape != maps[1].shape or maps[0].ndim not in (2, 3):
        raise ValueError(
            f"reference and prediction must share a shape of 2 or 3 axes, got {maps[0].shape} and {maps[1].shape}"
        )
    if len(spacing) != maps[0].ndim or not all(0 < size < np.inf for size in spacing):
        raise ValueError(f"spacing must be {maps[0].ndim} positive numbers, one per axis, got {tuple(spacing)}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be in (0, 100], got {percent}; 95 is usual")
    if empty not in EMPTY:
        raise ValueError(f"empty must be one of {', '.join(EMPTY)}, got {empty!r}")


def _boxes(labels: np.ndarray, count: int) -> dict[int, tuple[slice, ...]]:
    """Bounding box of every region that has a voxel; regions are cut out before they are compared."""
    shifted = np.where((labels >= 0) & (labels < count), labels, -1).astype(np.int64) + 1
    return {i: box for i, box in enumerate(ndimage.find_objects(shifted, count)) if box is not None}


def _compare(
    first: np.ndarray, second: np.ndarray, spacing: tuple[float, ...], tolerance: float, percent: float
) -> tuple[float, float, float]:
    import surface_distance

    with warnings.catch_warnings():
        # Release 0.1 still names functions of SciPy by their old modules.
        warnings.simplefilter("ignore", DeprecationWarning)
        elements = surface_distance.compute_surface_distances(first, second, spacing)
    distances = np.concatenate([elements["distances_gt_to_pred"], elements["distances_pred_to_gt"]])
    areas = np.concatenate([elements["surfel_areas_gt"], elements["surfel_areas_pred"]])
    return (
        float(surface_distance.compute_robust_hausdorff(elements, percent)),
        float((distances * areas).sum() / areas.sum()),
        float(surface_distance.compute_surface_dice_at_tolerance(elements, tolerance)),
    )
