"""A file on the grid of another, by the affines of both. Runs on the host in NumPy."""

import numpy as np
from scipy import ndimage

from rwalk.checks import InputError
from rwalk.io import Volume


def between(grid: Volume, source: Volume) -> np.ndarray:
    """`[d + 1, d + 1]` matrix from indices of `grid` to indices of `source`, by their affines.

    Raises:
        InputError: the two have not the same number of axes, or only one has an affine and the shapes differ.
    """
    d = grid.data.ndim - 1
    if source.data.ndim - 1 != d:
        raise InputError(f"{source.name}: {source.data.ndim - 1} axes of space, {grid.name} has {d}; give equally many")
    if grid.affine is None or source.affine is None:
        if grid.data.shape[1:] != source.data.shape[1:]:
            raise InputError(
                f"{source.name}: shape {source.data.shape[1:]}, {grid.name} has {grid.data.shape[1:]} and there are no "
                "affines to tell how they lie; resample one to the grid of the other"
            )
        return np.eye(d + 1)
    full = np.linalg.inv(source.affine) @ grid.affine
    keep = [*range(d), 3]
    return full[np.ix_(keep, keep)]


def places(grid: Volume, source: Volume, field: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where the voxels of a grid, moved by a field, lie in a file.

    Args:
        grid: the voxels.
        source: the file.
        field: `[d, *shape]` voxels of `grid`; zero by default.

    Returns:
        Indices of `source`, `[d, *shape]`, and whether they are inside of it, to half a voxel, `[*shape]`.

    Raises:
        InputError: see `between`.
    """
    matrix = between(grid, source)
    points = np.indices(grid.data.shape[1:]).astype(np.float64)
    points = points if field is None else points + field
    points = np.tensordot(matrix[:-1, :-1], points, 1) + matrix[:-1, -1].reshape(-1, *(1,) * (points.ndim - 1))
    last = np.array(source.data.shape[1:]).reshape(-1, *(1,) * (points.ndim - 1)) - 1
    return points, (np.abs(points - last / 2) <= last / 2 + 0.5).all(0)


def resample(source: Volume, grid: Volume, field: np.ndarray | None = None, *, order: int) -> np.ndarray:
    """The first channel of a file on another grid, moved by a field.

    Args:
        source: the file.
        grid: where to.
        field: `[d, *shape]` voxels of `grid`; zero by default.
        order: 1 interpolates intensities linearly, 0 takes the nearest label.

    Returns:
        `[*shape]`; beyond its border an image goes on with its border's value, as in `rwalk.warp`, labels are zero.

    Raises:
        InputError: see `between`.
    """
    points, inside = places(grid, source, field)
    found = ndimage.map_coordinates(source.data[0], points, order=order, mode="nearest")
    return found if order else np.where(inside, found, np.zeros((), found.dtype))
