"""The voxels of a case: in memory on the devices, or read block by block from mapped files."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from evalmetrics import pairs
from evalmetrics.mapped import file_behind
from evalmetrics.streaming import pair_stats_streamed, read_blocks
from evalmetrics.volumes import Volume

DIVISOR = 512  # the voxels before the last few are spread over the devices; any usual number of them divides this


class MostProbable:
    """Label map of a soft map, computed where it is sliced; what streaming needs of an array.

    Args:
        soft: `[K, *spatial]`.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, soft: np.ndarray) -> None:
        self._soft, self.shape, self.ndim = soft, soft.shape[1:], soft.ndim - 1
        self.strides = soft.strides[1:]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self._soft[(slice(None), *index)]).argmax(0).astype(np.int32)


class Voxels:
    """Voxels of two volumes on one grid.

    Args:
        reference: label or soft map.
        prediction: of the same grid.
        stream: bytes from which a mapped file is read in blocks.
        place: puts the voxel axis of an array onto the devices.
    """

    def __init__(self, reference: Volume, prediction: Volume, stream: int, place: Callable[..., Any]) -> None:
        self.reference, self.prediction, self._place = reference, prediction, place
        sides = (reference, prediction)
        large = max(side.data.nbytes for side in sides) >= stream
        self._streamed = large and any(file_behind(side.data) is not None for side in sides)
        self._maps = [side.data for side in sides] if self._streamed else _flat(*sides)

    def stats(self, *, crisp: bool = False, **options: Any) -> pairs.PairStats:
        """Statistics of all voxels.

        Args:
            crisp: of the most probable labels instead of the probabilities.
            **options: as in `pairs.pair_stats`.

        Returns:
            PairStats.
        """
        options["regions"] = (len(self.reference.names), len(self.prediction.names))
        soft = (self.reference.soft, self.prediction.soft)
        if self._streamed:
            lazy = [MostProbable(x) if crisp and s else x for x, s in zip(self._maps, soft, strict=True)]
            return pair_stats_streamed(*lazy, **options)
        maps = [x.argmax(0).astype(np.int32) if crisp and s else x for x, s in zip(self._maps, soft, strict=True)]
        first, *rest = (pairs.pair_stats(*piece, **options) for piece in self._pieces(maps))
        return pairs.merge(first, rest[0]) if rest else first

    def blocks(self) -> Iterator[tuple[Any, Any]]:
        """Reference and prediction, `[n]` or `[K, n]` each, piece by piece."""
        if self._streamed:
            yield from (tuple(block) for block in read_blocks(self._maps, [], None))  # type: ignore[misc]
        else:
            yield tuple(self._maps)  # type: ignore[misc]

    def _pieces(self, maps: list[np.ndarray]) -> Iterator[tuple[Any, ...]]:
        """The voxels that the devices can divide among them, then the few at the end, whole on each."""
        voxels = maps[0].shape[-1]
        head = voxels - voxels % DIVISOR
        for piece in (slice(0, head), slice(head, voxels)):
            if piece.stop > piece.start:
                yield tuple(self._place(np.ascontiguousarray(x[..., piece]), axis=-1) for x in maps)


def _flat(reference: Volume, prediction: Volume) -> list[np.ndarray]:
    """Both volumes as `[N]` or `[K, N]`; NIfTI keeps its first axis fastest, so axes are reversed to spare the copy."""
    sides = (reference, prediction)
    data = [side.data for side in sides]
    if all(side.data[(0,) * int(side.soft)].flags.f_contiguous for side in sides):
        lead = [int(side.soft) for side in sides]
        data = [x.transpose(*range(n), *range(x.ndim - 1, n - 1, -1)) for x, n in zip(data, lead, strict=True)]
    return [x.reshape((*x.shape[: int(s.soft)], -1)) for x, s in zip(data, sides, strict=True)]
