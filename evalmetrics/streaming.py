"""Statistics of maps that are larger than memory, read block by block.

Legend: K regions of the reference, K' of the prediction, N voxels. A sum over voxels does not ask for their order, so
each block is cut and copied in the order in which the file keeps it.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import jax
import numpy as np

from evalmetrics import arrays, chunks
from evalmetrics.mapped import release
from evalmetrics.pairs import PairStats, pair_stats

BLOCK_BYTES = 1 << 23  # of both maps together in the dtype of the files; three blocks are alive at once

_add = jax.jit(chunks.compensated_add)


def pair_stats_streamed(
    reference: Any,
    prediction: Any,
    *,
    weights: Any = None,
    regions: tuple[int, int] | None = None,
    block: int | None = None,
    **options: Any,
) -> PairStats:
    """Statistics of all pairs of regions of two maps that need not fit into memory.

    A block is read while the one before it is summed. Pages of a file mapped with mode `r` are given back after use;
    a copy-on-write map (mode `c`) may hold changes, so its pages stay until the system reclaims them.

    Args:
        reference: soft map `[K, *spatial]` or label map `[*spatial]`: NumPy array, memory-mapped in any order of axes,
            or anything with `shape`, `dtype` and slicing.
        prediction: soft map `[K', *spatial]` or label map `[*spatial]`, likewise.
        weights: `[*spatial]`, likewise; None counts every voxel once.
        regions: (K, K'), needed for label maps: their largest label is not known before the end.
        block: voxels per block; None takes about 8 MB of both maps.
        **options: as in `pair_stats`.

    Returns:
        PairStats, computed.

    Raises:
        ValueError: grids or options that do not fit, a label map without `regions`, or no voxels.
        TypeError: an input that is not an array of real numbers.
    """
    given = [reference, prediction] + ([] if weights is None else [weights])
    arrays.check_layout(*given)
    if regions is None and any(arrays.is_label_map(x) for x in given[:2]):
        raise ValueError("a streamed label map needs its number of regions: pass regions=(K, K')")
    total: Any = None
    lost: Any = None
    before: Any = None
    for read in read_blocks(given[:2], given[2:], block):
        # Copies of JAX's own: of NumPy's memory the last user may be a thread of XLA, which then needs the interpreter,
        # and aborts the process where that has begun to end.
        pieces = [jax.numpy.array(piece) for piece in read]
        piece = None if weights is None else pieces[2]
        part = pair_stats(pieces[0], pieces[1], weights=piece, regions=regions, **options)
        if total is None:
            total, lost = part, jax.tree.map(jax.numpy.zeros_like, part)
        else:
            total, lost = _add(total, lost, part)
        jax.block_until_ready(before)  # all but the newest block are done, so at most three are in memory
        before = part
    if total is None:
        raise ValueError(f"the maps have no voxels: shapes {[tuple(x.shape) for x in given]}")
    return jax.block_until_ready(total)


def read_blocks(maps: list[Any], grids: list[Any], block: int | None) -> Iterator[list[np.ndarray]]:
    """Read arrays on one voxel grid in blocks that follow their order on disk.

    Args:
        maps: soft maps `[K, *spatial]` and label maps `[*spatial]`.
        grids: arrays `[*spatial]` of any dtype.
        block: voxels per block, or None for about 8 MB of the maps.

    Yields:
        For each block the piece of every array, contiguous in memory and in one order of voxels.

    Raises:
        ValueError: block is not positive.
    """
    shape = arrays.spatial_shape(maps[0])
    channels = [0 if arrays.is_label_map(x) else 1 for x in maps] + [0] * len(grids)
    everything = [*maps, *grids]
    if block is None:
        each = sum(np.dtype(x.dtype).itemsize * (x.shape[0] if c else 1) for x, c in zip(maps, channels, strict=False))
        block = max(1, BLOCK_BYTES // each)
    if block < 1:
        raise ValueError(f"block must be at least 1 voxel, got {block}")
    orders = [slowest_first(x, c) for x, c in zip(everything, channels, strict=True)]
    for index in cut(shape, orders, block):
        yield [
            _read(x, (slice(None),) * c + index, (*range(c), *(a + c for a in orders[0])))
            for x, c in zip(everything, channels, strict=True)
        ]
        for x in everything:
            release(x)


def slowest_first(array: Any, channels: int) -> tuple[int, ...]:
    """Spatial axes from the one whose neighbours lie farthest apart in memory to the one whose lie closest.

    Args:
        array: array; one without strides is taken to be in C order.
        channels: 1 for a soft map, 0 for a label map.

    Returns:
        Permutation of the spatial axes, counted without the axis of regions.
    """
    axes = range(len(array.shape) - channels)
    strides = getattr(array, "strides", None)
    if strides is None:
        return tuple(axes)
    return tuple(sorted(axes, key=lambda a: -abs(strides[a + channels])))


def cut(shape: tuple[int, ...], orders: list[tuple[int, ...]], block: int) -> Iterator[tuple[slice, ...]]:
    """Cut a grid into boxes of at most `block` voxels, across the slowest axis of every array.

    Arrays in one order are cut into slabs that are contiguous on disk; where orders differ, the cut is shared between
    their slowest axes, so that neither array is read in single voxels.

    Args:
        shape: voxel grid.
        orders: for each array its axes, slowest first.
        block: voxels per box.

    Yields:
        Index of each box; together they cover the grid once.
    """
    size = list(shape)
    first = sorted({order[0] for order in orders if order})
    share = min(1.0, block / max(1, math.prod(shape))) ** (1 / max(1, len(first)))
    for axis in first:
        size[axis] = max(1, int(shape[axis] * share))
    for axis in orders[0]:
        if math.prod(size) <= block:
            break
        size[axis] = max(1, block * size[axis] // math.prod(size))
    ranges = [
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(shape, (max(1, s) for s in size), strict=True)
    ]
    yield from product(*ranges)


def _read(array: Any, index: tuple[slice, ...], axes: tuple[int, ...]) -> np.ndarray:
    piece = np.asarray(array[index]).transpose(axes)
    # A copy even where a view would do: the pages behind the view are given back.
    return np.array(piece, piece.dtype.newbyteorder("="), order="C", copy=True)
