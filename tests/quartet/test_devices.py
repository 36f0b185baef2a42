"""One mesh helper: one device, several, several processes."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pydantic
import pytest

from quartet import devices
from quartet.faults import UserFault
from quartet.settings import Devices
from tests import conftest
from tests.conftest import REPOSITORY


def test_single_leaves_arrays_alone():
    array = np.arange(3)
    assert devices.placement(Devices(layout="single"))(array) is array


def test_data_splits_the_axis_it_is_told():
    place = devices.placement(Devices(layout="data"))
    placed = place(np.ones((3, 8)), axis=1)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(3, 4)}


def test_an_axis_that_does_not_divide_is_placed_whole():
    placed = devices.placement(Devices(layout="data"))(np.ones((3, 5)), axis=1)
    assert placed.sharding.is_fully_replicated


def test_more_devices_than_there_are_is_one_line_with_the_remedy():
    with pytest.raises(UserFault, match=r"devices\.count: asked for 64.*xla_force_host_platform_device_count=64"):
        devices.mesh(64)


def test_half_a_coordinator_is_refused():
    with pytest.raises(pydantic.ValidationError, match="go together"):
        Devices(layout="multihost", coordinator="127.0.0.1:1")


PROGRAM = """
import sys, jax, numpy as np
from quartet import devices
from quartet.settings import Devices
settings = Devices(layout="multihost", coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]))
devices.connect(settings)
devices.connect(settings)  # a second cell of a sweep finds the connection made
place = devices.placement(settings)
total = jax.jit(lambda x: x.sum())(place(np.arange(16.0, dtype=np.float32)))
print(jax.process_count(), len(jax.devices()), float(total))
"""


SAVING = """
import sys, jax, jax.numpy as jnp, numpy as np
from quartet import devices
from quartet.checkpoints import Checkpoints
from quartet.settings import Checkpoint, Devices
settings = Devices(layout="multihost", coordinator=sys.argv[1], processes=2, process=int(sys.argv[2]))
devices.connect(settings)
place = devices.placement(settings)
third = np.full(3, 1 / 3)  # float64 on the host, in a process that computes in float32
spread = place(np.arange(8.0, dtype=np.float32))
state = {"key": jax.random.key(7), "third": third, "count": jnp.arange(4), "spread": spread}
with Checkpoints(sys.argv[3], Checkpoint(every=None, seconds=1e-9, keep=2)) as checkpoints:
    assert checkpoints.maybe_save(1, state)
blank = {**state, "third": np.zeros(3), "count": jnp.zeros(4, int), "spread": place(np.zeros(8, np.float32))}
with Checkpoints(sys.argv[3], Checkpoint(every=1, seconds=None, keep=2)) as checkpoints:
    found = checkpoints.restore(blank)
assert found["third"].dtype == np.float64 and (found["third"] == third).all()
assert (found["count"] == jnp.arange(4)).all() and found["spread"].sharding == state["spread"].sharding
assert (jax.random.key_data(found["key"]) == jax.random.key_data(state["key"])).all()
print(float(jax.jit(jnp.sum)(found["spread"])))
"""


def two_processes(program, *arguments):
    """Last line of what each of two connected processes prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | conftest.devices(2)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, str(index), *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    lines = []
    try:
        for process in running:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            lines.append(out.splitlines()[-1])  # gloo speaks first
    finally:
        for process in running:  # the one waits for the other for ever
            process.kill()
    return lines


def test_two_processes_sum_as_one():
    assert two_processes(PROGRAM) == ["2 4 120.0"] * 2


def test_two_processes_save_and_restore_what_each_and_what_all_hold(tmp_path):
    assert two_processes(SAVING, str(tmp_path / "checkpoints")) == ["28.0"] * 2


def test_a_mesh_under_jit_follows_the_data():
    place = devices.placement(Devices(layout="data"))
    x = place(jnp.arange(8.0))
    assert jax.jit(lambda y: 2 * y)(x).sharding == x.sharding
