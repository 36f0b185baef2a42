import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from evalmetrics import crisp, stats


def skewed_scores(cases=40, metrics=3, seed=0):
    return np.random.default_rng(seed).beta(5, 2, (cases, metrics)).astype(np.float32)


def median(scores):
    return jnp.median(scores, axis=0)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_equal_scipy_within_resampling_error(key, method):
    scores = skewed_scores()
    ours = stats.bootstrap_ci(scores, key, method=method, samples=20_000)
    theirs = scipy.stats.bootstrap(
        (scores.astype(float),), np.mean, n_resamples=20_000, method=method, axis=0, rng=np.random.default_rng(1)
    ).confidence_interval
    spread = scores.std(0) / np.sqrt(len(scores))
    np.testing.assert_allclose(ours.estimate, scores.mean(0), rtol=1e-6)
    assert (np.abs(ours.low - theirs.low) < 0.06 * spread).all()
    assert (np.abs(ours.high - theirs.high) < 0.06 * spread).all()


def bca_by_hand(scores, resampled, statistic, confidence):
    """Float64 bounds of one metric from given resampled statistics, by the formulas of Efron and Tibshirani."""
    estimate = statistic(scores)
    below = ((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2
    bias = scipy.stats.norm.ppf(below)
    jackknife = np.array([statistic(np.delete(scores, i)) for i in range(len(scores))])
    spread = jackknife.mean() - jackknife
    acceleration = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z = bias + scipy.stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return np.quantile(resampled, scipy.stats.norm.cdf(bias + z / (1 - acceleration * z)))


@pytest.mark.parametrize(("statistic", "plain"), [(None, np.mean), (median, np.median)])
def test_bca_equals_the_formulas_on_the_same_resamples(key, statistic, plain):
    scores = skewed_scores(15, 2)
    draws = np.asarray(jax.random.randint(key, (500, 15), 0, 15))
    ours = stats.bootstrap_ci(scores, key, statistic=statistic, method="bca", samples=500, confidence=0.9)
    for metric in range(2):
        # Float32 as the code has it: a mean that meets the estimate must tie in both.
        resampled = np.array([plain(scores[draw, metric]) for draw in draws])
        expected = bca_by_hand(scores[:, metric], resampled, plain, 0.9)
        np.testing.assert_allclose([ours.low[metric], ours.high[metric]], expected, rtol=2e-4)


def test_percentile_bounds_are_the_quantiles_of_the_same_resamples(key):
    scores = skewed_scores(12, 1)[:, 0]
    draws = np.asarray(jax.random.randint(key, (400, 12), 0, 12))
    expected = np.quantile(scores[draws].mean(1), [0.05, 0.95])
    ours = stats.bootstrap_ci(scores, key, samples=400, confidence=0.9)
    np.testing.assert_allclose([ours.low, ours.high], expected, rtol=1e-5)
    assert ours.low.shape == ()


def test_metrics_of_any_shape_are_resampled_together(key):
    scores = skewed_scores(10, 6).reshape(10, 2, 3)
    whole = stats.bootstrap_ci(scores, key, samples=200)
    assert whole.low.shape == (2, 3)
    np.testing.assert_allclose(whole.high[1, 2], stats.bootstrap_ci(scores[:, 1, 2], key, samples=200).high, rtol=1e-6)


def test_the_key_decides_the_interval(key):
    scores = skewed_scores()
    first, again = (stats.bootstrap_ci(scores, key, samples=200) for _ in range(2))
    np.testing.assert_array_equal(first.low, again.low)
    assert (first.low != stats.bootstrap_ci(scores, jax.random.key(1), samples=200).low).any()


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_cases_and_a_single_case_give_a_point(key, method):
    for scores in (np.full((5, 1), 0.25, np.float32), np.full((1, 1), 0.25, np.float32)):
        interval = stats.bootstrap_ci(scores, key, method=method, samples=50)
        np.testing.assert_array_equal(interval, np.full((3, 1), 0.25))


def test_a_metric_with_nan_says_so_and_leaves_the_others_alone(key):
    scores = skewed_scores()
    clean = stats.bootstrap_ci(scores, key, method="bca", samples=200)
    scores[3, 1] = np.nan
    spoilt = stats.bootstrap_ci(scores, key, method="bca", samples=200)
    assert np.isnan(spoilt.low[1])
    assert np.isnan(spoilt.high[1])
    np.testing.assert_array_equal(spoilt.low[jnp.array([0, 2])], clean.low[jnp.array([0, 2])])


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_exact_p_values_equal_scipy(alternative):
    first, second = skewed_scores(9), skewed_scores(9, seed=1)
    second[:4, 1] = first[:4, 1]  # ties
    ours = stats.paired_permutation_test(first, second, alternative=alternative)
    theirs = scipy.stats.permutation_test(
        (first.astype(float), second.astype(float)),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        alternative=alternative,
        vectorized=True,
        axis=0,
    )
    assert ours.exact
    assert ours.permutations == 2**9
    np.testing.assert_allclose(ours.difference, theirs.statistic, rtol=1e-5)
    np.testing.assert_allclose(ours.p_value, theirs.pvalue, rtol=1e-6)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_random_p_values_agree_with_the_exact_ones(key, alternative):
    first, second = skewed_scores(12), skewed_scores(12, seed=3)
    exact = stats.paired_permutation_test(first, second, alternative=alternative)
    random = stats.paired_permutation_test(first, second, key, alternative=alternative, permutations=4000)
    assert exact.exact
    assert not random.exact
    error = np.sqrt(exact.p_value * (1 - exact.p_value) / 4000)
    assert (np.abs(random.p_value - exact.p_value) < 4 * error + 1 / 4000).all()


def test_a_difference_larger_than_every_pattern_has_the_smallest_p_value(key):
    first, second = np.ones(30, np.float32), np.zeros(30, np.float32)
    assert stats.paired_permutation_test(first, second, key, permutations=99).p_value == pytest.approx(0.01)
    assert stats.paired_permutation_test(first[:5], second[:5]).p_value == pytest.approx(2 / 32)


def test_equal_methods_are_not_told_apart(key):
    scores = skewed_scores(20)
    np.testing.assert_array_equal(stats.paired_permutation_test(scores, scores, key).p_value, 1)


def test_a_nan_score_gives_no_p_value():
    first, second = skewed_scores(6), skewed_scores(6, seed=1)
    first[2, 0] = np.nan
    p_value = stats.paired_permutation_test(first, second).p_value
    assert np.isnan(p_value[0])
    assert np.isfinite(p_value[1:]).all()


def test_agreement_of_raters():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (12, 12))
    raters = [np.where(rng.random(truth.shape) < noise, 0, truth) for noise in (0, 0.2, 0.5)]

    def rand(a, b):
        return crisp.rand(crisp.contingency(a, b, (3, 3)))

    def precision(a, b):
        return crisp.precision(crisp.contingency(a, b, (3, 3)))[0]

    matrix = stats.agreement_matrix(raters, rand)
    np.testing.assert_allclose(matrix, [[rand(a, b) for b in raters] for a in raters], rtol=1e-6)
    np.testing.assert_array_equal(np.diagonal(matrix), 1)
    uneven = stats.agreement_matrix(raters, precision, symmetric=False)
    np.testing.assert_allclose(uneven, [[precision(a, b) for b in raters] for a in raters], rtol=1e-7)
    assert uneven[0, 2] != uneven[2, 0]


def test_agreement_by_default_does_not_mind_the_names_of_regions():
    labels = np.random.default_rng(0).integers(0, 3, (6, 6))
    matrix = stats.agreement_matrix([labels, (labels + 1) % 3])
    np.testing.assert_allclose(matrix, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda k: stats.bootstrap_ci(np.zeros(3, np.float32), k, confidence=95), ValueError, r"in \(0, 1\), got 95"),
        (lambda k: stats.bootstrap_ci(np.zeros(3, np.float32), k, method="basic"), ValueError, "percentile or bca"),
        (lambda k: stats.bootstrap_ci(np.zeros(3, np.float32), k, samples=0), ValueError, "at least 1"),
        (lambda k: stats.bootstrap_ci(np.zeros(3, int), k), TypeError, "floating"),
        (lambda k: stats.bootstrap_ci(np.zeros((0, 2), np.float32), k), ValueError, "at least one case"),
        (lambda _: stats.paired_permutation_test(*np.zeros((2, 30), np.float32)), ValueError, "pass a random key"),
        (
            lambda k: stats.paired_permutation_test(np.zeros(3, np.float32), np.zeros(2, np.float32), k),
            ValueError,
            "same cases",
        ),
        (
            lambda k: stats.paired_permutation_test(*np.zeros((2, 3), np.float32), k, alternative="both"),
            ValueError,
            "two-sided, greater or less",
        ),
        (lambda _: stats.agreement_matrix([]), ValueError, "at least one"),
    ],
)
def test_misuse_is_refused_with_the_remedy(key, call, error, remedy):
    with pytest.raises(error, match=remedy):
        call(key)
