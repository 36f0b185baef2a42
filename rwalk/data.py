"""The cases of a run: an image with its mask and place in space, cut to the mask, coarser if asked for."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from rwalk import io
from rwalk.checks import InputError, check_image, check_priors, check_seeds
from rwalk.io import Volume
from rwalk.pooling import average, coarser, most_common, seeds_of_cubes
from rwalk.resampling import resample

TISSUES = ("rest", "grey matter", "white matter")
GROUPS = {  # FreeSurfer's numbers of structures, left and right
    "fluid and rest": (0, 24, 30, 31, 62, 63, 80),
    "cortex": (3, 8, 42, 47),
    "white matter": (2, 7, 41, 46, 77, 85, 251, 252, 253, 254, 255),
    "ventricles": (4, 5, 14, 15, 43, 44, 72),
    "deep grey matter": (10, 11, 12, 13, 26, 28, 49, 50, 51, 52, 58, 60),
    "hippocampus and amygdala": (17, 18, 53, 54),
    "brain stem": (16,),
}


class Fine(NamedTuple):
    """An image of the user's before it was pooled.

    Attributes:
        volume: the file.
        mask: `[*shape]` bool.
        factor: voxels along the edge of a cube.
    """

    volume: Volume
    mask: np.ndarray
    factor: int


class Case(NamedTuple):
    """What is to be segmented.

    Attributes:
        image: `[C, *shape]` float32, cut to the bounding box of the mask.
        mask: `[*shape]` bool.
        spacing: edge lengths of a voxel.
        affine: `[4, 4]` of the grid before the cut, None where the format has none.
        corner: first voxel of the cut in that grid.
        full: shape of that grid.
        truth: `[*shape]` labels 0..L-1, -1 at voxels of which nothing is known, None if that is all of them.
        names: of the labels where the truth names them.
        volume: the file on that grid, to compare seeds and priors to.
        name: of the case.
        fine: the image before pooling, on whose grid seeds and priors may lie as well; None: it was not pooled.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None
    corner: tuple[int, ...]
    full: tuple[int, ...]
    truth: np.ndarray | None
    names: tuple[str, ...]
    volume: Volume
    name: str
    fine: Fine | None = None

    def before(self, volume: Volume) -> Fine | None:
        """The image before pooling, where a file is not of the shape after it."""
        return None if volume.data.shape[1:] == self.full else self.fine

    def cut(self, x: np.ndarray) -> np.ndarray:
        """The part of `[..., *full]` that is segmented."""
        box: Any = (..., *(slice(c, c + s) for c, s in zip(self.corner, self.mask.shape, strict=True)))
        return x[box]

    def uncut(self, x: np.ndarray) -> np.ndarray:
        """`[..., *shape]` put back into the whole grid, zero around it."""
        lead = x.shape[: x.ndim - len(self.full)]
        whole = np.zeros((*lead, *self.full), x.dtype)
        self.cut(whole)[...] = x
        return whole


def make_case(
    volume: Volume, mask: np.ndarray, name: str, truth: np.ndarray | None = None, names: tuple[str, ...] = ()
) -> Case:
    """Check an image and cut it to its mask.

    Raises:
        InputError: see `rwalk.checks.check_image`.
    """
    check_image(volume.data, mask, volume.name)
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    corner = tuple(part.start for part in box)
    image = np.where(mask[box], volume.data[(slice(None), *box)], 0).astype(np.float32)
    cut = None if truth is None else truth[box]
    return Case(
        image, mask[box], volume.spacing, volume.affine, corner, mask.shape, cut, names, volume, name
    )  # fmt: skip


def from_file(path: str | None, mask: str | None, pool: int, truth: str | None = None) -> Case:
    """A case of the user's.

    Args:
        path: image file; see `rwalk.io.read`.
        mask: file whose voxels above zero are segmented; all voxels by default.
        pool: voxels along the edge of a cube that becomes one.
        truth: file of labels 1, 2, ... to score against; 0 is not known.

    Returns:
        The case.

    Raises:
        InputError: a file cannot be read or does not fit.
    """
    if path is None:
        raise InputError("image.path: required; give image.path=FILE")
    volume = io.read(path)
    inside: Any = np.ones((1, *volume.data.shape[1:]), np.float32)
    if mask is not None:
        other = io.read(mask)
        io.same_grid(other, volume, "mask")
        inside = (other.data > 0).any(0, keepdims=True).astype(np.float32)
        # What the mask leaves out may be NaN and must not spoil the cubes it is averaged into.
        volume = volume._replace(data=np.where(inside > 0, volume.data, 0))
    part = inside if pool == 1 else average(inside, pool)
    known = None if truth is None else most_common(io.read_seeds(truth, volume, "truth"), pool)
    case = make_case(coarser(volume, pool), part[0] > 0.5, Path(path).name, known)
    return case if pool == 1 else case._replace(fine=Fine(volume, inside[0] > 0, pool))


def read_seeds(path: str, case: Case) -> np.ndarray:
    """Seeds of a file on the whole grid of a case, or on that before pooling, cut to its mask.

    Args:
        path: of the file; see `rwalk.io.read_seeds`.
        case: the image.

    Returns:
        `[*shape]` int32, 0..L-1 at a seed, -1 elsewhere.

    Raises:
        InputError: see `rwalk.io.read_seeds`, `rwalk.checks.check_seeds` and `rwalk.pooling.seeds_of_cubes`.
    """
    if case.fine is not None and (fine := case.before(io.read(path))) is not None:
        seeds = io.read_seeds(path, fine.volume)
        check_seeds(seeds, fine.mask, path)
        seeds = seeds_of_cubes(np.where(fine.mask, seeds, -1), fine.factor, path)
    else:
        seeds = io.read_seeds(path, case.volume)
    check_seeds(seeds, case.uncut(case.mask), path)  # before the cut, which takes away what lies far outside
    return case.cut(seeds)


def read_priors(path: str, case: Case, *, close: bool) -> np.ndarray:
    """Priors of a file on the whole grid of a case, or on that before pooling, cut to its mask.

    Args:
        path: of the file, labels on the channel axis.
        case: the image.
        close: see `rwalk.checks.check_priors`.

    Returns:
        `[L, *shape]` float32, one in sum inside the mask, zero outside.

    Raises:
        InputError: the file lies elsewhere, or see `rwalk.checks.check_priors`.
    """
    volume = io.read(path)
    priors = volume.data.astype(np.float32)
    if (fine := case.before(volume)) is not None:
        io.same_grid(volume, fine.volume, "prior")
        priors = average(check_priors(priors, fine.mask, path, close=close), fine.factor)
        priors /= np.maximum(average(fine.mask[None].astype(np.float32), fine.factor), 1e-12)  # over the mask alone
    else:
        io.same_grid(volume, case.volume, "prior")
    return check_priors(case.cut(priors), case.mask, path, close=close)


def public(path: str | None, name: str) -> Path:
    """Folder of a public data set: the one given, or `rwalk/NAME` under the environment variable QUARTET_DATA.

    Raises:
        InputError: there is none.
    """
    root = os.environ.get("QUARTET_DATA")
    folder = Path(path) if path is not None else Path(root) / "rwalk" / name if root else None
    if folder is None or not folder.is_dir():
        where = "QUARTET_DATA is not set" if folder is None else f"{folder} is no folder"
        raise InputError(
            f"image.path: {where}; give image.path=FOLDER of {name}, or set QUARTET_DATA to what holds rwalk/{name}"
        )
    return folder


def labels46(path: str | None, pool: int, *, grouped: bool) -> Case:
    """The T1 brain with 46 values of structures that comes with VoxelMorph's examples, 1 mm.

    Args:
        path: folder that holds `test_scan.npz` (`vol`, `seg`); None: under QUARTET_DATA.
        pool: voxels along the edge of a cube that becomes one.
        grouped: seven groups of structures instead of each.

    Returns:
        The case; its mask is the largest piece of what is not black.
    """
    file = public(path, "brain_46_labels") / "test_scan.npz"
    try:
        with np.load(file, allow_pickle=False) as held:
            image, found = held["vol"].astype(np.float32), held["seg"].astype(np.int32)
    except (OSError, KeyError, ValueError) as fault:
        raise InputError(f"{file}: cannot be read ({fault}); it needs the arrays vol and seg") from fault
    if grouped:
        truth, names = np.zeros_like(found), tuple(GROUPS)
        for number, values in enumerate(GROUPS.values()):
            truth[np.isin(found, values)] = number
    else:
        values, flat = np.unique(found, return_inverse=True)
        truth, names = flat.reshape(found.shape), tuple(f"structure {value}" for value in values)
    return _head(Volume(image[None], (1.0,) * 3, np.eye(4), str(file)), truth, names, pool, "brain-46-labels")


def pair(path: str | None, which: str, pool: int) -> Case:
    """One of the two T1 brains that come with LapIRN's examples, 1 mm: rest, cortex and deep grey, white matter.

    Args:
        path: folder that holds both; None: under QUARTET_DATA.
        which: A or B.
        pool: voxels along the edge of a cube that becomes one.

    Returns:
        The case; its mask is the largest piece of what is not black.
    """
    folder = public(path, "brain_pair")
    image = io.read(folder / f"image_{which}_160x192x144.nii.gz")
    truth = io.read(folder / f"image_{which}_160x192x144_seg.nii.gz")
    labels = resample(truth, image, order=0)  # the first one's lies on a grid of its own
    return _head(image, labels.astype(np.int32), TISSUES, pool, f"brain-{which}")


def _head(image: Volume, truth: np.ndarray, names: tuple[str, ...], pool: int, name: str) -> Case:
    brain = coarser(image._replace(data=(image.data > 0).astype(np.float32)), pool)
    mask = largest_piece(brain.data[0] > 0.5)
    return make_case(coarser(image, pool), mask, name, most_common(truth, pool), names)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The connected component with most voxels."""
    pieces, _ = ndimage.label(mask)
    return pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1


def plane_of(volume: Volume, index: int) -> Volume:
    """One plane across the third axis, in its place."""
    affine = volume.affine
    if affine is not None:
        move = np.eye(4)
        move[2, 3] = index
        affine = affine @ move
    return Volume(volume.data[..., index], volume.spacing[:2], affine, volume.name)


def mni(pool: int, plane: int | None = None) -> Case:
    """The MNI ICBM152 T1 brain, 1 mm, with its tissue maps as truth: rest, grey matter, white matter.

    They come with the installed package nilearn.

    Args:
        pool: voxels along the edge of a cube that becomes one.
        plane: one plane across the third axis, counted before the pooling; None: the volume.

    Returns:
        The case; its mask is the largest piece of the brain.

    Raises:
        InputError: there is no such plane.
    """
    from importlib.resources import files

    folder = Path(str(files("nilearn"))) / "datasets" / "data"
    t1, grey, white = (io.read(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in
                       ("t1", "gm", "wm"))  # fmt: skip
    if plane is not None:
        if not 0 <= plane < t1.data.shape[-1] or not (t1.data[..., plane] > 0).any():
            raise InputError(f"image.plane={plane}: no brain there; the volume has planes 0 to {t1.data.shape[-1] - 1}")
        t1, grey, white = (plane_of(volume, plane) for volume in (t1, grey, white))
    brain = t1._replace(data=(t1.data > 0).astype(np.float32), name="brain")
    t1, grey, white, brain = (coarser(volume, pool) for volume in (t1, grey, white, brain))
    mask = largest_piece(brain.data[0] > 0.5)
    soft = np.stack([np.zeros(mask.shape, np.float32), grey.data[0] / 255.0, white.data[0] / 255.0])
    soft[0] = np.maximum(1 - soft[1] - soft[2], 0)
    return make_case(t1, mask, "mni152-t1", soft.argmax(0), TISSUES)
