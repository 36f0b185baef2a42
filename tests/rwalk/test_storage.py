"""Vectors in half the memory: the products, what rounding does to answers, and the file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import cache, eigen, graph, online, storage
from tests.rwalk.test_eigen import noisy_box

SHAPE = (20, 21)


@pytest.fixture(scope="module")
def lattice():
    return graph.build(jnp.asarray(noisy_box(SHAPE))[None], beta=30.0)


@pytest.fixture(scope="module")
def bases(lattice):
    """A basis, and the same with rounded vectors."""
    basis = eigen.smallest_eigenpairs(lattice, 12, method="dense")
    return basis, basis._replace(vectors=basis.vectors.astype(jnp.bfloat16))


@pytest.mark.parametrize("rows", [50, 64, 150])  # below a piece, one, two and a rest
def test_products_with_stored_vectors_are_those_with_what_they_stand_for(rows, noise, monkeypatch):
    monkeypatch.setattr(storage, "PIECE", 64)
    vectors = jnp.asarray(noise.normal(size=(rows, 5)), jnp.bfloat16)
    x, c = (noise.normal(size=(2, size)).astype(np.float32) for size in (rows, 5))
    whole = np.asarray(vectors, np.float64)
    np.testing.assert_allclose(storage.project(jnp.asarray(x), vectors), x @ whole, atol=1e-4)
    np.testing.assert_allclose(storage.expand(jnp.asarray(c), vectors), c @ whole.T, atol=1e-4)


def test_rounding_moves_an_answer_by_less_than_a_hundredth_and_keeps_its_labels(bases, lattice):
    image = np.asarray(noisy_box(SHAPE)).ravel()
    p = jnp.asarray(np.stack([np.clip(image, 0, 1), 1 - np.clip(image, 0, 1)]), jnp.float32)
    laplacian, at = graph.stencil_of(lattice), (np.array([44, 220]), np.array([0, 1]))
    for ask in (
        lambda basis: online.priors(basis, laplacian, p, 0.01, polish=0).x,
        lambda basis: online.seeds(basis, *at, 2),
        lambda basis: online.both(basis, laplacian, p, 0.01, *map(jnp.asarray, at), polish=0),
    ):
        whole, half = (np.asarray(ask(basis)) for basis in bases)
        assert half.dtype == np.float32
        assert 0 < np.linalg.norm(half - whole) < 1e-2 * np.linalg.norm(whole)
        assert (half.argmax(0) == whole.argmax(0)).mean() > 0.98


def test_a_stored_basis_is_kept_as_it_is(bases, tmp_path):
    cache.save(tmp_path / "half", bases[1], graph="graph", settings={}, seconds=1.0)
    found = cache.load(tmp_path / "half", "graph").basis
    jax.tree.map(np.testing.assert_array_equal, found, bases[1])
    assert found.vectors.dtype == jnp.bfloat16
