"""The best fault sets against the enumeration of all sets, and clamping against the posterior's own definition."""

import itertools

import numpy as np
import pytest

from faultloc import faultsets


def enumerate_all(log_posterior, run, largest):
    found = []
    for size in range(1, largest + 1):
        for lines in itertools.combinations(range(len(log_posterior)), size):
            explains = run[:, lines].any(1).all()
            vain = any(run[:, [n for n in lines if n != left]].any(1).all() for left in lines) if size > 1 else False
            if explains and not vain:
                found.append((sum(log_posterior[list(lines)]), lines))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_sets_are_those_of_an_enumeration(seed):
    rng = np.random.default_rng(seed)
    tests, lines = rng.integers(1, 6), rng.integers(3, 11)
    run = rng.random((tests, lines)) < rng.choice([0.3, 0.6])
    run[:, 0] |= ~run.any(1)
    posterior = np.log(rng.dirichlet(np.ones(lines)))
    expected = enumerate_all(posterior, run, 3)[:6]
    found = faultsets.best(posterior, run, 6, largest=3)
    assert [entry.lines for entry in found] == [tuple(lines) for _, lines in expected]
    np.testing.assert_allclose([entry.score for entry in found], [score for score, _ in expected])


def test_two_failures_without_a_common_line_need_two_faults_by_hand():
    run = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    found = faultsets.best(np.log([0.4, 0.1, 0.3, 0.2]), run, 2)
    assert [entry.lines for entry in found] == [(0, 2), (0, 3)]
    assert found[0].score == pytest.approx(np.log(0.4 * 0.3))


def test_a_test_that_ran_nothing_needs_no_explanation_and_too_many_faults_none_is_found():
    assert faultsets.best(np.log([0.5, 0.5]), np.array([[0, 0], [1, 0]]), 3)[0].lines == (0,)
    assert faultsets.best(np.log(np.full(3, 1 / 3)), np.eye(3), 3, largest=2) == []


def test_a_line_without_probability_is_in_no_set():
    assert [entry.lines for entry in faultsets.best(np.array([-np.inf, 0.0]), np.ones((1, 2)), 5)] == [(1,)]
