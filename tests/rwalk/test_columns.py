import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from rwalk import graph, stencil
from rwalk.eigen import columns, pencil

pytestmark = pytest.mark.usefixtures("float64")
SHAPE = (8, 9)


@pytest.fixture
def matrix(noise):
    mask = noise.random(SHAPE) > 0.1
    return pencil.pencil_of(graph.build(jnp.asarray(noise.random((1, *SHAPE))), beta=5.0, mask=mask), normalised=False)


@pytest.fixture
def blocks(matrix, noise):
    live = np.asarray(matrix.mass.diagonal > 0)[:, None]
    return tuple(jnp.asarray(live * noise.normal(size=(72, k))) for k in (4, 3))


def test_a_product_of_columns_is_that_of_the_sparse_matrix(matrix, blocks):
    expected = stencil.to_sparse(matrix.operator) @ np.asarray(blocks[0])
    np.testing.assert_allclose(stencil.apply_columns(matrix.operator, blocks[0]), expected, atol=1e-14)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_inner_products_and_sums_do_not_depend_on_the_slabs(blocks, parts):
    x, y = blocks
    np.testing.assert_allclose(columns.gram(x, y, parts), np.asarray(x).T @ np.asarray(y), atol=1e-13)
    np.testing.assert_allclose(columns.sums(x, parts), np.asarray(x).sum(0), atol=1e-13)


def test_slabs_divide_the_first_axis():
    for shape, expected in [((64, 64, 64), 64), ((512, 512), 128), ((7, 5), 1), ((99, 117, 95), 99), ((256, 256), 32)]:
        assert columns.slabs(shape) == expected


def test_ritz_pairs_are_those_of_the_projected_pencil(matrix, blocks):
    mass = columns.weight(matrix)
    values, vectors = columns.rayleigh_ritz(matrix.operator, mass, blocks, 5)
    s, a = np.concatenate(blocks, 1), stencil.to_sparse(matrix.operator).toarray()
    b = np.diag(np.asarray(matrix.mass.diagonal))
    np.testing.assert_allclose(values, linalg.eigh(s.T @ a @ s, s.T @ b @ s, eigvals_only=True)[:5], atol=1e-12)
    np.testing.assert_allclose(vectors.T @ b @ vectors, np.eye(5), atol=1e-12)
    norms = columns.residual_norms(matrix.operator, mass, values, vectors)
    vectors = np.asarray(vectors)
    np.testing.assert_allclose(norms, np.linalg.norm(a @ vectors - b @ vectors * values, axis=0), atol=1e-12)


@pytest.mark.parametrize(("degree", "taken"), [(1, 1), (6, 7), (7, 7)])
def test_the_filter_is_the_chebyshev_polynomial_of_the_pencil(matrix, blocks, degree, taken):
    b, edge = np.asarray(matrix.mass.diagonal), 0.3
    root = np.sqrt(np.where(b > 0, b, np.inf))
    values, vectors = np.linalg.eigh(stencil.to_sparse(matrix.operator).toarray() / np.outer(root, root))
    top = float(matrix.top)
    gains = np.polynomial.Chebyshev.basis(taken)((top + edge - 2 * values) / (top - edge))
    expected = (vectors * gains) @ vectors.T @ (np.asarray(blocks[0]) * np.sqrt(b)[:, None]) / root[:, None]
    np.testing.assert_allclose(columns.amplify(matrix, blocks[0], edge, degree), expected, rtol=1e-10, atol=1e-10)


def test_the_mass_is_left_out_where_it_is_one(matrix, noise):
    assert columns.weight(matrix) is not None
    assert columns.weight(pencil.pencil_of(graph.build(jnp.asarray(noise.random((1, *SHAPE))), beta=5.0))) is None


def test_random_vectors_are_zero_where_nothing_is_coupled(matrix):
    x = columns.random_block(matrix, jax.random.key(0), 3)
    np.testing.assert_array_equal(np.asarray(x != 0).all(1), np.asarray(matrix.mass.diagonal) > 0)
