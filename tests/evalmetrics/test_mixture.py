import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import mixture


def make_values(count=3000, seed=0):
    """Three well separated classes with known means, deviations and shares."""
    rng = np.random.default_rng(seed)
    sizes = [count // 2, count // 3, count // 6]
    parts = [rng.normal(m, s, n) for m, s, n in zip((0.2, 0.5, 0.9), (0.05, 0.04, 0.03), sizes, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def test_recovers_the_classes_it_was_drawn_from():
    fitted = mixture.fit(make_values(), 3, tolerance=1e-6)
    assert fitted.converged
    np.testing.assert_allclose(fitted.mean, [0.2, 0.5, 0.9], atol=0.005)
    np.testing.assert_allclose(np.sqrt(fitted.variance), [0.05, 0.04, 0.03], atol=0.004)
    np.testing.assert_allclose(fitted.share, [1 / 2, 1 / 3, 1 / 6], atol=0.01)


@pytest.mark.parametrize("components", [1, 2, 4])
def test_equals_scikit_learn_from_the_same_start(components):
    peer = pytest.importorskip("sklearn.mixture", reason="peer scikit-learn is not installed")
    values = make_values()
    start = mixture.fit(values, components, iterations=0)
    share = np.asarray(start.share, float)
    theirs = peer.GaussianMixture(
        components,
        tol=1e-3,
        max_iter=1000,
        weights_init=share / share.sum(),
        means_init=np.asarray(start.mean, float)[:, None],
        precisions_init=1 / np.asarray(start.variance, float)[:, None, None],
    ).fit(values[:, None].astype(float))
    ours = mixture.fit(values, components)
    assert ours.iterations == theirs.n_iter_
    np.testing.assert_allclose(ours.mean, theirs.means_[:, 0], rtol=1e-3)
    np.testing.assert_allclose(ours.variance, theirs.covariances_[:, 0, 0], rtol=5e-3)
    np.testing.assert_allclose(
        mixture.posterior(ours, values), theirs.predict_proba(values[:, None]).T, rtol=0.02, atol=2e-3
    )


def test_the_start_is_the_k_means_of_scikit_learn():
    peer = pytest.importorskip("sklearn.cluster", reason="peer scikit-learn is not installed")
    values = make_values()
    theirs = peer.KMeans(3, n_init=5, random_state=0).fit(values[:, None]).cluster_centers_[:, 0]
    np.testing.assert_allclose(mixture.fit(values, 3, iterations=0).mean, np.sort(theirs), rtol=1e-3)


def test_weights_are_repetitions():
    levels = np.linspace(0, 1, 40, dtype=np.float32)
    counts = np.random.default_rng(0).integers(0, 30, 40)
    weighted = mixture.fit(levels, 2, weights=counts.astype(np.float32), tolerance=1e-5)
    repeated = mixture.fit(np.repeat(levels, counts), 2, tolerance=1e-5)
    for a, b in zip(weighted[:3], repeated[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)


def test_every_update_raises_the_likelihood():
    values = make_values()
    likelihoods = [
        mixture.fit(values, 3, iterations=count, tolerance=0.0).log_likelihood for count in (1, 2, 5, 10, 40)
    ]
    assert (np.diff(likelihoods) > -1e-6).all()


def test_posteriors_are_compositions():
    fitted = mixture.fit(make_values(), 3)
    soft = mixture.posterior(fitted, jnp.linspace(-5, 5, 101))
    assert (np.asarray(soft) >= 0).all()
    np.testing.assert_allclose(soft.sum(0), 1, rtol=1e-6)


def test_running_out_of_iterations_is_said():
    assert not mixture.fit(make_values(), 3, tolerance=0.0, iterations=3).converged


def test_degenerate_values_give_numbers():
    with jax.debug_nans(True):
        fitted = mixture.fit(np.full(9, 0.3, np.float32), 2)
        assert np.isfinite(mixture.posterior(fitted, np.full(9, 0.3, np.float32))).all()


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda: mixture.fit(np.zeros((2, 2), np.float32), 2), ValueError, "ravel"),
        (lambda: mixture.fit(np.zeros(4, int), 2), TypeError, "floating"),
        (lambda: mixture.fit(np.zeros(4, np.float32), 0), ValueError, "at least 1"),
        (lambda: mixture.fit(np.zeros(4, np.float32), 2, weights=np.ones(3)), ValueError, "shape of values"),
    ],
)
def test_misuse_is_refused_with_the_remedy(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()
