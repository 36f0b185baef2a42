"""Learned structures: valid, better than independence where there is dependence, and no better where there is none."""

import numpy as np
import pytest

from faultloc import circuit, learnspn


def sampled(count=600, seed=0):
    """Two groups that are independent of each other: 0 and 1 agree mostly; 2 tells where 3 lies."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 2, count)
    second = np.where(rng.random(count) < 0.9, first, 1 - first)
    third = rng.integers(0, 3, count)
    return np.stack([first, second, third, third * 2.0 + rng.normal(size=count) / 2], axis=1)


VALUES = np.array([2, 2, 3, 0])


@pytest.fixture(scope="module")
def nodes():
    return learnspn.learn(sampled(), VALUES)


def test_it_finds_the_two_groups(nodes):
    assert circuit.validate(nodes) == []
    scopes = []
    for node in nodes:
        scopes.append({node.variable} if node.kind == "leaf" else set().union(*(scopes[c] for c in node.children)))
    assert nodes[-1].kind == "product"
    assert sorted(map(sorted, (scopes[c] for c in nodes[-1].children))) == [[0, 1], [2, 3]]


def test_unseen_rows_are_more_probable_than_under_independence(nodes):
    rows = sampled(seed=1)
    built = circuit.build(nodes)
    learned = np.asarray(circuit.log_density(built, rows)).mean()
    alone = learnspn.learn(sampled(), VALUES, least=10**6)
    assert len(alone) == 5
    assert learned > np.asarray(circuit.log_density(circuit.build(alone), rows)).mean() + 0.4
    assert float(circuit.log_density(built, np.full((1, 4), np.nan))[0]) == pytest.approx(0, abs=1e-5)


def test_the_same_seed_gives_the_same_circuit(nodes):
    assert learnspn.learn(sampled(), VALUES) == nodes


def test_the_test_of_independence_has_its_error_rate():
    rng = np.random.default_rng(2)
    draws = [learnspn.dependent(*rng.integers(0, 3, (2, 200)), 0.05) for _ in range(300)]
    assert 0.02 < np.mean(draws) < 0.1
    same = rng.integers(0, 3, 200)
    assert learnspn.dependent(same, same, 1e-9)


@pytest.mark.parametrize(
    "rows", [np.zeros((0, 4)), np.full((3, 4), np.nan), np.full((3, 4), 7.0), np.full((3, 4), 0.5)]
)
def test_rows_that_cannot_be_learned_from_are_refused(rows):
    with pytest.raises(ValueError, match="rows must"):
        learnspn.learn(rows, VALUES)
