"""One answer whether one device, four, or two processes hold the lattice."""

import pytest

from tests.rwalk.spread import numbers, numbers_of_two, printed

QUESTION = """
import sys, tempfile, pathlib, jax, jax.numpy as jnp, numpy as np
from quartet import devices
from quartet.settings import Devices
from rwalk import bounds, cache, deflate, eigen, graph, online, prepared, solve, update

def ask(place):
    image = np.random.default_rng(0).normal(0, 0.2, (16, 15)).astype(np.float32)
    image[4:12, 4:12] += 1
    seeds = np.full((16, 15), -1)
    seeds[0, 0], seeds[8, 8] = 0, 1
    one, other = (graph.build(jnp.asarray(image)[None], beta=beta) for beta in (20.0, 30.0))
    basis = eigen.smallest_eigenpairs(one, 8, method="dense")
    p = np.stack([np.clip(image, 0, 1), 1 - np.clip(image, 0, 1)])

    @jax.jit
    def answers(weights, active, vectors, mass, p, ready):
        lattice = graph.Lattice(weights, active, one.offsets)
        held = basis._replace(vectors=vectors, mass=mass)
        laplacian = graph.stencil_of(lattice)
        answer = online.priors(held, laplacian, p.reshape(2, -1), 0.1)
        at = jnp.asarray([0, 128]), jnp.asarray([0, 1])
        both = online.both(held, laplacian, p.reshape(2, -1), 0.1, *at)
        exact = solve.random_walker(lattice, regions=2, seeds=jnp.asarray(seeds), tol=1e-6)
        deflated = deflate.answer(
            ready, 2, positions=[0, 128], labels=[0, 1], tol=1e-5, certify=True
        )
        far = jnp.stack([answer.bound.max(), answer.pointwise.max(), deflated.bound.max()])
        return answer.x, both, exact.x.reshape(2, -1), deflated.x, far

    held = place(one.weights, 1), place(one.active), place(other.weights, 1), place(basis.vectors), place(basis.mass)
    spread = graph.Lattice(held[0], held[1], one.offsets)
    known = basis._replace(vectors=held[3], mass=held[4])
    ready = prepared.prepare(spread, known)
    *found, far = answers(*held[:2], *held[3:], place(p, 1), ready)
    changed = update.reweight(known, spread, graph.Lattice(held[2], held[1], one.offsets), mode="first_order")
    return held, basis, (*found, changed.values, far)
"""

FOUR = (
    QUESTION
    + """
held, basis, spread = ask(devices.placement(Devices(layout="data", count=4)))
assert len({shard.device for shard in held[0].addressable_shards}) == 4
assert held[3].addressable_shards[0].data.shape == (60, 8)
_, _, alone = ask(devices.placement(Devices(layout="single")))
for ours, theirs in zip(spread[:-1], alone[:-1], strict=True):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-5, rtol=2e-4)
np.testing.assert_allclose(np.asarray(spread[-1]), np.asarray(alone[-1]), rtol=0.5)  # bounds of what rounding left
path = pathlib.Path(tempfile.mkdtemp()) / "basis"
place = devices.placement(Devices(layout="data", count=4))
cache.save(path, basis._replace(vectors=held[3], mass=held[4]), graph="g", settings={}, seconds=1.0)
kept = cache.load(path, "g", place=place).basis
assert kept.vectors.sharding.is_equivalent_to(held[3].sharding, 2), kept.vectors.sharding
np.testing.assert_array_equal(np.asarray(kept.vectors), np.asarray(basis.vectors))
pair = devices.placement(Devices(layout="data", count=2))
two, one = cache.load(path, "g", place=pair).basis, cache.load(path, "g").basis
assert len(two.vectors.sharding.device_set) == 2 and len(one.vectors.sharding.device_set) == 1
for found in (two, one):  # saved by four, opened by fewer
    np.testing.assert_array_equal(np.asarray(found.vectors), np.asarray(basis.vectors))
print("equal", *(f"{float((x * x).sum()):.4f}" for x in alone[:4]))
"""
)

TWO = (
    QUESTION
    + """
settings = Devices(layout="multihost", coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]))
devices.connect(settings)
place = devices.placement(settings)
held, basis, found = ask(place)
path = pathlib.Path(sys.argv[3]) / "basis"
cache.save(path, basis._replace(vectors=held[3], mass=held[4]), graph="g", settings={}, seconds=1.0)
kept = cache.load(path, "g", place=place).basis
assert not kept.vectors.is_fully_addressable
from jax.experimental import multihost_utils
same = jax.jit(lambda a, b: (a == b).all())(kept.vectors, held[3])
assert bool(same)
print(" ".join(f"{float(jax.jit(lambda y: (y * y).sum())(x)):.4f}" for x in found[:4]))
"""
)


@pytest.fixture(scope="module")
def alone():
    """What the program on four devices says of them, then what it found on one."""
    said, found = printed(FOUR, count=4).split(maxsplit=1)
    return said, numbers(found)


@pytest.mark.slow
def test_four_devices_equal_one_and_keep_a_basis_in_pieces(alone):
    assert alone[0] == "equal"


@pytest.mark.slow
def test_two_processes_equal_one(alone, tmp_path):
    for found in numbers_of_two(TWO, str(tmp_path)):
        assert found == pytest.approx(alone[1], rel=1e-3)
