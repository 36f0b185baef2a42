import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalmetrics import simplex


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.dirichlet(np.ones(5), 1000).T, jnp.float32) for _ in range(2)]


def by_centred_log_ratios(p, q, eps):
    """Float64 reference by the definition: norm of the difference of centred log-ratios."""
    lifted = [np.maximum(np.asarray(x, np.float64), eps) for x in (p, q)]
    logs = [np.log(x / x.sum(0)) for x in lifted]
    centred = [x - x.mean(0) for x in logs]
    return np.linalg.norm(centred[0] - centred[1], axis=0)


@pytest.mark.parametrize("chunk", [64, 999, 4096])
def test_distance_equals_the_definition(maps, chunk):
    wanted = by_centred_log_ratios(*maps, 0.01)
    np.testing.assert_allclose(simplex.distance_map(*maps, eps=0.01, chunk=chunk), wanted, rtol=2e-5)
    np.testing.assert_allclose(simplex.mean_distance(*maps, eps=0.01, chunk=chunk), wanted.mean(), rtol=2e-6)


def test_weighted_mean_distance_is_the_mean_over_a_mask(maps):
    mask = jnp.arange(1000) % 3 == 0
    wanted = by_centred_log_ratios(*maps, 0.01)[::3].mean()
    np.testing.assert_allclose(simplex.mean_distance(*maps, weights=mask, chunk=77), wanted, rtol=2e-6)


def test_map_keeps_the_grid(maps):
    folded = [x.reshape(5, 10, 4, 25) for x in maps]
    assert simplex.distance_map(*folded).shape == (10, 4, 25)
    np.testing.assert_array_equal(simplex.distance_map(*folded).reshape(-1), simplex.distance_map(*maps))


def test_equals_scikit_bio_in_double_precision(maps):
    skbio = pytest.importorskip("skbio.stats.composition")
    jax.config.update("jax_enable_x64", False)  # importing scikit-bio turns it on for the whole process
    with jax.enable_x64(True):
        p = simplex.closure(jnp.asarray(np.asarray(maps[0], np.float64)) + 1e-3)
        np.testing.assert_allclose(simplex.clr(p).T, skbio.clr(np.asarray(p.T)), atol=1e-12)
        np.testing.assert_allclose(simplex.alr(p).T, skbio.alr(np.asarray(p.T), -1), atol=1e-12)


@pytest.mark.parametrize("name", ["clr", "ilr", "alr"])
def test_inverse_returns_the_composition(maps, name):
    lifted = simplex.replace_zeros(maps[0], 1e-3)
    returned = getattr(simplex, f"{name}_inverse")(getattr(simplex, name)(lifted))
    np.testing.assert_allclose(returned, lifted, rtol=2e-5)


def test_ilr_is_an_isometry(maps):
    p, q = (simplex.replace_zeros(x, 1e-3) for x in maps)
    euclidean = jnp.linalg.norm(simplex.ilr(p) - simplex.ilr(q), axis=0)
    np.testing.assert_allclose(euclidean, simplex.distance(p, q), rtol=2e-5)


def test_norm_and_inner_product_agree_with_the_distance(maps):
    p, q = (simplex.replace_zeros(x, 1e-3) for x in maps)
    uniform = jnp.full_like(p, 0.2)
    np.testing.assert_allclose(simplex.norm(p), simplex.distance(p, uniform), rtol=2e-5)
    polarised = (simplex.norm(p) ** 2 + simplex.norm(q) ** 2 - simplex.distance(p, q) ** 2) / 2
    np.testing.assert_allclose(simplex.inner(p, q), polarised, atol=2e-4)


def test_perturbation_and_power_are_addition_and_scaling_of_log_ratios(maps):
    p, q = (simplex.replace_zeros(x, 1e-3) for x in maps)
    np.testing.assert_allclose(simplex.clr(simplex.perturb(p, q)), simplex.clr(p) + simplex.clr(q), atol=2e-5)
    np.testing.assert_allclose(simplex.clr(simplex.power(p, 0.3)), 0.3 * simplex.clr(p), atol=2e-5)


@pytest.mark.parametrize("method", simplex.ZEROS)
def test_replacement_of_zeros_gives_positive_compositions(method):
    crisp = jnp.eye(4)
    lifted = simplex.replace_zeros(crisp, 0.01, method)
    np.testing.assert_allclose(lifted.sum(0), 1, rtol=1e-6)
    assert (lifted > 0).all()
    # Worked by hand: clip 0.01 / 1.03, multiplicative 0.01, additive 0.01 / 1.04.
    wanted = {"clip": 0.01 / 1.03, "multiplicative": 0.01, "additive": 0.01 / 1.04}[method]
    np.testing.assert_allclose(lifted[0, 1], wanted, rtol=1e-5)


def test_multiplicative_replacement_keeps_ratios():
    p = jnp.array([[0.0], [0.25], [0.75]])
    lifted = simplex.replace_zeros(p, 0.1, "multiplicative")
    np.testing.assert_allclose(lifted[2] / lifted[1], 3.0, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_distance_is_a_metric_and_ignores_the_names_of_parts(order, seed):
    p, q, r = jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(5), (3, 4)).transpose(0, 2, 1), jnp.float32)
    p, q, r = (simplex.replace_zeros(x, 1e-3) for x in (p, q, r))
    order = jnp.array(order)
    np.testing.assert_allclose(simplex.distance(p[order], q[order]), simplex.distance(p, q), rtol=1e-4)
    np.testing.assert_allclose(simplex.distance(p, q), simplex.distance(q, p), rtol=1e-5)
    assert (simplex.distance(p, r) <= simplex.distance(p, q) + simplex.distance(q, r) + 1e-4).all()
    assert (simplex.distance(p, p) == 0).all()


def test_second_call_does_not_compile_again(maps):
    simplex.mean_distance(*maps)
    compiled = simplex.mean_distance._cache_size()
    simplex.mean_distance(*maps)
    assert simplex.mean_distance._cache_size() == compiled


def test_misuse_is_refused_with_the_remedy(maps):
    for verb in (simplex.distance, simplex.distance_map, simplex.mean_distance):
        with pytest.raises(ValueError, match="match or pad the regions first"):
            verb(maps[0], maps[1][:4])
    with pytest.raises(ValueError, match=r"eps must lie in \(0, 1/5\)"):
        simplex.replace_zeros(maps[0], 0.2)
    with pytest.raises(ValueError, match="choose one of clip, multiplicative, additive"):
        simplex.replace_zeros(maps[0], 0.1, "round")
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        simplex.mean_distance(*maps, chunk=0)
