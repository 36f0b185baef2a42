"""Four forced devices against one, in a process of their own because the number of devices is fixed at start."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evalmetrics import pairs, scores
from tests.conftest import devices
from tests.evalmetrics import definitions

FOUR = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from evalmetrics import scores
from tests.evalmetrics import definitions

assert jax.device_count() == 4
rng = np.random.default_rng(0)
p, q = (definitions.random_map(rng, k, (8, 6, 10)) for k in (3, 4))
weights = rng.random((8, 6, 10)).astype(np.float32)
devices = np.array(jax.devices())
line, square = Mesh(devices, ("x",)), Mesh(devices.reshape(2, 2), ("x", "y"))
cases = [(line, ("x", None, None), kernel, "soft soft") for kernel in ("abs", "ait", "simplex_ait")]
cases += [(line, ("x", None, None), "abs", layout) for layout in ("label soft", "label label")]
cases += [(square, spec, "simplex_tv", "soft soft") for spec in (("x", None, "y"), (("x", "y"), None, None))]
for mesh, spec, kernel, layout in cases:
    maps = [x.argmax(0) if kind == "label" else x for x, kind in zip((p, q), layout.split())]
    where = [NamedSharding(mesh, PartitionSpec(*(None,) * (x.ndim - 3), *spec)) for x in maps]
    options = dict(kernel=kernel, weights=weights, regions=(3, 4))
    one = scores.score(*maps, **options)
    spread = scores.score(*(jax.device_put(x, s) for x, s in zip(maps, where)), **options)
    assert len(spread.macro.sharding.device_set) == 4
    for x, y in zip(one, spread):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
print("equal")
"""


def test_four_devices_equal_one():
    environment = os.environ | devices(4) | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", FOUR], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "equal", done.stderr


@pytest.fixture
def mesh():
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    return Mesh(np.array(jax.devices()[:2]), ("x",))


def test_two_devices_of_this_process_equal_one(mesh):
    p = definitions.random_map(np.random.default_rng(0), 3, (8, 5))
    placed = jax.device_put(p, NamedSharding(mesh, PartitionSpec(None, "x")))
    np.testing.assert_allclose(scores.score(placed, placed[::-1]).macro, 1, rtol=1e-6)
    np.testing.assert_allclose(
        pairs.pair_stats(placed, p, labels="ordered", moments=True).moments.cross, (p * p).sum((1, 2)), rtol=1e-6
    )


def test_second_call_does_not_compile_again(mesh):
    from evalmetrics import sharded

    p = jax.device_put(np.ones((2, 8), np.float32), NamedSharding(mesh, PartitionSpec(None, "x")))
    pairs.pair_stats(p, p)
    compiled = sharded._summed._cache_size()
    pairs.pair_stats(p, p)
    assert sharded._summed._cache_size() == compiled


def test_a_partition_of_regions_is_refused_with_the_remedy(mesh):
    p = jax.device_put(np.ones((2, 8), np.float32), NamedSharding(mesh, PartitionSpec("x", None)))
    with pytest.raises(ValueError, match=r"partitioned over its regions axis.*partition voxel axes instead"):
        pairs.pair_stats(p, p)
