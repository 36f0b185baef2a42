import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import eigen, graph
from rwalk.eigen import pencil, reference


def noisy_box(shape, deviation=0.15, seed=0):
    image = np.zeros(shape)
    image[tuple(slice(size // 4, -(size // 4)) for size in shape)] = 1
    return image + deviation * np.random.default_rng(seed).normal(size=shape)


def lattice_of(image, beta=100.0, mask=None):
    return graph.build(
        jnp.asarray(image, jnp.float32)[None], beta=beta, mask=np.ones(image.shape, bool) if mask is None else mask
    )


@pytest.fixture(scope="module")
def plane():
    """A masked plane, with its exact pairs: all that the methods are compared to."""
    mask = np.ones((37, 40), bool)
    mask[:6, 30:] = mask[20:24, 8:12] = False
    lattice = lattice_of(noisy_box((37, 40)), mask=mask)
    return lattice, {
        which: eigen.smallest_eigenpairs(lattice, 12, method="dense", normalised=which) for which in (True, False)
    }


def assert_right_basis(basis, exact, rtol):
    """Ritz sum, orthonormality, and the part of the exact space, but for the last two, which may cut a cluster."""
    np.testing.assert_allclose(basis.values.sum(), exact.values.sum(), rtol=rtol)
    inner = basis.vectors.T @ (basis.mass[:, None] * basis.vectors)
    np.testing.assert_allclose(inner, np.eye(len(basis.values)), atol=2e-5)
    overlap = exact.vectors.T @ (basis.mass[:, None] * basis.vectors)
    captured = np.sqrt((np.asarray(overlap) ** 2).sum(1))
    assert captured[:-2].min() > 0.99, captured


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("method", ["lobpcg", "chebyshev", "lanczos", "scipy"])
def test_every_method_finds_the_pairs_of_the_dense_matrix(plane, method, normalised):
    lattice, exact = plane
    basis = eigen.smallest_eigenpairs(lattice, 12, method=method, normalised=normalised)
    assert basis.converged
    assert_right_basis(basis, exact[normalised], rtol=1e-3)
    outside = ~np.asarray(lattice.active).ravel()
    assert not np.asarray(basis.vectors)[outside].any()
    assert float(basis.values[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("operator", ["filtered", "plain"])
def test_lanczos_finds_them_on_any_function_of_the_operator(plane, operator):
    lattice, exact = plane
    rules = {"maximum": 200, "tol": 1e-4, "confirmations": 0}
    basis = eigen.smallest_eigenpairs(lattice, 12, method="lanczos", operator=operator, **rules)
    assert basis.converged
    assert_right_basis(basis, exact[True], rtol=1e-2 if operator == "plain" else 1e-3)


@pytest.mark.slow
def test_lanczos_finds_the_other_vectors_of_a_value_that_is_not_simple():
    lattice = lattice_of(np.ones((24, 24)))  # a square has pairs of equal values, of which a Krylov space holds one
    basis = eigen.smallest_eigenpairs(lattice, 12, method="lanczos", normalised=False, tol=1e-5, residual=0.01)
    waves = 2 - 2 * np.cos(np.pi * np.arange(24) / 24)
    expected = np.sort(np.add.outer(waves, waves).ravel())[:12] * (1 + 1e-4)
    np.testing.assert_allclose(basis.values, expected, rtol=2e-3, atol=1e-6)


def test_pairs_satisfy_the_equation_in_float64(float64):  # noqa: ARG001
    lattice = graph.build(jnp.asarray(noisy_box((30, 31)))[None], beta=100.0)
    for normalised in (True, False):
        basis = eigen.smallest_eigenpairs(lattice, 10, normalised=normalised, tol=1e-14, residual=1e-7, maximum=200)
        exact = eigen.smallest_eigenpairs(lattice, 10, method="dense", normalised=normalised)
        np.testing.assert_allclose(basis.values, exact.values, atol=1e-10)
        q = jnp.moveaxis(basis.vectors.reshape(*lattice.shape, -1), -1, 0)
        left = graph.laplacian(lattice, q).reshape(10, -1)
        np.testing.assert_allclose(left, (basis.mass[:, None] * basis.vectors * basis.values[None]).T, atol=1e-8)
        assert float(basis.residual.max()) <= 1e-7


def test_eigenvalues_of_a_constant_lattice_are_those_of_the_cosine_transform():
    shape = (21, 30)
    waves = [2 - 2 * np.cos(np.pi * np.arange(size) / size) for size in shape]
    expected = np.sort(np.add.outer(*waves).ravel())[:15] * (1 + 1e-4)
    basis = eigen.smallest_eigenpairs(lattice_of(np.ones(shape)), 15, normalised=False, tol=1e-6, residual=0.01)
    np.testing.assert_allclose(basis.values, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["lobpcg", "chebyshev"])
def test_no_mode_of_a_volume_is_missed_by_the_count_of_inertia(method, seed):
    lattice = lattice_of(noisy_box((15, 16, 14), 0.25, seed))
    basis = eigen.smallest_eigenpairs(lattice, 20, method=method)
    counted = reference.count_below(pencil.pencil_of(lattice), 0.99 * float(basis.values[-1]))
    assert counted == int((basis.values < 0.99 * basis.values[-1]).sum())


def test_pieces_of_two_voxels_are_found_in_a_volume():
    image = noisy_box((18, 18, 18), 0.05)
    for x, y, z in [(2, 2, 2), (9, 9, 9), (14, 3, 8), (5, 12, 14), (15, 15, 4), (3, 8, 13)]:
        image[x : x + 2, y, z] = 3.0
    lattice = lattice_of(image)
    basis = eigen.smallest_eigenpairs(lattice, 16)
    assert basis.converged
    counted = reference.count_below(pencil.pencil_of(lattice), 0.99 * float(basis.values[-1]))
    assert counted == int((basis.values < 0.99 * basis.values[-1]).sum())
    participation = 1 / ((basis.mass[:, None] * basis.vectors**2) ** 2).sum(0)
    assert int((participation < 12).sum()) == 6  # they mix among themselves, being of one value


def test_the_count_of_inertia_is_right_where_the_values_are_known():
    matrix = pencil.pencil_of(lattice_of(np.ones((7, 9))), normalised=False)
    waves = [2 - 2 * np.cos(np.pi * np.arange(size) / size) for size in (7, 9)]
    values = np.add.outer(*waves).ravel() * (1 + 1e-4)
    for bound in (0.05, 1.1, 3.3):
        assert reference.count_below(matrix, bound) == (values < bound).sum()


def test_a_basis_of_a_similar_graph_is_a_warm_start(plane):
    lattice, exact = plane
    start = exact[True].vectors
    warm = eigen.smallest_eigenpairs(lattice, 12, x0=start, confirmations=0)
    cold = eigen.smallest_eigenpairs(lattice, 12, confirmations=0)
    assert int(warm.steps) <= int(cold.steps)
    assert_right_basis(warm, exact[True], rtol=1e-4)


def test_a_disconnected_lattice_has_a_zero_for_each_component():
    mask = np.ones((30, 33), bool)
    mask[:, 10] = mask[:, 22] = False
    basis = eigen.smallest_eigenpairs(lattice_of(noisy_box((30, 33)), mask=mask), 8)
    assert int((basis.values < 1e-6).sum()) == 3


def test_the_run_is_the_same_for_the_same_key(plane):
    lattice, _ = plane
    runs = [eigen.smallest_eigenpairs(lattice, 12, key=jax.random.key(3)) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].vectors, runs[1].vectors)


def test_misuse_is_refused_with_the_remedy(plane):
    lattice, _ = plane
    with pytest.raises(ValueError, match="allowed are lobpcg, chebyshev, lanczos, scipy, dense"):
        eigen.smallest_eigenpairs(lattice, 3, method="power")
    with pytest.raises(ValueError, match=r"k=5000 pairs of \d+ coupled voxels; ask for"):
        eigen.smallest_eigenpairs(lattice, 5000)
    large = lattice_of(np.ones((90, 90)))
    with pytest.raises(ValueError, match="k=2000 pairs of 8100 coupled voxels; ask for 1 to 1012"):
        eigen.smallest_eigenpairs(large, 2000)  # too many to iterate, too large to be written out
    with pytest.raises(ValueError, match=r"coupled voxels; ask for 1 to \d+"):
        eigen.smallest_eigenpairs(lattice, int((graph.degree(lattice) > 0).sum()), method="scipy")
    with pytest.raises(ValueError, match="operator='cubed' of lanczos; allowed are inverted, filtered, plain"):
        eigen.smallest_eigenpairs(lattice, 12, method="lanczos", operator="cubed")
    with pytest.raises(ValueError, match="use lobpcg"):
        eigen.smallest_eigenpairs(large, 3, method="dense")
