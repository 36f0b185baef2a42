"""The pairs of a registration: a fixed image, a moving one brought onto its grid, and what is known of both."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from rwalk import io
from rwalk.checks import InputError, check_image, check_label_map
from rwalk.data import Case
from rwalk.io import Volume
from rwalk.resampling import places, resample

LOW, HIGH = 0.5, 99.5  # percentiles of the intensities that become 0 and 1
Window = tuple[float, float]
FADE = 0.35  # share of an edge over which a random field grows from none at the border


class Pair(NamedTuple):
    """What is to be registered.

    Attributes:
        fixed: `[*shape]` float32, intensities brought to [0, 1].
        moving: likewise, resampled onto the fixed grid by the two affines.
        mask: `[*shape]` bool, where results are measured.
        grid: the fixed file.
        source: the moving file on its own grid.
        window: intensities of that file that are 0 and 1 in `moving`.
        labels: `[*shape]` label map of the fixed image, None where there is none.
        moving_labels: the moving image's, on the fixed grid.
        values: `[L]` what the files call the labels 0..L-1, the first the background; None: they call them so too.
        names: of the labels.
        truth: `[d, *shape]` the field that registers them exactly, voxels; None where it is not known.
        name: of the pair.
    """

    fixed: np.ndarray
    moving: np.ndarray
    mask: np.ndarray
    grid: Volume
    source: Volume
    window: Window
    labels: np.ndarray | None
    moving_labels: np.ndarray | None
    values: np.ndarray | None
    names: tuple[str, ...]
    truth: np.ndarray | None
    name: str


def window_of(x: np.ndarray) -> Window:
    """The intensities that become 0 and 1: two percentiles of those above the smallest, or zero if that is less."""
    inside = x[x > x.min()]
    low, high = np.percentile(inside if inside.size else x, [LOW, HIGH])
    return min(float(low), 0.0), float(high)


def to_unit(x: np.ndarray, window: Window | None = None) -> np.ndarray:
    """Intensities of a window, its own by default, mapped to [0, 1] and cut there, float32."""
    low, high = window_of(x) if window is None else window
    return np.clip((x - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)


def from_files(case: Case, path: str | None, labels: str | None, reference: str | None) -> Pair:
    """The user's moving image beside the fixed one.

    Args:
        case: the fixed image.
        path: of the moving image.
        labels: label map of the moving image, on any grid with an affine.
        reference: label map of the fixed image, likewise.

    Returns:
        The pair.

    Raises:
        InputError: a file cannot be read or does not fit.
    """
    if path is None:
        raise InputError("moving.path: required; give moving.path=FILE, or moving=warp for a made-up one")
    if (labels is None) != (reference is None):
        missing = "moving.reference" if reference is None else "moving.labels"
        raise InputError(f"{missing}: required with the other label map; Dice needs one of either image")
    grid, source = case.volume, io.read(path)
    moving = resample(source, grid, order=1)
    check_image(source.data[:1].astype(np.float32), np.ones(source.data.shape[1:], bool), source.name)
    if not places(grid, source)[1].any():
        raise InputError(f"{path}: does not overlap with {grid.name} in space; check the affines of both")
    maps = [_labels(file, grid) for file in (reference, labels) if file is not None]
    values = np.union1d(0, maps).astype(np.int32) if maps else None  # with the background, be it there or not
    known, moved = (None, None) if values is None else (np.searchsorted(values, each) for each in maps)
    names = () if values is None else tuple(f"label {value}" for value in values)
    mask = case.uncut(case.mask.astype(np.uint8)) > 0
    name = f"{Path(path).name} onto {case.name}"
    window = window_of(moving)
    fixed, unit = to_unit(grid.data[0]), to_unit(moving, window)
    return Pair(fixed, unit, mask, grid, source, window, known, moved, values, names, None, name)


def _labels(path: str, grid: Volume) -> np.ndarray:
    """A label map on the fixed grid, `[*shape]` int32."""
    volume = io.read(path, indices=True)
    check_label_map(volume.data, path)
    return resample(volume, grid, order=0).astype(np.int32)


def of_cases(case: Case, other: Case) -> Pair:
    """Two cases on one grid, with the labels of both; their places in space are taken to be the same.

    Raises:
        InputError: the grids differ in shape.
    """
    if case.full != other.full:
        raise InputError(f"{other.name}: shape {other.full}, {case.name} has {case.full}; give the same image.pool")
    source = other.volume._replace(affine=case.volume.affine)
    labels, moved = (None if each.truth is None else each.uncut(each.truth) for each in (case, other))
    mask = case.uncut(case.mask.astype(np.uint8)) > 0
    window = window_of(other.volume.data[0])
    fixed, moving = to_unit(case.volume.data[0]), to_unit(other.volume.data[0], window)
    name = f"{other.name} onto {case.name}"
    return Pair(fixed, moving, mask, case.volume, source, window, labels, moved, None, case.names, None, name)


def smooth_field(
    shape: tuple[int, ...], spacing: tuple[float, ...], amplitude: float, smoothness: float, seed: int
) -> np.ndarray:
    """Normal noise blurred to a length, scaled to a root mean square displacement.

    Args:
        shape: of the grid.
        spacing: edge lengths of a voxel, mm.
        amplitude: root mean square of |u|, mm.
        smoothness: standard deviation of the blur, mm.
        seed: of the noise.

    Returns:
        `[d, *shape]`, voxels; none outside a border over which it fades.
    """
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(shape), *shape))
    sigmas = [smoothness / edge for edge in spacing]
    blurred = np.stack([ndimage.gaussian_filter(part, sigmas, mode="reflect") for part in noise])
    for axis, size in enumerate(shape):
        fade = np.clip((np.minimum(np.arange(size), np.arange(size)[::-1])) / max(FADE * size, 1), 0, 1)
        blurred = blurred * (np.sin(np.pi / 2 * fade) ** 2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    edges = np.array(spacing).reshape(-1, *(1,) * len(shape))
    return (amplitude * blurred / np.sqrt((blurred**2).sum(0).mean()) / edges).astype(np.float32)


def warped(case: Case, *, amplitude: float, smoothness: float, noise: float, seed: int) -> Pair:
    """The fixed image, bent by a random field that is known, with noise: what a registration should undo.

    With M(j) = F(j + v(j)), the field that takes F to M is the inverse of v.

    Args:
        case: the fixed image.
        amplitude: root mean square displacement, mm.
        smoothness: of the field, mm.
        noise: standard deviation, share of the intensities' range.
        seed: of both.

    Returns:
        The pair, with its truth.

    Raises:
        InputError: the field folds, so that nothing undoes it.
    """
    import jax.numpy as jnp

    from rwalk import warp

    shape = case.full
    v = jnp.asarray(smooth_field(shape, case.spacing, amplitude, smoothness, seed))
    if float(warp.jacobian(v).min()) <= 0.1:
        raise InputError(
            f"moving: a warp of {amplitude:g} mm that is smooth over {smoothness:g} mm folds; lower moving.amplitude "
            "or raise moving.smoothness"
        )
    truth = np.asarray(warp.invert(v, steps=60))
    fixed = to_unit(case.volume.data[0])
    moving = np.asarray(warp.sample(jnp.asarray(fixed)[None], v)[0])
    moving = moving + noise * np.random.default_rng(seed + 1).standard_normal(shape).astype(np.float32)
    labels = moved = None
    if case.truth is not None:
        labels = case.uncut(case.truth if case.names else case.truth + 1)  # as in the user's file, 0 not known
        moved = np.asarray(warp.sample(jnp.asarray(labels, v.dtype)[None], v, order=0)[0]).astype(np.int32)
    mask = case.uncut(case.mask.astype(np.uint8)) > 0
    source: Any = case.volume._replace(data=moving[None], name=f"{case.name}, warped")
    unit = (0.0, 1.0)
    return Pair(fixed, moving, mask, case.volume, source, unit, labels, moved, None, case.names, truth, source.name)
