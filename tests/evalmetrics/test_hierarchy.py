import numpy as np
import pytest

from evalmetrics import data, hierarchy
from tests.evalmetrics import reference


def make_case(height, width, annotators=3, seed=0, quantised=True):
    """Random merge heights between the cells of a doubled grid, open at the pixels, and random annotations."""
    rng = np.random.default_rng(seed)
    ucm2 = rng.random((2 * height + 1, 2 * width + 1))
    ucm2 = np.round(ucm2, 2) if quantised else ucm2
    ucm2[1::2, 1::2] = 0
    annotations = [rng.integers(0, g + 1, (height, width)) for g in range(annotators)]
    return ucm2, annotations


def check(ucm2, annotations, thresholds, rtol=1e-11):
    ours = hierarchy.tally(ucm2, annotations, thresholds)
    expected = reference.region_benchmark(ucm2, annotations, thresholds)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(ours, name), value, rtol=rtol, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(ours.covered_image, expected["covered"].max(), rtol=rtol)
    np.testing.assert_allclose(ours.rand_image, expected["rand"].max(), rtol=rtol)
    np.testing.assert_allclose(ours.information_image, expected["information"].min(), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quantised", [True, False])
def test_merging_along_the_hierarchy_equals_recounting(seed, quantised):
    ucm2, annotations = make_case(13, 17, annotators=4, seed=seed, quantised=quantised)
    check(ucm2, annotations, hierarchy.THRESHOLDS)


def test_corners_join_pixels_as_eight_connected_cells_do():
    # Only one corner is open: it joins the four pixels around it at 0.3, all else stays closed.
    ucm2 = np.ones((7, 7))
    ucm2[1::2, 1::2] = 0
    ucm2[2, 2] = 0.3
    check(ucm2, [np.arange(9).reshape(3, 3)], np.array([0.1, 0.3, 0.6]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1)])
def test_degenerate_images(shape):
    ucm2, _ = make_case(*shape)
    ours = hierarchy.tally(ucm2, [np.zeros(shape, int)])
    assert all(np.isfinite(x).all() for x in ours)
    if shape != (1, 1):
        check(ucm2, [np.zeros(shape, int), np.arange(np.prod(shape)).reshape(shape)], hierarchy.THRESHOLDS)


def test_a_hierarchy_without_borders_is_one_region():
    annotation = np.arange(12).reshape(3, 4) // 6
    ours = hierarchy.tally(np.zeros((7, 9)), [annotation])
    np.testing.assert_allclose(ours.covered / ours.area, 0.5)
    np.testing.assert_allclose(ours.information, 1.0)


def test_a_single_threshold_and_a_hierarchy_that_never_opens():
    ucm2, annotations = make_case(6, 7)
    check(np.where(ucm2 > 0, 5.0, 0.0), annotations, np.array([0.5]))


def test_tallies_add_up_in_any_grouping():
    cases = [hierarchy.tally(*make_case(8, 9, seed=seed)) for seed in range(3)]
    left = hierarchy.add(hierarchy.add(hierarchy.add(hierarchy.empty(), cases[0]), cases[1]), cases[2])
    right = hierarchy.add(cases[0], hierarchy.add(cases[1], cases[2]))
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_summary_of_two_images_by_hand():
    """Two levels, two images: the data set picks one level for all, OIS lets each image pick its own."""
    thresholds = np.array([0.2, 0.4])

    def one(covered, rand, information, best):
        return hierarchy.Tally(
            *(np.asarray(x) for x in (1, 10, np.array(covered), max(covered), best, np.array(rand), max(rand))),
            np.array(information),
            np.asarray(min(information)),
        )

    total = hierarchy.add(one([8, 4], [0.9, 0.5], [1, 3], 9), one([2, 5], [0.2, 0.8], [4, 1], 6))
    figures = hierarchy.summary(total, thresholds)
    expected = {
        "covering/ods": 0.5,
        "covering/ods_threshold": 0.2,
        "covering/ois": 0.65,
        "covering/best": 0.75,
        "rand/ods": 0.65,
        "rand/ods_threshold": 0.4,
        "rand/ois": 0.85,
        "information/ods": 2.0,
        "information/ods_threshold": 0.4,
        "information/ois": 1.0,
    }
    assert figures == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "error", "remedy"),
    [
        (lambda u, a, t: (u[:-1], a, t), ValueError, "doubled grid"),
        (lambda u, a, t: (u, a, t[::-1]), ValueError, "ascending"),
        (lambda u, a, t: (u + 0.5, a, t), ValueError, "lowest threshold"),
        (lambda u, a, t: (u * np.nan, a, t), ValueError, "lowest threshold"),
        (lambda u, _, t: (u, [], t), ValueError, "at least one"),
        (lambda u, a, t: (u, [a[0].astype(float)], t), TypeError, "annotation 0 must hold integer"),
        (lambda u, a, t: (u, [a[0], a[1][:, 1:]], t), ValueError, "annotation 1 must have the size"),
        (lambda u, a, t: (u, [a[0] - 1], t), ValueError, "relabel"),
    ],
)
def test_misuse_is_refused_with_the_remedy(change, error, remedy):
    ucm2, annotations = make_case(5, 6)
    with pytest.raises(error, match=remedy):
        hierarchy.tally(*change(ucm2, annotations, hierarchy.THRESHOLDS))


def test_summary_refuses_a_tally_without_images_or_of_other_thresholds():
    with pytest.raises(ValueError, match="no image"):
        hierarchy.summary(hierarchy.empty())
    with pytest.raises(ValueError, match="99 thresholds, got 3"):
        hierarchy.summary(hierarchy.tally(*make_case(4, 4)), np.array([0.1, 0.2, 0.3]))


def test_published_scores_of_single_images(public_data):
    """The published per-image results: best threshold and covering there (the last column is another quantity)."""
    images = data.Bsds500(public_data)
    published = np.loadtxt(images.path / "published" / "eval_cover_img.txt")
    for index in (0, 3, 40):
        name = images.names[index]
        ours = hierarchy.tally(images.ucm2(name), images.annotations(name))
        np.testing.assert_allclose(ours.covered_image / ours.area, published[index, 2], rtol=5e-6)
        assert hierarchy.THRESHOLDS[np.argmax(ours.covered)] == pytest.approx(published[index, 1])


@pytest.mark.usefixtures("optimised")
@pytest.mark.slow
def test_every_published_digit_of_the_200_images(public_data):
    images = data.Bsds500(public_data)
    total = hierarchy.empty()
    for name in images.names:
        total = hierarchy.add(total, hierarchy.tally(images.ucm2(name), images.annotations(name)))
    figures = hierarchy.summary(total)

    def printed(*names):
        return [float(f"{figures[name]:.6g}") for name in names]

    cover, both = (
        np.loadtxt(images.path / "published" / file).tolist() for file in ("eval_cover.txt", "eval_RI_VOI.txt")
    )
    assert printed("covering/ods_threshold", "covering/ods", "covering/ois", "covering/best") == cover
    assert printed("rand/ods_threshold", "rand/ods", "rand/ois") == both[:3]
    assert printed("information/ods_threshold", "information/ods", "information/ois") == both[3:]
    by_level = np.loadtxt(images.path / "published" / "eval_cover_th.txt")[:, 1]
    np.testing.assert_allclose(total.covered / total.area, by_level, rtol=5e-6)
    rand, information = np.loadtxt(images.path / "published" / "eval_RI_VOI_thr.txt")[:, 1:].T
    np.testing.assert_allclose(total.rand / total.images, rand, rtol=5e-6)
    np.testing.assert_allclose(total.information / total.images, information, rtol=5e-6)
