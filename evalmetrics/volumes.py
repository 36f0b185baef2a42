"""One segmentation in memory or mapped from disk: what its numbers mean, its labels, its place in space.

Legend: a label map is whole-numbered `[*spatial]`, values 0..K-1; a soft map is part-first `[K, *spatial]`, floating or
bool.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from evalmetrics.mapped import release, slabs
from evalmetrics.readers import InputError, Raw

Kind = Literal["auto", "labels", "probabilities"]
MOST_REGIONS = 4096  # more different values than this are an image's intensities, not labels


class Volume(NamedTuple):
    """One segmentation.

    Attributes:
        data: label map (whole numbers, `[*spatial]`, 0..K-1) or soft map (`[K, *spatial]`); may be memory-mapped.
        affine: `[4, 4]` voxel index to millimetres, or None where the file has no place in space.
        spacing: edge lengths of a voxel, one per spatial axis.
        names: K names of regions.
        values: K label values of the file, ascending, or None for a soft map.
        path: where it came from.
    """

    data: np.ndarray
    affine: np.ndarray | None
    spacing: tuple[float, ...]
    names: tuple[str, ...]
    values: tuple[int, ...] | None
    path: str

    @property
    def soft(self) -> bool:
        """True for a soft map, False for a label map."""
        return self.values is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, without the axis of parts."""
        return self.data.shape[1:] if self.soft else self.data.shape

    def index_of(self, region: int | str) -> int | None:
        """Index of the region of this label value (soft map: of this part) or this name, None where there is none."""
        if isinstance(region, str):
            return self.names.index(region) if region in self.names else None
        known = range(len(self.names)) if self.values is None else self.values
        return known.index(region) if region in known else None


def first_index(slab: np.ndarray, index: tuple[slice, ...], bad: np.ndarray) -> tuple[tuple[int, ...], object]:
    """Place in the whole array, and value, of the first True of `bad`, which covers the slab at `index`."""
    inside = np.unravel_index(int(np.argmax(bad)), bad.shape)
    starts = [piece.start or 0 for piece in index] + [0] * (bad.ndim - len(index))
    return tuple(int(i) + start for i, start in zip(inside, starts, strict=True)), slab[inside].item()


def distinct(data: np.ndarray, path: str) -> np.ndarray:
    """Label values of a map, ascending, found slab by slab.

    Raises:
        InputError: a value is NaN, fractional or negative, or there are too many of them for a label map.
    """
    found = np.zeros(0, np.int64)
    for index in slabs(data):
        slab = np.asarray(data[index])
        if slab.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                bad = ~(slab == np.rint(slab)) | ~np.isfinite(slab)
            if bad.any():
                place, value = first_index(slab, index, bad)
                raise InputError(
                    f"{path}: label value {value} at voxel {place}; labels are whole numbers from 0: "
                    "round them, or say kind=probabilities"
                )
        whole = slab.astype(np.int64).ravel()
        low, high = int(whole.min()), int(whole.max())
        if low < 0:
            place, value = first_index(slab, index, slab < 0)
            raise InputError(
                f"{path}: label value {value} at voxel {place}; labels are whole numbers from 0: relabel the region"
            )
        here = np.flatnonzero(np.bincount(whole - low)) + low if high - low < 1 << 22 else np.unique(whole)
        found = np.union1d(found, here)
    if len(found) > MOST_REGIONS:
        raise InputError(
            f"{path}: {len(found)} different values; a label map has at most {MOST_REGIONS} regions: "
            "this looks like an intensity image, give the segmentation"
        )
    return found


def relabel(data: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace each label value by its place in `values`; the array itself (no copy) where nothing would change."""
    if np.array_equal(values, np.arange(len(values))) and data.dtype.kind in "iu":
        return data
    narrow = np.uint8 if len(values) <= 256 else np.uint16
    indices = np.empty_like(data, dtype=narrow, subok=False)
    table = None
    if values[-1] < 1 << 22:
        table = np.zeros(int(values[-1]) + 1, narrow)
        table[values] = np.arange(len(values))
    for index in slabs(data):
        slab = np.asarray(data[index])
        slab = slab.astype(np.int64) if slab.dtype.kind not in "iu" or slab.dtype == np.uint64 else slab
        indices[index] = np.searchsorted(values, slab) if table is None else table[slab]
    return indices


def _is_whole(data: np.ndarray) -> bool:
    if data.dtype.kind != "f":
        return True
    for index in slabs(data):
        slab = np.asarray(data[index])
        if not np.isfinite(slab).all() or not (slab == np.rint(slab)).all():
            return False
    return True


def _sums_to_one(data: np.ndarray) -> bool:
    """Whether the first axis holds the parts of a composition, seen on at most 4096 voxels spread over the array."""
    if data.shape[0] < 2:
        return False
    voxels = int(np.prod(data.shape[1:]))
    places = np.unravel_index(np.linspace(0, voxels - 1, min(voxels, 4096)).astype(int), data.shape[1:])
    index: tuple[Any, ...] = (slice(None), *places)
    parts = data[index].astype(np.float64)
    release(data)
    return bool((parts >= -1e-6).all() and (np.abs(parts.sum(0) - 1) < 1e-2).all())


def parts_axis(raw: Raw, kind: Kind, path: str) -> int | None:
    """Axis of the parts, None where the map is spatial throughout.

    The rule, first match wins: an axis the format declares to be channels; more axes than space has (the first one is
    the parts); with `kind=probabilities`, or for floating and bool data of two or more axes, a first axis along which
    everything sums to one; otherwise none.

    Raises:
        InputError: the array has too many axes, or labels were asked of a map with channels.
    """
    axis = raw.parts
    if axis is None and raw.data.ndim > raw.spatial:
        axis = 0
    if raw.data.ndim - (axis is not None) > 3:
        raise InputError(
            f"{path}: has {raw.data.ndim} axes {raw.data.shape}; allowed are 3 of space and 1 of parts: split it"
        )
    may_be_soft = raw.data.dtype.kind in "fb" or kind == "probabilities"
    if (
        axis is None
        and raw.data.ndim >= 2
        and kind != "labels"
        and may_be_soft
        and raw.spatial == 3
        and raw.affine is None
    ):
        axis = 0 if _sums_to_one(raw.data) else None
    if axis is not None and kind == "labels":
        if raw.data.shape[axis] == 1:
            return axis
        raise InputError(
            f"{path}: kind=labels, but axis {axis} holds {raw.data.shape[axis]} channels; a label map has only "
            "axes of space: say kind=auto or give a label map"
        )
    return axis


def _unit(data: np.ndarray) -> np.ndarray:
    """Unsigned whole numbers as fractions of their type's largest value; anything else as it is."""
    if data.dtype.kind == "u" and int(data.max()) > 1:
        return data.astype(np.float32) / np.float32(np.iinfo(data.dtype).max)
    return data if data.dtype.kind in "fb" else data.astype(np.float32)


def single_region(data: np.ndarray, path: str) -> np.ndarray:
    """Probability of one region, `[*spatial]`, from a mask, a map of fractions or a map of unsigned whole numbers.

    Raises:
        InputError: a value is NaN or lies outside [0, 1].
    """
    if data.dtype.kind in "iu":
        values = distinct(data, path)
        if len(values) <= 2 and values[0] == 0:  # a mask, whatever number marks the inside
            return data != 0
    data = _unit(data)
    for index in slabs(data):
        slab = np.asarray(data[index])
        if slab.dtype.kind != "f":
            continue
        if np.isnan(slab.min()):
            place, _ = first_index(slab, index, np.isnan(slab))
            raise InputError(
                f"{path}: NaN at voxel {place}; allowed are labels or probabilities: replace it, e.g. by 0"
            )
        bad = (slab < -1e-6) | (slab > 1 + 1e-2)
        if bad.any():
            place, value = first_index(slab, index, bad)
            raise InputError(
                f"{path}: value {value} at voxel {place} is neither a label (a whole number) nor a probability "
                "(in [0, 1]): give one of the two, or say kind=labels or kind=probabilities"
            )
    return data


def interpret(raw: Raw, kind: Kind, path: str, names: dict[int, str] | None) -> Volume:
    """Decide what a file's numbers mean and put them into the layout of the package.

    With an axis of parts (see `parts_axis`) the map is soft. Without one it is a label map if every number is whole
    (whatever its type) or `kind=labels`, otherwise the probability p of a single region, given as two parts (1-p, p).

    Args:
        raw: what the reader found.
        kind: `auto` decides by type, dimension and values; `labels` and `probabilities` overrule it.
        path: for messages and names.
        names: names by label value or part, overruling those of the file.

    Returns:
        The volume; its data is a view of the file where no change was needed.

    Raises:
        InputError: the numbers fit neither meaning.
    """
    names = {**(raw.names or {}), **(names or {})}
    axis = parts_axis(raw, kind, path)
    ndim = raw.data.ndim - (axis is not None)
    spacing = raw.spacing if raw.spacing is not None and len(raw.spacing) == ndim else (1.0,) * ndim
    if axis is not None and raw.data.shape[axis] > 1:
        data = np.moveaxis(raw.data, axis, 0)
        data = data if data.dtype.kind in "fb" else _channels(data, path, kind)
        return Volume(data, raw.affine, spacing, tuple(names.get(k, f"part {k}") for k in range(len(data))), None, path)
    data = raw.data if axis is None else np.moveaxis(raw.data, axis, 0)[0]
    if kind == "labels" or (kind == "auto" and _is_whole(data)):
        values = distinct(data, path)
        known = {0: "background", **names}
        labels = tuple(known.get(int(v), f"label {int(v)}") for v in values)
        return Volume(relabel(data, values), raw.affine, spacing, labels, tuple(int(v) for v in values), path)
    inside = single_region(data, path)
    outside = ~inside if inside.dtype == bool else 1 - inside
    pair = (names.get(0, "background"), names.get(1, "region"))
    return Volume(np.stack([outside, inside]), raw.affine, spacing, pair, None, path)


def _channels(data: np.ndarray, path: str, kind: Kind) -> np.ndarray:
    """Whole-numbered channels: masks become bool, fractions of the type's range are taken only when asked for."""
    high, low = int(data.max()), int(data.min())
    if low >= 0 and high <= 1:
        return data.astype(bool)
    if kind == "probabilities" and data.dtype.kind == "u":
        return _unit(data)
    raise InputError(
        f"{path}: whole-numbered channels with values {low}..{high}; channels are probabilities in [0, 1] or masks of "
        "0 and 1: say kind=probabilities to divide by the type's largest value, or give fractions"
    )
