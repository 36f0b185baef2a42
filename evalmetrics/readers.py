"""One reader per file format: bytes to an array, its place in space and the names it carries.

What the numbers mean (labels or probabilities) is decided afterwards, in `evalmetrics.volumes`. Every fault of a file
leaves here as an `InputError` of one line that names the file.
"""

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class InputError(ValueError):
    """A fault of the user's data, told in one line: what was given, what is allowed, what to do."""

    is_input_fault = True  # the command line shows the line without a traceback

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Raw(NamedTuple):
    """Content of one file before it is interpreted.

    Attributes:
        data: numbers in the file's own axes, memory-mapped where the format permits.
        parts: axis that the format itself declares to hold channels, None where it declares none.
        affine: `[4, 4]` voxel index to millimetres (right, anterior, superior), or None.
        spacing: edge lengths of a voxel, one per spatial axis; ones where the file has none.
        names: region names the file carries, by label value or channel index.
        spatial: spatial axes the format allows at most; one axis more than that are channels.
    """

    data: np.ndarray
    parts: int | None = None
    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    names: dict[int, str] | None = None
    spatial: int = 3


def _nifti(path: Path, _key: str | None) -> Raw:
    import nibabel

    image: Any = nibabel.load(path, mmap="r")  # read-only pages can be given back to the system after use
    if path.suffix == ".gz" or path.suffix == ".mgz":
        with gzip.open(path) as stream:  # to its end, where the checksum is; nibabel stops at the last voxel
            image = type(image).from_bytes(stream.read())
    proxy = image.dataobj
    plain = getattr(proxy, "slope", 1.0) == 1.0 and getattr(proxy, "inter", 0.0) == 0.0
    data = np.asanyarray(proxy) if plain else np.asarray(proxy, dtype=np.float32)
    if data.ndim == 5 and data.shape[3] == 1:  # NIfTI puts vectors on axis 4 and leaves the time axis at length one
        data = data[:, :, :, 0]
    spacing = tuple(float(edge) for edge in image.header.get_zooms()[: min(data.ndim, 3)])
    return Raw(data, 3 if data.ndim == 4 else None, np.asarray(image.affine, np.float64), spacing)


def _nrrd_affine(header: dict, axes: list[int]) -> np.ndarray | None:
    directions = header.get("space directions")
    if directions is None or len(axes) != 3:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.asarray(directions[axis], np.float64) for axis in axes], axis=1)
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), np.float64)
    words = str(header.get("space", "")).lower()
    # NRRD names the space it counts in; everything here counts towards right, anterior, superior.
    letters = words.split("-") if "-" in words else list(words)
    flips = [-1.0 if letter[:1] in ("l", "p", "i") else 1.0 for letter in [*letters, "r", "a", "s"][:3]]
    return np.diag([*flips, 1.0]) @ affine


def _nrrd(path: Path, _key: str | None) -> Raw:
    import nrrd

    data, header = nrrd.read(str(path))
    directions, kinds = header.get("space directions"), header.get("kinds")
    parts = None
    for axis in range(data.ndim):
        # A channel axis has no direction in space: pynrrd gives None or a row of NaN for it.
        nowhere = directions is not None and (
            directions[axis] is None or bool(np.isnan(np.asarray(directions[axis], np.float64)).any())
        )
        if nowhere or (kinds is not None and kinds[axis] in ("list", "vector")):
            parts = axis
    axes = [axis for axis in range(data.ndim) if axis != parts]
    affine = _nrrd_affine(header, axes)
    if affine is not None:
        spacing = tuple(float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    else:
        edges = header.get("spacings")
        spacing = None if edges is None else tuple(float(edges[axis]) for axis in axes)
    segments = sorted({int(match[1]) for key in header if (match := re.match(r"Segment(\d+)_LabelValue$", key))})
    if not segments:
        return Raw(data, parts, affine, spacing)
    return _segments(Raw(data, parts, affine, spacing), header, segments)


def _segments(raw: Raw, header: dict, segments: list[int]) -> Raw:
    """Regions of a `.seg.nrrd`: a label map, or one crisp channel per segment where segments overlap in layers."""
    values = [int(header[f"Segment{s}_LabelValue"]) for s in segments]
    names = [str(header.get(f"Segment{s}_Name", f"segment {s}")) for s in segments]
    if raw.parts is None:
        return raw._replace(names=dict(zip(values, names, strict=True)))
    layers = np.moveaxis(raw.data, raw.parts, 0)
    found = [layers[int(header.get(f"Segment{s}_Layer", 0))] == v for s, v in zip(segments, values, strict=True)]
    channels = np.stack([~np.any(found, axis=0), *found])
    return raw._replace(data=channels, parts=0, names=dict(enumerate(["background", *names])))


def _npy(path: Path, _key: str | None) -> Raw:
    return Raw(np.load(path, mmap_mode="r", allow_pickle=False))


PREFERRED_KEYS = ("labels", "segmentation", "seg", "probabilities", "data")


def _choose(path: Path, arrays: dict[str, tuple[int, ...]], key: str | None) -> str:
    images = [name for name, shape in arrays.items() if len(shape) >= 2 and name not in ("affine", "values")]
    if key is not None:
        if key not in arrays:
            raise InputError(f"{path}: holds no array '{key}'; it holds {', '.join(arrays)}: give one of these as key")
        return key
    preferred = images if len(images) == 1 else [name for name in PREFERRED_KEYS if name in images]
    if not preferred:
        raise InputError(f"{path}: cannot tell which array is meant of {', '.join(arrays) or 'none'}: name it with key")
    return preferred[0]


def _npz(path: Path, key: str | None) -> Raw:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    data = arrays[_choose(path, {name: array.shape for name, array in arrays.items()}, key)]
    affine = np.asarray(arrays["affine"], np.float64) if "affine" in arrays else None
    spacing = tuple(float(edge) for edge in arrays["spacing"]) if "spacing" in arrays else None
    names = None
    if "names" in arrays:
        values = arrays.get("values", np.arange(len(arrays["names"])))
        names = {int(value): str(name) for value, name in zip(values, arrays["names"], strict=True)}
    return Raw(data, affine=affine, spacing=spacing, names=names)


def _colours(data: np.ndarray, path: Path) -> Raw:
    """Label map of an image whose regions are painted in colours: value 0xRRGGBB, name '#rrggbb'."""
    rgb = data[..., :3].astype(np.uint32)
    values = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return Raw(np.ascontiguousarray(data[..., 0]), spatial=2)
    found = np.unique(values)
    if len(found) > 256:
        raise InputError(
            f"{path}: {len(found)} different colours; a painted label map has at most 256: "
            "say kind=probabilities to take its channels as regions, or give a label map"
        )
    return Raw(values.astype(np.int32), names={int(v): f"#{int(v):06x}" for v in found if v}, spatial=2)


def _png(path: Path, key: str | None) -> Raw:
    from PIL import Image

    with Image.open(path) as image:
        data = np.asarray(image)
    if data.ndim == 3 and data.shape[-1] in (2, 4):  # the last channel is opacity
        data = data[..., :-1]
    if data.ndim == 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim == 3:
        return Raw(data, parts=2, spatial=2) if key == "channels" else _colours(data, path)
    return Raw(data, spatial=2)


def _tiff(path: Path, key: str | None) -> Raw:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes = series.axes
        plain = series.dataoffset is not None and series.keyframe.compression == 1
        end = (series.dataoffset or 0) + series.nbytes if plain else 0
        data = None if plain else series.asarray()
    if path.stat().st_size < end:
        raise EOFError(f"{path.stat().st_size} bytes where {end} are announced")
    if data is None:
        data = tifffile.memmap(path, mode="r")
    parts = next((axes.index(letter) for letter in "CS" if letter in axes), None)
    if parts is not None and axes[parts] == "S" and data.dtype == np.uint8 and data.ndim == 3 and key != "channels":
        return _colours(data, path)
    return Raw(data, parts, spatial=3)


def _mat(path: Path, key: str | None) -> Raw:
    import scipy.io

    content = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    if "groundTruth" in content:
        annotators = content["groundTruth"].ravel()
        chosen = 0 if key is None else int(key)
        if not 0 <= chosen < len(annotators):
            raise InputError(f"{path}: annotator {key} was asked, there are 0..{len(annotators) - 1}: give one of them")
        return Raw(np.asarray(annotators[chosen]["Segmentation"][0, 0]), spatial=2)
    return Raw(np.asarray(content[_choose(path, {name: value.shape for name, value in content.items()}, key)]))


READERS: dict[str, Callable[[Path, str | None], Raw]] = {
    ".nii": _nifti, ".nii.gz": _nifti, ".mgz": _nifti, ".nrrd": _nrrd, ".seg.nrrd": _nrrd, ".nhdr": _nrrd,
    ".npy": _npy, ".npz": _npz, ".png": _png, ".tif": _tiff, ".tiff": _tiff, ".mat": _mat,
}  # fmt: skip
ALLOWED = ", ".join(READERS)
FORMAT_LIBRARIES = ("nibabel", "nrrd", "tifffile", "PIL", "scipy", "zipfile", "struct")


def suffix_of(path: str | os.PathLike) -> str | None:
    """The longest known ending of a file's name, None where the format is not one of `READERS`."""
    name = os.fspath(path).lower()
    return max((suffix for suffix in READERS if name.endswith(suffix)), key=len, default=None)


def unsupported(path: Path) -> str:
    """The line that answers a file of another type."""
    return f"{path}: unsupported file type '{path.suffix}'; supported are {ALLOWED}: convert the file"


@contextlib.contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Turn whatever a format's library raises on a damaged file into one line naming the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as fault:
        raise InputError(f"{path}: does not fit into memory; store it uncompressed (.nii, .npy) to map it") from fault
    except (EOFError, OSError, zlib.error, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as fault:
        raise InputError(_unreadable(path, fault)) from fault
    except Exception as fault:  # pynrrd, tifffile and nibabel derive their own faults from Exception
        if type(fault).__module__.split(".")[0] not in FORMAT_LIBRARIES:
            raise
        raise InputError(_unreadable(path, fault)) from fault


def _unreadable(path: Path, fault: BaseException) -> str:
    reason = " ".join(str(fault).replace(f"{path}", "it").split())[:160] or type(fault).__name__
    return (
        f"{path}: not a sound {suffix_of(path) or ''} file ({reason}); allowed is a complete file of {ALLOWED}: "
        "it may be truncated, copy or export it again"
    )


def read(path: str | os.PathLike, key: str | None = None) -> Raw:
    """Read one file by its ending.

    Args:
        path: file of a known format, see `READERS`.
        key: which array of an npz or mat file; the annotator's number of a BSDS mat file; `channels` to keep the
            channels of a colour image instead of reading its colours as labels.

    Returns:
        The file's numbers, in the machine's byte order.

    Raises:
        InputError: the file is missing, of another type, damaged, or holds something else than numbers.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; give an existing file of {ALLOWED}, or a folder: check the path")
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(unsupported(path))
    with faults_of(path):
        raw = READERS[suffix](path, key)
    if raw.data.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds data of type {raw.data.dtype}; allowed are whole or real numbers: convert it")
    if raw.data.size == 0:
        raise InputError(f"{path}: holds no voxels, its shape is {raw.data.shape}; give a file with at least one voxel")
    if not raw.data.dtype.isnative:  # jax takes arrays of the machine's byte order only
        raw = raw._replace(data=raw.data.astype(raw.data.dtype.newbyteorder("=")))
    return raw
