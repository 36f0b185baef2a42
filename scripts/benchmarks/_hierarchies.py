"""Images for the region benchmark: a few of BSDS500 where they are at hand, made-up ones of the same format otherwise.

Arrays of image i are named `ucm2_<i>` (`[2 H + 1, 2 W + 1]`) and `annotation_<i>_<annotator>` (`[H, W]`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

Range = tuple[int, int]


def images(data: Path | None, count: int, size: tuple[int, int] = (321, 481)) -> dict[str, np.ndarray]:
    """Arrays of `count` images, from `data/evalmetrics/bsds500_test` if that exists, else made up."""
    folder = data / "evalmetrics" / "bsds500_test" if data else None
    return real(folder, count) if folder and folder.is_dir() else made_up(count, size)


def real(folder: Path, count: int) -> dict[str, np.ndarray]:
    """The first images of the BSDS500 test set, with their gPb-owt-ucm hierarchies."""
    from evalmetrics.data import Bsds500

    source, arrays = Bsds500(folder), {}
    for i, name in enumerate(source.names[:count]):
        arrays[f"ucm2_{i}"] = source.ucm2(name)
        for annotator, labels in enumerate(source.annotations(name)):
            arrays[f"annotation_{i}_{annotator}"] = labels
    return arrays


def unpack(arrays: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Hierarchy and annotations of each image."""
    count = sum(name.startswith("ucm2_") for name in arrays)
    return [
        (arrays[f"ucm2_{i}"], [array for name, array in arrays.items() if name.startswith(f"annotation_{i}_")])
        for i in range(count)
    ]


def made_up(count: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Hierarchies by random guillotine cuts, which get lower as the pieces get smaller; annotators by nearest seeds."""
    rng = np.random.default_rng(0)
    arrays = {}
    for i in range(count):
        ucm2 = np.zeros((2 * size[0] + 1, 2 * size[1] + 1))
        _cut(ucm2, rng, (0, size[0]), (0, size[1]), 1.0)
        arrays[f"ucm2_{i}"] = ucm2
        for annotator in range(5):
            arrays[f"annotation_{i}_{annotator}"] = _nearest_seed(rng, size, int(rng.integers(8, 30)))
    return arrays


def _cut(ucm2: np.ndarray, rng: np.random.Generator, rows: Range, columns: Range, top: float) -> None:
    """Cut a rectangle of pixels in two at a height below `top`, and go on with the halves."""
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    if max(height, width) < 10 or top < 0.02:
        return
    below = top * rng.uniform(0.6, 1)
    if height >= width:
        at = int(rng.integers(rows[0] + 3, rows[1] - 2))
        ucm2[2 * at, 2 * columns[0] + 1 : 2 * columns[1]] = below
        halves = ((rows[0], at), columns), ((at, rows[1]), columns)
    else:
        at = int(rng.integers(columns[0] + 3, columns[1] - 2))
        ucm2[2 * rows[0] + 1 : 2 * rows[1], 2 * at] = below
        halves = (rows, (columns[0], at)), (rows, (at, columns[1]))
    for half in halves:
        _cut(ucm2, rng, *half, below)


def _nearest_seed(rng: np.random.Generator, size: tuple[int, int], seeds: int) -> np.ndarray:
    places = rng.uniform(0, 1, (seeds, 2)) * size
    rows, columns = np.ogrid[: size[0], : size[1]]
    away = [(rows - row) ** 2 + (columns - column) ** 2 for row, column in places]
    return np.argmin(away, axis=0).astype(np.int32)
