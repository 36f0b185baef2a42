"""Region benchmark of a segmentation hierarchy against several annotators.

A hierarchy is an ultrametric contour map on the doubled grid (`ucm2`): cell (2r + 1, 2c + 1) is pixel (r, c), the cells
between pixels hold the height at which their regions merge. Thresholding at t and labelling the 8-connected cells at or
below t gives the segmentation of level t, and regions only merge as t grows. So one labelling and one contingency of
the finest level serve all thresholds: a merge adds rows.

Legend: T thresholds, R regions of the finest level, G annotators' regions of an image all put side by side.

NumPy and SciPy on the host, in float64: every image has its own R and G, and padding them to one shape costs more than
the work itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

THRESHOLDS = np.linspace(0.01, 0.99, 99)


class Tally(NamedTuple):
    """Additive results of the region benchmark, over one image or many.

    `best` fields take, image by image, the threshold that is best for that image.
    """

    images: np.ndarray
    """[] number of images."""
    area: np.ndarray
    """[] pixels, once per annotator."""
    covered: np.ndarray
    """[T] sum over annotators' regions of area times best overlap with a region of level t."""
    covered_image: np.ndarray
    """[] the same at the best threshold of each image."""
    covered_region: np.ndarray
    """[] the same at the best threshold of each annotator's region."""
    rand: np.ndarray
    """[T] Rand index, averaged over annotators, summed over images."""
    rand_image: np.ndarray
    """[] the same at the best threshold of each image."""
    information: np.ndarray
    """[T] variation of information in bits, averaged over annotators, summed over images."""
    information_image: np.ndarray
    """[] the same at the best threshold of each image."""


def add(a: Tally, b: Tally) -> Tally:
    """Tally of both sets of images; associative, so images may be counted in any grouping."""
    return Tally(*(x + y for x, y in zip(a, b, strict=True)))


def empty(thresholds: int = len(THRESHOLDS)) -> Tally:
    """Tally of no image at all, the zero of `add`.

    Args:
        thresholds: number of levels T.
    """
    level, total = np.zeros(thresholds), np.zeros(())
    return Tally(total, total, level, total, total, level, total, level, total)


def summary(tally: Tally, thresholds: np.ndarray = THRESHOLDS) -> dict[str, float]:
    """Figures of the benchmark: at the best threshold of the data set (ODS) and of each image (OIS).

    Args:
        tally: sum over the images.
        thresholds: `[T]` the levels that were tallied.

    Returns:
        `covering/{ods,ods_threshold,ois,best}`, `rand/{ods,ods_threshold,ois}` (probabilistic Rand index) and
        `information/{ods,ods_threshold,ois}` (variation of information, bits).

    Raises:
        ValueError: the tally holds no image, or another number of thresholds.

    Source: Arbelaez et al. 2011, section 5.2.
    """
    if tally.images == 0:
        raise ValueError("the tally holds no image; add one with `tally` first")
    if len(tally.rand) != len(thresholds):
        raise ValueError(f"the tally holds {len(tally.rand)} thresholds, got {len(thresholds)}; pass the same ones")
    images, area = float(tally.images), float(tally.area)
    best = {
        "covering": int(np.argmax(tally.covered)),
        "rand": int(np.argmax(tally.rand)),
        "information": int(np.argmin(tally.information)),
    }
    figures = {
        "covering/ods": tally.covered[best["covering"]] / area,
        "covering/ois": tally.covered_image / area,
        "covering/best": tally.covered_region / area,
        "rand/ods": tally.rand[best["rand"]] / images,
        "rand/ois": tally.rand_image / images,
        "information/ods": tally.information[best["information"]] / images,
        "information/ois": tally.information_image / images,
    }
    figures |= {f"{name}/ods_threshold": thresholds[index] for name, index in best.items()}
    return {name: float(value) for name, value in figures.items()}


def tally(ucm2: np.ndarray, annotations: Sequence[np.ndarray], thresholds: np.ndarray = THRESHOLDS) -> Tally:
    """Score one image's hierarchy against its annotators at every threshold.

    Args:
        ucm2: `[2 H + 1, 2 W + 1]` merge heights, at most the lowest threshold at the pixels `[1::2, 1::2]`.
        annotations: label maps `[H, W]`, integers >= 0, one per annotator.
        thresholds: `[T]` ascending levels.

    Returns:
        The tally of one image.

    Raises:
        ValueError: shapes do not belong together, thresholds do not ascend, or there is no annotation.
        TypeError: an annotation does not hold integers.

    Source: Arbelaez et al. 2011, sections 2.3 and 5.2; merging along the hierarchy instead of recounting is ours.
    """
    ucm2, thresholds = np.asarray(ucm2), np.asarray(thresholds)
    annotations = [np.asarray(labels) for labels in annotations]
    if thresholds.ndim != 1 or len(thresholds) == 0 or (np.diff(thresholds) <= 0).any():
        raise ValueError("thresholds must be a non-empty ascending list; sort them and drop repeated values")
    labels = segment(ucm2, thresholds[0])
    _check(annotations, labels.shape)
    finest = int(labels.max()) + 1
    nodes = _merge_tree(finest, *_borders(ucm2, labels, thresholds), len(thresholds))
    table, owner = _contingency(labels, annotations, finest)
    return _measure(nodes, table, owner, len(thresholds))


def segment(ucm2: np.ndarray, threshold: float) -> np.ndarray:
    """Segmentation of one level of a hierarchy.

    Args:
        ucm2: `[2 H + 1, 2 W + 1]` merge heights, at most `threshold` at the pixels `[1::2, 1::2]`.
        threshold: regions that merge at or below it are one.

    Returns:
        `[H, W]` int32 labels in 0..R-1.

    Raises:
        ValueError: not a doubled grid, or a pixel lies above the threshold.

    Source: Arbelaez et al. 2011, section 4.
    """
    ucm2 = np.asarray(ucm2)
    if ucm2.ndim != 2 or min(ucm2.shape) < 3 or ucm2.shape[0] % 2 == 0 or ucm2.shape[1] % 2 == 0:
        raise ValueError(f"ucm2 must be [2 height + 1, 2 width + 1], got {ucm2.shape}; pass the doubled grid")
    pixels = ucm2[1::2, 1::2]
    if not (pixels <= threshold).all():
        raise ValueError(
            f"ucm2 must not exceed the lowest threshold {threshold:g} at the pixels [1::2, 1::2], got "
            f"{pixels.max():g}; is it a ucm2 of heights between pixels?"
        )
    return ndimage.label(ucm2 <= threshold, np.ones((3, 3)))[0][1::2, 1::2] - 1


def _check(annotations: list[np.ndarray], shape: tuple[int, ...]) -> None:
    if not annotations:
        raise ValueError("annotations must hold at least one label map, got none")
    for i, labels in enumerate(annotations):
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"annotation {i} must hold integer labels, got {labels.dtype}")
        if labels.shape != shape:
            raise ValueError(f"annotation {i} must have the size of the image, {shape}, got {labels.shape}")
        if labels.min() < 0 or labels.max() > labels.size:
            raise ValueError(f"annotation {i} has labels in {labels.min()}..{labels.max()}; relabel them to 0..K-1")


def _borders(ucm2: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of touching finest regions and the level at which the border between them opens, each pair at its lowest.

    Two neighbouring pixels are joined at t by the cell between them or, with 8-connected cells, by either corner at its
    ends; diagonal neighbours are joined through that same corner and a common neighbour.
    """
    pairs = []
    for heights, pixels in ((ucm2, labels), (ucm2.T, labels.T)):
        between = heights[:, 2:-1:2]
        opens = np.minimum(np.minimum(between[:-1:2], between[1::2]), between[2::2])
        left, right = pixels[:, :-1], pixels[:, 1:]
        border = left != right
        pairs.append((left[border], right[border], opens[border]))
    first, second, opens = (np.concatenate(part) for part in zip(*pairs, strict=True))
    level = np.searchsorted(thresholds, opens)
    # One integer that orders by pair and then by level; levels reach len(thresholds), which is "never".
    low, high = np.minimum(first, second).astype(np.int64), np.maximum(first, second)
    stride = len(thresholds) + 1
    regions = int(labels.max()) + 1
    key = np.unique((low * regions + high) * stride + level)
    pair, level = np.divmod(key, stride)
    lowest = np.diff(pair, prepend=-1) != 0
    low, high = np.divmod(pair[lowest], regions)
    return low, high, level[lowest]


class _Nodes(NamedTuple):
    """Every region that any level shows. As leaves in `order`, node n is the run `start[n]:stop[n]`."""

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    birth: np.ndarray
    """First level that shows the node."""
    death: np.ndarray
    """First level that no longer does."""


def _merge_tree(regions: int, low: np.ndarray, high: np.ndarray, level: np.ndarray, levels: int) -> _Nodes:
    """Binary tree of merges (single linkage) over the finest regions, cut down to the nodes that a level shows."""
    weights = sparse.coo_array((level + 1, (low, high)), shape=(regions, regions)).tocsr()
    tree = csgraph.minimum_spanning_tree(weights).tocoo()
    ascending = np.argsort(tree.data, kind="stable")
    merges = zip(tree.row[ascending].tolist(), tree.col[ascending].tolist(), strict=True)
    total = 2 * regions - 1
    root, size = list(range(total)), [1] * total
    children: list[tuple[int, int]] = []

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = node = root[root[node]]
        return node

    for node, (a, b) in enumerate(merges, regions):
        a, b = find(a), find(b)
        root[a] = root[b] = node
        size[node] = size[a] + size[b]
        children.append((a, b))
    start = [0] * total
    for node in range(total - 1, regions - 1, -1):
        a, b = children[node - regions]
        start[a] = start[node]
        start[b] = start[node] + size[a]
    birth = np.concatenate([np.zeros(regions, int), tree.data[ascending].astype(int) - 1])
    death = np.full(total, levels)
    if children:
        death[np.array(children)] = birth[regions:, None]
    first, stop = np.array(start), np.array(start) + np.array(size)
    order = np.empty(regions, int)
    order[first[:regions]] = np.arange(regions)
    shown = birth < death
    return _Nodes(order, first[shown], stop[shown], birth[shown], death[shown])


def _contingency(labels: np.ndarray, annotations: list[np.ndarray], regions: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[R, G]` of the finest regions against all annotators' regions, and the annotator of each column `[G]`."""
    tables = []
    for annotation in annotations:
        columns = int(annotation.max()) + 1
        cells = labels.ravel() * columns + annotation.ravel()
        tables.append(np.bincount(cells, minlength=regions * columns).reshape(regions, columns))
    owner = np.repeat(np.arange(len(tables)), [table.shape[1] for table in tables])
    return np.concatenate(tables, axis=1), owner


def _measure(nodes: _Nodes, table: np.ndarray, owner: np.ndarray, levels: int) -> Tally:
    """All measures at all levels, from the counts of each node once."""
    annotators, pixels = int(owner[-1]) + 1, int(table.sum()) // (int(owner[-1]) + 1)
    area = table.sum(0)
    running = np.zeros((len(table) + 1, table.shape[1]), np.int64)
    np.cumsum(table[nodes.order], axis=0, out=running[1:])
    shared = running[nodes.stop] - running[nodes.start]
    size = shared[:, owner == 0].sum(1)

    node, column = np.nonzero(shared)
    count = shared[node, column]
    overlap = np.zeros(shared.shape)
    overlap[node, column] = count / (size[node] + area[column] - count)
    best = np.stack([overlap[(nodes.birth <= t) & (t < nodes.death)].max(0) for t in range(levels)])
    covered = best @ area

    def by_level(values: np.ndarray, of: np.ndarray | slice) -> np.ndarray:
        """Sum of `values` of the nodes `of` that each level shows."""
        change = np.bincount(nodes.birth[of], values, levels + 1) - np.bincount(nodes.death[of], values, levels + 1)
        return np.cumsum(change)[:levels]

    # Sums over annotators at once: each sees the same regions of the hierarchy.
    squares = [by_level(count.astype(float) ** 2, node), by_level(size.astype(float) ** 2, slice(None)) * annotators]
    squares.append((area.astype(float) ** 2).sum())
    pairs = pixels * (pixels - 1) / 2
    rand = 1 - (squares[1] / 2 + squares[2] / 2 - squares[0]) / (pairs * annotators) if pairs else np.ones(levels)
    logs = [by_level(_n_log_n(count), node), by_level(_n_log_n(size), slice(None)) * annotators, _n_log_n(area).sum()]
    information = (logs[1] + logs[2] - 2 * logs[0]) / (pixels * annotators)
    totals = (np.float64(area.sum()), covered, covered.max(), best.max(0) @ area)
    return Tally(np.ones(()), *(np.asarray(x) for x in (*totals, rand, rand.max(), information, information.min())))


def _n_log_n(count: np.ndarray) -> np.ndarray:
    return count * np.log2(np.maximum(count, 1))
