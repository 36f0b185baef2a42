import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import graph, stencil
from rwalk.weights import forward_offsets

pytestmark = pytest.mark.usefixtures("float64")


def dense_laplacian(lattice):
    """By the definition: every edge adds w (e_i - e_j)(e_i - e_j)^T; loops over voxels and directions."""
    shape, n = lattice.shape, lattice.active.size
    index = np.arange(n).reshape(shape)
    matrix = np.zeros((n, n))
    for w, offset in zip(np.asarray(lattice.weights), lattice.offsets, strict=True):
        for here in np.ndindex(*shape):
            there = tuple(np.add(here, offset))
            if all(0 <= t < s for t, s in zip(there, shape, strict=True)):
                i, j = index[here], index[there]
                matrix[[i, j, i, j], [i, j, j, i]] += np.array([1, 1, -1, -1]) * w[here]
    return matrix


def some_lattice(noise, shape=(5, 6), *, mask=True, **options):
    image = noise.random((2, *shape))
    active = noise.random(shape) > 0.2 if mask else np.ones(shape, bool)
    return graph.build(jnp.asarray(image), beta=5.0, mask=active, **options)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((7,), (1.0,)),
        ((5, 8), (1.0, 1.0)),
        ((6, 5), (1.0, 2.0)),
        ((3, 4, 5), (1.0, 1.0, 1.0)),
        ((3, 5, 2), (1.0, 1.5, 3.0)),
    ],
)
def test_eigenvalues_of_a_constant_lattice_are_those_of_the_cosine_transform(shape, spacing):
    lattice = graph.build(jnp.ones((1, *shape)), beta=3.0, spacing=spacing, eps=0.25)
    conductance = 1.25 * (min(spacing) / np.asarray(spacing)) ** 2
    waves = [c * (2 - 2 * np.cos(np.pi * np.arange(size) / size)) for c, size in zip(conductance, shape, strict=True)]
    expected = np.sort([sum(each) for each in itertools.product(*waves)])
    found = np.linalg.eigvalsh(stencil.to_sparse(graph.stencil_of(lattice)).toarray())
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 3)])
def test_both_forms_of_the_laplacian_equal_the_definition(noise, shape, diagonal):
    lattice = some_lattice(noise, shape, diagonal=diagonal)
    expected = dense_laplacian(lattice)
    flat = graph.stencil_of(lattice)
    np.testing.assert_allclose(stencil.to_sparse(flat).toarray(), expected, atol=1e-14)
    x = noise.random((3, *shape))
    product = (x.reshape(3, -1) @ expected).reshape(x.shape)
    np.testing.assert_allclose(graph.laplacian(lattice, jnp.asarray(x)), product, atol=1e-13)
    np.testing.assert_allclose(stencil.apply(flat, jnp.asarray(x.reshape(3, -1))), product.reshape(3, -1), atol=1e-13)
    np.testing.assert_allclose(stencil.apply(flat, jnp.asarray(x[0].ravel())), product[0].ravel(), atol=1e-13)


@pytest.mark.parametrize("normalised", [False, True])
def test_rows_sum_to_zero_and_voxels_outside_are_not_coupled(noise, normalised):
    lattice = some_lattice(noise)
    flat = graph.stencil_of(lattice)
    np.testing.assert_allclose(stencil.apply(flat, jnp.ones(flat.size)), 0, atol=1e-14)
    operator, root = graph.standard(lattice, normalised=normalised)
    coupled = np.asarray(graph.degree(lattice)).ravel() > 0
    np.testing.assert_array_equal(np.asarray(root) > 0, coupled)
    matrix = stencil.to_sparse(operator).toarray()
    assert not matrix[~coupled].any()
    assert not matrix[:, ~coupled].any()
    if normalised:
        np.testing.assert_allclose(np.diag(matrix)[coupled], 1, atol=1e-14)
        values = np.linalg.eigvalsh(matrix)
        assert values.min() > -1e-14
        assert values.max() <= 2 + 1e-14


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(
    ("shape", "diagonal"), [((6, 4), False), ((5, 7), True), ((3, 5, 4), False), ((3, 4, 5), True)]
)
def test_coarse_laplacian_is_exactly_the_galerkin_product(noise, shape, diagonal, factor):
    lattice = some_lattice(noise, shape, diagonal=diagonal)
    coarse = graph.coarsen(lattice, factor)
    pooling = np.stack(
        [np.asarray(graph.pool(jnp.asarray(row.reshape(shape)), factor)).ravel() for row in np.eye(np.prod(shape))]
    )
    expected = pooling.T @ dense_laplacian(lattice) @ pooling
    np.testing.assert_allclose(dense_laplacian(coarse), expected, atol=1e-13)
    values = jnp.asarray(noise.random(coarse.shape))
    np.testing.assert_allclose(graph.repeat(values, shape, factor).ravel(), pooling @ np.asarray(values).ravel())


@pytest.mark.parametrize("scale", ["one", "max", "var", "mad"])
def test_derivative_by_beta_equals_that_of_the_weights(noise, scale):
    image, mask = jnp.asarray(noise.random((2, 5, 6))), jnp.asarray(noise.random((5, 6)) > 0.2)
    options = {"spacing": (1.0, 2.0), "scale": scale, "eps": 1e-2}
    lattice, change = jax.jvp(lambda beta: graph.build(image, beta=beta, mask=mask, **options).weights, (3.0,), (1.0,))
    from rwalk.weights import weights_by_beta

    found = weights_by_beta(image, mask, lattice, offsets=forward_offsets(2), **options)
    np.testing.assert_allclose(found, change, atol=1e-14)
    assert (np.asarray(found) <= 0).all()


def test_gaussian_weights_by_hand():
    # |dI|^2 = 1 and 4, largest 4, beta = ln 16: exp(-ln 16 / 4) = 1/2 and 1/16; the second axis has twice the spacing.
    image = jnp.asarray([[[0.0, 2.0], [1.0, 3.0]]])
    lattice = graph.build(image, beta=np.log(16), spacing=(1.0, 2.0), eps=0.5)
    assert lattice.offsets == ((0, 1), (1, 0))
    np.testing.assert_allclose(lattice.weights[0], [[0.5625 / 4, 0], [0.5625 / 4, 0]])
    np.testing.assert_allclose(lattice.weights[1], [[1.0, 1.0], [0, 0]])


def test_grady_weights_by_hand():
    # distances 1, 3, 2 become 0, 1, 1/2
    lattice = graph.build(jnp.asarray([[0.0, 1.0, 4.0, 6.0]]), beta=np.log(4), convention="grady")
    np.testing.assert_allclose(lattice.weights[0], [1 + 1e-5, 0.25 + 1e-5, 0.5 + 1e-5, 0])


def test_noise_weights_do_not_depend_on_the_units_of_the_image(noise):
    image = jnp.asarray(noise.normal(size=(2, 20, 20)))
    lattices = [graph.build(im, beta=1.0, convention="noise", radius=1) for im in (image, 7 * image + 3)]
    np.testing.assert_allclose(lattices[0].weights, lattices[1].weights, rtol=1e-10)
    # Alone, a voxel of pure noise differs from the next by N(0, 2 var): the mean of exp(-d^2/8) is sqrt(2/3).
    single = graph.build(jnp.asarray(noise.normal(size=(1, 300, 300))), beta=1.0, convention="noise", eps=0.0)
    assert float(single.weights[0, :, :-1].mean()) == pytest.approx(np.sqrt(2 / 3), abs=0.01)


@pytest.mark.parametrize("convention", ["gaussian", "skimage", "grady", "noise"])
def test_a_constant_image_has_equal_finite_weights(convention):
    weights = np.asarray(graph.build(jnp.ones((1, 4, 5)), beta=100.0, convention=convention).weights)
    assert np.isfinite(weights).all()
    assert len(np.unique(np.round(weights[weights > 0], 12))) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, bool])
def test_an_image_of_whole_numbers_has_the_weights_of_the_same_numbers_in_floating_point(dtype):
    image = np.array([[[0, 200, 10], [200, 0, 5]]]).astype(dtype)
    options = {"beta": 0.9, "scale": "max"}
    found = graph.build(image, **options).weights
    np.testing.assert_array_equal(found, graph.build(image.astype(np.float64), **options).weights)


def test_components_of_a_cut_lattice():
    mask = np.ones((3, 5), bool)
    mask[:, 2] = False
    found = graph.components(graph.build(jnp.ones((1, 3, 5)), beta=1.0, mask=mask))
    np.testing.assert_array_equal(found, np.tile([0, 0, -1, 1, 1], (3, 1)))


@pytest.mark.parametrize("mask", [np.ones((3, 3)), np.ones((4, 3, 2))])
def test_a_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(ValueError, match="image must be"):
        graph.build(jnp.ones((1, 4, 3)), beta=1.0, mask=mask)


def test_the_example_of_the_package_holds():
    import doctest

    import rwalk

    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        assert doctest.testmod(rwalk).failed == 0
