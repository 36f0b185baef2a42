"""Reading images, masks, seeds and priors, and writing what came out: the only door between files and arrays."""

import locale
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rwalk.checks import InputError, check_label_map

NIFTI = (".nii", ".nii.gz", ".mgz")
NRRD = (".nrrd", ".nhdr")
TIFF = (".tif", ".tiff")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
ALLOWED = (*NIFTI, *NRRD, ".npy", *TIFF, *PICTURES)
AFFINE_TOLERANCE = 1e-2  # mm
VECTOR_INTENT = 1007  # NIFTI_INTENT_VECTOR
LPS = np.array([-1.0, -1.0, 1.0])  # ITK counts left and posterior as positive, NIfTI right and anterior


class Volume(NamedTuple):
    """Numbers of one file and their place in space.

    Attributes:
        data: `[C, *shape]`.
        spacing: edge lengths of a voxel, mm where the file has units, else ones.
        affine: `[4, 4]` voxel index to millimetres, None where the format has none.
        name: the path as given.
    """

    data: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None
    name: str


def suffix_of(path: str | os.PathLike) -> str:
    """The known ending of a file's name.

    Raises:
        InputError: the format is not known.
    """
    name = os.fspath(path).lower()
    found = max((suffix for suffix in ALLOWED if name.endswith(suffix)), key=len, default=None)
    if found is None:
        raise InputError(
            f"{path}: unsupported file type; supported are {', '.join(ALLOWED)} and a folder with a DICOM series: "
            "convert the file"
        )
    return found


def read(path: str | os.PathLike, *, indices: bool = False) -> Volume:
    """Read one file: NIfTI and MGZ (slices too, channels on the fourth axis), NRRD, npy, TIFF, a picture; or a folder.

    An npy array of two or three axes is one channel; of four, its first axis is the channels. A picture's colours are
    its channels, the pages of a TIFF are the slices of a volume. A folder holds one DICOM series.

    Args:
        path: the file, or the folder of a series.
        indices: keep the indices of a picture that has a palette, as label maps are kept, instead of its colours.

    Returns:
        Its numbers; a third axis of length one is dropped.

    Raises:
        InputError: missing, of another type, damaged, or not of two or three axes of space.
    """
    path = Path(path)
    series = path.is_dir()
    suffix = "DICOM" if series else suffix_of(path)
    if not (series or path.is_file()):
        raise InputError(f"{path}: no such file; check the path")
    try:
        volume = _read_series(path) if series else _read(path, suffix, indices)
    except InputError:
        raise
    except Exception as fault:  # each format's library has exceptions of its own
        reason = " ".join(str(fault).split())[:120]
        raise InputError(f"{path}: not a sound {suffix} file ({reason}); it may be truncated, copy it again") from fault
    if volume.data.ndim not in (3, 4) or 0 in volume.data.shape or volume.data.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: holds {volume.data.dtype} of shape {volume.data.shape[1:]}; allowed are numbers with two or "
            "three axes of space"
        )
    return volume


def _read(path: Path, suffix: str, indices: bool) -> Volume:
    if suffix in NIFTI:
        import nibabel

        image: Any = nibabel.load(path)
        data = np.asarray(image.dataobj)
        data = data[..., None] if data.ndim == 3 else data
        data = np.moveaxis(data, -1, 0) if data.ndim == 4 else data[None]
        spacing = tuple(float(edge) for edge in image.header.get_zooms()[: data.ndim - 1])
        if data.ndim == 4 and data.shape[-1] == 1:
            data, spacing = data[..., 0], spacing[:2]
        return Volume(data, spacing, np.asarray(image.affine, np.float64), str(path))
    if suffix in NRRD:
        return _read_nrrd(path)
    if suffix == ".npy":
        data = np.load(path, allow_pickle=False)
        data = data[None] if data.ndim < 4 else data
    elif suffix in TIFF:
        import tifffile

        file: Any
        with tifffile.TiffFile(path) as file:
            data = file.asarray()
            colours = file.pages.first.photometric == tifffile.PHOTOMETRIC.RGB
        data = np.moveaxis(data, -1, 0)[:3] if colours else data[None]
    else:
        from PIL import Image

        with Image.open(path) as image:
            coded = image.mode == "CMYK" or (image.mode == "P" and not indices)
            data = np.asarray(image.convert("RGB") if coded else image)
        data = np.moveaxis(data, -1, 0) if data.ndim == 3 else data[None]
        data = data[:-1] if data.shape[0] in (2, 4) else data  # the last is opacity
    return Volume(data, (1.0,) * (data.ndim - 1), None, str(path))


def _read_nrrd(path: Path) -> Volume:
    """NRRD with its axes as they are stored; the place in space is brought from the file's convention to RAS."""
    import nrrd

    data, header = nrrd.read(str(path))
    directions = header.get("space directions")
    d = data.ndim
    if directions is None:
        spacing = tuple(float(edge) for edge in header.get("spacings", (1.0,) * d))
        return Volume(data[None], spacing, None, str(path))
    rows = np.asarray(directions, np.float64)
    inside = np.isfinite(rows).all(1)  # an axis of channels has no direction
    if inside.sum() not in (2, 3) or d - inside.sum() > 1:
        raise InputError(f"{path}: {int(inside.sum())} axes of space and {d} in all; one of channels at most is read")
    channel = int(np.flatnonzero(~inside)[0]) if not inside.all() else None
    data = data[None] if channel is None else np.moveaxis(data, channel, 0)
    rows = rows[inside]
    spacing = tuple(float(edge) for edge in np.linalg.norm(rows, axis=1))
    if len(rows) != 3 or rows.shape[1] != 3:
        return Volume(data, spacing, None, str(path))
    space = str(header.get("space", "right-anterior-superior")).lower()
    named = {"lps": "left-posterior-superior", "las": "left-anterior-superior", "ras": "right-anterior-superior"}
    space = named.get(space, space)
    if space not in named.values():
        raise InputError(f"{path}: space {space!r}; allowed are {', '.join(named.values())}: convert the file")
    signs = [-1.0 if "left" in space else 1.0, -1.0 if "posterior" in space else 1.0, 1.0]
    affine = np.eye(4)
    affine[:3, :3] = rows.T
    affine[:3, 3] = header.get("space origin", np.zeros(3))
    return Volume(data, spacing, np.diag([*signs, 1.0]) @ affine, str(path))


def _read_series(path: Path) -> Volume:
    """The DICOM series of a folder, slices in their order in space, in RAS.

    Raises:
        InputError: SimpleITK is missing, or the folder does not hold exactly one series.
    """
    try:
        import SimpleITK
    except ImportError:
        raise InputError(f"{path}: reading DICOM needs SimpleITK; install it with pip install quartet[dicom]") from None
    spoken = locale.setlocale(locale.LC_ALL)  # the library leaves the process with the language C, and ASCII files
    try:
        return _series_of(path, SimpleITK)
    finally:
        locale.setlocale(locale.LC_ALL, spoken)


def _series_of(path: Path, SimpleITK: Any) -> Volume:
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(path))
    if len(names) != 1:
        raise InputError(f"{path}: {len(names)} DICOM series in this folder; one is needed: give a folder for each")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path), names[0]))
    image = reader.Execute()
    data = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{path}: {image.GetNumberOfComponentsPerPixel()} values a voxel; series of one are read")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine = np.diag([*LPS, 1.0]) @ affine
    return Volume(data.transpose(2, 1, 0)[None], tuple(map(float, image.GetSpacing())), affine, str(path))


def same_grid(volume: Volume, image: Volume, what: str) -> None:
    """Refuse a file that does not lie on the image's grid.

    Raises:
        InputError: shapes differ, or affines by more than a hundredth of a millimetre.
    """
    if volume.data.shape[1:] != image.data.shape[1:]:
        raise InputError(
            f"{volume.name}: the {what} has shape {volume.data.shape[1:]}, the image {image.name} "
            f"{image.data.shape[1:]}; resample one to the grid of the other"
        )
    if volume.affine is None or image.affine is None:
        return
    corners = np.array(np.meshgrid(*([0, size - 1] for size in (*image.data.shape[1:], 1)[:3]))).reshape(3, -1)
    off = np.abs((volume.affine - image.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])).max()
    if off > AFFINE_TOLERANCE:
        raise InputError(
            f"{volume.name}: the {what} lies up to {off:.3g} mm away from the image {image.name} (affines differ); "
            "resample one to the grid of the other"
        )


def read_seeds(path: str | os.PathLike, image: Volume, what: str = "seed map") -> np.ndarray:
    """Read seeds on the image's grid, `[*shape]`: 0..L-1, -1 where the file holds 0; `what` they are in a message.

    Raises:
        InputError: not on the grid, or see `rwalk.checks.check_label_map`.
    """
    volume = read(path, indices=True)
    same_grid(volume, image, what)
    check_label_map(volume.data, str(path), what)
    return volume.data[0].astype(np.int32) - 1


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file under a temporary name beside `path`, then move it there: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=suffix)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def save(path: Path, data: np.ndarray, affine: np.ndarray | None, *, channels: bool = False) -> Path:
    """Write an array as NIfTI with an affine, else as npy.

    Args:
        path: without ending.
        data: `[*shape]`, or `[C, *shape]` with `channels`.
        affine: voxel index to millimetres; None writes npy.
        channels: whether the first axis is the channels, which NIfTI keeps last.

    Returns:
        The file.
    """
    if affine is None:
        return write_atomically(path.with_name(path.name + ".npy"), lambda file: np.save(file, data))
    import nibabel

    space = np.moveaxis(data, 0, -1) if channels else data
    if space.ndim - channels == 2:  # a slice keeps its place in space
        space = space[:, :, None]
    image = nibabel.Nifti1Image(space, affine)
    return write_atomically(path.with_name(path.name + ".nii.gz"), lambda file: nibabel.save(image, file))


def save_field(path: Path, field: np.ndarray, affine: np.ndarray | None) -> Path:
    """Write a displacement field as ITK and ANTs read it: millimetres in LPS, one vector a voxel, on the fifth axis.

    Args:
        path: without ending.
        field: `[d, *shape]`, voxels of the fixed grid.
        affine: of that grid; None writes the voxels as npy.

    Returns:
        The file.
    """
    if affine is None:
        return save(path, field, None)
    import nibabel

    d = field.shape[0]
    steps = np.zeros((3, *field.shape[1:]))
    steps[:d] = field
    world = np.tensordot(affine[:3, :3], steps, 1) * LPS.reshape(3, *(1,) * d)
    vectors = np.moveaxis(world, 0, -1).astype(np.float32)
    vectors = vectors.reshape(*(*field.shape[1:], 1)[:3], 1, 3)
    image = nibabel.Nifti1Image(vectors, affine)
    image.header.set_intent(VECTOR_INTENT, (), "")
    image.header.set_xyzt_units("mm")
    return write_atomically(path.with_name(path.name + ".nii.gz"), lambda file: nibabel.save(image, file))
