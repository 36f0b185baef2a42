"""Known answers of the kernels, in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import kernels, scores


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def ordered(p, q, **options):
    return float(scores.score(jnp.asarray(p), jnp.asarray(q), labels="ordered", **options).macro)


@pytest.mark.parametrize(
    ("p", "q", "absolute", "aitchison"),
    [(0.5, 0.6, 0.9091, 0.9715), (0.9, 1.0, 0.9474, 0.7945), (0.99, 0.999, 0.9955, 0.9087)],
)
def test_pairs_of_probabilities(p, q, absolute, aitchison):
    """Worked by hand from the formulas, eps = 1e-3."""
    p, q = np.full((1, 1), p), np.full((1, 1), q)
    assert round(ordered(p, q), 4) == absolute
    assert round(ordered(p, q, kernel="ait", eps=1e-3), 4) == aitchison


@pytest.mark.parametrize("confidence", [1, 0.9926, 0.87, 0.599, 0.378])
def test_a_fixed_argmax_scores_its_confidence(confidence):
    """4 equal regions, the rest spread over the other three: 2 * 25 c / (25 + 25) = c; thresholding is blind."""
    truth = np.repeat(np.eye(4), 25, axis=1)
    soft = truth * confidence + (1 - truth) * (1 - confidence) / 3
    np.testing.assert_allclose(ordered(truth, soft), confidence, rtol=1e-12)
    assert ordered(truth, np.eye(4)[soft.argmax(0)].T) == 1


@pytest.mark.parametrize("eps", [1e-1, 1e-3, 1e-4, 1e-6])
def test_tails_without_overlap(eps):
    """Objects of 5 % of the voxels that do not meet, tails of 1e-3 everywhere else; worked by hand."""
    tail, size = 1e-3, 1000
    p, q = np.full((2, 1, size), tail)
    p[0, :50], q[0, 50:100] = 1 - tail, 1 - tail
    np.testing.assert_allclose(ordered(p, q), 2 * size * tail / (100 * (1 - tail) + 1900 * tail), rtol=1e-12)
    top = np.log((1 - eps) / eps)
    low = max(0, (np.log(tail / (1 - tail)) + top) / (2 * top))  # membership of a tail; that of the object is 1 - low
    num, den = 100 * (1 - tail) * (1 - 2 * low), 100 * (1 - tail) + 1800 * tail * low
    np.testing.assert_allclose(ordered(p, q, kernel="ait", eps=eps), 1 - num / den, atol=1e-12)


@pytest.mark.parametrize("kernel", ["abs", "ait"])
@pytest.mark.parametrize("eps", [1e-1, 1e-4])
def test_equals_dice_on_crisp_masks_for_any_eps(kernel, eps):
    rng = np.random.default_rng(1)
    p, q = rng.random((2, 1, 500)) < 0.4
    dice = 2 * (p & q).sum() / (p.sum() + q.sum())
    np.testing.assert_allclose(ordered(p, q, kernel=kernel, eps=eps), dice, rtol=1e-12)


def test_total_variation_is_pixel_accuracy_on_crisp_maps():
    a, b = np.random.default_rng(2).integers(0, 4, (2, 900))
    result = scores.score(a, b, kernel="simplex_tv", labels="ordered", regions=(4, 4))
    np.testing.assert_allclose(result.macro, (a == b).mean(), rtol=1e-12)
    np.testing.assert_allclose(1 - (1 - result.region).sum(), result.macro, rtol=1e-12)


@pytest.mark.parametrize("eps", [1e-2, 1e-6, 1e-12])
def test_whole_map_aitchison_is_free_of_eps_on_crisp_maps(eps):
    """d and the norms grow alike with -log eps; e_i - e_j against two vertex norms gives sqrt(K / (2 K - 2)).

    By hand: ||clr e_i||^2 = L^2 (1 - 1/K) and ||clr e_i - clr e_j||^2 = 2 L^2.
    """
    a = np.arange(800) % 4
    b = np.where(np.arange(800) < 200, (a + 1) % 4, a)
    result = scores.score(a, b, kernel="simplex_ait", eps=eps, labels="ordered", regions=(4, 4))
    np.testing.assert_allclose(result.macro, 1 - 0.25 * np.sqrt(4 / 6), rtol=1e-9)


def test_whole_map_aitchison_stays_in_the_unit_interval_where_vertex_normalisation_does_not():
    """K = 4: two against two parts are farther apart than two vertices."""
    p, q = np.array([[0.5, 0.5, 0, 0]]).T, np.array([[0, 0, 0.5, 0.5]]).T
    np.testing.assert_allclose(ordered(p, q, kernel="simplex_ait", eps=1e-3), 0, atol=1e-12)


@pytest.mark.parametrize("zeros", ["clip", "multiplicative", "additive"])
def test_membership_runs_from_zero_to_one(zeros):
    m = kernels.membership(jnp.linspace(0.0, 1.0, 11), 0.01, zeros)
    np.testing.assert_allclose(m[jnp.array([0, 5, 10])], [0, 0.5, 1], atol=1e-12)
    assert (jnp.diff(m) > 0).all()


def test_user_kernel_is_a_drop_in():
    """Squared differences: 1 - sum (p - q)^2 / sum (p^2 + q^2), the product form of soft Dice."""
    squares = kernels.get("abs")._replace(
        name="squares",
        mass="pair",
        overlap=None,
        from_overlap=None,
        compare=lambda f, g: ((f[0] - g[0]) ** 2, f[0] ** 2 + g[0] ** 2),
    )
    rng = np.random.default_rng(3)
    p, q = rng.random((2, 3, 50))
    wanted = np.mean([2 * (a * b).sum() / (a**2 + b**2).sum() for a, b in zip(p, q, strict=True)])
    assert "squares" not in kernels.names()
    kernels.register(squares)
    try:
        np.testing.assert_allclose(ordered(p, q, kernel="squares"), wanted, rtol=1e-12)
        crisp = rng.integers(0, 3, 50)
        by_label = scores.score(crisp, q, kernel="squares").pairs
        np.testing.assert_allclose(by_label, scores.score(np.eye(3)[crisp].T, q, kernel="squares").pairs, rtol=1e-12)
    finally:
        del kernels._REGISTRY["squares"]


def test_misuse_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"unknown kernel 'dice'; choose one of abs, ait, simplex_tv, simplex_ait"):
        kernels.get("dice")
    with pytest.raises(ValueError, match="already registered"):
        kernels.register(kernels.get("abs")._replace(mass="pair"))
    with pytest.raises(ValueError, match="need each other"):
        kernels.register(kernels.get("abs")._replace(name="other", mass="joint"))
    with pytest.raises(ValueError, match="`overlap` and `from_overlap` need each other"):
        kernels.register(kernels.get("abs")._replace(name="other", overlap=None))
    with pytest.raises(ValueError, match=r"eps must lie in \(0, 1/2\)"):
        kernels.membership(jnp.ones(3), 0.5)
    with pytest.raises(ValueError, match="choose one of clip"):
        kernels.membership(jnp.ones(3), 0.1, "round")
