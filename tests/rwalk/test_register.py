"""Kernels of registration against slow NumPy, identities, and known displacements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse.linalg import spsolve

from rwalk import dissimilarity, graph, register, warp
from rwalk.stencil import to_sparse

SHAPE = (9, 8, 7)


@pytest.fixture(scope="module")
def problem():
    """A lattice, its walker to a tight tolerance, dissimilarities of a window of radius 1, in float64."""
    with jax.enable_x64(True):
        yield _problem()


def _problem():
    rng = np.random.default_rng(0)
    image = jnp.asarray(ndimage.gaussian_filter(rng.normal(size=SHAPE), 1))
    lattice = graph.build(image[None], beta=5.0, scale="var", spacing=(1.0, 1.0, 2.0))
    costs = jnp.asarray(rng.random((27, *SHAPE)))
    return image, lattice, register.walker(lattice, gamma=0.5, tol=1e-13), costs


def test_the_walker_solves_the_system_with_priors(problem):
    _, lattice, solve, costs = problem
    laplacian = to_sparse(graph.stencil_of(lattice))
    mass = np.asarray(graph.mass(lattice))
    system = laplacian.copy()
    system.setdiag(system.diagonal() + 0.5 * mass)
    p = np.asarray(register.evidence(costs, 3.0))
    right = 0.5 * mass[:, None] * p.reshape(27, -1).T
    expected = spsolve(system.tocsc(), right).T.reshape(p.shape)
    np.testing.assert_allclose(register.posterior(solve, costs, 3.0), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(expected.sum(0), 1, rtol=1e-9)


def test_moments_equal_those_of_all_labels_solutions(problem):
    """The moment trick: d right-hand sides for the mean, d (d + 1)/2 more for the covariance."""
    _, _, solve, costs = problem
    shifts = dissimilarity.window(1, 3).astype(float)
    x = np.asarray(register.posterior(solve, costs, 3.0))
    mean = np.einsum("s...,sd->d...", x, shifts)
    np.testing.assert_allclose(register.expected(solve, costs, 3.0, jnp.asarray(shifts)), mean, atol=1e-13)
    second = np.einsum("s...,sd,se->de...", x, shifts, shifts) - mean[:, None] * mean[None]
    np.testing.assert_allclose(register.covariance(solve, costs, 3.0, jnp.asarray(shifts)), second, atol=1e-13)
    terms = -(x * np.log(x)).sum(0) / np.log(27)
    np.testing.assert_allclose(register.entropy(solve, costs, 3.0), terms, atol=1e-12)


def test_evidence_survives_costs_that_exponentials_do_not():
    costs = jnp.asarray([[5000.0], [4000.0], [4000.0]])
    np.testing.assert_allclose(register.moments(costs, 1.0, jnp.asarray([[1.0], [2.0], [4.0]])), [[3.0]])


def test_a_voxel_without_edges_keeps_its_evidence():
    mask = np.ones((4, 4), bool)
    mask[0, 1] = mask[1, 0] = mask[1, 1] = False
    lattice = graph.build(jnp.ones((1, 4, 4)), beta=1.0, mask=mask)
    p = jnp.arange(16.0).reshape(1, 4, 4)
    found = register.walker(lattice, gamma=0.5)(p)
    assert found[0, 0, 0] == 0.0
    assert found[0, 3, 3] < 15.0


def brute_force(kind, fixed, moving, radius, patch):
    """The definitions, voxel by voxel, in float64 NumPy; borders repeat."""
    d, shape = fixed.ndim, fixed.shape

    def mean(x):
        return ndimage.uniform_filter(x, 2 * patch + 1, mode="nearest")

    def moved(x, shift):
        index = tuple(np.clip(np.arange(size) + s, 0, size - 1) for size, s in zip(shape, shift, strict=True))
        return x[np.ix_(*index)]

    def descriptor(x):
        shifts = [sign * np.eye(d, dtype=int)[a] for a in range(d) for sign in (1, -1)]
        distances = np.stack([mean((x - moved(x, s)) ** 2) for s in shifts])
        local = distances.mean(0)
        local = np.clip(local, 1e-3 * local.mean(), 1e3 * local.mean())
        features = np.exp(-distances / local)
        return features / features.max(0)

    result = []
    for shift in dissimilarity.window(radius, d):
        other = moved(moving, shift)
        if kind == "ssd":
            result.append(mean((fixed - other) ** 2) / fixed.var())
        elif kind == "mind":
            b = np.stack([moved(part, shift) for part in descriptor(moving)])
            result.append(np.abs(descriptor(fixed) - b).mean(0))
        else:
            spread = moved(mean(moving**2) - mean(moving) ** 2, shift) * (mean(fixed**2) - mean(fixed) ** 2)
            product = mean(fixed * other) - mean(fixed) * moved(mean(moving), shift)
            result.append(1 - product / np.sqrt(spread))
    return np.stack(result)


@pytest.mark.parametrize("kind", dissimilarity.KINDS)
def test_dissimilarities_equal_their_definitions(kind, noise, float64):  # noqa: ARG001
    fixed, moving = noise.random((2, 8, 9))
    found = dissimilarity.costs(jnp.asarray(fixed), jnp.asarray(moving), radius=1, kind=kind, patch=1)
    inner = (slice(None), slice(2, -2), slice(2, -2))  # what patches see beyond the border is a convention
    np.testing.assert_allclose(found[inner], brute_force(kind, fixed, moving, 1, 1)[inner], rtol=1e-9)


@pytest.mark.parametrize("kind", dissimilarity.KINDS)
def test_a_shift_is_the_least_unlike_displacement(kind, noise):
    moving = ndimage.gaussian_filter(noise.normal(size=(16, 18)), 1).astype(np.float32)
    fixed = np.roll(moving, (1, -2), (0, 1))  # fixed(i) = moving(i - (1, -2))
    costs = dissimilarity.costs(jnp.asarray(fixed), jnp.asarray(moving), radius=2, kind=kind, patch=1)
    best = dissimilarity.window(2, 2)[np.asarray(costs.argmin(0))]
    assert (best[4:-4, 4:-4] == (-1, 2)).all()


def test_the_most_probable_displacement_is_refined_to_the_vertex_of_a_gaussian():
    shifts = dissimilarity.window(2, 2)
    centre = np.array([0.3, -0.45])
    x = np.exp(-((shifts - centre) ** 2).sum(1)).astype(np.float32)
    found = register.most_probable(jnp.asarray(x / x.sum())[:, None, None], 2)
    np.testing.assert_allclose(found[:, 0, 0], centre, atol=1e-5)
    rim = np.exp(-((shifts - [2.2, 0.0]) ** 2).sum(1)).astype(np.float32)
    np.testing.assert_allclose(register.most_probable(jnp.asarray(rim)[:, None, None], 2)[:, 0, 0], [2, 0], atol=1e-5)


def test_fields_compose_invert_and_refine():
    i = np.indices((24, 20)).astype(np.float32)
    bump = np.exp(-((i[0] - 12) ** 2 + (i[1] - 10) ** 2) / 18)
    u = jnp.asarray(np.stack([1.5 * bump, -bump]), jnp.float32)
    back = warp.invert(u, steps=40)
    assert float(warp.inconsistency(back, u).max()) < 1e-4
    assert float(warp.inconsistency(u, back).max()) < 0.1  # here the inverse is interpolated
    linear = jnp.asarray(np.stack([0.1 * i[0], -0.2 * i[1]]), jnp.float32)
    np.testing.assert_allclose(warp.jacobian(linear), 1.1 * 0.8, rtol=1e-5)
    coarse = jnp.stack([register.shrink(part, 2) for part in linear]) / 2
    np.testing.assert_allclose(
        warp.refine(coarse, (24, 20), 2)[:, 1:-1, 1:-1], linear[:, 1:-1, 1:-1], atol=1e-5
    )  # a linear field survives pooling


def test_the_jacobian_in_space_is_the_determinant(noise):
    u = noise.normal(size=(3, 4, 5, 6)).astype(np.float32)
    matrices = np.stack([np.stack(np.gradient(part), 0) for part in u], 0) + np.eye(3)[:, :, None, None, None]
    expected = np.linalg.det(np.moveaxis(matrices, (0, 1), (-2, -1)))
    np.testing.assert_allclose(warp.jacobian(jnp.asarray(u)), expected, rtol=1e-4, atol=1e-4)


def test_the_jacobian_of_a_field_on_one_slice_is_that_of_the_plane(noise):
    u = jnp.asarray(0.1 * noise.normal(size=(2, 6, 5)), jnp.float32)
    slab = jnp.concatenate([u, jnp.zeros((1, 6, 5), u.dtype)])[..., None]
    np.testing.assert_allclose(warp.jacobian(slab)[..., 0], warp.jacobian(u), rtol=1e-5)


@pytest.mark.parametrize("estimate", register.ESTIMATES)
def test_a_smooth_warp_is_undone(estimate, noise):
    fixed = ndimage.gaussian_filter(noise.normal(size=(40, 44)), 1.5)
    fixed = jnp.asarray(fixed / fixed.std(), jnp.float32)
    v = ndimage.gaussian_filter(noise.normal(size=(2, 40, 44)), (0, 6, 6))
    v = jnp.asarray(1.5 * v / np.abs(v).max(), jnp.float32)
    moving, truth = warp.sample(fixed[None], v)[0], warp.invert(v)
    solve = register.walker(graph.build(fixed[None], beta=1.0, scale="var"), gamma=0.05)
    u = jnp.zeros_like(v)
    for _ in range(3):
        u = register.improve(fixed, moving, u, solve, None, 10.0, radius=2, kind="ssd", patch=1, estimate=estimate)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    error = jnp.sqrt(((u - truth)[inner] ** 2).sum(0)).mean()
    assert error < 0.25 * jnp.sqrt((truth[inner] ** 2).sum(0)).mean()
    assert float(warp.jacobian(u).min()) > 0


def test_misuse_is_told():
    x = jnp.zeros((4, 4))
    with pytest.raises(ValueError, match="allowed are ssd, ncc, mind"):
        dissimilarity.costs(x, x, radius=1, kind="mi", patch=1)
    with pytest.raises(ValueError, match="one shape"):
        dissimilarity.costs(x, x[1:], radius=1, kind="ssd", patch=1)
    solve = register.walker(graph.build(x[None], beta=1.0), gamma=1.0)
    with pytest.raises(ValueError, match="expected, map"):
        register.improve(x, x, jnp.zeros((2, 4, 4)), solve, None, 1.0, radius=1, kind="ssd", patch=1, estimate="mean")
