from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import aggregation, graph, solve, stencil
from rwalk.eigen import pencil, start

pytestmark = pytest.mark.usefixtures("float64")


def pencil_of(image, beta=100.0):
    return pencil.pencil_of(graph.build(jnp.asarray(image)[None], beta=beta, spacing=(1.0,) * image.ndim))


def striped(size):
    """Lines of one voxel on odd rows, which cubes of voxels tie to what lies beside them."""
    image = np.random.default_rng(0).normal(0, 0.02, (size, size))
    image[1::4, 2:-2] += 1
    return image


def steps(matrix, precondition):
    near_null = matrix.near_null / jnp.linalg.norm(matrix.near_null)
    b = jnp.asarray(np.random.default_rng(1).normal(size=matrix.operator.size))
    b = (b - near_null * (near_null @ b))[None]
    return int(
        solve.conjugate_gradients(
            partial(stencil.apply, matrix.operator), precondition, b, jnp.zeros_like(b), 1e-6, 300
        )[1]
    )


def test_lines_of_one_voxel_cost_few_steps():
    matrix = pencil_of(striped(32))
    hierarchy, _ = aggregation.build(matrix.operator, matrix.near_null, coarsest=40)
    assert len(hierarchy.levels) >= 2
    assert steps(matrix, lambda r: aggregation.vcycle(hierarchy, r)) < 25


@pytest.mark.parametrize("shape", [(9, 12), (5, 6, 5)])
def test_the_v_cycle_is_symmetric_and_positive_and_coarse_products_are_exact(noise, shape):
    matrix = pencil_of(noise.random(shape), 20.0)
    hierarchy, levels = aggregation.build(matrix.operator, matrix.near_null, coarsest=12)
    values, first = start.coarse(matrix, levels, 3)
    cycle = np.asarray(aggregation.vcycle(hierarchy, jnp.eye(matrix.operator.size)))
    np.testing.assert_allclose(cycle, cycle.T, atol=1e-10)
    assert np.linalg.eigvalsh((cycle + cycle.T) / 2).min() > -1e-10
    transfer, (p, coarse) = hierarchy.levels[0].transfer, levels[0]
    m, a = p.shape[1], stencil.to_sparse(matrix.operator).toarray()
    right, left = transfer.prolong(jnp.eye(aggregation.rounded(m))), transfer.restrict(jnp.eye(len(a)))
    np.testing.assert_array_equal(right, left.T)
    np.testing.assert_allclose(right, np.pad(p.toarray(), ((0, 0), (0, len(left) - m))), atol=1e-15)
    np.testing.assert_allclose(coarse.toarray(), p.T @ a @ p, atol=1e-13)
    np.testing.assert_allclose(hierarchy.levels[1].operator.todense()[:m, :m], coarse.toarray(), atol=1e-15)
    first = first.T
    inside = np.asarray((first * stencil.apply(matrix.operator, first)).sum(1) / (first**2).sum(1))
    np.testing.assert_allclose(np.sort(inside), values, atol=1e-8)  # Ritz values of the first block


def test_equal_edges_do_not_make_one_aggregate():
    matrix = stencil.to_sparse(pencil_of(np.ones((30, 30))).operator)
    sizes = np.bincount(aggregation.aggregates(matrix, np.ones(900)))
    assert sizes.min() >= 2
    assert sizes.max() < 40
    assert 2 < sizes.mean() < 6


def test_voxels_outside_the_mask_are_in_no_aggregate(noise):
    mask = np.zeros((40, 40), bool)
    mask[3:15, 3:15] = True
    matrix = pencil.pencil_of(graph.build(jnp.asarray(noise.random((1, 40, 40))), beta=20.0, mask=mask))
    hierarchy, levels = aggregation.build(matrix.operator, matrix.near_null, coarsest=20)
    assert hierarchy.factor.shape[0] <= 20
    assert not levels[0][0].toarray()[~mask.ravel()].any()


def test_islands_of_two_voxels_end_in_a_diagonal():
    """Nothing is left to be coupled after one step, and there are more islands than a dense matrix shall have rows."""
    image = np.arange(40)[None] // 2 % 2 + np.zeros((10, 1))
    mask = np.ones((10, 40), bool)
    mask[1::2] = mask[:, 2::3] = False
    matrix = pencil.pencil_of(graph.build(jnp.asarray(image)[None], beta=1.0, mask=mask))
    hierarchy, _ = aggregation.build(matrix.operator, matrix.near_null, coarsest=4)
    b = jnp.asarray(np.random.default_rng(0).normal(size=(2, 400)))
    assert bool(jnp.isfinite(aggregation.vcycle(hierarchy, b)).all())


def test_sizes_of_coarse_levels_are_few():
    found = [aggregation.rounded(size) for size in range(1, 5000)]
    assert all(size <= near < 1.25 * size + 1 for size, near in enumerate(found, 1))
    assert len(set(found)) < 40


def test_images_of_one_shape_share_a_compiled_v_cycle(noise):
    def compiled(image):
        matrix = pencil_of(image, 20.0)
        hierarchy, _ = aggregation.build(matrix.operator, matrix.near_null, coarsest=40)
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), hierarchy)

    shapes = [compiled(noise.random((24, 26))) for _ in range(4)]
    assert len({str(shape) for shape in shapes}) <= 2
