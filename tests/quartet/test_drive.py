"""The run loop: a run in two halves is the same run, whatever happened in between."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from quartet.drive import drive
from quartet.faults import UserFault
from quartet.results import RunFolder, provenance, read_rows
from tests.conftest import REPOSITORY
from tests.quartet import demo


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """40 steps in one go: folder and rows."""
    folder = tmp_path_factory.mktemp("whole")
    demo.run(folder, 40, every=100)
    return folder, read_rows(folder / "metrics.jsonl")


def spawn(folder, steps):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.quartet.demo", str(folder), str(steps)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def test_twenty_and_twenty_steps_equal_forty_bitwise(whole, tmp_path):
    demo.run(tmp_path, 21)  # the last step of a run is not saved: it has a result
    demo.run(tmp_path, 40)
    assert read_rows(tmp_path / "metrics.jsonl") == whole[1]


def test_result_holds_the_last_row_and_where_it_came_from(whole):
    result = json.loads((whole[0] / "result.json").read_text())
    assert result["headline"] == result["metrics"]["loss"] == whole[1][-1]["loss"]
    assert {"commit", "hardware", "command", "versions", "device"} <= set(result["provenance"])
    assert json.loads((whole[0] / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("program", ["bin/rwalk", "site/rwalk/__main__.py"])
def test_the_command_that_is_noted_is_one_to_type(program, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "-m", "table=speed"])
    assert provenance()["command"] == "rwalk -m table=speed"


def test_a_run_killed_in_the_middle_of_a_save_resumes_bitwise(whole, tmp_path):
    process = spawn(tmp_path, 40)
    checkpoints, deadline = tmp_path / "checkpoints", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        names = os.listdir(checkpoints) if checkpoints.is_dir() else []
        if any("tmp" in name for name in names) and any(name.isdigit() and int(name) >= 3 for name in names):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = spawn(tmp_path, 40)
    errors = resumed.communicate(timeout=120)[1].decode()
    assert resumed.returncode == 0, errors
    assert "resumed at step" in errors
    assert read_rows(tmp_path / "metrics.jsonl") == whole[1]


def test_a_flipped_byte_is_found_and_the_step_before_is_used(whole, tmp_path, capsys):
    demo.run(tmp_path, 21)
    newest = tmp_path / "checkpoints" / "20"
    data = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    _flip(data, data.stat().st_size // 2)
    demo.run(tmp_path, 40)
    said = capsys.readouterr().err
    assert "step 20 is damaged" in said
    assert "resumed at step 19" in said
    assert read_rows(tmp_path / "metrics.jsonl") == whole[1]


def _flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_rows_written_after_the_last_save_are_not_doubled(whole, tmp_path):
    demo.run(tmp_path, 21)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 22, "loss": 0.0}\n{"step": 23, "lo')
    demo.run(tmp_path, 40)
    rows = read_rows(tmp_path / "metrics.jsonl")
    np.testing.assert_array_equal([row["step"] for row in rows], np.arange(1, 41))
    assert rows == whole[1]


def test_a_profile_is_written_where_asked_for(tmp_path):
    settings = demo.settings(tmp_path)
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, profile=True))
    drive(demo.Regression(2), settings, RunFolder(tmp_path), {"config": {}, "inputs": {}})
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_restored_from_another_begins_with_its_rows(whole, tmp_path):
    demo.run(tmp_path / "first", 21)
    settings = demo.settings(tmp_path / "second")
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, restore=str(tmp_path / "first")))
    (tmp_path / "second").mkdir()
    drive(demo.Regression(40), settings, RunFolder(tmp_path / "second"), {"config": {}, "inputs": {}})
    assert read_rows(tmp_path / "second" / "metrics.jsonl") == whole[1]


def test_rows_that_were_lost_make_the_run_start_over(whole, tmp_path, capsys):
    demo.run(tmp_path, 21)
    (tmp_path / "metrics.jsonl").unlink()
    demo.run(tmp_path, 40)
    assert "starting over" in capsys.readouterr().err
    assert read_rows(tmp_path / "metrics.jsonl") == whole[1]


def test_numbers_are_kept_when_the_headline_is_unknown(tmp_path):
    settings = demo.settings(tmp_path)
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, headline="nope"))
    with pytest.raises(UserFault, match=r"run\.headline: no metric 'nope'; this run has step, loss"):
        drive(demo.Regression(2), settings, RunFolder(tmp_path), {"config": {}, "inputs": {}})
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["loss"] > 0
