import re

import numpy as np
import pytest
import scipy.io

from evalmetrics import data
from tests.evalmetrics import twins

HEIGHT, WIDTH = 4, 5


@pytest.fixture
def bsds(tmp_path):
    """A BSDS500 folder of two images, one of them with a photograph."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = tmp_path / "bsds500_test"
    (folder / "groundTruth").mkdir(parents=True)
    (folder / "images").mkdir()
    packed = {}
    for name in ("10", "9"):
        twins.write_annotations(folder / "groundTruth" / f"{name}.mat", rng.integers(1, 4, (2, HEIGHT, WIDTH)) * 3)
        index = rng.integers(0, 3, (2 * HEIGHT + 1, 2 * WIDTH + 1)).astype(np.uint16)
        packed |= {f"{name}_index": index, f"{name}_values": np.array([0.0, 0.1, 1 / 3])}
    np.savez(folder / "ucm2_gpb_owt_ucm.npz", **packed)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "images" / "10.jpg")
    return folder


def test_bsds_reads_annotators_hierarchy_and_photograph(bsds):
    images = data.Bsds500(bsds)
    assert images.names == ("10", "9")
    assert len(images) == 2
    annotations = images.annotations("10")
    original = scipy.io.loadmat(bsds / "groundTruth" / "10.mat")["groundTruth"][0]
    for ours, cell in zip(annotations, original, strict=True):
        np.testing.assert_array_equal(ours, cell["Segmentation"][0, 0] // 3 - 1)
        assert ours.dtype == np.int32
    with np.load(bsds / "ucm2_gpb_owt_ucm.npz") as packed:
        np.testing.assert_array_equal(images.ucm2("9"), packed["9_values"][packed["9_index"]])
    assert images.image("10").shape == (HEIGHT, WIDTH, 3)
    assert images.image("9") is None


def test_bsds_reads_the_original_hierarchy_files(bsds):
    (bsds / "ucm2_gpb_owt_ucm.npz").unlink()
    (bsds / "ucm2").mkdir()
    heights = np.random.default_rng(1).random((9, 11))
    scipy.io.savemat(bsds / "ucm2" / "10.mat", {"ucm2": heights})
    np.testing.assert_array_equal(data.Bsds500(bsds).ucm2("10"), heights)


@pytest.mark.parametrize("start", [".", "..", "../.."])
def test_a_data_set_is_found_in_its_folder_or_above_it(bsds, tmp_path, start):
    (tmp_path / "evalmetrics").mkdir()
    folder = bsds.rename(tmp_path / "evalmetrics" / "bsds500_test")
    assert data.Bsds500(folder / start).names == ("10", "9")


def test_the_environment_names_the_folder_of_all_data(bsds, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(bsds.parent))
    assert len(data.Bsds500()) == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: data.Bsds500(folder / "nowhere"), ["nowhere: no such folder", "data.path="]),
        (lambda folder: data.Bsds500(folder / "images"), ["images", "'groundTruth'", "QUARTET_DATA"]),
        (lambda folder: data.Bsds500(folder).ucm2("11"), ["ucm2_gpb_owt_ucm.npz", "'11'"]),
        (lambda folder: data.Bsds500(folder).annotations("11"), ["11.mat: no such file", "data.path="]),
        (lambda folder: data.read_annotations(folder / "images" / "10.jpg"), ["10.jpg", "MATLAB"]),
        (lambda folder: data.read_ucm2(folder / "groundTruth" / "10.mat"), ["10.mat", "no variable 'ucm2'"]),
    ],
)
def test_what_is_missing_is_named_in_one_line(bsds, spoil, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        spoil(bsds)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_truncated_file_and_a_foreign_structure_are_refused(bsds):
    file = bsds / "groundTruth" / "10.mat"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"10\.mat: cannot be read"):
        data.read_annotations(file)
    scipy.io.savemat(file, {"groundTruth": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="no Segmentation"):
        data.read_annotations(file)


def test_no_folder_at_all_says_what_to_pass(monkeypatch):
    monkeypatch.delenv("QUARTET_DATA", raising=False)
    with pytest.raises(ValueError, match=r"bsds500_test was not given; pass data\.path="):
        data.Bsds500()


def test_a_folder_without_annotations_is_refused(tmp_path):
    (tmp_path / "groundTruth").mkdir()
    with pytest.raises(ValueError, match="no annotation"):
        data.Bsds500(tmp_path)


def test_the_packed_hierarchies_equal_the_original_files(public_data):
    images = data.Bsds500(public_data)
    assert len(images) == 200
    originals = sorted((images.path / "ucm2_sample").glob("*.mat"))
    assert originals
    for original in originals:
        np.testing.assert_array_equal(images.ucm2(original.stem), data.read_ucm2(original))


@pytest.fixture
def cord(tmp_path):
    """Two small atlases in one world space: maps on a coarse grid, labels on a finer one inside it."""
    twins.spinal_cord(tmp_path)
    return tmp_path


def test_the_cord_atlases_share_a_grid_and_names(cord):
    for onto, shape in (("maps", (7, 7, 7)), ("labels", (8, 8, 8))):
        atlases = data.spinal_cord(cord, onto=onto)
        assert atlases.maps.shape == (3, *shape)
        assert atlases.labels.shape == shape
        assert atlases.labels.dtype == np.int32
        assert atlases.map_names == ("WM left one", "WM right one", "GM left horn")
        assert atlases.label_names == ("WM Left one", "WM Right one", "GM Left medial horn", "GM Left lateral horn")
        assert atlases.partners == ({0}, {1}, {2, 3})


def test_both_grids_of_the_cord_show_the_same_voxels(cord):
    import nibabel

    coarse, fine = (data.spinal_cord(cord, onto=onto) for onto in ("maps", "labels"))
    original = np.asarray(nibabel.load(cord / "amu7t" / "AMU7T_50_labels.nii.gz").dataobj)
    np.testing.assert_array_equal(
        np.array([-1, 1, 0, 2, 3])[np.searchsorted([0, 1, 39, 43, 45], original)], fine.labels
    )
    # World point (-4, 4, 4) is a voxel of both grids: the values agree there without interpolation.
    at = [np.linalg.solve(x.affine, [-4, 4, 4, 1])[:3].round().astype(int) for x in (coarse, fine)]
    np.testing.assert_allclose(coarse.maps[:, *at[0]], fine.maps[:, *at[1]], rtol=1e-5)
    assert coarse.labels[tuple(at[0])] == fine.labels[tuple(at[1])]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "amu7t" / "AMU7T_50_labels.nii.gz").unlink(), "AMU7T_50_labels.nii.gz: no such file"),
        (lambda folder: (folder / "pam50" / "atlas" / "PAM50_atlas_01.nii.gz").unlink(), "PAM50_atlas_01.nii.gz: no"),
        (lambda folder: (folder / "amu7t" / "info_label.txt").unlink(), "'info_label.txt'"),
        (lambda folder: (folder / "amu7t" / "info_label.txt").write_text("nothing"), "lists no region"),
        (
            lambda folder: (folder / "pam50" / "atlas" / "PAM50_atlas_01.nii.gz").write_bytes(b"no"),
            "PAM50_atlas_01.nii.gz: cannot be read",
        ),
    ],
)
def test_what_the_cord_lacks_is_named_in_one_line(cord, spoil, words):
    spoil(cord)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        data.spinal_cord(cord)
    assert "\n" not in str(caught.value)


def test_an_unknown_grid_of_the_cord_is_refused(cord):
    with pytest.raises(ValueError, match="maps or labels"):
        data.spinal_cord(cord, onto="world")


def test_the_mni_template_needs_no_network(monkeypatch):
    import socket

    def refuse(*_):
        pytest.fail("the MNI template must come from the installed package")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    template = data.mni152()
    assert template.t1.shape == template.grey.shape == template.white.shape == (197, 233, 189)
    assert template.affine.shape == (4, 4)
    assert template.t1.min() == 0
    assert (template.grey + template.white).max() <= 1 + 1e-6
