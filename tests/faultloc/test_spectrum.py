import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faultloc import spectrum


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    return rng.random((13, 21)) < 0.4, rng.random(13) < 0.3


def by_loops(covered, failed):
    ef = [sum(covered[t, i] and failed[t] for t in range(len(failed))) for i in range(covered.shape[1])]
    ep = [sum(covered[t, i] and not failed[t] for t in range(len(failed))) for i in range(covered.shape[1])]
    return ef, ep


def test_packing_keeps_the_matrix(matrix):
    packed = spectrum.pack(*matrix)
    assert packed.bits.shape == (13, 3)
    assert packed.tests == 13
    np.testing.assert_array_equal(packed.covered(), matrix[0])


def test_counts_equal_counting_one_by_one(matrix):
    counts = spectrum.counts(spectrum.pack(*matrix))
    ef, ep = by_loops(*matrix)
    np.testing.assert_array_equal(counts.ef, ef)
    np.testing.assert_array_equal(counts.ep, ep)
    assert counts.failing == matrix[1].sum()
    np.testing.assert_array_equal(counts.ef + counts.nf, matrix[1].sum())
    np.testing.assert_array_equal(counts.ep + counts.np, (~matrix[1]).sum())


def test_counts_on_a_device_are_those_on_the_host_and_do_not_compile_twice(matrix):
    packed = spectrum.pack(*matrix)
    device = jax.tree.map(jnp.asarray, packed)
    count = jax.jit(spectrum.counts)
    for ours, host in zip(count(device), spectrum.counts(packed), strict=True):
        np.testing.assert_array_equal(ours, host)
    count(device)
    assert count._cache_size() == 1


def test_weights_repeat_tests(matrix):
    covered, failed = matrix
    weights = np.array([2, 0, 1, 3, 0, 1, 1, 0, 2, 1, 1, 0, 1])
    repeated = np.repeat(np.arange(13), weights)
    expected = spectrum.counts(spectrum.pack(covered[repeated], failed[repeated]))
    device = jax.tree.map(jnp.asarray, spectrum.pack(covered, failed))
    batch = jax.vmap(lambda w: spectrum.counts(device, w))(jnp.stack([jnp.ones(13), jnp.asarray(weights, jnp.float32)]))
    for ours, host in zip(batch, expected, strict=True):
        np.testing.assert_array_equal(ours[1], host)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="give one outcome per row"):
        spectrum.pack(np.ones((3, 4)), np.ones(4))
