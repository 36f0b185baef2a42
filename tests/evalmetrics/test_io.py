import json

import nibabel
import nrrd
import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from evalmetrics import io

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)
label_values = st.lists(st.integers(0, 30000), min_size=1, max_size=6, unique=True)
INTEGERS = ["uint8", "int16", "int32", "uint16", "float32", "float64"]


@st.composite
def label_maps(draw):
    """A map of arbitrary label values in a type that can hold them, every value used or not."""
    dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
    values = draw(label_values)
    if dtype == np.uint8:
        values = [value % 256 for value in values]
    return draw(hnp.arrays(dtype, draw(shapes), elements=st.sampled_from(values).map(dtype.type)))


@st.composite
def compositions(draw):
    parts, shape = draw(st.integers(2, 4)), draw(shapes)
    weights = draw(hnp.arrays(np.float32, (parts, *shape), elements=st.integers(1, 50).map(np.float32)))
    return weights / weights.sum(0)


def original(volume):
    """Label values as they stood in the file."""
    return np.asarray(volume.values)[volume.data]


def affine(spacing=(1, 1, 1), origin=(0, 0, 0)):
    matrix = np.diag([*spacing, 1.0]).astype(float)
    matrix[:3, 3] = origin
    return matrix


def save_nifti(path, data, matrix=None):
    nibabel.save(nibabel.Nifti1Image(data, affine() if matrix is None else matrix), path)
    return path


def write(path, data):
    ending = "".join(path.suffixes)
    if ending in (".nii", ".nii.gz"):
        return save_nifti(path, data)
    if ending == ".nrrd":
        nrrd.write(str(path), data)
    elif ending == ".npy":
        np.save(path, data)
    elif ending == ".npz":
        np.savez_compressed(path, labels=data)
    elif ending == ".tif":
        tifffile.imwrite(path, data, photometric="minisblack")
    elif ending == ".mat":
        scipy.io.savemat(path, {"labels": data})
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".npy", ".npz", ".tif", ".mat"])
@quick
@given(data=label_maps())
def test_label_maps_survive_every_format(tmp_path, ending, data):
    volume = io.load(write(tmp_path / f"map{ending}", data), kind="labels")
    stored = np.squeeze(data) if ending == ".tif" else data  # TIFF keeps no axis of length one
    assert np.array_equal(original(volume).reshape(stored.shape), stored)
    assert volume.values == tuple(int(v) for v in np.unique(data))
    assert volume.data.dtype.kind in "iu"
    assert not volume.soft


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@quick
@given(data=compositions())
def test_probability_maps_come_back_part_first(tmp_path, ending, data):
    volume = io.load(save_nifti(tmp_path / f"map{ending}", np.moveaxis(data, 0, -1)))
    assert np.array_equal(volume.data, data)
    assert volume.soft
    assert volume.shape == data.shape[1:]


@quick
@given(data=compositions())
def test_probability_maps_in_npy_are_part_first_already(tmp_path, data):
    np.save(tmp_path / "map.npy", data)
    assert np.array_equal(io.load(tmp_path / "map.npy").data, data)


@quick
@given(
    data=hnp.arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 3)),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
)
def test_a_turned_copy_is_turned_back_onto_the_reference(tmp_path, data, order, flips):
    reference = save_nifti(tmp_path / "reference.nii", data, affine((1, 2, 3), (5, 6, 7)))
    image = nibabel.load(reference)
    codes = [("LR", "PA", "IS")[axis][int(flips[axis])] for axis in order]
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
        )
    )
    nibabel.save(turned, tmp_path / "turned.nii")
    first, second = io.pair(reference, tmp_path / "turned.nii")
    assert np.array_equal(original(first), original(second))
    np.testing.assert_allclose(first.affine, second.affine)
    assert first.spacing == second.spacing == (1.0, 2.0, 3.0)


@quick
@given(a=label_maps(), b=label_maps())
def test_ordered_labels_get_equal_indices_for_equal_values(tmp_path, a, b):
    first, second = io.pair(write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b), kind="labels", labels="ordered")
    assert first.values == second.values == tuple(sorted({*np.unique(a).astype(int), *np.unique(b).astype(int)}))
    assert first.names == second.names
    assert np.array_equal(original(first), a)
    assert np.array_equal(original(second), b)


def test_unordered_labels_keep_their_own_values(tmp_path):
    a, b = np.array([[0, 4], [17, 17]]), np.array([[0, 1000], [0, 1]])
    first, second = io.pair(write(tmp_path / "a.npy", a), write(tmp_path / "b.npy", b))
    assert first.values == (0, 4, 17)
    assert second.values == (0, 1, 1000)
    assert first.names == ("background", "label 4", "label 17")
    assert (first.index_of(17), first.index_of("label 4"), first.index_of(5)) == (2, 1, None)


@pytest.mark.parametrize("ending", [".nii", ".npy", ".tif"])
def test_uncompressed_files_stay_mapped(tmp_path, ending):
    data = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    volume = io.load(write(tmp_path / f"map{ending}", data))
    assert isinstance(volume.data, np.memmap)
    assert np.array_equal(volume.data, data)


def test_mapped_probabilities_are_views(tmp_path):
    data = np.random.default_rng(0).dirichlet(np.ones(3), (4, 5, 6)).astype(np.float32)
    volume = io.load(save_nifti(tmp_path / "map.nii", data))
    assert isinstance(volume.data, np.memmap)
    assert volume.data.shape == (3, 4, 5, 6)


def test_scaled_integers_of_nifti_are_fractions(tmp_path):
    data = np.linspace(0, 1, 16).reshape(2, 2, 2, 2)
    image = nibabel.Nifti1Image(data, affine())
    image.set_data_dtype(np.uint8)  # nibabel finds slope and intercept itself
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    volume = io.load(tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(volume.data, np.moveaxis(data, -1, 0), atol=1 / 255)
    assert volume.data.dtype == np.float32


def test_big_endian_files_reach_the_byte_order_of_the_machine(tmp_path):
    data = np.arange(24, dtype=">i4").reshape(2, 3, 4)
    np.save(tmp_path / "map.npy", data)
    volume = io.load(tmp_path / "map.npy")
    assert volume.data.dtype.isnative
    assert np.array_equal(volume.data, data)


@pytest.mark.parametrize(
    ("data", "soft", "names"),
    [
        (np.array([[[0.0, 1.0], [2.0, 2.0]]]), False, ("background", "label 1", "label 2")),
        (np.array([[[0.0, 0.25], [1.0, 0.5]]]), True, ("background", "region")),
        (np.array([[[True, False], [False, False]]]), False, ("background", "label 1")),
    ],
)
def test_kind_follows_type_and_values(tmp_path, data, soft, names):
    volume = io.load(write(tmp_path / "map.npy", data))
    assert volume.soft is soft
    assert volume.names == names


def test_kind_overrules_the_values(tmp_path):
    data = np.array([[0.0, 1.0], [1.0, 1.0]])
    volume = io.load(write(tmp_path / "map.npy", data), kind="probabilities")
    assert np.array_equal(volume.data, [1 - data, data])


def test_png_holds_labels_palettes_and_colours(tmp_path):
    labels = np.array([[0, 7], [255, 7]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    palette = Image.fromarray(labels, mode=None).convert("P")
    palette.putpalette([200, 10, 10] * 256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels.astype(np.uint16) * 100).save(tmp_path / "deep.png")
    painted = np.array([[[255, 0, 0], [0, 0, 255]], [[255, 0, 0], [0, 0, 0]]], np.uint8)
    Image.fromarray(painted).save(tmp_path / "painted.png")
    assert np.array_equal(original(io.load(tmp_path / "grey.png")), labels)
    assert np.array_equal(original(io.load(tmp_path / "palette.png")), labels)
    assert np.array_equal(original(io.load(tmp_path / "deep.png")), labels.astype(int) * 100)
    colours = io.load(tmp_path / "painted.png")
    assert colours.names == ("background", "#0000ff", "#ff0000")
    assert np.array_equal(colours.data, [[2, 1], [2, 0]])
    channels = io.load(tmp_path / "painted.png", kind="probabilities")
    assert np.array_equal(channels.data, np.moveaxis(painted, -1, 0) / np.float32(255))


def test_tiff_pages_are_a_volume_and_channels_are_parts(tmp_path):
    pages = np.random.default_rng(0).integers(0, 4, (3, 5, 6)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack", compression="zlib")
    assert np.array_equal(original(io.load(tmp_path / "pages.tif")), pages)
    parts = np.random.default_rng(1).dirichlet(np.ones(4), (5, 6)).astype(np.float32)
    tifffile.imwrite(tmp_path / "parts.tif", parts, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(io.load(tmp_path / "parts.tif").data, np.moveaxis(parts, -1, 0))


def test_a_list_of_maps_gains_the_rest(tmp_path):
    grey, white = (np.full((2, 2, 2), value, np.float32) for value in (0.25, 0.5))
    files = [save_nifti(tmp_path / "gm.nii.gz", grey), save_nifti(tmp_path / "wm.nii.gz", white)]
    volume = io.load(files)
    assert volume.names == ("rest", "gm", "wm")
    np.testing.assert_allclose(volume.data.reshape(3, -1)[:, 0], [0.25, 0.25, 0.5])
    assert io.load(files, rest=False).names == ("gm", "wm")


def test_a_folder_of_maps_follows_its_atlas_list(tmp_path):
    for name in ("b", "a"):
        save_nifti(tmp_path / f"{name}.nii.gz", np.eye(3, dtype=np.uint8)[None] * (255 if name == "a" else 1))
    (tmp_path / "info_label.txt").write_text(
        "# atlas\n# Keyword=IndivLabels (keep)\n# ID, name, file\n0, left, b.nii.gz\n1, right side, a.nii.gz\n\n"
        "# Keyword=CombinedLabels\n50, both, 0:1\n"
    )
    volume = io.load(tmp_path)
    assert volume.names == ("rest", "left", "right side")
    assert volume.data[1].sum() == volume.data[2].sum() == 3


def test_segments_of_seg_nrrd_bring_their_names(tmp_path):
    data = np.zeros((2, 3, 4), np.uint8)
    data[0], data[1, 0] = 3, 9
    header = {
        "space": "left-posterior-superior", "space directions": np.diag([2.0, 1.0, 1.0]),
        "space origin": [1.0, 2.0, 3.0],
        "Segment0_LabelValue": "3", "Segment0_Name": "liver", "Segment1_LabelValue": "9", "Segment1_Name": "tumour",
    }  # fmt: skip
    nrrd.write(str(tmp_path / "case.seg.nrrd"), data, header)
    volume = io.load(tmp_path / "case.seg.nrrd")
    assert volume.names == ("background", "liver", "tumour")
    assert volume.spacing == (2.0, 1.0, 1.0)
    # Left and posterior count against right and anterior.
    assert np.array_equal(volume.affine, np.array([[-2, 0, 0, -1], [0, -1, 0, -2], [0, 0, 1, 3], [0, 0, 0, 1.0]]))


def test_overlapping_segments_become_channels(tmp_path):
    layers = np.zeros((2, 2, 2, 2), np.uint8)
    layers[0, 0], layers[1, :, 0] = 1, 1
    header = {
        "space": "left-posterior-superior", "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.vstack([[np.nan] * 3, np.eye(3)]), "space origin": [0.0, 0.0, 0.0],
        "Segment0_LabelValue": "1", "Segment0_Layer": "0", "Segment1_LabelValue": "1", "Segment1_Layer": "1",
    }  # fmt: skip
    nrrd.write(str(tmp_path / "case.seg.nrrd"), layers, header)
    volume = io.load(tmp_path / "case.seg.nrrd")
    assert volume.data.dtype == bool
    assert np.array_equal(volume.data[1:], layers == 1)
    assert np.array_equal(volume.data[0], ~(layers == 1).any(0))


def bsds(path, *maps):
    cells = np.empty((1, len(maps)), object)
    for number, labels in enumerate(maps):
        cells[0, number] = {"Segmentation": labels.astype(np.uint16), "Boundaries": labels > 1}
    scipy.io.savemat(path, {"groundTruth": cells})
    return path


def test_bsds_annotators(tmp_path):
    a, b = np.array([[1, 2], [2, 2]]), np.array([[1, 1], [2, 3]])
    path = bsds(tmp_path / "1.mat", a, b)
    assert [original(volume).tolist() for volume in io.load_annotators(path)] == [a.tolist(), b.tolist()]
    assert np.array_equal(original(io.load(path, key="1")), b)
    with pytest.raises(io.InputError, match=r"annotator 2 was asked, there are 0\.\.1"):
        io.load(path, key="2")


def test_bsds500_files(public_data):
    folder = public_data / "evalmetrics" / "bsds500_test" / "groundTruth"
    if not folder.is_dir():
        pytest.skip(f"no BSDS500 annotations at {folder}")
    annotators = io.load_annotators(folder / "100007.mat")
    assert len(annotators) == 5
    assert {volume.data.shape for volume in annotators} == {(321, 481)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "# a comment\n0 Unknown\n17 Left Hippocampus\n"),
        ("lut.txt", "0 Unknown 0 0 0 0\n17 Left Hippocampus 220 216 20 0\n"),
        ("snap.label", '0 0 0 0 0 0 0 "Unknown"\n17 255 0 0 1 1 1 "Left Hippocampus"\n'),
        ("dseg.tsv", "index\tname\tcolor\n0\tUnknown\t#000000\n17\tLeft Hippocampus\t#dcd814\n"),
        ("names.csv", "name,label\nUnknown,0\nLeft Hippocampus,17\n"),
        ("names.json", json.dumps({"0": "Unknown", "17": "Left Hippocampus"})),
        ("dataset.json", json.dumps({"labels": {"Unknown": 0, "Left Hippocampus": 17}})),
    ],
)
def test_names_from_side_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert io.read_names(tmp_path / name) == {0: "Unknown", 17: "Left Hippocampus"}
    data = write(tmp_path / "map.npy", np.array([[0, 17], [3, 0]]))
    assert io.load(data, names=tmp_path / name).names == ("Unknown", "label 3", "Left Hippocampus")
