"""Bases carried to other voxels, and few edges by Woodbury, against dense eigenpairs and exact solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import eigen, graph, online, stencil, topology, woodbury
from tests.rwalk.test_eigen import noisy_box

SHAPE, K = (20, 21), 12
POSITIONS, LABELS = np.array([0, 100, 215, 399, 419]), np.array([0, 1, 0, 1, 1])


@pytest.fixture(scope="module")
def setting():
    with jax.enable_x64(True):
        lattice = graph.build(jnp.asarray(noisy_box(SHAPE))[None], beta=20.0)
        full = eigen.smallest_eigenpairs(lattice, lattice.active.size, method="dense")
        yield lattice, full, some(full, K)


def some(basis, k):
    return basis._replace(values=basis.values[:k], vectors=basis.vectors[:, :k])


def exact_basis(lattice, k=K):
    return eigen.smallest_eigenpairs(lattice, k, method="dense")


def assert_near(found, exact, rtol):
    """Ritz sum from above, and most of the exact space."""
    assert float(exact.values.sum()) * (1 - 1e-9) <= float(found.values.sum()) <= float(exact.values.sum()) * (1 + rtol)
    inner = np.asarray(exact.vectors.T @ (exact.mass[:, None] * found.vectors))
    assert np.sqrt((inner**2).sum(1))[:-3].min() > 0.95


def test_a_region_cut_out_has_the_values_of_its_own_and_a_zero_for_each_piece(setting):
    lattice, _, basis = setting
    region = np.ones(SHAPE, bool)
    region[:, 9] = region[:3] = False
    cut = topology.keep(lattice, region)
    found = topology.restrict(basis, cut)
    assert_near(found, exact_basis(cut), rtol=0.05)
    np.testing.assert_allclose(found.values[:2], 0, atol=1e-12)
    assert not np.asarray(found.vectors)[~region.ravel()].any()
    assert not np.asarray(cut.weights)[:, ~region].any()


def test_a_graph_of_lone_voxels_has_no_indicators_and_its_basis_is_refused(setting):
    lattice, _, basis = setting
    lone = topology.keep(lattice, np.indices(SHAPE).sum(0) % 2 == 0)
    assert topology.indicators(lone, jnp.float64).shape == (lattice.active.size, 0)
    with pytest.raises(ValueError, match="one of the 210 voxels of the graph has an edge; a basis needs"):
        topology.restrict(basis, lone)


@pytest.mark.slow
def test_a_crop_is_the_cut_region_as_a_smaller_lattice_and_growing_undoes_it(setting):
    lattice, _, basis = setting
    box = ((4, 20), (0, 17))
    inner = topology.crop(lattice, box)
    region = np.zeros(SHAPE, bool)
    region[4:, :17] = True
    large, small = topology.keep(lattice, region), stencil.to_sparse(graph.stencil_of(inner)).toarray()
    there = np.flatnonzero(region)
    np.testing.assert_allclose(stencil.to_sparse(graph.stencil_of(large)).toarray()[np.ix_(there, there)], small)
    found = topology.restrict(basis, inner, topology.rows_in(basis.vectors, SHAPE, box))
    assert_near(found, exact_basis(inner), rtol=0.05)
    back = topology.rows_into(exact_basis(inner).vectors, SHAPE, box)
    np.testing.assert_allclose(topology.rows_in(back, SHAPE, box), exact_basis(inner).vectors)
    grown = topology.grow(found, lattice, back, region, key=jax.random.key(0))
    assert_near(grown, exact_basis(lattice), rtol=0.05)


def test_deleted_edges_leave_the_others_and_are_followed_by_the_basis(setting):
    lattice, _, basis = setting
    here = np.arange(21 * 8, 21 * 8 + 15)
    changed = topology.with_edges(lattice, here, here + 21, np.zeros(15))
    left, right = (stencil.to_sparse(graph.stencil_of(x)).toarray() for x in (lattice, changed))
    moved = np.argwhere(np.triu(left - right, 1))
    np.testing.assert_array_equal(moved, np.stack([here, here + 21], 1))
    for a, b in moved:
        assert right[a, b] == 0
    found = topology.restrict(basis, changed)
    assert_near(found, exact_basis(changed), rtol=0.02)
    again = topology.with_edges(changed, here + 21, here, -left[here, here + 21])
    np.testing.assert_array_equal(again.weights, lattice.weights)


@pytest.mark.slow
def test_a_coarser_lattice_is_the_product_with_the_pooling_and_refining_comes_back(setting):
    lattice, _, basis = setting
    coarse, found = topology.coarsen(basis, lattice)
    parts = np.arange(100).reshape(10, 10).repeat(2, 0).repeat(2, 1)
    parts = np.concatenate([parts, 100 + np.arange(10).repeat(2)[:, None]], 1)  # the odd last column
    p = np.eye(110)[parts.ravel()]
    whole = p.T @ stencil.to_sparse(graph.stencil_of(lattice)).toarray() @ p
    order = np.argsort(np.concatenate([np.arange(100) + np.arange(100) // 10, 10 + 11 * np.arange(10)]))
    np.testing.assert_allclose(
        stencil.to_sparse(graph.stencil_of(coarse)).toarray(), whole[np.ix_(order, order)], atol=1e-12
    )
    mass = (p.T @ np.asarray(basis.mass))[order]
    np.testing.assert_allclose(found.mass, mass)
    values = np.sort(np.linalg.eigvalsh(whole[np.ix_(order, order)] / np.sqrt(np.outer(mass, mass))))[:K]
    assert values.sum() * (1 - 1e-9) <= float(found.values.sum()) <= values.sum() * 1.02
    fine = topology.refine(found, coarse.shape, lattice)
    assert_near(fine, exact_basis(lattice), rtol=0.05)


@pytest.mark.slow
def test_supervoxels_have_the_pooled_graph_and_answer_seeds(setting):
    lattice, full, basis = setting
    parts = np.arange(70).reshape(10, 7).repeat(2, 0).repeat(3, 1)
    edges, found = topology.supervoxels(basis, lattice, parts)
    p = np.eye(70)[parts.ravel()]
    whole = p.T @ stencil.to_sparse(graph.stencil_of(lattice)).toarray() @ p
    np.testing.assert_allclose(edges.apply(jnp.eye(70)), whole, atol=1e-12)
    np.testing.assert_allclose(found.mass, p.T @ np.asarray(basis.mass))
    positions, labels = np.array([0, 31, 69]), np.array([0, 1, 0])
    free = np.setdiff1d(np.arange(70), positions)
    exact = np.eye(2)[[0] * 70].astype(float)
    exact[positions] = np.eye(2)[labels]
    exact[free] = np.linalg.solve(whole[np.ix_(free, free)], -whole[np.ix_(free, positions)] @ exact[positions])
    _, every = topology.supervoxels(some(full, 69), lattice, parts)
    np.testing.assert_allclose(
        online.seeds(every, positions, labels, 2).T, exact, atol=2e-3
    )  # one direction short of exact
    x = online.seeds(found, positions, labels, 2).T
    assert np.linalg.norm(x - exact) < 0.2 * np.linalg.norm(exact)
    with pytest.raises(ValueError, match="more than 12 parts"):
        topology.supervoxels(basis, lattice, np.zeros(SHAPE, int))


@pytest.fixture(scope="module")
def edges():
    """Three edges of the lattice weakened or deleted, one new between voxels far apart."""
    return np.array([30, 200, 210, 5]), np.array([31, 221, 231, 390])


def changed_matrix(lattice, change):
    matrix = stencil.to_sparse(graph.stencil_of(lattice)).toarray()
    for a, b, w in zip(*change, strict=True):
        matrix[a, b] -= w
        matrix[b, a] -= w
        matrix[a, a] += w
        matrix[b, b] += w
    return matrix


def change_for(lattice, edges):
    matrix = stencil.to_sparse(graph.stencil_of(lattice)).toarray()
    deleted = matrix[edges[0], edges[1]]
    return woodbury.change_of(*edges, np.array([deleted[0], deleted[1], 0.5 * deleted[2], 0.7]))


def test_woodbury_with_all_pairs_is_the_dense_solution_of_the_changed_graph(setting, edges):
    lattice, full, _ = setting
    change = change_for(lattice, edges)
    matrix = changed_matrix(lattice, change)
    free = np.setdiff1d(np.arange(420), POSITIONS)
    exact = np.zeros((420, 2))
    exact[POSITIONS] = np.eye(2)[LABELS]
    exact[free] = np.linalg.solve(matrix[np.ix_(free, free)], -matrix[np.ix_(free, POSITIONS)] @ exact[POSITIONS])
    x = woodbury.seeds(full, POSITIONS, LABELS, 2, change)
    np.testing.assert_allclose(x.T, exact, atol=1e-10)
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(2), 420).T)
    for normalised in (True, False):
        basis = full if normalised else eigen.smallest_eigenpairs(lattice, 420, method="dense", normalised=False)
        mass = np.diag(matrix) if normalised else np.ones(420)
        exact = np.linalg.solve(matrix + 0.1 * np.diag(mass), 0.1 * (mass * np.asarray(p)).T)
        x = woodbury.priors(basis, graph.stencil_of(lattice), p, 0.1, change, normalised=normalised, polish=0)
        np.testing.assert_allclose(x.T, exact, atol=1e-10)


@pytest.mark.slow
def test_woodbury_with_some_pairs_is_as_near_as_the_basis_was(setting, edges):
    lattice, full, _ = setting
    change = change_for(lattice, edges)
    none = woodbury.change_of(edges[0], edges[1], np.zeros(4))
    few = some(full, 80)
    exact = woodbury.seeds(full, POSITIONS, LABELS, 2, change)
    error = float(jnp.linalg.norm(woodbury.seeds(few, POSITIONS, LABELS, 2, change) - exact))
    before = online.seeds(few, POSITIONS, LABELS, 2)
    np.testing.assert_allclose(woodbury.seeds(few, POSITIONS, LABELS, 2, none), before, atol=1e-10)
    assert error <= 1.5 * float(jnp.linalg.norm(before - online.seeds(full, POSITIONS, LABELS, 2)))
    assert error < 0.5 * float(jnp.linalg.norm(before - exact))


def test_misuse_is_refused_with_the_remedy(setting):
    lattice, _, basis = setting
    with pytest.raises(ValueError, match=r"\(0, 0\) and \(0, 2\) are no neighbours in this graph; rwalk\.woodbury"):
        topology.with_edges(lattice, [0], [2], [1.0])
    with pytest.raises(ValueError, match="must not be negative"):
        topology.with_edges(lattice, [0], [1], [-1.0])
    with pytest.raises(ValueError, match="cannot be joined with itself"):
        woodbury.change_of([3], [3], [1.0])
    with pytest.raises(ValueError, match="at most 4096 together"):
        woodbury.seeds(basis, np.arange(4096), np.zeros(4096, int), 1, woodbury.change_of([0], [1], [1.0]))
    for box in (((5, 5), (0, 3)), ((4, 21), (0, 3)), ((-4, 20), (0, 3)), ((0, 3),)):  # empty, beyond, before, an axis
        with pytest.raises(ValueError, match=r"is not within a lattice of shape \(20, 21\); give 0 <= from < to"):
            topology.crop(lattice, box)
        with pytest.raises(ValueError, match="is not within"):
            topology.rows_in(basis.vectors, SHAPE, box)
