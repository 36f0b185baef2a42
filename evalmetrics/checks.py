"""The checked mode: everything that can be wrong with two segmentations, on the host, before a number is computed.

Volumes are read slab by slab, so that a memory-mapped file is checked without being loaded.
"""

from typing import Literal

import numpy as np

from evalmetrics.mapped import slabs
from evalmetrics.readers import InputError
from evalmetrics.volumes import Volume, first_index

Sums = Literal["strict", "close", "rest", "any"]
NEGLIGIBLE = 1e-6  # below zero by less than this is the rounding of an interpolation
AXES = ("x", "y", "z")


def check_shapes(reference: Volume, prediction: Volume) -> None:
    """Refuse two segmentations that do not share a grid.

    Args:
        reference: label or soft map.
        prediction: label or soft map.

    Raises:
        InputError: the number of axes or the length of an axis differs; the axis is named.
    """
    if len(reference.shape) != len(prediction.shape):
        raise InputError(
            f"{prediction.path}: has {len(prediction.shape)} axes {prediction.shape}, but {reference.path} has "
            f"{len(reference.shape)} {reference.shape}; both must lie on one grid: resample it, or set kind"
        )
    for axis, (there, here) in enumerate(zip(reference.shape, prediction.shape, strict=True)):
        if there != here:
            raise InputError(
                f"{prediction.path}: axis {axis} ({AXES[axis]}) has {here} voxels, but {reference.path} has {there} "
                f"({prediction.shape} against {reference.shape}); both must lie on one grid: resample the prediction"
            )


def check_affines(reference: Volume, prediction: Volume, tolerance: float | None = 0.01) -> None:
    """Refuse two grids that lie apart in space.

    The distance is the largest one between the places of a corner of the grid under the two affines.

    Args:
        reference: with an affine, or without (then nothing is checked).
        prediction: likewise.
        tolerance: largest distance allowed, mm; None allows any.

    Raises:
        InputError: a corner lies farther apart; its axis of largest displacement is named.
    """
    if tolerance is None or reference.affine is None or prediction.affine is None or len(reference.shape) != 3:
        return
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in reference.shape], indexing="ij")).reshape(3, -1)
    difference = (prediction.affine - reference.affine) @ np.vstack([corners, np.ones((1, corners.shape[1]))])
    distances = np.linalg.norm(difference[:3], axis=0)
    worst = int(np.argmax(distances))
    if not distances[worst] <= tolerance:
        axis = int(np.argmax(np.abs(difference[:3, worst])))
        raise InputError(
            f"{prediction.path}: lies {distances[worst]:.3g} mm away from {reference.path} at voxel "
            f"{tuple(corners[:, worst].tolist())}, most along axis {axis} ({AXES[axis]}); allowed are "
            f"{tolerance:g} mm: resample the prediction, or raise the affine tolerance"
        )


def check_channels(reference: Volume, prediction: Volume) -> None:
    """Refuse different numbers of regions where labels are ordered, so that region i means region i.

    Args:
        reference: label or soft map.
        prediction: label or soft map.

    Raises:
        InputError: the numbers differ.
    """
    here, there = len(prediction.names), len(reference.names)
    if here != there:
        raise InputError(
            f"{prediction.path}: axis 0 has {here} parts, but {reference.path} has {there}; ordered labels need equal "
            "numbers: add the missing part, or say labels=unordered"
        )


def check_probabilities(volume: Volume, *, sums: bool = True, tolerance: float = 1e-2) -> None:
    """Refuse NaN, negative values and parts that do not sum to one.

    Args:
        volume: soft map; a label map passes.
        sums: whether the parts of a voxel must sum to one.
        tolerance: largest distance of a sum from one (of a value from [0, 1] with `sums=False`).

    Raises:
        InputError: the first offending index `(part, *voxel)` and its value.
    """
    if not volume.soft or (volume.data.dtype == bool and not sums):
        return
    for index in slabs(volume.data, lead=1):
        slab = np.asarray(volume.data[index])
        if slab.dtype != bool:
            _check_values(volume.path, slab, index, sums, tolerance)
        if sums:
            total = slab.sum(0, dtype=np.float64 if slab.dtype == np.float64 else np.float32)
            bad = np.abs(total - 1) > tolerance
            if bad.any():
                place, value = first_index(total, index[1:], bad)
                raise InputError(
                    f"{volume.path}: the {slab.shape[0]} parts of voxel {place} sum to {value:.4g}; allowed is 1 "
                    f"within {tolerance:g}: normalise the map, or say sums=close (divide), rest (add a part) or any"
                )


def _check_values(path: str, slab: np.ndarray, index: tuple[slice, ...], sums: bool, tolerance: float) -> None:
    low, high = slab.min(), slab.max()
    if np.isnan(low):
        place, _ = first_index(slab, index, np.isnan(slab))
        raise InputError(
            f"{path}: NaN at index {place} (part, voxel); a probability is a number in [0, 1]: replace it, e.g. by 0"
        )
    if low < -NEGLIGIBLE:
        place, value = first_index(slab, index, slab < -NEGLIGIBLE)
        raise InputError(
            f"{path}: negative probability {value:.4g} at index {place} (part, voxel); allowed is [0, 1]: clip the map"
        )
    if high > 1 + tolerance and not sums:
        place, value = first_index(slab, index, slab > 1 + tolerance)
        raise InputError(
            f"{path}: probability {value:.4g} at index {place} (part, voxel); allowed is [0, 1]: normalise, or say "
            "sums=close"
        )


def close(volume: Volume) -> Volume:
    """Divide every voxel's parts by their sum.

    Args:
        volume: soft map `[K, *spatial]` without negative values; a label map is returned as it is.

    Returns:
        A copy that sums to one.

    Raises:
        InputError: a voxel has no mass at all, which no division can mend.
    """
    if not volume.soft:
        return volume
    closed = np.empty_like(volume.data, dtype=np.float32 if volume.data.dtype == bool else None, subok=False)
    for index in slabs(volume.data, lead=1):
        slab = np.asarray(volume.data[index])
        total = slab.sum(0, dtype=closed.dtype)
        if not (total > 0).all():
            place, value = first_index(total, index[1:], ~(total > 0))
            raise InputError(
                f"{volume.path}: the parts of voxel {place} sum to {value:.4g} and cannot be closed; a sum above 0 "
                "is needed: say sums=rest to give the voxel to a further part"
            )
        closed[index] = slab / total
    return volume._replace(data=closed)


def with_rest(volume: Volume, tolerance: float = 1e-2) -> Volume:
    """Put a part in front that takes what the others leave of one.

    Args:
        volume: soft map `[K, *spatial]` whose parts sum to at most one; a label map is returned as it is.
        tolerance: where no voxel leaves more than this, nothing is added.

    Returns:
        Soft map `[K + 1, *spatial]`, its first part named "rest".
    """
    if not volume.soft:
        return volume
    crisp = volume.data.dtype == bool
    data = np.empty((volume.data.shape[0] + 1, *volume.shape), np.float32 if crisp else volume.data.dtype)
    data[1:] = volume.data
    data[0] = np.clip(1 - data[1:].sum(0), 0, 1)
    if data[0].max() <= tolerance:
        return volume
    return volume._replace(data=data, names=("rest", *volume.names))


def checked(
    reference: Volume,
    prediction: Volume,
    *,
    labels: Literal["unordered", "ordered"] = "unordered",
    affine_tolerance: float | None = 0.01,
    sum_tolerance: float = 1e-2,
    sums: Sums = "strict",
) -> tuple[Volume, Volume]:
    """Check two segmentations of one case, and mend their sums where that was asked for.

    Args:
        reference: as `io.pair` returns it.
        prediction: as `io.pair` returns it.
        labels: `ordered` also asks for equal numbers of regions.
        affine_tolerance: largest distance of the two grids, mm; None allows any.
        sum_tolerance: largest distance of a voxel's sum from one.
        sums: `strict` refuses parts that do not sum to one, `close` divides by the sum, `rest` adds a part for the
            remainder, `any` takes them as they are.

    Returns:
        The two volumes; copies only where sums were mended.

    Raises:
        InputError: the first fault found, in one line.
    """
    if sums not in ("strict", "close", "rest", "any"):
        raise ValueError(f"sums={sums!r}; allowed are strict, close, rest, any")
    check_shapes(reference, prediction)
    check_affines(reference, prediction, affine_tolerance)
    mend = {"close": close, "rest": with_rest}.get(sums)
    sides = []
    for volume in (reference, prediction):
        if mend is not None:
            check_probabilities(volume, sums=False, tolerance=np.inf if sums == "close" else sum_tolerance)
        mended = volume if mend is None else mend(volume)
        check_probabilities(mended, sums=sums != "any", tolerance=sum_tolerance)
        sides.append(mended)
    if labels == "ordered":
        check_channels(*sides)
    return sides[0], sides[1]
