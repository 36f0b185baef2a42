"""Eigenpairs of a lattice that is spread over devices equal those of one device: the same steps, other sums."""

import pytest

from tests.rwalk.spread import numbers, numbers_of_two, printed

QUESTION = """
import re, sys, jax, jax.numpy as jnp, numpy as np
from quartet import devices
from quartet.settings import Devices
from rwalk import aggregation, eigen, graph
from rwalk.eigen import columns, lobpcg, pencil

K, SHAPE = 6, (12, 11, 10)
image = np.random.default_rng(0).normal(0, 0.2, SHAPE).astype(np.float32)
image[3:9, 3:8, 3:8] += 1
mask = np.ones(SHAPE, bool)
mask[:3, :4] = False

def spread(settings):
    place, lattice = devices.placement(settings), graph.build(jnp.asarray(image)[None], beta=20.0, mask=mask)
    return graph.Lattice(place(lattice.weights, 1), place(lattice.active), lattice.offsets)

def pairs(settings, method="lobpcg"):
    basis = eigen.smallest_eigenpairs(spread(settings), K, method=method)
    assert bool(basis.converged), method
    return basis

def captured(basis, other):
    return jax.jit(lambda q, r, m: (((q.T @ (m[:, None] * r)) ** 2).sum(1)))(basis.vectors, other, basis.mass)
"""

FOUR = (
    QUESTION
    + """
alone, four = Devices(layout="single"), Devices(layout="data", count=4)
for method in ("chebyshev", "lobpcg"):
    one, many = pairs(alone, method), pairs(four, method)
    assert {piece.data.shape for piece in many.vectors.addressable_shards} == {(330, K)}
    np.testing.assert_allclose(many.values, one.values, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(captured(one, np.asarray(many.vectors))[:-1], 1, atol=1e-3)
    assert int(many.steps) == int(one.steps)

matrix = pencil.pencil_of(spread(four))
hierarchy, _ = aggregation.build(matrix.operator, matrix.near_null, coarsest=60)
assert len(hierarchy.levels) > 1
x = columns.random_block(matrix, jax.random.key(0), 8)
step = lobpcg._expand.lower(matrix.operator, None, hierarchy, np.zeros(8, np.float32), x, x).compile().as_text()
assert "collective-permute" in step and "all-reduce" in step
for shape in re.findall(r"= f32\\[(\\d+),\\d+\\]\\S* (?:all-gather|all-to-all)", step):
    assert int(shape) < 660, "a whole block of vectors was gathered"
print("equal", *(f"{value:.7g}" for value in np.asarray(one.values)))
"""
)

TWO = (
    QUESTION
    + """
settings = Devices(layout="multihost", coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]))
devices.connect(settings)
basis = pairs(settings)
assert not basis.vectors.is_fully_addressable
print(" ".join(f"{value:.7g}" for value in [*np.asarray(basis.values), *np.asarray(captured(basis, basis.vectors))]))
"""
)


@pytest.fixture(scope="module")
def alone():
    """What the program on four devices says of them, then the values by LOBPCG on one."""
    said, found = printed(FOUR, count=4).split(maxsplit=1)
    return said, numbers(found)


@pytest.mark.slow
def test_four_devices_find_the_pairs_of_one_and_no_one_holds_all_of_a_vector(alone):
    assert alone[0] == "equal"


@pytest.mark.slow
def test_two_processes_find_the_pairs_of_one(alone):
    expected = alone[1]
    for found in numbers_of_two(TWO):
        assert found[: len(expected)] == pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert found[len(expected) :] == pytest.approx([1.0] * len(expected), abs=1e-4)
