"""Seeds and priors from the image alone: what a user would paint and model. Runs on the host in NumPy."""

import itertools
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rwalk.checks import InputError

AGREE = 0.6  # share of a voxel's neighbours that must be of its class


def classes_of(values: np.ndarray, classes: int, bins: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Split values into the classes with the least variance within, exactly on a histogram, by dynamic programming.

    Args:
        values: `[N]`.
        classes: number of classes.
        bins: of the histogram.

    Returns:
        Class of each value `[N]`, in ascending order of the centres, and the centres `[classes]`.

    Raises:
        InputError: the values fill fewer bins than there are classes.

    Source: the criterion of Otsu 1979; the recursion of Fisher 1958.
    """
    counts, edges = np.histogram(values, bins)
    if (filled := int((counts > 0).sum())) < classes:
        raise InputError(
            f"seeds.classes={classes}: the image has {filled} values that can be told apart; lower seeds.classes, or "
            "paint seeds and give seeds=file seeds.path=FILE"
        )
    middle = (edges[1:] + edges[:-1]) / 2 - edges.mean()
    mass, first, second = (np.concatenate([[0.0], np.cumsum(counts * middle**power)]) for power in (0, 1, 2))
    inside = mass[None] - mass[:, None]  # [from, to] of the bins from <= b < to
    moment = first[None] - first[:, None]
    within = second[None] - second[:, None] - moment**2 / np.where(inside > 0, inside, 1)
    # An empty class is none: there must be as many as were asked for, wherever there are as many values.
    within = np.where(inside > 0, within, np.inf)
    best, cuts = within[0], []
    for _ in range(classes - 1):
        total = best[:, None] + within
        cuts.append(total.argmin(0))
        best = total.min(0)
    borders = [bins]
    for cut in reversed(cuts):
        borders.append(int(cut[borders[-1]]))
    inner = edges[borders[:0:-1]]
    labels = np.searchsorted(inner, values, side="right")
    sizes = np.bincount(labels, minlength=classes)
    return labels, np.bincount(labels, values, classes) / np.maximum(sizes, 1)


def automatic(
    image: np.ndarray, mask: np.ndarray, *, classes: int, every: float, spacing: tuple[float, ...]
) -> np.ndarray:
    """Place seeds: in every cube of the image, the voxel that is most typical of each class of intensity.

    Typical is who is surrounded by its own class and near its centre; a cube without such a voxel gets no seed.

    Args:
        image: `[C, *shape]`; the first channel decides.
        mask: `[*shape]` bool.
        classes: number of labels.
        every: edge of a cube, in the unit of `spacing`.
        spacing: edge lengths of a voxel.

    Returns:
        `[*shape]` int32, 0..classes-1 at a seed, in ascending order of intensity, -1 elsewhere.

    Raises:
        InputError: see `classes_of`.
    """
    values = image[0].astype(np.float64)
    labels = np.full(mask.shape, -1)
    labels[mask], centres = classes_of(values[mask], classes)
    seeds = np.full(mask.shape, -1, np.int32)
    around = 3**mask.ndim
    spread = np.ptp(centres) / max(classes - 1, 1)
    for label in range(classes):
        same = labels == label
        share = ndimage.uniform_filter(same.astype(np.float64), 3, mode="constant") * around / (around - 1)
        share = share - same / (around - 1)
        score = np.where(same & (share >= AGREE), share - np.abs(values - centres[label]) / spread, -np.inf)
        for best in best_of_cubes(score, every, spacing):
            seeds[best] = label
    return seeds


def best_of_cubes(score: np.ndarray, every: float, spacing: tuple[float, ...]) -> Iterator[tuple[int, ...]]:
    """Place of the largest finite score in every cube that has one."""
    edges = [max(round(every / edge), 1) for edge in spacing]
    cubes = [range(0, size, edge) for size, edge in zip(score.shape, edges, strict=True)]
    for corner in itertools.product(*cubes):
        part = score[tuple(slice(c, c + edge) for c, edge in zip(corner, edges, strict=True))]
        best = np.unravel_index(part.argmax(), part.shape)
        if np.isfinite(part[best]):
            yield tuple(int(c + b) for c, b in zip(corner, best, strict=True))


def from_truth(truth: np.ndarray, mask: np.ndarray, *, every: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Place seeds as a user would who knows: in every cube of the image, the voxel deepest inside each label.

    A voxel beside another label is taken only where a label has no better one in the whole image.

    Args:
        truth: `[*shape]` labels, -1 where nothing is known.
        mask: `[*shape]` bool.
        every: edge of a cube, in the unit of `spacing`.
        spacing: edge lengths of a voxel.

    Returns:
        `[*shape]` int32, -1 where there is no seed; every label that has a voxel in the mask has a seed.
    """
    seeds = np.full(mask.shape, -1, np.int32)
    for label in np.unique(truth[mask & (truth >= 0)]):
        inside = mask & (truth == label)
        depth = ndimage.distance_transform_edt(np.pad(inside, 1), (*spacing,))
        depth = depth[(slice(1, -1),) * mask.ndim]
        chosen = list(best_of_cubes(np.where(depth > 1.01 * min(spacing), depth, -np.inf), every, spacing))
        for place in chosen or [np.unravel_index(depth.argmax(), depth.shape)]:
            seeds[place] = label
    return seeds


def intensity_priors(image: np.ndarray, mask: np.ndarray, seeds: np.ndarray, regions: int) -> np.ndarray:
    """Probability of each label from the intensity alone: a normal density per label, fitted to its seeds.

    Args:
        image: `[C, *shape]`.
        mask: `[*shape]` bool.
        seeds: `[*shape]`, -1 where there is none.
        regions: number of labels L.

    Returns:
        `[L, *shape]` float32, sums to one inside the mask, zero outside.

    Source: the intensity priors of Andrews, Hamarneh and Saad 2010, with normal densities (ours).
    """
    x = image[:, mask].astype(np.float64)
    floor = (0.02 * np.ptp(x, axis=1)) ** 2 + np.finfo(np.float32).tiny  # a label with one seed has no variance
    logs = np.full((regions, x.shape[1]), -np.inf)
    for label in range(regions):
        own = image[:, (seeds == label) & mask].astype(np.float64)
        if own.size:
            variance = np.maximum(own.var(1), floor)
            squared = (x - own.mean(1)[:, None]) ** 2 / variance[:, None]
            logs[label] = -0.5 * (squared.sum(0) + np.log(variance).sum())
    p = np.exp(logs - logs.max(0))
    priors = np.zeros((regions, *mask.shape), np.float32)
    priors[:, mask] = p / p.sum(0)
    return priors
