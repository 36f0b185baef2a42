"""Embedding tables split by rows: eight devices and two processes train what one device trains."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, devices

PROGRAM = """
import json, sys
import jax
from quartet import devices
from quartet.settings import Devices
settings = Devices(**json.loads(sys.argv[1]))
devices.connect(settings)
from tests.kdrec.test_experiment import build
experiment, _ = build("run.folder=unused", "labels=lockstep", "model.shard=true", "train.limit=6", "train.start=0.2")
for state, row in experiment.run(experiment.init(jax.random.key(0)), place=devices.placement(settings)):
    pass
tables = [state.student.params["ranker"]["embedding"], state.student.moments.mu["ranker"]["biases"],
          state.teacher.snapshot["embedding"]]
shares = [table.shape[-2] // table.addressable_shards[0].data.shape[-2] for table in tables]
print(json.dumps({"shares": shares, "row": {k: v for k, v in row.items() if isinstance(v, float)}}))
"""


def trained(count, *settings):
    """What each of some connected processes, of so many devices each, prints at last."""
    environment = os.environ | devices(count) | {"PYTHONPATH": str(REPOSITORY)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(one)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in settings
    ]
    found = []
    for process in running:
        out, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
        found.append(json.loads(out.splitlines()[-1]))
    return found


@pytest.mark.slow
def test_rows_on_eight_devices_and_on_two_processes_equal_those_on_one():
    (one,) = trained(1, {"layout": "single"})
    (eight,) = trained(8, {"layout": "data"})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = {"layout": "multihost", "coordinator": address, "processes": 2}
    two = trained(1, *({**shared, "process": number} for number in range(2)))
    assert one["shares"] == [1, 1, 1]
    assert eight["shares"] == [8, 8, 8]
    assert two[0]["shares"] == [2, 2, 2]
    timeless = [{k: v for k, v in each["row"].items() if not k.startswith("cost/seconds")} for each in two]
    assert timeless[0] == timeless[1]
    assert "change/1" in one["row"]
    for other in (eight, two[0]):  # sums in another order: equal to about 1e-5, changes of 0.1 % to 1e-3 of a percent
        for name in ("log_loss/1", "log_loss/2", "auc/1", "calibration/1", "teacher/calibration/2"):
            assert other["row"][name] == pytest.approx(one["row"][name], rel=1e-4), name
        assert other["row"]["change/1"] == pytest.approx(one["row"]["change/1"], abs=1e-2)
