"""Landmarks of a registration and how far they end from where they belong. Runs on the host in NumPy.

Legend: m landmarks, d axes of space; points are `[m, d]` in voxels of the fixed grid.
"""

import math

import numpy as np
from scipy import ndimage

from rwalk.seeding import best_of_cubes

EVERY = 20.0  # mm, edge of the cubes that have one landmark each
BLUR = 1.5  # voxels over which gradients are gathered

Points = tuple[np.ndarray, np.ndarray]


def with_truth(fixed: np.ndarray, mask: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> Points:
    """Corners of the fixed image and the points of the moving one to which a field that is known takes them."""
    points = corners(fixed, mask, every=EVERY, spacing=spacing)
    return points, points + along(truth, points)


def centres(fixed: np.ndarray, moved: np.ndarray) -> Points:
    """Centres of mass of the labels above zero that both maps have, `[*shape]` integers each.

    A centre is no point of the anatomy: of a label that reaches through the whole brain it says little.
    """
    shared = np.intersect1d(np.unique(fixed), np.unique(moved))
    inner = shared[shared > 0]
    first, second = (
        np.array(ndimage.center_of_mass(np.ones(labels.shape), labels, inner)).reshape(len(inner), -1)
        for labels in (fixed, moved)
    )
    return first, second


def corners(image: np.ndarray, mask: np.ndarray, *, every: float, spacing: tuple[float, ...]) -> np.ndarray:
    """The voxel of each cube that is told apart best from its neighbours along every axis.

    With C the mean of grad I grad I^T around a voxel it is the one with the largest det C^(1/d); a cube whose best is
    below the median over all cubes gets none.

    Args:
        image: `[*shape]`.
        mask: `[*shape]` bool, where landmarks may lie.
        every: edge of a cube, in the unit of `spacing`.
        spacing: edge lengths of a voxel.

    Returns:
        `[m, d]` integers as floats.

    Source: the operator of Rohr 1997, with a root that makes it linear in the squared contrast.
    """
    d = image.ndim
    slopes = np.gradient(ndimage.gaussian_filter(image.astype(np.float64), 1.0), *spacing)
    tensor = np.empty((*image.shape, d, d))
    for a in range(d):
        for b in range(a, d):
            tensor[..., a, b] = tensor[..., b, a] = ndimage.gaussian_filter(slopes[a] * slopes[b], BLUR)
    strength = np.maximum(np.linalg.det(tensor), 0) ** (1 / d)
    found = list(best_of_cubes(np.where(mask & (strength > 0), strength, -np.inf), every, spacing))
    least = np.median([strength[place] for place in found]) if found else math.inf
    return np.array([place for place in found if strength[place] >= least], np.float64).reshape(-1, d)


def distances(points: Points, spacing: tuple[float, ...]) -> np.ndarray:
    """|x - y| of the pairs of points, `[m]`, in the unit of `spacing`."""
    return np.linalg.norm((points[0] - points[1]) * np.array(spacing), axis=1)


def along(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A field `[d, *shape]` at points between voxels, linearly, `[m, d]`."""
    return np.stack([ndimage.map_coordinates(part, points.T, order=1, mode="nearest") for part in field], 1)
