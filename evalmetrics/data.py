"""Readers of the public data sets that the experiments score: BSDS500, PAM50 with AMU7T, and MNI ICBM152.

Nothing is downloaded. A data set is looked for in the folder that the caller names (`data.path=` on the command line),
else under the environment variable QUARTET_DATA; the MNI maps come with the installed package nilearn.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import io as matlab

from evalmetrics import resample
from evalmetrics.readers import InputError

ROOT = "QUARTET_DATA"
_REMEDY = f"pass data.path=<folder of the data set> or set {ROOT} to the folder that holds all data sets"


class Bsds500:
    """The 200 test images of BSDS500: their annotators and their gPb-owt-ucm hierarchies, read one image at a time.

    Expects `groundTruth/<name>.mat` and either `ucm2_gpb_owt_ucm.npz` (arrays `<name>_values` and `<name>_index`, of
    which values[index] is the hierarchy) or `ucm2/<name>.mat`; photographs `images/<name>.jpg` are optional.

    Args:
        path: folder of the data set; None looks under QUARTET_DATA.

    Raises:
        InputError: a folder or file is missing; the message says which and what to pass.

    Source: Arbelaez et al. 2011; https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html
    """

    def __init__(self, path: str | Path | None = None):
        self.path = find("bsds500_test", path, "groundTruth")
        self.names = tuple(sorted(file.stem for file in (self.path / "groundTruth").glob("*.mat")))
        if not self.names:
            raise InputError(f"{self.path / 'groundTruth'}: no annotation <name>.mat in this folder; {_REMEDY}")
        self._packed: Any = None

    def __len__(self) -> int:
        return len(self.names)

    def annotations(self, name: str) -> list[np.ndarray]:
        """Label maps of all annotators of an image, each `[height, width]` int32 in 0..K-1."""
        return read_annotations(self.path / "groundTruth" / f"{name}.mat")

    def ucm2(self, name: str) -> np.ndarray:
        """Hierarchy of an image, `[2 height + 1, 2 width + 1]` float64."""
        packed = self.path / "ucm2_gpb_owt_ucm.npz"
        if not packed.is_file():
            return read_ucm2(self.path / "ucm2" / f"{name}.mat")
        if self._packed is None:
            self._packed = np.load(packed)
        try:
            return self._packed[f"{name}_values"][self._packed[f"{name}_index"]]
        except KeyError as error:
            raise InputError(f"{packed}: no hierarchy of image {name!r}; {_REMEDY}") from error

    def image(self, name: str) -> np.ndarray | None:
        """Photograph `[height, width, 3]` uint8, or None where the folder does not hold it."""
        file = self.path / "images" / f"{name}.jpg"
        if not file.is_file():
            return None
        from PIL import Image

        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))


def read_annotations(file: str | Path) -> list[np.ndarray]:
    """Read the annotators' label maps of one BSDS500 `groundTruth` file.

    Args:
        file: `.mat` with a cell array `groundTruth` of structures with a field `Segmentation`.

    Returns:
        One `[height, width]` int32 map per annotator, regions renumbered to 0..K-1 in the order of their labels.

    Raises:
        InputError: the file is missing or is no such file.
    """
    cells = _read_mat(Path(file), "groundTruth")
    try:
        return [_renumber(cell["Segmentation"][0, 0]) for cell in cells.ravel()]
    except (IndexError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file}: groundTruth holds no Segmentation per annotator; pass a BSDS500 file") from error


def read_ucm2(file: str | Path) -> np.ndarray:
    """Read a hierarchy on the doubled grid, `[2 height + 1, 2 width + 1]` float64, from its `.mat` (variable `ucm2`).

    Raises:
        InputError: the file is missing or holds no `ucm2`.
    """
    return np.asarray(_read_mat(Path(file), "ucm2"), np.float64)


def _read_mat(file: Path, variable: str) -> np.ndarray:
    if not file.is_file():
        raise InputError(f"{file}: no such file; {_REMEDY}")
    try:
        return matlab.loadmat(file, variable_names=[variable])[variable]
    except KeyError as error:
        raise InputError(f"{file}: holds no variable {variable!r}") from error
    except (ValueError, TypeError, OSError, NotImplementedError, matlab.matlab.MatReadError) as error:
        raise InputError(f"{file}: cannot be read as a MATLAB file ({error})") from error


def _renumber(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    present = np.bincount(labels.ravel()) > 0
    return (np.cumsum(present) - 1).astype(np.int32)[labels]


def find(name: str, path: str | Path | None, content: str) -> Path:
    """Locate the folder of a data set.

    Args:
        name: name of the folder as shipped.
        path: the folder itself or a folder that holds it; None takes the environment variable QUARTET_DATA.
        content: what the right folder contains, to tell it from a wrong one.

    Returns:
        The folder.

    Raises:
        InputError: no such folder; the message names what is missing and what to pass.
    """
    start = path if path is not None else os.environ.get(ROOT)
    if start is None:
        raise InputError(f"the data set {name} was not given; {_REMEDY}")
    start = Path(start).expanduser()
    for folder in (start, start / name, start / "evalmetrics" / name):
        if (folder / content).exists():
            return folder
    if not start.is_dir():
        raise InputError(f"{start}: no such folder; {_REMEDY}")
    raise InputError(f"{start}: neither this folder nor its {name} holds {content!r}; {_REMEDY}")


class SpinalCord(NamedTuple):
    """Two atlases of the spinal cord on one grid: soft maps and crisp labels, with names that can be compared."""

    maps: np.ndarray
    """[37, *spatial] float32 probabilities of PAM50."""
    labels: np.ndarray
    """[*spatial] int32 regions 0..49 of AMU7T, -1 outside."""
    map_names: tuple[str, ...]
    label_names: tuple[str, ...]
    partners: tuple[frozenset[int], ...]
    """For each map, the labels that carry its name: one, or the parts that AMU7T divides it into."""
    affine: np.ndarray
    """[4, 4] of the common grid, mm."""


def spinal_cord(path: str | Path | None = None, *, onto: Literal["maps", "labels"] = "maps") -> SpinalCord:
    """Read the PAM50 tract maps and the AMU7T labels, one resampled onto the grid of the other by their affines.

    Args:
        path: folder that holds `pam50` and `amu7t`; None looks under QUARTET_DATA.
        onto: "maps" takes AMU7T to the part of the PAM50 grid that it covers, by nearest neighbour; "labels" takes
            PAM50 to the AMU7T grid, linearly (nine times the memory).

    Returns:
        SpinalCord.

    Raises:
        InputError: a folder or file is missing or does not say what is expected; unknown `onto`.

    Source: De Leener et al. 2018 (PAM50); Taso et al. 2014 (AMU atlas).
    """
    if onto not in ("maps", "labels"):
        raise ValueError(f"onto must be maps or labels, got {onto!r}")
    maps_at, labels_at = find("pam50", path, "atlas/info_label.txt") / "atlas", find("amu7t", path, "info_label.txt")
    tracts = re.findall(r"^(\d+), (.+), (PAM50_\S+)$", _read_text(maps_at / "info_label.txt"), re.MULTILINE)
    info = _read_text(labels_at / "info_label.txt")
    parts = re.findall(r"^(\d+)\s+(\S+)\s+(\S+)\s+(.+?)\s+AMU7T_label_\S+\s+(\d+)$", info, re.MULTILINE)
    unions = re.findall(r"^(\d+)\s.+,\s*(\d+):(\d+)\s*$", info, re.MULTILINE)
    if not tracts or not parts:
        raise InputError(f"{maps_at} or {labels_at}: info_label.txt lists no region; {_REMEDY}")
    label_file, map_files = labels_at / "AMU7T_50_labels.nii.gz", [maps_at / file for _, _, file in tracts]
    values, label_affine = _read_nifti(label_file)
    lookup = np.full(int(max(values.max(), *(int(part[4]) for part in parts))) + 1, -1, np.int32)
    lookup[[int(part[4]) for part in parts]] = np.arange(len(parts))
    labels = lookup[values.astype(np.int64)]

    shape, affine = _grid(map_files[0])
    window = resample.window(shape, affine, labels.shape, label_affine)
    with ThreadPoolExecutor(2) as readers:  # decompression releases the interpreter
        maps = np.stack(list(readers.map(lambda file: _read_nifti(file, window)[0], map_files))).astype(np.float32)
    affine = resample.shift(affine, window)
    if onto == "maps":
        labels = resample.onto(labels, label_affine, maps.shape[1:], affine, order=0, outside=-1)
    else:
        maps = np.stack([resample.onto(x, affine, labels.shape, label_affine, order=1) for x in maps])
        affine = label_affine
    ids = [int(part[0]) for part in parts]
    spans = {int(union): range(int(first), int(last) + 1) for union, first, last in unions}
    partners = tuple(
        frozenset(j for j, part in enumerate(ids) if part in spans.get(int(tract), (int(tract),)))
        for tract, _, _ in tracts
    )
    names = tuple(" ".join((*part[1:3], part[3].replace("-", " "))) for part in parts)
    return SpinalCord(maps, labels, tuple(name for _, name, _ in tracts), names, partners, affine)


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _grid(file: Path) -> tuple[tuple[int, ...], np.ndarray]:
    import nibabel

    if not file.is_file():
        raise InputError(f"{file}: no such file; {_REMEDY}")
    image: Any = nibabel.load(file)
    return image.shape, image.affine


def _read_nifti(file: Path, window: tuple[slice, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine; a truncated file is refused by name."""
    import nibabel

    if not file.is_file():
        raise InputError(f"{file}: no such file; {_REMEDY}")
    try:
        image: Any = nibabel.load(file)
        return np.asarray(image.dataobj[window] if window else image.dataobj), image.affine
    except (EOFError, OSError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{file}: cannot be read as NIfTI ({error})") from error


class Mni152(NamedTuple):
    """MNI ICBM152 2009a, nonlinear symmetric, 1 mm: brain and tissue probabilities."""

    t1: np.ndarray
    """[197, 233, 189] float32 intensities in [0, 1], 0 outside the brain."""
    grey: np.ndarray
    """[197, 233, 189] float32 probability of grey matter."""
    white: np.ndarray
    """[197, 233, 189] float32 probability of white matter."""
    affine: np.ndarray
    """[4, 4] voxel to world, mm."""


def mni152() -> Mni152:
    """Read the MNI ICBM152 T1 template with its tissue maps, from the files that the package nilearn ships.

    Nothing is downloaded, so this works on a fresh machine.

    Returns:
        Mni152.

    Source: Fonov et al. 2011.
    """
    from nilearn import datasets

    t1 = datasets.load_mni152_template(resolution=1)
    tissues = datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1)
    grey, white = (np.asarray(image.dataobj, np.float32) for image in tissues)
    return Mni152(np.asarray(t1.dataobj, np.float32), grey, white, t1.affine)
