import jax
import numpy as np
import pytest

from faultloc import stats


def test_one_bug_per_cluster_is_the_plain_bootstrap(key):
    values = np.random.default_rng(0).normal(size=400)
    found = stats.clustered_interval(values, np.arange(400), key)
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    # Large-sample limits of the percentile interval.
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_bugs_that_repeat_within_a_cluster_add_no_evidence(key):
    values = np.random.default_rng(1).normal(size=50)
    alone = stats.clustered_interval(values, np.arange(50), key)
    repeated = stats.clustered_interval(np.repeat(values, 7), np.repeat(np.arange(50), 7), key)
    np.testing.assert_allclose(repeated, alone, rtol=1e-12)


def test_the_same_key_gives_the_same_interval(key):
    values, clusters = np.random.default_rng(2).normal(size=90), np.arange(90) // 3
    found = stats.clustered_interval(values, clusters, key)
    assert stats.clustered_interval(values, clusters, key) == found
    assert stats.clustered_interval(values, clusters, jax.random.key(1)).low != found.low


def test_paired_counts_and_the_exact_wilcoxon_test():
    found = stats.paired(np.array([3, 5, 1, 4, 9.0]), np.array([1, 1, 1, 1, 1.0]))
    # Four differences of one sign: 2 / 2^4 by hand.
    assert found == (3.4, 4, 1, 0, 0.125)


def test_rankers_that_agree_everywhere_have_p_value_one():
    assert stats.paired(np.ones(4), np.ones(4)) == (0.0, 0, 4, 0, 1.0)


def test_misuse_is_refused(key):
    with pytest.raises(ValueError, match="values and clusters must be"):
        stats.clustered_interval(np.ones(3), np.ones(2), key)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        stats.clustered_interval(np.ones(3), np.ones(3), key, level=95)
    with pytest.raises(ValueError, match="score the same bugs twice"):
        stats.paired(np.ones(3), np.ones(2))
