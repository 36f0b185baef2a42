"""Small synthetic twins of the public data sets, in their file formats."""

from pathlib import Path

import nibabel
import numpy as np
import scipy.io

from evalmetrics import data

MAP_INFO = """# Keyword=IndivLabels (Please DO NOT change this line)
# ID, name, file
0, WM left one, PAM50_atlas_00.nii.gz
1, WM right one, PAM50_atlas_01.nii.gz
30, GM left horn, PAM50_atlas_30.nii.gz
# Combined labels
50, spinal cord, 0:30
"""
LABEL_INFO = """ID\tTissu\tLat\tName\tFile\tLabel in AMU7T_50_labels.nii.gz
0\tWM\tLeft\tone\t\tAMU7T_label_00_bin.nii.gz\t39
1\tWM\tRight\tone\t\tAMU7T_label_01_bin.nii.gz\t1
301\tGM\tLeft\tmedial-horn\tAMU7T_label_301_bin.nii.gz\t43
302\tGM\tLeft\tlateral-horn\tAMU7T_label_302_bin.nii.gz\t45

Combined labels
30\tGM left horn, 301:302
50\tspinal cord, 0:302
"""


def make(table: str, folder: Path) -> list[str]:
    """Write the twin that a table reads into `folder` and return the overrides that point to it."""
    makers = {"bsds500": bsds500, "annotators": bsds500, "tracts": spinal_cord}
    if table not in makers:
        return []  # its data come with an installed package: `mni152`
    makers[table](folder)
    return [f"data.path={folder}"]


def mni152() -> data.Mni152:
    """Every fourth voxel of the MNI brain along each axis."""
    brain = data.mni152()
    volumes = (volume[::4, ::4, ::4] for volume in (brain.t1, brain.grey, brain.white))
    return data.Mni152(*volumes, brain.affine @ np.diag([4.0, 4, 4, 1]))


def write_annotations(file: Path, maps: np.ndarray) -> None:
    """A MATLAB file nested as those of BSDS500: a cell array of structures."""
    cells = np.empty((1, len(maps)), object)
    for index, labels in enumerate(maps):
        cells[0, index] = {"Segmentation": labels.astype(np.uint16), "Boundaries": labels > 1}
    scipy.io.savemat(file, {"groundTruth": cells})


def bsds500(folder: Path, images: int = 3) -> None:
    """Random label maps as annotators, a random hierarchy on the doubled grid."""
    rng = np.random.default_rng(0)
    (folder / "groundTruth").mkdir(parents=True)
    packed = {}
    for image in range(images):
        coarse = rng.integers(1, 5, (2, 3, 4))
        write_annotations(folder / "groundTruth" / f"{image}.mat", np.kron(coarse, np.ones((1, 4, 4), int)))
        index = rng.integers(0, 9, (2 * 12 + 1, 2 * 16 + 1)).astype(np.uint8)
        index[1::2, 1::2] = 0  # heights lie between pixels
        packed |= {f"{image}_values": np.linspace(0, 1, 9), f"{image}_index": index}
    np.savez(folder / "ucm2_gpb_owt_ucm.npz", **packed)


def spinal_cord(folder: Path) -> None:
    """Two small atlases in one world space: maps on a coarse grid, labels on a finer one inside it."""
    (folder / "pam50" / "atlas").mkdir(parents=True)
    (folder / "amu7t").mkdir()
    (folder / "pam50" / "atlas" / "info_label.txt").write_text(MAP_INFO)
    (folder / "amu7t" / "info_label.txt").write_text(LABEL_INFO)
    rng = np.random.default_rng(0)
    for tract in ("00", "01", "30"):
        volume = rng.random((12, 12, 12)).astype(np.float32)
        file = folder / "pam50" / "atlas" / f"PAM50_atlas_{tract}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 1, 1, 1])), file)
    affine = np.diag([-0.5, 0.5, 0.5, 1])
    affine[:3, 3] = [-3, 3, 3]
    labels = rng.choice(np.array([0, 1, 39, 43, 45], np.uint8), (8, 8, 8))
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "amu7t" / "AMU7T_50_labels.nii.gz")
