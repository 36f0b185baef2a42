"""Updates of a basis against perturbation theory, dense eigenpairs and exact solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import eigen, graph, online, solve, update
from tests.rwalk.test_eigen import noisy_box

SHAPE, K = (20, 21), 12


@pytest.fixture(scope="module")
def setting():
    """An image in float64, its graph at beta 30 with 12 pairs, and priors."""
    with jax.enable_x64(True):
        image = jnp.asarray(noisy_box(SHAPE))[None]
        before = graph.build(image, beta=30.0)
        basis = eigen.smallest_eigenpairs(before, K, method="dense")
        bright = jax.nn.sigmoid(8 * (image.reshape(1, -1) - 0.5))
        p = jnp.concatenate([bright, 1 - bright])
        yield image, before, basis, p


def error(after, basis, p, gamma=0.02):
    """Of the answer to priors from a basis, without polish, relative to the exact answer."""
    exact = solve.random_walker(after, regions=2, priors=p.reshape(2, *SHAPE), gamma=gamma, tol=1e-12).x.reshape(2, -1)
    x = online.priors(basis, graph.stencil_of(after), p, gamma, polish=0).x
    return float(jnp.linalg.norm(x - exact) / jnp.linalg.norm(exact))


def distance(basis, exact):
    """Largest sine of the angles between two spans, by the exact mass."""
    inner = exact.vectors.T @ (exact.mass[:, None] * basis.vectors)
    lengths = np.sqrt(np.diag(basis.vectors.T @ (exact.mass[:, None] * basis.vectors)))
    return np.sqrt(np.maximum(1 - np.linalg.svd(np.asarray(inner) / lengths)[1].min() ** 2, 0))


@pytest.mark.parametrize("normalised", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("mode", "power"), [("first_order", 2), ("second_order", 3)])
def test_the_error_of_perturbation_theory_falls_as_a_power_of_the_change(setting, normalised, mode, power):
    image, _, _, _ = setting
    before = graph.build(image, beta=3.0)
    full = eigen.smallest_eigenpairs(before, image.size, method="dense", normalised=normalised)
    errors = []
    for change in (0.02, 0.01, 0.005):
        after = graph.build(image, beta=3.0 + change)
        exact = eigen.smallest_eigenpairs(after, 6, method="dense", normalised=normalised)
        found = update.reweight(full, before, after, mode=mode, normalised=normalised)
        signs = jnp.sign((exact.vectors * exact.mass[:, None] * found.vectors[:, :6]).sum(0))
        errors.append(
            [float(jnp.abs(found.values[:6] - exact.values).max()),
             float(jnp.abs(found.vectors[:, :6] * signs[None] - exact.vectors).max())]
        )  # fmt: skip
    for one, other in ((0, 1), (1, 2)):
        ratio = np.array(errors[one]) / np.array(errors[other])
        assert (np.abs(np.log2(ratio) - power) < 0.17).all(), errors


def test_projection_is_never_worse_than_stale_and_the_filter_comes_near_recomputing(setting):
    image, before, basis, p = setting
    for factor in (2.0, 3.0):
        after = graph.build(image, beta=30.0 * factor)
        again = eigen.smallest_eigenpairs(after, K, method="dense")
        found = {mode: update.reweight(basis, before, after, mode=mode) for mode in update.MODES}
        assert found["filtered"].values.sum() <= found["ritz"].values.sum() * (1 + 1e-12)
        assert (again.values <= found["ritz"].values + 1e-12).all()  # Courant and Fischer
        errors = {mode: error(after, basis, p) for mode, basis in {**found, "again": again}.items()}
        assert errors["filtered"] <= errors["ritz"] <= errors["stale"], errors
        assert errors["filtered"] <= 1.2 * errors["again"], errors


@pytest.mark.parametrize("mode", ["ritz", "filtered"])
def test_updated_vectors_are_orthonormal_and_their_values_rayleigh_quotients(setting, mode):
    image, before, basis, _ = setting
    after = graph.build(image, beta=60.0)
    found = update.reweight(basis, before, after, mode=mode)
    np.testing.assert_allclose(found.vectors.T @ (found.mass[:, None] * found.vectors), np.eye(K), atol=1e-10)
    laplacian = graph.laplacian(after, found.vectors.T.reshape(K, *SHAPE)).reshape(K, -1)
    np.testing.assert_allclose(found.vectors.T @ laplacian.T, np.diag(found.values), atol=1e-10)
    np.testing.assert_allclose(found.mass, graph.degree(after).ravel(), atol=1e-12)


def test_an_unchanged_graph_leaves_the_basis_as_it_is(setting):
    _, before, basis, _ = setting
    for mode in ("first_order", "second_order", "ritz"):
        found = update.reweight(basis, before, before, mode=mode)
        np.testing.assert_allclose(found.values, basis.values, atol=1e-12)
        assert distance(found, basis) < 1e-6
        np.testing.assert_allclose(found.trace, basis.trace, rtol=1e-12)
        np.testing.assert_allclose(found.top, basis.top, rtol=1e-12)
        assert int(found.size) == int(basis.size)


def test_the_filter_grows_with_the_change_and_leaves_a_small_one_nearly_free(setting):
    image, before, basis, p = setting
    degrees = []
    for factor in (1.02, 1.1, 2.0, 3.0):
        after = graph.build(image, beta=30.0 * factor)
        found = update.reweight(basis, before, after, degree=60)
        degrees.append(int(found.steps))
        assert error(after, found, p) <= 1.2 * error(after, eigen.smallest_eigenpairs(after, K, method="dense"), p)
    assert degrees == sorted(degrees)
    assert degrees[0] == 1 < degrees[-1] < 60, degrees


@pytest.mark.slow
def test_appended_pairs_are_those_of_a_larger_basis(setting):
    _, before, basis, _ = setting
    larger = update.append(basis, before, 20, tol=1e-8, residual=1e-3)
    exact = eigen.smallest_eigenpairs(before, 20, method="dense")
    np.testing.assert_allclose(larger.values, exact.values, rtol=1e-4, atol=1e-10)


@pytest.mark.slow
def test_single_precision_agrees_with_double(setting):
    image, before, basis, _ = setting
    after = graph.build(image, beta=60.0)
    double = update.reweight(basis, before, after)
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, (basis, before, after))
    single = update.reweight(*narrow)
    np.testing.assert_allclose(single.values, double.values, rtol=1e-3, atol=1e-6)
    wide = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, single)
    assert distance(wide, double) < 1e-2


def test_misuse_is_refused_with_the_remedy(setting):
    _, before, basis, _ = setting
    with pytest.raises(ValueError, match="allowed are stale, first_order, second_order, ritz, filtered"):
        update.reweight(basis, before, before, mode="second")
    other = graph.build(jnp.ones((1, 5, 5)), beta=1.0)
    with pytest.raises(ValueError, match=r"use rwalk\.topology"):
        update.reweight(basis, before, other)


def test_vectors_that_became_dependent_are_made_up_for(setting):
    _, before, basis, _ = setting
    twice = jnp.concatenate([basis.vectors[:, : K // 2]] * 2, 1)
    found = update.reweight(basis._replace(vectors=twice), before, before, degree=60)
    assert found.values.shape == (K,)
    np.testing.assert_allclose(found.values[: K // 2], basis.values[: K // 2], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.values.sum(), basis.values.sum(), rtol=0.05)
    again = update.refit(before, twice, K, mass=graph.mass(before), degree=60)
    np.testing.assert_array_equal(again.values, found.values)
