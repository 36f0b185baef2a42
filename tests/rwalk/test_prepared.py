"""Graphs made ready, their small systems and their answers to seeds, against dense solves."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import deflate, eigen, graph, multigrid, prepared, topology
from rwalk.stencil import to_sparse

SHAPE, REGIONS = (20, 24), 3
AT = np.array([0, 17, 150, 151, 233, 305, 400, 479])  # two of them are neighbours
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def exactly(lattice: graph.Lattice, at: np.ndarray, labels: np.ndarray, regions: int) -> np.ndarray:
    """L_U x_U = -B^T x_S by a dense solve; zero where no seed reaches."""
    matrix = to_sparse(graph.stencil_of(lattice)).toarray()
    x = np.zeros((regions, len(matrix)))
    x[labels, at] = 1
    pieces = graph.components(lattice).ravel()
    free = np.isin(pieces, np.unique(pieces[at])) & (matrix.diagonal() > 0)
    free[at] = False
    x[:, free] = np.linalg.solve(matrix[np.ix_(free, free)], -(matrix[free] @ x.T)).T
    return x


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rows, columns = np.indices(SHAPE)
    noise = np.random.default_rng(0).normal(size=SHAPE)
    return (rows // 7 + columns // 9) % 3 + 0.1 * noise


@pytest.fixture(scope="module", params=["whole", "two pieces"])
def given(request: pytest.FixtureRequest, image: np.ndarray) -> Iterator[tuple[graph.Lattice, prepared.Prepared]]:
    """A graph made ready, in float64, in which weak edges lose no digits."""
    mask = np.ones(SHAPE, bool)
    if request.param == "two pieces":
        mask[:, 11] = False
    with jax.enable_x64(True):
        lattice = graph.build(jnp.asarray(image)[None], beta=30.0, mask=mask, spacing=(1.0, 1.0))
        yield lattice, prepared.prepare(lattice, eigen.smallest_eigenpairs(lattice, 10, method="dense"))


def test_answer_is_that_of_a_dense_solve(given: tuple) -> None:
    lattice, ready = given
    at = AT[np.asarray(lattice.active).ravel()[AT]]
    labels = LABELS[np.isin(AT, at)]
    found = deflate.answer(ready, REGIONS, positions=at, labels=labels, tol=1e-10)
    assert float(found.residual) <= 1e-10
    np.testing.assert_allclose(found.x, exactly(lattice, at, labels, REGIONS), atol=1e-7)


def test_a_piece_without_seeds_belongs_to_no_label(given: tuple) -> None:
    lattice, ready = given
    if ready.count == 1:
        assert len(np.unique(graph.components(lattice))) == 1
        return
    left = AT[AT % SHAPE[1] < 11]
    found = deflate.answer(ready, REGIONS, positions=left, labels=LABELS[: len(left)], tol=1e-6)
    right = (np.arange(SHAPE[0] * SHAPE[1]) % SHAPE[1] > 11)[None]
    assert not np.asarray(found.x)[:, right[0]].any()


def test_the_small_system_is_the_projected_one(given: tuple) -> None:
    """Rows gathered round the seeds, padded or not, give what whole products give."""
    lattice, ready = given
    at = AT[np.asarray(lattice.active).ravel()[AT]]
    free = np.asarray(ready.root) > 0
    free[at] = False
    level = ready.hierarchy.levels[0]
    block = np.asarray(multigrid.prolong(level, ready.coarse.T)) * free  # F P Z, transposed
    projected = block @ to_sparse(level.operator).toarray() @ block.T
    places, _ = deflate.padded(at, at, free.size)
    assert len(places) == 64
    np.testing.assert_allclose(prepared._energies_around(ready, jnp.asarray(free), places), projected, atol=1e-9)
    np.testing.assert_allclose(prepared._energies_whole(ready, jnp.asarray(free)), projected, atol=1e-9)
    system = prepared.small(ready, jnp.asarray(free), places)
    np.testing.assert_allclose(system.solve(jnp.asarray(projected)), np.eye(len(projected)), atol=5e-3)


def test_a_changed_graph_follows_with_the_span_as_it_was(given: tuple) -> None:
    lattice, ready = given
    changed = topology.keep(lattice, jnp.asarray(np.indices(SHAPE)[0] > 3))
    after = prepared.follow(ready, changed)
    at = AT[np.asarray(changed.active).ravel()[AT]]
    labels = LABELS[np.isin(AT, at)]
    found = deflate.answer(after, REGIONS, positions=at, labels=labels, tol=1e-10)
    np.testing.assert_allclose(found.x, exactly(changed, at, labels, REGIONS), atol=1e-7)
    same = prepared.follow(ready, lattice)
    np.testing.assert_allclose(same.coarse, ready.coarse, atol=1e-12)
    np.testing.assert_allclose(same.energies, ready.energies, atol=1e-12)


def test_a_loose_residual_takes_fewer_steps_and_keeps_the_seeds(given: tuple) -> None:
    lattice, ready = given
    at = AT[np.asarray(lattice.active).ravel()[AT]]
    labels = LABELS[np.isin(AT, at)]
    loose, strict = (deflate.answer(ready, REGIONS, positions=at, labels=labels, tol=tol) for tol in (0.03, 1e-6))
    assert int(loose.steps) < int(strict.steps)
    np.testing.assert_allclose(np.asarray(loose.x)[:, at], np.eye(REGIONS)[labels].T, atol=1e-6)
    coupled = np.asarray(ready.root) > 0
    if ready.count == 1:
        np.testing.assert_allclose(np.asarray(loose.x).sum(0)[coupled], 1, atol=1e-5)


def test_misuse_is_refused(given: tuple) -> None:
    lattice, ready = given
    with pytest.raises(ValueError, match="neither seeds nor priors"):
        deflate.answer(ready, 2)
    with pytest.raises(ValueError, match="give prepare their weight gamma"):
        deflate.answer(ready, 2, priors=jnp.ones((2, ready.root.size)))
    small = graph.build(np.zeros((1, 4, 4), np.float32), beta=1.0)
    with pytest.raises(ValueError, match="the basis of this graph"):
        prepared.prepare(small, eigen.smallest_eigenpairs(lattice, 4, method="dense"))
