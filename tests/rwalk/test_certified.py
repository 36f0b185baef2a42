"""Seeds alone in a volume: answers and their bounds against a direct solve."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from rwalk import certified, graph
from rwalk.stencil import to_sparse
from tests.rwalk.test_deflate import keeps

SHAPE, REGIONS = (13, 11, 10), 3


@pytest.fixture
def volume(float64):  # noqa: ARG001
    """Noise of high contrast in pieces: one without a seed, a lone voxel, and the rest; seeds of three labels."""
    rng = np.random.default_rng(1)
    mask = np.ones(SHAPE, bool)
    mask[3] = mask[11, :2] = mask[12, 1, 0] = mask[12, 0, 1] = False
    mask[12, 0, 0] = True
    lattice = graph.build(jnp.asarray(rng.normal(0, 0.4, SHAPE))[None], beta=60.0, mask=mask, eps=1e-6)
    flat = np.full(np.prod(SHAPE), -1)
    places = np.flatnonzero(mask.ravel() & (np.arange(flat.size) >= 5 * 110))
    flat[places[:: len(places) // 9][:9]] = [0, 1, 2] * 3
    return lattice, flat.reshape(SHAPE)


def directly(lattice, seeds):
    flat, active = seeds.ravel(), np.asarray(lattice.active).ravel()
    pieces = graph.components(lattice).ravel()
    x = (np.arange(REGIONS)[:, None] == flat).astype(float)
    free = np.flatnonzero(active & (flat < 0) & np.isin(pieces, pieces[flat >= 0]))
    matrix = to_sparse(graph.stencil_of(lattice)).tocsr()
    x[:, free] = spsolve(matrix[free][:, free].tocsc(), -(matrix @ x.T)[free]).T
    return x


def test_every_voxel_has_a_bound_that_holds_and_is_near_the_error(volume):
    lattice, seeds = volume
    x, mass = directly(lattice, seeds), graph.mass(lattice)
    for tol in (1e-2, 1e-6):
        found = certified.answer(lattice, REGIONS, seeds=seeds, tol=tol)
        assert float(found.residual) <= tol
        keeps(found, x, mass)
        assert found.pointwise.max() < 50 * np.abs(found.x - x).max()
        np.testing.assert_allclose(found.x.sum(0), x.sum(0), atol=1e-12)  # none on the piece without a seed
    warm = certified.answer(lattice, REGIONS, seeds=seeds, tol=1e-6, start=jnp.asarray(x))
    assert int(warm.steps) < int(found.steps)
