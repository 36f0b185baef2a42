"""Arrays that are mapped from files: reading them piece by piece, and giving their memory back."""

import mmap
from collections.abc import Iterator

import numpy as np

SLAB = 1 << 21  # voxels handled at once: 16 MB of float64, the only memory a mapped volume needs


def file_behind(array: object) -> np.memmap | None:
    """The memory-mapped array that owns the pages behind an array or a view of it; None where nothing is mapped."""
    found = None
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            found = array
        array = array.base
    return found


def release(array: object) -> None:
    """Give back the pages of a mapped file, which otherwise count as memory of the process until it ends.

    They are read again when they are needed. A copy-on-write map (mode `c`) may hold changes and keeps its pages.
    """
    mapped = file_behind(array)
    if mapped is None or mapped.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if isinstance(mapped.base, mmap.mmap):
        mapped.base.madvise(mmap.MADV_DONTNEED)


def slabs(data: np.ndarray, *others: np.ndarray, lead: int = 0, size: int = SLAB) -> Iterator[tuple[slice, ...]]:
    """Slices that cover an array along its slowest axis in memory, so that a mapped file is read front to back.

    The pages of a mapped file are given back when the next slab is asked for.

    Args:
        data: any array, its first `lead` axes are never cut.
        *others: arrays that are read along with it.
        lead: number of leading axes (1 for a soft map).
        size: elements per slab at most, where one layer of the slowest axis is not larger already.

    Yields:
        Index tuples; together they cover the array once.
    """
    if data.ndim == lead:
        yield (slice(None),) * lead
        return
    axis = max(range(lead, data.ndim), key=lambda a: abs(data.strides[a]))
    length = data.shape[axis]
    step = max(1, size * length // max(data.size, 1))
    for start in range(0, length, step):
        yield (slice(None),) * axis + (slice(start, start + step),)
        for array in (data, *others):
            release(array)


def plane(data: np.ndarray, axis: int, place: int, *, lead: int = 0) -> np.ndarray:
    """One plane of a volume, read slab by slab: across a mapped file it would otherwise pull in all of its pages.

    Args:
        data: `[*spatial]`, or `[K, *spatial]` with `lead=1`.
        axis: spatial axis that is cut.
        place: index along it.
        lead: number of axes before the spatial ones.

    Returns:
        A copy without the axis.
    """
    across = axis + lead
    found = np.empty(data.shape[:across] + data.shape[across + 1 :], data.dtype)
    for slab in slabs(data, lead=lead):
        index = (*slab, *(slice(None),) * (data.ndim - len(slab)))
        inside = place - (index[across].start or 0)
        block = data[index]
        if 0 <= inside < block.shape[across]:
            found[index[:across] + index[across + 1 :]] = block.take(inside, axis=across)
    return found
