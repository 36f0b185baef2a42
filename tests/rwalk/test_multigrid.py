import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import graph, multigrid, stencil

pytestmark = pytest.mark.usefixtures("float64")


def hierarchy_of(noise, shape, **options):
    mask = noise.random(shape) > 0.1
    lattice = graph.build(jnp.asarray(noise.random((1, *shape))), beta=20.0, mask=mask)
    operator, _ = graph.standard(lattice)
    return operator, multigrid.setup(operator, jnp.sqrt(graph.mass(lattice)), **options)


def matrix_of(function, size):
    return np.asarray(function(jnp.eye(size))).T


@pytest.mark.parametrize("shape", [(7, 10), (4, 5, 6), (23,)])
def test_the_coarse_operator_is_exactly_the_galerkin_product(noise, shape):
    operator, hierarchy = hierarchy_of(noise, shape, coarsest=12)
    level = hierarchy.levels[0]
    prolongation = matrix_of(lambda x: multigrid.prolong(level, x), np.prod(level.coarse))
    restriction = matrix_of(lambda x: multigrid.restrict(level, x), operator.size)
    np.testing.assert_allclose(restriction, prolongation.T, atol=1e-14)
    following = hierarchy.levels[1].operator if len(hierarchy.levels) > 1 else hierarchy.coarsest
    expected = prolongation.T @ stencil.to_sparse(operator).toarray() @ prolongation
    np.testing.assert_allclose(stencil.to_sparse(following).toarray(), expected, atol=1e-13)
    live = np.diag(expected) > 0
    np.testing.assert_allclose(np.diag(expected)[live], 1, atol=1e-13)
    mass = multigrid.galerkin(level, stencil.identity(operator))
    np.testing.assert_allclose(stencil.to_sparse(mass).toarray(), prolongation.T @ prolongation, atol=1e-13)


def test_the_coarse_levels_hold_what_the_fine_operator_annihilates(noise):
    _, hierarchy = hierarchy_of(noise, (20, 20), coarsest=10)
    for level in hierarchy.levels:
        np.testing.assert_allclose(stencil.apply(level.operator, level.near_null), 0, atol=1e-12)


def test_the_v_cycle_is_symmetric_and_positive(noise):
    operator, hierarchy = hierarchy_of(noise, (12, 11), coarsest=30)
    matrix = matrix_of(lambda x: multigrid.vcycle(hierarchy, x), operator.size)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10


def test_the_estimate_of_the_largest_eigenvalue_is_not_below_it(noise):
    _, hierarchy = hierarchy_of(noise, (30, 30), coarsest=10)
    for level in hierarchy.levels:
        top = np.linalg.eigvalsh(stencil.to_sparse(level.operator).toarray()).max()
        assert top * (1 - 1e-12) <= float(level.top) <= 2.2 * top
