"""Cubes of voxels that become one: of images, of label maps, of seeds. Runs on the host in NumPy."""

import numpy as np

from rwalk.checks import InputError
from rwalk.io import Volume


def _split(x: np.ndarray, factor: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """`[C, *shape]` with two axes for each of space, and those of the voxels within a cube."""
    shape = [size // factor for size in x.shape[1:]]
    x = x[(slice(None), *(slice(size * factor) for size in shape))]
    split = [part for size in shape for part in (size, factor)]
    return x.reshape(x.shape[0], *split), tuple(range(2, 2 * len(shape) + 1, 2))


def average(x: np.ndarray, factor: int) -> np.ndarray:
    """Mean over cubes of `factor` voxels, `[C, *shape]`; voxels that fill no cube are left out."""
    split, axes = _split(x, factor)
    return split.mean(axes)


def coarser(volume: Volume, factor: int) -> Volume:
    """The volume averaged over cubes of `factor` voxels, its affine moved to their centres."""
    if factor == 1:
        return volume
    if min(volume.data.shape[1:]) < 2 * factor:
        raise InputError(f"image.pool={factor}: the image has shape {volume.data.shape[1:]}; pool by less")
    affine = volume.affine
    if affine is not None:
        change = np.diag([*(factor,) * 3, 1.0]).astype(np.float64)
        change[: volume.data.ndim - 1, 3] = (factor - 1) / 2
        affine = affine @ change
    spacing = tuple(edge * factor for edge in volume.spacing)
    return Volume(average(volume.data.astype(np.float32), factor), spacing, affine, volume.name)


def most_common(labels: np.ndarray, factor: int) -> np.ndarray:
    """The label that most voxels of each cube have, `[*shape]` integers; the smaller one of equals."""
    if factor == 1:
        return labels
    best, share = None, None
    for label in np.unique(labels):
        here = average((labels == label)[None].astype(np.float32), factor)[0]
        if best is None or share is None:
            best, share = np.full(here.shape, label), here
        else:
            best, share = np.where(here > share, label, best), np.maximum(share, here)
    return np.asarray(best)


def seeds_of_cubes(painted: np.ndarray, factor: int, name: str) -> np.ndarray:
    """Seeds of cubes of `factor` voxels: a cube whose seeds are all of one label gets it.

    Args:
        painted: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        factor: voxels along the edge of a cube.
        name: of the file, for the message.

    Returns:
        The same for `[*coarse]`.

    Raises:
        InputError: a label has no cube of its own.
    """
    split, axes = _split(painted[None], factor)
    high, low = split.max(axes)[0], np.where(split < 0, np.iinfo(painted.dtype).max, split).min(axes)[0]
    result = np.where(high == low, high, -1)
    lost = np.setdiff1d(painted[painted >= 0], result)
    if lost.size:
        raise InputError(
            f"image.pool={factor}: all seeds of label {', '.join(str(label + 1) for label in lost)} in {name} share "
            "their cubes with other labels, or lie at the border where no cube is full; pool by less"
        )
    return result
