import itertools

import numpy as np
import pytest

from faultloc import metrics


def rankings(scores):
    """Every order of the lines that the scores allow."""
    scores = np.asarray(scores)
    for order in itertools.permutations(range(len(scores))):
        if (np.diff(scores[list(order)]) <= 0).all():
            yield list(order)


SCORES = [0.9, 0.5, 0.5, 0.5, 0.1, 0.5]
CASES = [[1], [0], [4], [1, 2], [2, 4], [1, 2, 5], [0, 1, 4]]


@pytest.mark.parametrize("faulty", CASES)
def test_expectations_over_random_tie_order_equal_those_over_all_orders(faulty):
    orders = list(rankings(SCORES))
    first = np.array([min(order.index(line) for line in faulty) + 1 for order in orders])
    found = metrics.band(np.array(SCORES), faulty)
    for n in range(8):
        assert metrics.top(found, n) == pytest.approx((first <= n).mean())
    assert metrics.wasted_effort(found) == pytest.approx((first - 1).mean())
    precision = [
        np.mean([(k + 1) / place for k, place in enumerate(sorted(order.index(line) + 1 for line in faulty))])
        for order in orders
    ]
    assert metrics.average_precision(np.array(SCORES), faulty) == pytest.approx(np.mean(precision))
    ranks = [np.mean([order.index(line) + 1 for line in faulty]) for order in orders]
    assert metrics.average_rank(np.array(SCORES), faulty) == pytest.approx(np.mean(ranks))


@pytest.mark.parametrize("faulty", CASES)
def test_strict_and_best_bound_every_order_and_mid_lies_between(faulty):
    found = metrics.band(np.array(SCORES), faulty)
    strict, mid, best = (metrics.fraction_skipped(found, ties) for ties in metrics.TIES)
    lines, order = len(SCORES), list(rankings(SCORES))
    skipped = [1 - (min(o.index(line) for line in faulty) + 1) / lines for o in order]
    assert best == pytest.approx(max(skipped))
    assert strict <= min(skipped) + 1e-12
    assert strict <= mid + 1e-12 <= best + 2e-12
    # The page's definition of strict, by hand: the lines below the band over all lines.
    assert strict == sum(s < max(SCORES[i] for i in faulty) for s in SCORES) / lines


def test_rounding_keeps_errors_of_floats_from_breaking_ties():
    scores = np.array([0.1 + 0.2, 0.3, 0.1])
    assert metrics.band(scores, [1]).tied == 2
    assert metrics.band(scores, [1], decimals=None).tied == 1


def test_infinite_scores_tie_with_each_other():
    assert metrics.band(np.array([np.inf, np.inf, 5]), [0]) == (0, 2, 1, 3)


def test_examination_curve_counts_the_bugs_found():
    curve = metrics.examination_curve([0.99, 0.9, 0.5], [0, 0.01, 0.1, 0.5, 1])
    np.testing.assert_allclose(curve, [0, 1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize(
    ("scores", "faulty", "line"),
    [([1, 2], [], "faulty must name lines"), ([1, 2], [2], r"0\.\.1"), ([1, np.nan], [0], "1 scores are NaN")],
)
def test_misuse_is_refused(scores, faulty, line):
    with pytest.raises(ValueError, match=line):
        metrics.band(np.array(scores), faulty)
    with pytest.raises(ValueError, match="ties must be one of strict, mid, best"):
        metrics.fraction_skipped(metrics.band(np.ones(3), [0]), "worst")
