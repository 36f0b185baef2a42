"""Formats beside NIfTI: DICOM series and NRRD with their place in space, TIFF stacks; what cannot be read is told."""

import locale
import sys

import nrrd
import numpy as np
import pytest
import tifffile

from rwalk import io
from rwalk.checks import InputError

COS, SIN = np.cos(0.4), np.sin(0.4)
TURN = np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]])
SPACING = np.array([0.8, 1.5, 3.0])
ORIGIN = np.array([-40.0, 25.0, 7.5])
# What the files say in LPS, by hand in RAS: the first two coordinates change their sign.
RAS = np.diag([-1.0, -1, 1, 1]) @ np.block([[TURN * SPACING, ORIGIN[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


@pytest.fixture
def numbers(noise):
    return noise.integers(0, 900, (5, 6, 4)).astype(np.int16)


@pytest.fixture
def series(numbers, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    folder = tmp_path / "series"
    folder.mkdir()
    spoken = locale.setlocale(locale.LC_ALL)  # the library changes it for the whole process
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(numbers.shape[2]):
        piece = sitk.GetImageFromArray(numbers[:, :, k : k + 1].transpose(2, 1, 0))
        piece.SetSpacing(SPACING.tolist())
        position = ORIGIN + TURN @ [0, 0, SPACING[2] * k]
        tags = {
            "0008|0060": "MR", "0020|000e": "1.2.826.0.1.3680043.2.1125.1", "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{k + 1}", "0020|0013": str(k), "0018|0050": str(SPACING[2]),
            "0020|0032": "\\".join(map(str, position)), "0020|0037": "\\".join(map(str, TURN[:, :2].T.ravel())),
        }  # fmt: skip
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{(7 * k) % 5}.dcm"))  # names in another order than the slices
        writer.Execute(piece)
    locale.setlocale(locale.LC_ALL, spoken)
    return folder


def test_a_dicom_series_is_read_in_its_order_and_place(series, numbers):
    before = locale.setlocale(locale.LC_ALL)
    volume = io.read(series)
    assert locale.setlocale(locale.LC_ALL) == before
    np.testing.assert_array_equal(volume.data[0], numbers)
    np.testing.assert_allclose(volume.affine, RAS, atol=1e-4)
    np.testing.assert_allclose(volume.spacing, SPACING, atol=1e-5)


def test_dicom_without_its_library_or_its_series_is_told(series, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"0 DICOM series in this folder; one is needed"):
        io.read(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"pip install quartet\[dicom\]"):
        io.read(series)


def test_nrrd_is_read_with_its_place(numbers, tmp_path):
    header = {"space": "left-posterior-superior", "space directions": (TURN * SPACING).T, "space origin": ORIGIN}
    nrrd.write(str(tmp_path / "a.nrrd"), numbers, header)
    volume = io.read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.data[0], numbers)
    np.testing.assert_allclose(volume.affine, RAS)
    np.testing.assert_allclose(volume.spacing, SPACING)


def test_nrrd_of_another_space_or_without_one(numbers, tmp_path):
    nrrd.write(str(tmp_path / "plain.nrrd"), numbers, {"spacings": [1.0, 2.0, 3.0]})
    volume = io.read(tmp_path / "plain.nrrd")
    assert volume.affine is None
    assert volume.spacing == (1.0, 2.0, 3.0)
    header = {"space": "scanner-xyz", "space directions": np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "odd.nrrd"), numbers, header)
    with pytest.raises(InputError, match="space 'scanner-xyz'; allowed are left-posterior-superior"):
        io.read(tmp_path / "odd.nrrd")


def test_the_pages_of_a_tiff_are_slices_and_its_colours_channels(numbers, noise, tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", numbers, photometric="minisblack")
    assert io.read(tmp_path / "stack.tif").data.shape == (1, *numbers.shape)
    colours = noise.integers(0, 255, (7, 8, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "colours.tiff", colours, photometric="rgb")
    np.testing.assert_array_equal(io.read(tmp_path / "colours.tiff").data, np.moveaxis(colours, -1, 0))
    tifffile.imwrite(tmp_path / "flat.tif", numbers[0])
    np.testing.assert_array_equal(io.read(tmp_path / "flat.tif").data[0], numbers[0])


@pytest.mark.parametrize("name", ["cut.nrrd", "cut.tif", "cut.png"])
def test_a_damaged_file_is_told_in_one_line(name, tmp_path):
    (tmp_path / name).write_bytes(b"NRRD0004\ntype: int\n\n\0\1\2")
    with pytest.raises(InputError, match="not a sound") as caught:
        io.read(tmp_path / name)
    assert "\n" not in str(caught.value)
