import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import calibration

MEASURES = [
    calibration.brier_score,
    calibration.expected_calibration_error,
    calibration.classwise_calibration_error,
    calibration.maximum_calibration_error,
]


def make_case(regions=4, shape=(30, 41), seed=0):
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.full(regions, 0.5), shape)
    reference = (rng.random((*shape, 1)) < soft.cumsum(-1)).argmax(-1)
    sharper = soft**2 / (soft**2).sum(-1, keepdims=True)  # overconfident
    return reference, np.moveaxis(sharper, -1, 0).astype(np.float32)


def gap_by_bins(probability, right, weights, bins):
    """Float64 sum over bins (lower, upper] of |sum w (probability - right)|, and the largest mean gap."""
    edges = np.linspace(0, 1, bins + 1)
    total, largest = 0.0, 0.0
    for lower, upper in itertools.pairwise(edges):
        inside = (probability > lower) & (probability <= upper) if lower > 0 else probability <= upper
        gap = abs((weights * (probability - right))[inside].sum())
        total += gap
        if weights[inside].sum():
            largest = max(largest, gap / weights[inside].sum())
    return total / weights.sum(), largest


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_all_figures_equal_the_definition(weighted, bins):
    reference, prediction = make_case()
    weights = np.random.default_rng(1).random(reference.shape) if weighted else np.ones(reference.shape)
    given = {"weights": weights.astype(np.float32)} if weighted else {}
    sums = calibration.calibration_sums(reference, prediction, bins=bins, **given)

    p, y, w = prediction.reshape(4, -1).astype(float), reference.ravel(), weights.ravel()
    truth = np.arange(4)[:, None] == y
    np.testing.assert_allclose(
        calibration.brier_score(sums), (w * ((p - truth) ** 2).sum(0)).sum() / w.sum(), rtol=1e-5
    )
    top = gap_by_bins(p.max(0), p.argmax(0) == y, w, bins)
    np.testing.assert_allclose(calibration.expected_calibration_error(sums), top[0], rtol=1e-4)
    np.testing.assert_allclose(calibration.maximum_calibration_error(sums), top[1], rtol=1e-4)
    expected = [gap_by_bins(p[k], truth[k], w, bins)[0] for k in range(4)]
    np.testing.assert_allclose(calibration.classwise_calibration_error(sums), expected, rtol=1e-4, atol=1e-6)


def test_brier_score_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="peer scikit-learn is not installed")
    reference, prediction = make_case(2)
    expected = metrics.brier_score_loss(reference.ravel(), prediction[1].ravel().astype(float))
    sums = calibration.calibration_sums(reference, prediction)
    # Over two classes each error counts twice; scikit-learn counts the positive class only.
    np.testing.assert_allclose(calibration.brier_score(sums) / 2, expected, rtol=1e-5)


def test_reliability_equals_the_calibration_curve_of_scikit_learn():
    peer = pytest.importorskip("sklearn.calibration", reason="peer scikit-learn is not installed")
    reference, prediction = make_case(3)
    table = calibration.reliability(calibration.calibration_sums(reference, prediction, bins=7), by_region=True)
    for k in range(3):
        truth, predicted = peer.calibration_curve(reference.ravel() == k, prediction[k].ravel(), n_bins=7)
        np.testing.assert_allclose(table.accuracy[k], truth, rtol=1e-5)
        np.testing.assert_allclose(table.confidence[k], predicted, rtol=1e-5)


def test_reliability_table_by_hand():
    """Four voxels, two bins: confidences .6 right, .8 wrong, 1 right; .5 right falls into the lower bin."""
    reference = np.array([0, 1, 0, 1])
    first = np.array([0.6, 0.8, 1.0, 0.5], np.float32)
    prediction = np.stack([first, 1 - first])
    prediction[:, 3] = [0.49, 0.5]
    table = calibration.reliability(calibration.calibration_sums(reference, prediction, bins=2))
    np.testing.assert_allclose(table.edges, [0, 0.5, 1])
    np.testing.assert_allclose(table.share, [0.25, 0.75])
    np.testing.assert_allclose(table.confidence, [0.5, 0.8], rtol=1e-6)
    np.testing.assert_allclose(table.accuracy, [1, 2 / 3], rtol=1e-6)


def test_a_bin_without_voxels_is_not_a_number_and_changes_nothing():
    sums = calibration.calibration_sums(np.zeros(3, int), np.array([[0.9] * 3, [0.1] * 3], np.float32), bins=10)
    table = calibration.reliability(sums)
    assert np.isnan(table.accuracy).sum() == 9
    np.testing.assert_allclose(calibration.expected_calibration_error(sums), 0.1, rtol=1e-5)
    np.testing.assert_allclose(calibration.maximum_calibration_error(sums), 0.1, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_sums_of_blocks_merge_into_the_whole(measure):
    reference, prediction = make_case(shape=(70, 71))
    whole = calibration.calibration_sums(reference, prediction)
    blocks = [calibration.calibration_sums(reference[rows], prediction[:, rows]) for rows in (slice(9), slice(9, 70))]
    np.testing.assert_allclose(measure(calibration.merge(*blocks)), measure(whole), rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_certain_and_true_map_has_no_error(measure):
    reference = np.random.default_rng(0).integers(0, 3, (9, 9))
    prediction = (np.arange(3)[:, None, None] == reference).astype(np.float32)
    np.testing.assert_array_equal(measure(calibration.calibration_sums(reference, prediction)), 0)


def test_left_out_voxels_count_nowhere():
    reference, prediction = make_case()
    mask = np.random.default_rng(2).random(reference.shape) < 0.5
    expected = calibration.calibration_sums(reference[mask], prediction[:, mask])
    for sums in (
        calibration.calibration_sums(np.where(mask, reference, -1), prediction),
        calibration.calibration_sums(reference, prediction, weights=mask),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), sums, expected)


def test_works_under_jit_and_does_not_compile_again():
    reference, prediction = make_case()
    jitted = jax.jit(calibration.calibration_sums)(jnp.asarray(reference), prediction)
    plain = calibration.calibration_sums(reference, prediction)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), jitted, plain)
    compiled = calibration._sum_up._cache_size()
    calibration.calibration_sums(reference, prediction)
    assert calibration._sum_up._cache_size() == compiled


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda _, p: calibration.calibration_sums(p[0], p), TypeError, "label map"),
        (lambda r, _: calibration.calibration_sums(r, r), TypeError, "soft map"),
        (lambda r, p: calibration.calibration_sums(r[1:], p), ValueError, "one voxel grid"),
        (lambda r, p: calibration.calibration_sums(r, p, bins=0), ValueError, "at least 1"),
        (
            lambda r, p: calibration.merge(
                calibration.calibration_sums(r, p, bins=3), calibration.calibration_sums(r, p, bins=4)
            ),
            ValueError,
            "equal",
        ),
    ],
)
def test_misuse_is_refused_with_the_remedy(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call(*make_case())
