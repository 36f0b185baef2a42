"""Screening of teachers: rankings by hand, and a search that drops what it should."""

import jax
import numpy as np
import pytest

from kdrec import search
from kdrec.options import Grid, Model, Training
from tests.kdrec.worlds import world

LOSS = np.array([0.6, 0.5, 0.9, 0.7])
COST = np.array([1.0, 1.0, 4.0, 4.0])


def halve(alive, rest=np.inf):
    return search.halve(LOSS, alive, COST[:, None], np.array([rest]))


def test_halving_keeps_the_better_half_that_the_budget_carries():
    alive = np.ones(4, bool)
    assert halve(alive).tolist() == [True, True, False, False]
    assert halve(alive, 1.5).tolist() == [False, True, False, False]
    assert halve(alive, 0.0).tolist() == [False, True, False, False]  # the best one goes on
    assert halve(np.array([True, False, True, True])).tolist() == [True, False, False, True]
    # Two budgets, FLOP and seconds: the second can carry one alone.
    both = np.stack([COST, COST[::-1]], axis=1)
    assert search.halve(LOSS, alive, both, np.array([np.inf, 5.0])).tolist() == [False, True, False, False]
    assert search.halve(LOSS, alive, both, np.array([np.inf, 8.0])).tolist() == [True, True, False, False]


def test_screening_by_hand():
    # Early ranking 1 0 3 2, final ranking 0 1 2 3: of six pairs two are swapped, tau = (4 - 2) / 6.
    final = np.array([0.5, 0.6, 0.7, 0.8])
    found = search.screening(LOSS, final, COST, 0.25)
    assert found["tau"] == pytest.approx(1 / 3)
    assert found["regret"] == 0
    assert found["regret_one"] == pytest.approx(20)
    assert found["saved"] == pytest.approx(0.75 * 8 / 10)


class Data:
    """A small stream as an option builds it."""

    def stream(self):
        return world()


def experiment(*, prune, budget=None, seconds=None, members=(1,), rates=(1e-5, 0.01, 0.03)):
    model = Model(trunk="mlp", embedding=4, layers=(8,), crosses=0, experts=0, shard=False, without=())
    limits = {"prune": prune, "budget": budget, "seconds": seconds}
    grid = Grid(scales=(1,), members=members, rates=rates, points=(0.25, 0.5), **limits)
    train = Training(
        batch=16, interval=8, rate=0.01, start=0, skip=0, seeds=1, groups=1, segments=2, bins=8, value=None,
        export=False, limit=8,
    )  # fmt: skip
    return search.Search(Data(), model, None, None, None, grid, train)


@pytest.fixture(scope="module")
def whole():
    one = experiment(prune=False)
    return one, list(one.run(one.init(jax.random.key(0))))


def test_a_search_ranks_all_and_prices_them(whole):
    one, run = whole
    state, row = run[-1]
    assert np.isfinite(state.loss).all()
    assert row["best/rate"] > 1e-5
    assert row["cost/gflop"] == pytest.approx(one.costs.sum() * 8)
    assert row["cost/saved"] == 0
    assert set(row) >= {"tau/25", "regret/25", "saved/25", "tau/50", "regret/50", "saved/50"}


def test_a_candidate_that_lives_is_not_changed_by_those_that_go(whole):
    one = experiment(prune=True)
    state, row = list(one.run(one.init(jax.random.key(0))))[-1]
    counts = np.isfinite(state.loss).sum(1)
    assert sorted(counts.tolist()) == [2, 4, 8]  # three at first, two after a quarter, one after half
    kept = np.isfinite(state.loss)
    np.testing.assert_allclose(state.loss[kept], whole[1][-1][0].loss[kept], rtol=1e-4)
    assert row["cost/saved"] == pytest.approx(1 - 14 / 24)
    assert row["alive"] == 1


def test_a_search_goes_on_where_it_was_stopped(whole):
    one, run = whole
    state, _ = next(step for step in one.run(one.init(jax.random.key(0))) if int(step[0].step) == 4)
    rest = list(one.run(state))
    assert len(rest) == 4
    np.testing.assert_array_equal(rest[-1][0].loss, run[-1][0].loss)
    assert {**rest[-1][1], "cost/seconds": 0} == {**run[-1][1], "cost/seconds": 0}


def test_a_budget_of_seconds_keeps_what_it_can_carry():
    one = experiment(prune=True, seconds=1e-9)
    state, row = list(one.run(one.init(jax.random.key(0))))[-1]
    assert sorted(np.isfinite(state.loss).sum(1).tolist()) == [2, 2, 8]  # the best one alone goes on
    assert row["cost/seconds"] == pytest.approx(state.seconds[:, 0].sum())
    assert np.all(state.seconds[:, 0] >= state.seconds[:, 1])


def test_an_ensemble_is_a_candidate_that_costs_its_members_and_says_their_mean(whole):
    one = experiment(prune=True, members=(1, 2), rates=(1e-5, 0.01))
    state, row = list(one.run(one.init(jax.random.key(0))))[-1]
    np.testing.assert_allclose(one.costs, one.costs[0] * np.array([1, 1, 2, 2]))
    counts = np.isfinite(state.loss).sum(1)
    assert counts.tolist()[::2] == [2, 2]  # the slow ones go at the first point
    assert row["best/members"] in (1, 2)
    lone = whole[1][-1][0].loss[:2, :2]
    np.testing.assert_allclose(state.loss[:2, :2], lone, rtol=1e-4)  # candidates alone are what they were
    assert state.loss[3, 1] != state.loss[1, 1]
