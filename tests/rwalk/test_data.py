"""Readers of the public brains, on twins laid out like them, and on the brains themselves where they are."""

import nibabel
import numpy as np
import pytest

from rwalk import data, options, pooling, seeding
from rwalk.checks import InputError

SHAPE = (18, 20, 16)


def write_twins(root):
    """Folders named and laid out like the two public data sets, with a ball in a ball instead of brains."""
    centre = [(size - 1) / 2 for size in SHAPE]
    radius = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(SHAPE), centre, strict=True)))
    noise = np.random.default_rng(0).normal(0, 0.01, SHAPE)
    ring, core = (radius < 8) & (radius >= 4.5), radius < 4.5
    image = np.clip((0.4 * ring + 0.8 * core + noise) * (radius < 8), 0, 1)
    (root / "rwalk" / "brain_46_labels").mkdir(parents=True)
    seg = np.select([core & (radius < 1), core, ring], [10.0, 2.0, 3.0])
    np.savez(root / "rwalk" / "brain_46_labels" / "test_scan.npz", vol=image, seg=seg)
    folder = root / "rwalk" / "brain_pair"
    folder.mkdir()
    for name in "AB":
        for ending, array in (("", image), ("_seg", np.select([core, ring], [2, 1]).astype(np.int16))):
            affine = np.eye(4)
            if name == "A" and ending:  # this map lies on another grid; brought to the image's, it is the same
                array, affine[0, 3] = np.roll(array, 1, 0), -1
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"image_{name}_160x192x144{ending}.nii.gz")
    return root


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    return write_twins(tmp_path_factory.mktemp("public"))


def test_the_groups_of_structures_hold_each_value_once():
    values = [value for group in data.GROUPS.values() for value in group]
    assert len(values) == len(set(values)) == 46


def test_twins_are_read_cut_to_the_head_and_named(twins, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(twins))
    grouped = data.labels46(None, 1, grouped=True)
    assert grouped.names == tuple(data.GROUPS)
    assert set(np.unique(grouped.truth[grouped.mask])) == {1, 2, 4}
    assert grouped.mask.shape == (16, 16, 16)
    every = data.labels46(None, 1, grouped=False)
    assert every.names == ("structure 0", "structure 2", "structure 3", "structure 10")
    pair = data.pair(None, "B", 2)
    assert pair.truth.shape == pair.mask.shape
    assert pair.truth[tuple(size // 2 for size in pair.mask.shape)] == 2
    first, second = (data.pair(None, which, 1).truth for which in "AB")
    np.testing.assert_array_equal(first, second)


def test_the_most_common_label_of_a_cube_wins_and_the_smaller_of_equals():
    labels = np.array([[3, 3, 1, 2], [3, 0, 2, 1]])
    np.testing.assert_array_equal(pooling.most_common(labels, 2), [[3, 1]])


def test_seeds_from_the_truth_lie_deep_inside_and_no_label_goes_without(twins):
    case = data.labels46(str(twins / "rwalk" / "brain_46_labels"), 1, grouped=False)
    seeds = seeding.from_truth(case.truth, case.mask, every=8, spacing=case.spacing)
    there = seeds >= 0
    np.testing.assert_array_equal(seeds[there], case.truth[there])
    assert set(np.unique(seeds[there])) == set(np.unique(case.truth[case.mask]))
    inner = np.argwhere((seeds == 1) & there)
    for place in inner:
        around = case.truth[tuple(slice(p - 1, p + 2) for p in place)]
        assert (around == 1)[1, 1].all()  # its neighbours along the last axis share its label


def boxed(folder, shape=(8, 9)):
    """An image whose mask is a box of 4 x 4 voxels, and a function that saves seeds and reads them."""
    np.save(folder / "i.npy", np.random.default_rng(0).random(shape).astype(np.float32))
    mask = np.zeros(shape, np.uint8)
    mask[2:6, 2:6] = 1
    np.save(folder / "m.npy", mask)

    def placed(marks, pool=1):
        seeds = np.zeros(shape, np.int32)
        for place, label in marks.items():
            seeds[place] = label
        np.save(folder / "s.npy", seeds)
        case = data.from_file(str(folder / "i.npy"), str(folder / "m.npy"), pool)
        return options.SeedFile(path=str(folder / "s.npy"), pieces="refuse").place(case)

    return placed


def test_seeds_far_outside_the_mask_are_told_before_the_image_is_cut(tmp_path):
    placed = boxed(tmp_path)
    np.testing.assert_array_equal(placed({(2, 2): 1, (5, 5): 2, (0, 0): 2})[[0, 3], [0, 3]], [0, 1])
    with pytest.raises(InputError, match="all seeds of label 2 are outside the mask"):
        placed({(2, 2): 1, (0, 8): 2})
    with pytest.raises(InputError, match="all seeds of label 3 are outside the mask"):
        placed({(2, 2): 1, (3, 3): 2, (0, 8): 3})
    with pytest.raises(InputError, match="all seeds of label 1, 2 are outside the mask"):
        placed({(0, 0): 1, (0, 8): 2})


def test_seeds_of_the_image_are_pooled_with_it(tmp_path):
    placed = boxed(tmp_path)
    marks = {(2, 2): 1, (3, 3): 1, (4, 2): 1, (4, 3): 2, (2, 5): 2, (0, 0): 2}
    np.testing.assert_array_equal(placed(marks, pool=2), [[0, 1], [-1, -1]])
    np.save(tmp_path / "c.npy", np.array([[0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    case = data.from_file(str(tmp_path / "i.npy"), str(tmp_path / "m.npy"), 2)  # seeds that were saved of such a case
    np.testing.assert_array_equal(data.read_seeds(str(tmp_path / "c.npy"), case), [[0, 1], [-1, -1]])
    with pytest.raises(InputError, match=r"image\.pool=2: all seeds of label 3 in .*s\.npy share their cubes"):
        placed({**marks, (5, 2): 3}, pool=2)
    with pytest.raises(InputError, match="all seeds of label 3 are outside the mask"):
        placed({**marks, (7, 7): 3}, pool=2)
    np.save(tmp_path / "c.npy", np.eye(5, 9))
    with pytest.raises(InputError, match=r"shape \(5, 9\), the image .*i\.npy \(8, 9\)"):
        data.read_seeds(str(tmp_path / "c.npy"), case)


def test_priors_of_the_image_are_pooled_with_it(tmp_path, noise):
    case = data.from_file(*files_of(tmp_path, noise, (4, 6, 4)), 2)
    second = noise.random((4, 6, 4)).astype(np.float32)
    priors = np.stack([1 - second, second])
    priors[:, 0, 0, 0] = np.nan  # outside the mask
    np.save(tmp_path / "p.npy", priors)
    found = data.read_priors(str(tmp_path / "p.npy"), case, close=False)
    assert found.shape == (2, 2, 3, 2)
    np.testing.assert_allclose(found[1, 1, 2, 1], second[2:, 4:, 2:].mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1, 0, 0, 0], second[:2, :2, :2].ravel()[1:].mean(), rtol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)


def files_of(folder, noise, shape):
    """An image and its mask, which lacks one corner."""
    mask = np.ones(shape, np.uint8)
    mask[0, 0, 0] = 0
    np.save(folder / "i.npy", noise.random(shape).astype(np.float32))
    np.save(folder / "m.npy", mask)
    return str(folder / "i.npy"), str(folder / "m.npy")


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (np.ones((4, 6, 5)), r"t\.npy: the truth has shape \(4, 6, 5\)"),
        (np.full((4, 6, 4), 0.5), r"t\.npy: the truth must hold whole numbers from 0"),
        (np.ones((2, 4, 6, 4)), r"t\.npy: 2 channels; a truth has one"),
    ],
)
def test_a_truth_that_does_not_fit_is_called_so(truth, words, tmp_path, noise):
    image, mask = files_of(tmp_path, noise, (4, 6, 4))
    np.save(tmp_path / "t.npy", truth)
    with pytest.raises(InputError, match=words):
        data.from_file(image, mask, 1, str(tmp_path / "t.npy"))


def test_absent_data_are_one_line_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("QUARTET_DATA", raising=False)
    with pytest.raises(InputError, match=r"QUARTET_DATA is not set; give image\.path=FOLDER of brain_pair"):
        data.pair(None, "A", 1)
    with pytest.raises(InputError, match="is no folder"):
        data.labels46(str(tmp_path / "none"), 1, grouped=True)
    with pytest.raises(InputError, match="needs the arrays vol and seg"):
        data.labels46(str(tmp_path), 1, grouped=True)
    seeds = options.TruthSeeds(every=5, pieces="refuse")
    with pytest.raises(InputError, match="no truth to take seeds from"):
        seeds.place(data.Case(*[None] * 9, "image"))


@pytest.mark.slow
def test_the_public_brains_are_read(public_data, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(public_data))
    case = data.labels46(None, 6, grouped=True)
    assert 8000 < case.mask.sum() < 13000
    assert set(np.unique(case.truth[case.mask])) == set(range(7))
    case = data.pair(None, "A", 6)
    assert set(np.unique(case.truth[case.mask])) == {0, 1, 2}
