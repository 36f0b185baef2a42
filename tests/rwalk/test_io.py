import re

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rwalk import checks, data, io, pooling
from rwalk.checks import InputError

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


def nifti(path, array, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def test_nifti_is_read_with_its_place_and_channels_first(tmp_path, noise):
    array = noise.random((5, 6, 7, 2)).astype(np.float32)
    volume = io.read(nifti(tmp_path / "t1.nii.gz", array))
    np.testing.assert_array_equal(volume.data, np.moveaxis(array, -1, 0))
    assert volume.spacing == (2.0, 2.0, 3.0)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    flat = io.read(nifti(tmp_path / "slice.nii", array[:, :, :1, 0]))
    assert flat.data.shape == (1, 5, 6)
    assert flat.spacing == (2.0, 2.0)


def test_pictures_and_npy_are_read_with_channels_first(tmp_path, noise):
    from PIL import Image

    colours = noise.integers(0, 255, (5, 6, 4)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(io.read(tmp_path / "a.png").data, np.moveaxis(colours[..., :3], -1, 0))
    np.save(tmp_path / "b.npy", colours[..., 0])
    assert io.read(tmp_path / "b.npy").data.shape == (1, 5, 6)


def test_a_palette_and_printers_inks_are_read_as_colours_but_seeds_as_indices(tmp_path):
    from PIL import Image

    marks = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = np.array([[0, 0, 0], [10, 200, 30], [90, 5, 250]], np.uint8)
    indexed = Image.fromarray(marks, "P")
    indexed.putpalette(palette.tobytes())
    indexed.save(tmp_path / "p.png")
    np.testing.assert_array_equal(io.read(tmp_path / "p.png").data, np.moveaxis(palette[marks], -1, 0))
    image = io.Volume(np.zeros((1, 2, 3)), (1.0, 1.0), None, "image")
    np.testing.assert_array_equal(io.read_seeds(tmp_path / "p.png", image), marks.astype(int) - 1)
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, 4:, 3] = 255  # black ink alone
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.jpg", quality=100)
    found = io.read(tmp_path / "inks.jpg").data.astype(int)
    assert found.shape == (3, 8, 8)
    assert found[:, :, :4].min() > 250
    assert found[:, :, 4:].max() < 5


@settings(deadline=None, max_examples=20)
@given(
    array=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.floats(0, 1, width=32)
    )
)
def test_what_is_saved_is_read_back_on_the_same_grid(tmp_path_factory, array):
    folder = tmp_path_factory.mktemp("round")
    path = io.save(folder / "x", array, AFFINE)
    back = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), array)
    np.testing.assert_allclose(back.affine, AFFINE)
    many = io.save(folder / "y", np.stack([array, array]), AFFINE, channels=True)
    assert nibabel.load(many).shape == (*array.shape, 2)
    np.testing.assert_array_equal(np.load(io.save(folder / "z", array, None)), array)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.ones(3))

    def fail(file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        io.write_atomically(path, fail)
    np.testing.assert_array_equal(np.load(path), np.ones(3))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f / "missing.nii.gz", "missing.nii.gz: no such file"),
        (lambda f: f / "a.doc", "unsupported file type"),
        (lambda f: (f / "t1.nii.gz").with_name("cut.nii.gz"), "cut.nii.gz: not a sound .nii.gz file"),
        (lambda f: f / "line.npy", "two or three axes of space"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path, spoil, words):
    sound = nifti(tmp_path / "t1.nii.gz", np.ones((9, 9, 9), np.float32) * np.arange(9, dtype=np.float32))
    (tmp_path / "cut.nii.gz").write_bytes(sound.read_bytes()[:100])
    np.save(tmp_path / "line.npy", np.ones(4))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        io.read(spoil(tmp_path))
    assert "\n" not in str(caught.value)


def test_seeds_of_another_shape_or_place_are_refused(tmp_path):
    image = io.read(nifti(tmp_path / "t1.nii.gz", np.zeros((4, 5, 6), np.float32)))
    nifti(tmp_path / "shape.nii.gz", np.zeros((4, 5, 5), np.uint8))
    with pytest.raises(InputError, match=r"shape \(4, 5, 5\).*resample"):
        io.read_seeds(tmp_path / "shape.nii.gz", image)
    moved = AFFINE.copy()
    moved[0, 3] += 1.5
    nifti(tmp_path / "place.nii.gz", np.zeros((4, 5, 6), np.uint8), moved)
    with pytest.raises(InputError, match=r"up to 1\.5 mm away.*affines differ"):
        io.read_seeds(tmp_path / "place.nii.gz", image)
    nifti(tmp_path / "real.nii.gz", np.full((4, 5, 6), 0.5, np.float32))
    with pytest.raises(InputError, match="whole numbers"):
        io.read_seeds(tmp_path / "real.nii.gz", image)
    nifti(tmp_path / "good.nii.gz", np.eye(5, 6, dtype=np.uint8)[None].repeat(4, 0))
    np.testing.assert_array_equal(io.read_seeds(tmp_path / "good.nii.gz", image)[0], np.eye(5, 6) - 1)


def test_pooling_keeps_the_place_of_the_image(tmp_path):
    ramp = np.arange(8, dtype=np.float32)[:, None, None] + np.zeros((8, 8, 8), np.float32)
    volume = pooling.coarser(io.read(nifti(tmp_path / "t1.nii.gz", ramp)), 2)
    np.testing.assert_array_equal(volume.data[0, :, 0, 0], [0.5, 2.5, 4.5, 6.5])
    assert volume.spacing == (4.0, 4.0, 6.0)
    # The centre of the first cube of 2 is at index 0.5 of the original.
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], AFFINE @ [0.5, 0.5, 0.5, 1])


def test_a_case_is_cut_to_its_mask_and_put_back(tmp_path, noise):
    image = noise.random((6, 7, 8)).astype(np.float32)
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[2:5, 1:4, 3:7] = 1
    nifti(tmp_path / "t1.nii.gz", image)
    case = data.from_file(str(tmp_path / "t1.nii.gz"), str(nifti(tmp_path / "mask.nii.gz", mask)), 1)
    assert case.image.shape == (1, 3, 3, 4)
    np.testing.assert_array_equal(case.uncut(case.image), (image * mask)[None])


SQUARE = np.ones((4, 4), bool)
EMPTY = np.full((4, 4), -1)


def seeded(*marks):
    seeds = EMPTY.copy()
    for (i, j), label in marks:
        seeds[i, j] = label
    return seeds


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda: checks.check_seeds(EMPTY, SQUARE, "s"), "no seeds; mark voxels"),
        (lambda: checks.check_seeds(seeded(((0, 0), 1)), SQUARE, "s"), "one label only"),
        (
            lambda: checks.check_seeds(seeded(((0, 0), 0), ((3, 3), 1)), np.tri(4, 4, 2, dtype=bool).T, "s"),
            None,
        ),
        (
            lambda: checks.check_seeds(seeded(((0, 0), 0), ((3, 0), 1)), np.tri(4, dtype=bool).T, "s"),
            "all seeds of label 2 are outside the mask",
        ),
        (lambda: checks.check_seeds(seeded(((0, 0), 0), ((3, 0), 254)), SQUARE, "s"), None),
        (lambda: checks.check_seeds(np.arange(400).reshape(20, 20), np.ones((20, 20), bool), "s"), None),
        (
            lambda: checks.check_seeds(seeded(((0, 0), 0), ((3, 0), 299)), SQUARE, "s"),
            "s: labels go up to 300, but only 2 of them have seeds; number them 1 to 2",
        ),
        (lambda: checks.check_labels(seeded(((0, 0), 4)), 5, "s", "p"), None),
        (
            lambda: checks.check_labels(seeded(((0, 0), 0), ((3, 0), 4)), 2, "s", "p"),
            "s: seeds of label 5, the priors p have labels 1 to 2; give priors of all labels",
        ),
        (lambda: checks.check_label_map(np.full((1, 2, 2), 7.0), "l"), None),
        (lambda: checks.check_label_map(np.full((1, 2, 2), 0.5), "l"), "l: the label map must hold whole numbers"),
        (lambda: checks.check_label_map(np.full((1, 2, 2), np.nan), "l"), "got nan among them"),
        (lambda: checks.check_label_map(np.full((1, 2, 2), -1), "l"), "got -1 to -1"),
        (lambda: checks.check_label_map(np.full((1, 2, 2), np.inf), "l"), "got inf to inf"),
        (lambda: checks.check_label_map(np.zeros((3, 2, 2)), "l"), "l: 3 channels; a label map has one"),
        (lambda: checks.check_image(np.ones((1, 4, 4)), SQUARE, "i"), "constant (1) inside the mask"),
        (lambda: checks.check_image(np.full((1, 4, 4), np.nan), SQUARE, "i"), "16 of 16 voxels are NaN"),
        (lambda: checks.check_image(np.ones((1, 4, 4)), ~SQUARE, "i"), "mask is empty"),
        (lambda: checks.check_priors(np.ones((2, 4, 4)), SQUARE, "p", close=False), "sum to 2..2, one is needed"),
        (lambda: checks.check_priors(np.zeros((2, 4, 4)), SQUARE, "p", close=True), "zero for all labels at 16 voxels"),
        (lambda: checks.check_priors(-np.ones((2, 4, 4)), SQUARE, "p", close=True), "not negative"),
        (lambda: checks.check_priors(np.ones((1, 4, 4)), SQUARE, "p", close=True), "one label only"),
    ],
)
def test_bad_input_is_told_in_one_line(check, words):
    if words is None:
        check()
        return
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        check()
    assert "\n" not in str(caught.value)


def test_priors_are_divided_by_their_sum_with_a_warning_where_that_is_asked_for():
    with pytest.warns(UserWarning, match=r"p: the priors sum to 4\.\.4; they are divided by their sums"):
        p = checks.check_priors(np.stack([np.full((4, 4), 1.0), np.full((4, 4), 3.0)]), SQUARE, "p", close=True)
    np.testing.assert_array_equal(p[:, 0, 0], [0.25, 0.75])
    np.testing.assert_array_equal(checks.check_priors(p, SQUARE, "p", close=True), p)  # nothing to divide, no warning
