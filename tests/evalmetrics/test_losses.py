import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import losses, pairs, scores
from tests.evalmetrics import definitions


def random_maps(sizes, voxels=40, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.dirichlet(np.ones(k), voxels).T.astype(dtype)) for k in sizes]


def finite_differences(value, x, step=1e-6):
    """Central differences in every coordinate."""
    basis = step * np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([(value(x + h) - value(x - h)) / (2 * step) for h in basis]).reshape(x.shape)


@pytest.mark.parametrize(
    ("kernel", "match", "sizes"),
    [
        ("abs", "hungarian", (2, 4)),
        ("ait", "hungarian", (4, 2)),
        ("abs", "sinkhorn", (4, 2)),
        ("ait", "sinkhorn", (2, 4)),
        ("ait", "hungarian", (3, 3)),
    ],
)
def test_derivative_equals_finite_differences(kernel, match, sizes):
    with jax.enable_x64(True):
        p, q = random_maps(sizes, voxels=11)
        weights = jnp.linspace(0.1, 1.0, 11)

        def loss(p, q):
            return losses.matched_dice(p, q, kernel=kernel, match=match, weights=weights, chunk=4, temperature=0.3)

        compiled = jax.jit(loss)
        by_reference, by_prediction = jax.jit(jax.grad(loss, argnums=(0, 1)))(p, q)
        np.testing.assert_allclose(by_reference, finite_differences(lambda x: compiled(x, q), p), atol=1e-8)
        np.testing.assert_allclose(by_prediction, finite_differences(lambda x: compiled(p, x), q), atol=1e-8)


@pytest.mark.parametrize("match", ["hungarian", "ordered"])
def test_derivative_equals_automatic_differentiation_of_the_definition(match):
    p, q = random_maps((3, 3), dtype=np.float32)
    order = scores.score(p, q).match if match == "hungarian" else jnp.arange(3)

    def definition(q):
        taken = q[order]
        return 1 - (2 * jnp.minimum(p, taken).sum(1) / (p + taken).sum(1)).mean()

    value, slope = jax.value_and_grad(losses.matched_dice, argnums=1)(p, q, match=match, chunk=16)
    np.testing.assert_allclose(value, definition(q), rtol=1e-6)
    np.testing.assert_allclose(slope, jax.grad(definition)(q), rtol=1e-4, atol=1e-7)


def test_slope_is_the_published_form_with_half_a_step_at_ties():
    """By hand: D = 2 M / S and dD/dq = (2 [q < p] - D) / S, with 1/2 in place of the bracket at q = p."""
    p, q = jnp.array([[0.5, 0.2, 0.7]]), jnp.array([[0.5, 0.6, 0.1]])
    score, mass = 2 * (0.5 + 0.2 + 0.1) / 2.6, 2.6
    slope = jax.grad(lambda x: 1 - losses.matched_dice(p, x))(q)
    np.testing.assert_allclose(slope, (2 * np.array([[0.5, 0.0, 1.0]]) - score) / mass, rtol=1e-5)


def test_value_is_one_minus_the_score():
    p, q = random_maps((3, 5), dtype=np.float32)
    for kernel in ("abs", "ait"):
        wanted = 1 - scores.score(p, q, kernel=kernel).macro
        np.testing.assert_allclose(losses.matched_dice(p, q, kernel=kernel), wanted, atol=1e-6)
    np.testing.assert_allclose(losses.matched_dice(p, p[::-1]), 0, atol=1e-6)
    soft = losses.matched_dice(p, q, match="sinkhorn", temperature=1e-3)
    np.testing.assert_allclose(soft, losses.matched_dice(p, q), atol=5e-3)


def test_label_maps_are_references(key):
    labels = jax.random.randint(key, (6, 7), 0, 3)
    _, q = random_maps((3, 4), voxels=42, dtype=np.float32)
    q = q.reshape(4, 6, 7)
    crisp = jnp.asarray(definitions.one_hot(np.asarray(labels), 3), jnp.float32)
    for match in ("hungarian", "sinkhorn"):
        found = jax.grad(lambda x, m=match: losses.matched_dice(labels, x, regions=(3, 4), match=m))(q)
        wanted = jax.grad(lambda x, m=match: losses.matched_dice(crisp, x, match=m))(q)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_descent_finds_the_reference_under_other_names(key):
    truth, _ = random_maps((3, 3), voxels=60, dtype=np.float32)
    logits = jnp.log(truth[jnp.array([2, 0, 1])]) + 0.5 * jax.random.normal(key, truth.shape)

    @jax.jit
    def step(x):
        return x - 20 * jax.grad(lambda z: losses.matched_dice(truth, jax.nn.softmax(z, 0)))(x)

    before = losses.matched_dice(truth, jax.nn.softmax(logits, 0))
    for _ in range(60):
        logits = step(logits)
    after = losses.matched_dice(truth, jax.nn.softmax(logits, 0))
    assert after < before / 2


def test_gradient_passes_through_the_statistics():
    p, q = random_maps((3, 4), dtype=np.float32)

    def total(q, chunk):
        return (pairs.pair_stats(p, q, kernel="ait", chunk=chunk).disagreement * jnp.arange(12.0).reshape(3, 4)).sum()

    np.testing.assert_allclose(jax.grad(total)(q, 7), jax.grad(total)(q, 40), rtol=1e-5, atol=1e-5)


def test_batch_precision_and_empty_regions():
    p, q = random_maps((3, 3), dtype=np.float32)
    batch = jnp.stack([q, q[::-1]])
    mapped = jax.jit(jax.vmap(jax.grad(losses.matched_dice, argnums=1), (None, 0)))(p, batch)
    for case in range(2):
        np.testing.assert_allclose(mapped[case], jax.grad(losses.matched_dice, argnums=1)(p, batch[case]), atol=1e-7)
    half = jax.grad(losses.matched_dice, argnums=1)(p.astype(jnp.bfloat16), q.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    nothing = jnp.zeros((2, 5))
    with jax.debug_nans(True):
        np.testing.assert_array_equal(jax.grad(losses.matched_dice, argnums=1)(nothing, nothing), 0)


def test_misuse_is_refused_with_the_remedy():
    p, q = random_maps((3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="needs one per region: abs or ait"):
        losses.matched_dice(p, q, kernel="simplex_tv")
    with pytest.raises(ValueError, match="choose one of hungarian, sinkhorn, ordered"):
        losses.matched_dice(p, q, match="greedy")
    with pytest.raises(ValueError, match="equal numbers of regions, got 3 and 4"):
        losses.matched_dice(p, q, match="ordered")
