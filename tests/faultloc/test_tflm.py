"""The tree pass against enumeration of every assignment, a float64 recursion and finite differences."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, logsumexp

from faultloc import faults, tflm, tree

TREES = {
    "one": [-1],
    "chain": [-1, 0, 1, 2],
    "star": [-1, 0, 0, 0, 0],
    "mixed": [-1, 0, 1, 1, 0, 4],
    "forest": [-1, 0, -1, 2, 2],
}


def model(parent, subclasses, seed=0, relations=3):
    rng = np.random.default_rng(seed)
    size = len(parent)
    return {
        "parent": np.array(parent),
        "prior": log_softmax(rng.normal(size=subclasses)),
        "table": log_softmax(rng.normal(size=(relations, subclasses, subclasses)) * 2, axis=-1),
        "relation": rng.integers(0, relations, size),
        "evidence": rng.normal(size=(size, subclasses)) * 2 - 1,
        "odds": rng.normal(size=(size, subclasses)) * 2 - 2,
    }


def given(made, width=4):
    """The same as the pass wants it, float32 on the device."""
    order = tflm.schedule(made["parent"], width=width)
    tables = tflm.Tables(*(jnp.asarray(made[name], jnp.float32) for name in ("prior", "table")))
    return order, tables, jnp.asarray(made["relation"], jnp.int32), jnp.asarray(made["evidence"], jnp.float32)


def assignments(made):
    """Every assignment of subclasses with its log-probability."""
    size, subclasses = made["evidence"].shape
    for z in itertools.product(range(subclasses), repeat=size):
        total = sum(made["evidence"][n, z[n]] for n in range(size))
        for n, parent in enumerate(made["parent"]):
            total += made["prior"][z[n]] if parent < 0 else made["table"][made["relation"][n], z[parent], z[n]]
        yield z, total


def recursion(made):
    """Float64, from the last statement to the first."""
    beta, total = made["evidence"].copy(), 0.0
    for n in range(len(beta) - 1, -1, -1):
        parent = made["parent"][n]
        if parent < 0:
            total += logsumexp(made["prior"] + beta[n])
        else:
            beta[parent] += logsumexp(made["table"][made["relation"][n]] + beta[n], axis=-1)
    return total


@pytest.mark.parametrize("subclasses", [1, 2, 3])
@pytest.mark.parametrize("shape", TREES)
def test_total_posteriors_and_the_best_equal_enumeration(shape, subclasses):
    made = model(TREES[shape], subclasses)
    every = list(assignments(made))
    weights = np.array([value for _, value in every])
    total = logsumexp(weights)
    assert float(tflm.log_total(*given(made))) == pytest.approx(total, abs=2e-5)
    assert recursion(made) == pytest.approx(total)
    posterior = np.zeros_like(made["evidence"])
    for (z, _), share in zip(every, np.exp(weights - total), strict=True):
        posterior[np.arange(len(z)), z] += share
    np.testing.assert_allclose(tflm.subclasses(*given(made)), posterior, atol=2e-6)
    best, value = max(every, key=lambda pair: pair[1])
    assert tuple(tflm.most_probable(*given(made)).tolist()) == best
    assert float(tflm.log_total(*given(made), semiring="max")) == pytest.approx(value, abs=2e-5)


@pytest.mark.parametrize("shape", TREES)
def test_bugs_equal_enumeration_over_subclasses_and_bugs(shape):
    made = model(TREES[shape], 2, seed=1)
    size = len(made["parent"])
    joint, alone = np.zeros(size), np.full(size, -np.inf)
    total = []
    for z, value in assignments(made):
        odds = made["odds"][np.arange(size), z]
        for bugs in itertools.product([0, 1], repeat=size):
            bugs = np.array(bugs)
            log_p = value + (bugs * odds - np.logaddexp(0, odds)).sum()
            total.append(log_p)
            joint += bugs * np.exp(log_p)
            if bugs.sum() == 1:
                alone[bugs.argmax()] = np.logaddexp(alone[bugs.argmax()], log_p)
    odds = jnp.asarray(made["odds"], jnp.float32)
    np.testing.assert_allclose(faults.buggy(*given(made), odds), joint / np.exp(logsumexp(total)), atol=5e-6)
    np.testing.assert_allclose(faults.single_fault(*given(made), odds), alone - logsumexp(alone), atol=2e-5)


def test_expected_counts_equal_enumeration():
    made = model(TREES["mixed"], 2, seed=2)
    every = list(assignments(made))
    shares = np.exp(np.array([value for _, value in every]) - logsumexp([value for _, value in every]))
    prior, table = np.zeros_like(made["prior"]), np.zeros_like(made["table"])
    for (z, _), share in zip(every, shares, strict=True):
        for n, parent in enumerate(made["parent"]):
            if parent < 0:
                prior[z[n]] += share
            else:
                table[made["relation"][n], z[parent], z[n]] += share
    found = tflm.expected_counts(*given(made))
    np.testing.assert_allclose(found.prior, prior, atol=2e-6)
    np.testing.assert_allclose(found.table, table, atol=5e-6)


def test_posteriors_are_the_slopes_of_the_float64_recursion():
    made = model(TREES["mixed"], 3, seed=3)
    posterior = tflm.subclasses(*given(made))
    for n, k in itertools.product(range(6), range(3)):
        slope = 0.0
        for sign in (1, -1):
            made["evidence"][n, k] += sign * 1e-5
            slope += sign * recursion(made) / 2e-5
            made["evidence"][n, k] -= sign * 1e-5
        assert float(posterior[n, k]) == pytest.approx(slope, abs=2e-6)


def test_one_subclass_is_the_softmax_of_the_log_odds():
    made = model(TREES["mixed"], 1, seed=4)
    odds = jnp.asarray(made["odds"], jnp.float32)
    np.testing.assert_allclose(faults.single_fault(*given(made), odds), log_softmax(made["odds"][:, 0]), atol=1e-5)
    np.testing.assert_allclose(faults.buggy(*given(made), odds), expit(made["odds"][:, 0]), atol=1e-6)


def test_statements_that_cannot_be_buggy_take_no_probability():
    made = model(TREES["mixed"], 2, seed=5)
    made["odds"][[0, 3]] = -np.inf
    found = np.exp(np.asarray(faults.single_fault(*given(made), jnp.asarray(made["odds"], jnp.float32))))
    assert found[[0, 3]].tolist() == [0, 0]
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_subtrees_without_evidence_change_nothing():
    whole, pruned = model([-1, 0, 0, 2, 2], 3, seed=6), model([-1, 0], 3, seed=6)
    whole["relation"][1] = pruned["relation"][1]
    whole["evidence"] = np.concatenate([pruned["evidence"], np.zeros((3, 3))])
    for name in ("prior", "table"):
        whole[name] = pruned[name]
    assert float(tflm.log_total(*given(whole))) == pytest.approx(float(tflm.log_total(*given(pruned))), abs=1e-5)


def test_without_a_statement_the_total_is_one_and_nothing_is_counted():
    nothing = given(model([], 2))
    assert float(tflm.log_total(*nothing)) == 0
    assert tflm.subclasses(*nothing).shape == (0, 2)
    assert not any(np.any(counts) for counts in tflm.expected_counts(*nothing))


@pytest.mark.parametrize("width", [1, 7, 256])
def test_a_large_random_tree_of_any_width_agrees_with_the_recursion(width):
    rng = np.random.default_rng(7)
    made = model([-1, *(int(rng.integers(max(0, n - 30), n)) for n in range(1, 700))], 4, seed=7)
    expected = recursion(made)
    assert float(tflm.log_total(*given(made, width))) == pytest.approx(expected, rel=2e-6)


def test_programs_of_one_size_share_a_compiled_pass():
    tflm.subclasses(*given(model(TREES["mixed"], 2)))
    compiled = tflm._moments._cache_size()
    tflm.subclasses(*given(model(TREES["mixed"], 2, seed=1)))
    assert tflm._moments._cache_size() == compiled


def test_it_runs_on_the_statements_of_a_real_file():
    import argparse

    text = Path(argparse.__file__).read_text(encoding="utf-8")
    parsed, _ = tree.from_python({"argparse.py": text})
    lines = np.array(tree.executable(text, "argparse.py"))
    reduced = tree.statements(parsed, np.zeros(len(lines), int), lines)
    made = model(reduced.parent, 4, seed=8)
    with jax.debug_nans(True):
        posterior = tflm.subclasses(*given(made, 256))
    np.testing.assert_allclose(posterior.sum(-1), 1, atol=1e-5)
    assert float(tflm.log_total(*given(made, 256))) == pytest.approx(recursion(made), rel=2e-6)


def test_statements_out_of_order_are_refused():
    with pytest.raises(ValueError, match="sort the statements in preorder"):
        tflm.schedule(np.array([1, -1]))
