"""Wishes and faults that users of other programs have reported, each as a test with the number of the public issue."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from rwalk import eigen, graph, solve, warp
from rwalk.stencil import to_sparse
from tests.rwalk.test_eigen import noisy_box

SHAPE = (20, 21)  # as in test_update.py


def lattice(dtype):
    return graph.build(jnp.asarray(noisy_box(SHAPE), dtype)[None], beta=30.0)


def test_cupy_4692_the_smallest_eigenvalues_are_those_of_arpack_with_shift_and_invert():
    one = lattice(jnp.float32)
    basis = eigen.smallest_eigenpairs(one, 8, tol=1e-6, residual=1e-2)
    assert bool(basis.converged)
    matrix = to_sparse(graph.stencil_of(one)).tocsc()
    mass = sparse.diags_array(np.asarray(graph.mass(one), np.float64)).tocsc()
    values = np.sort(linalg.eigsh(matrix, 8, mass, sigma=-1e-3, return_eigenvectors=False))
    np.testing.assert_allclose(np.asarray(basis.values), values, rtol=1e-3, atol=1e-5)


def test_jax_3112_a_sparse_system_is_solved_and_differentiated_under_jit(float64):  # noqa: ARG001
    one = lattice(jnp.float64)
    seeds = np.full(SHAPE, -1)
    seeds[2, 2], seeds[10, 10] = 0, 1

    @jax.jit
    def probability(weights):
        held = graph.Lattice(weights, one.active, one.offsets)
        return solve.random_walker(held, regions=2, seeds=jnp.asarray(seeds), tol=1e-12).x[1]

    x = np.asarray(probability(one.weights)).ravel()
    matrix = to_sparse(graph.stencil_of(one)).tocsr()
    free = np.flatnonzero(seeds.ravel() < 0)
    known = np.where(seeds.ravel() == 1, 1.0, 0.0)
    right = linalg.spsolve(matrix[free][:, free].tocsc(), -(matrix @ known)[free])
    np.testing.assert_allclose(x[free], right, atol=1e-9)
    towards = jax.random.normal(jax.random.key(0), one.weights.shape, jnp.float64) * one.weights
    slope = jax.grad(lambda w: probability(w).sum())(one.weights)
    step = 1e-6
    ahead, behind = (float(probability(one.weights + s * step * towards).sum()) for s in (1, -1))
    np.testing.assert_allclose(float((slope * towards).sum()), (ahead - behind) / (2 * step), rtol=1e-4)


def test_antspy_441_and_itkelastix_350_a_warp_runs_on_the_device_that_holds_its_arrays(noise):
    there = jax.devices()[-1]
    images = jax.device_put(jnp.asarray(noise.normal(size=(1, 9, 8)), jnp.float32), there)
    field = jax.device_put(jnp.ones((2, 9, 8), jnp.float32), there)
    moved = warp.sample(images, field)
    assert moved.devices() == warp.jacobian(field).devices() == {there}
    np.testing.assert_allclose(moved[0, :-1, :-1], images[0, 1:, 1:], atol=1e-6)
