import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from evalmetrics import matching
from tests.evalmetrics import definitions


def total(gain, match):
    padded = np.asarray(matching.pad_square(jnp.asarray(gain)))
    return padded[np.arange(len(padded)), np.asarray(match)].sum()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (6, 6), (3, 5), (6, 2)])
@pytest.mark.parametrize("method", ["hungarian", "scipy"])
def test_equals_brute_force(shape, method):
    gains = np.random.default_rng(0).random((5, *shape)).astype(np.float32)
    for gain in gains:
        match = matching.match(gain, method=method)
        assert sorted(np.asarray(match)) == list(range(max(shape)))
        padded = np.asarray(matching.pad_square(jnp.asarray(gain)), np.float64)
        np.testing.assert_allclose(total(gain, match), definitions.best_permutation(padded)[1], rtol=1e-6)


def test_equals_scipy_on_larger_matrices():
    for size in (8, 50):
        gain = np.random.default_rng(size).random((size, size)).astype(np.float32)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        np.testing.assert_allclose(total(gain, matching.match(gain)), gain[rows, columns].sum(), rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=3, max_size=3), st.booleans())
def test_no_exchange_of_two_regions_would_be_lower_at_no_loss(rows, on_host):
    gain = np.array(rows, np.float32)
    match = tuple(int(j) for j in matching.match(gain, method="scipy" if on_host else "hungarian"))
    best = total(gain, match)
    assert best == definitions.best_permutation(gain)[1]
    for i, k in itertools.combinations(range(3), 2):
        other = list(match)
        other[i], other[k] = other[k], other[i]
        assert total(gain, other) < best or tuple(other) > match


def test_equal_regions_keep_their_order():
    np.testing.assert_array_equal(matching.match(jnp.zeros((5, 5))), np.arange(5))
    np.testing.assert_array_equal(matching.match(jnp.ones((3, 5))), np.arange(5))


def test_vmap_equals_the_loop():
    gains = jnp.asarray(np.random.default_rng(1).random((7, 5, 5)), jnp.float32)
    mapped = jax.jit(jax.vmap(matching.match))(gains)
    np.testing.assert_array_equal(mapped, jnp.stack([matching.match(g) for g in gains]))


def test_soft_matching_is_doubly_stochastic_and_sharpens_to_the_permutation():
    gain = jnp.asarray(np.random.default_rng(2).random((6, 6)), jnp.float32)
    plan = matching.sinkhorn(gain, temperature=0.05)
    np.testing.assert_allclose(plan.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), 1, atol=1e-3)
    sharp = matching.sinkhorn(gain, temperature=1e-3, iterations=2000)
    np.testing.assert_array_equal(matching.round_plan(sharp), matching.match(gain))
    np.testing.assert_array_equal(matching.match(gain, method="sinkhorn"), matching.round_plan(matching.sinkhorn(gain)))


def test_soft_matching_has_the_gradient_of_finite_differences():
    with jax.enable_x64(True):
        gain, weights = jnp.asarray(np.random.default_rng(3).random((2, 4, 4)))

        @jax.jit
        def value(x):
            return (matching.sinkhorn(x, temperature=0.2) * weights).sum()

        step = 1e-6 * jnp.eye(16).reshape(16, 4, 4)
        wanted = [(value(gain + h) - value(gain - h)) / 2e-6 for h in step]
        np.testing.assert_allclose(jax.grad(value)(gain).ravel(), jnp.stack(wanted), atol=1e-7)


def test_second_call_does_not_compile_again():
    gain = jnp.eye(4)
    matching.match(gain)
    compiled = matching._match_jitted._cache_size()
    matching.match(gain + 1)
    assert matching._match_jitted._cache_size() == compiled


def test_misuse_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"not finite at \(0, 1\).*look for NaN"):
        matching.match(np.array([[0.0, np.nan], [1.0, 2.0]], np.float32))
    with pytest.raises(ValueError, match="must be a matrix"):
        matching.match(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="choose one of hungarian, scipy, sinkhorn"):
        matching.match(np.eye(3, dtype=np.float32), method="greedy")
    with pytest.raises(ValueError, match="use method='hungarian' inside jit"):
        jax.jit(lambda x: matching.match(x, method="scipy"))(jnp.eye(3))
    with pytest.raises(ValueError, match="gain must be square"):
        matching.sinkhorn(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="temperature must be positive"):
        matching.sinkhorn(jnp.eye(2), temperature=0)
