"""Volumes from one grid to another in the same world space, by their affines.

Legend: an affine `[4, 4]` takes voxel indices (i, j, k, 1) to world coordinates in mm.
"""

import itertools

import numpy as np
from scipy import ndimage


def onto(
    volume: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, ...],
    target: np.ndarray,
    *,
    order: int,
    outside: float = 0,
) -> np.ndarray:
    """Sample a volume at the voxels of another grid.

    Args:
        volume: `[x, y, z]`.
        affine: `[4, 4]` of the volume.
        shape: of the other grid, three numbers.
        target: `[4, 4]` of the other grid.
        order: 0 nearest neighbour (labels), 1 linear (probabilities).
        outside: value where the other grid leaves the volume.

    Returns:
        `[*shape]` in the dtype of `volume`.

    Raises:
        ValueError: not three axes, an affine that is not `[4, 4]` or cannot be inverted, or `order` not 0 or 1.
    """
    _check(affine, target)
    if volume.ndim != 3 or len(shape) != 3:
        raise ValueError(f"volume and shape must have three axes, got {volume.shape} and {tuple(shape)}")
    if order not in (0, 1):
        raise ValueError(f"order must be 0 (nearest) or 1 (linear), got {order}; others leave the range of the data")
    between = np.linalg.solve(affine, target)
    return ndimage.affine_transform(
        volume, between[:3, :3], between[:3, 3], tuple(shape), order=order, mode="grid-constant", cval=outside
    )


def window(shape: tuple[int, ...], affine: np.ndarray, other: tuple[int, ...], target: np.ndarray) -> tuple[slice, ...]:
    """Smallest box of a grid that holds all of another grid that lies within it, with one voxel around.

    Args:
        shape: of the grid that is cut.
        affine: `[4, 4]` of it.
        other: shape of the other grid.
        target: `[4, 4]` of the other grid.

    Returns:
        Three slices.

    Raises:
        ValueError: the grids do not overlap, or an affine is not `[4, 4]` or cannot be inverted.
    """
    _check(affine, target)
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in other))])
    inside = (np.linalg.solve(affine, target) @ corners.T)[:3]
    first = np.maximum(np.floor(inside.min(1)).astype(int) - 1, 0)
    last = np.minimum(np.ceil(inside.max(1)).astype(int) + 2, shape)
    if (first >= last).any():
        raise ValueError(
            f"the grids {tuple(shape)} and {tuple(other)} do not overlap in world space; check the affines"
        )
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))


def shift(affine: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Affine `[4, 4]` of the part of a grid that `box` cuts out."""
    moved = np.array(affine, np.float64)
    moved[:3, 3] += moved[:3, :3] @ [part.start for part in box]
    return moved


def _check(*affines: np.ndarray) -> None:
    for affine in affines:
        if np.shape(affine) != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
            raise ValueError(f"an affine must be an invertible [4, 4] matrix, got {np.asarray(affine).tolist()}")
