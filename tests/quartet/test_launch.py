"""The command line as a user meets it: exit codes, one-line errors, folders, sweeps."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import REPOSITORY


def command(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "evalmetrics", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def pair(tmp_path):
    """A reference and a prediction with other names for the same regions, in an empty folder."""
    truth = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "guess.npy", (truth + 1) % 3)
    return tmp_path, ["pairs.reference=truth.npy", "pairs.prediction=guess.npy"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "pairs.reference: required; give pairs.reference=FILE_OR_FOLDER, or a benchmark by data=NAME"),
        (["foo=1"], "foo: unknown key; known here: checkpoint, "),
        (["+foo=1"], "foo: unknown key; known here: checkpoint, "),
        (["kernel=diec"], "kernel: no option 'diec'; available: abs, ait, simplex_ait, simplex_tv"),
        (["kernel.nmae=abs"], "kernel.nmae: unknown key; did you mean name?"),
        (["+kernel.x=1"], "kernel.x: unknown key; known here: name"),
        (["match.temperature=1"], "match.temperature: unknown key; it belongs to match=sinkhorn; known here: "),
        (["zeros.eps=2"], "zeros.eps: must be less than 0.5, got 2"),
        (["run.precision=half"], "run.precision: must be 'float32' or 'float64', got 'half'"),
        (["match.method=greedy"], "match.method: must be 'hungarian', 'sinkhorn' or 'ordered', got 'greedy'"),
        (
            ["pairs=nope"],
            "pairs: is a group of keys, got 'nope'; choose an option with pairs=NAME or set pairs.KEY=VALUE",
        ),
        (["kernel=null"], "kernel=null: a config group needs the name of an option"),
        (["~kernel"], "kernel: required; choose one with kernel=NAME: abs, ait, simplex_ait, simplex_tv"),
        (["data.path=here"], "data.path: no data is chosen; choose one with data=NAME: annotators, bsds500"),
        (["data=similarity", "pairs.reference=t.npy"], "pairs.reference, pairs.prediction: not read by a benchmark"),
        (["pairs.reference=a=b.nii"], "pairs.reference=a=b.nii: cannot be read"),
        (["run.folder=t.npy", "pairs.reference=t.npy", "pairs.prediction=t.npy"], "t.npy: file exists"),
        (
            ["kernel._target_=evalmetrics.io.os.mkdir"],
            "kernel._target_: evalmetrics.io.os.mkdir is outside evalmetrics",
        ),
        (
            ["devices=multihost", "devices.coordinator=h:1", "devices.processes=2", "devices.process=2"],
            "devices: process must be",
        ),
        (["kernel._target_=os.system"], "kernel._target_: os.system is outside evalmetrics"),
        (
            ["devices=data", "devices.count=99", "pairs.reference=t.npy", "pairs.prediction=t.npy"],
            "devices.count: asked for 99, found",
        ),
        (["pairs.reference=a.nii", "pairs.prediction=b.nii"], "a.nii: no such file or folder"),
        (
            ["run.restore=nowhere", "pairs.reference=t.npy", "pairs.prediction=t.npy"],
            "run.restore: no sound checkpoint",
        ),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_exit_code_2(arguments, line, tmp_path):
    np.save(tmp_path / "t.npy", np.arange(8).reshape(2, 2, 2))
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()
    assert len(last) == 1, done.stderr
    assert last[0].startswith(line)


def test_hydra_full_error_shows_the_traceback(tmp_path):
    done = command("zeros.eps=2", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_run_leaves_its_result_and_a_second_is_skipped(pair):
    folder, files = pair
    first = command(*files, "run.folder=out", cwd=folder)
    assert first.returncode == 0, first.stderr
    result = json.loads((folder / "out" / "result.json").read_text())
    assert result["metrics"]["macro"] == pytest.approx(1)
    assert result["config"]["pairs"]["reference"] == "truth.npy"
    written = (folder / "out" / "result.json").stat().st_mtime_ns
    second = command(*files, "run.folder=out", cwd=folder)
    assert "finished before, skipped" in second.stdout
    assert (folder / "out" / "result.json").stat().st_mtime_ns == written


def test_another_run_does_not_overwrite_a_folder(pair):
    folder, files = pair
    command(*files, "run.folder=out", cwd=folder)
    other = command(*files, "run.folder=out", "zeros.eps=0.2", cwd=folder)
    assert other.returncode == 2
    assert "holds another run (zeros.eps is 0.01 there, 0.2 here)" in other.stderr
    again = command(*files, "run.folder=out", "zeros.eps=0.2", "run.resume=false", cwd=folder)
    assert again.returncode == 0, again.stderr


def test_settings_that_do_not_change_the_numbers_do_not_make_another_run(pair):
    folder, files = pair
    command(*files, "run.folder=out", "checkpoint.every=7", cwd=folder)
    again = command(*files, "run.folder=out", "run.headline=micro", cwd=folder)
    assert "finished before, skipped" in again.stdout


def test_an_input_that_changed_is_scored_again(pair):
    folder, files = pair
    command(*files, "run.folder=out", cwd=folder)
    np.save(folder / "guess.npy", np.zeros((6, 7, 8), int))
    again = command(*files, "run.folder=out", cwd=folder)
    assert "skipped" not in again.stdout
    assert json.loads((folder / "out" / "result.json").read_text())["metrics"]["macro"] < 0.5


def test_a_mended_case_is_scored_when_the_command_is_repeated(tmp_path):
    for side in ("truth", "guess"):
        (tmp_path / side).mkdir()
        for case in "ab":
            np.save(tmp_path / side / f"{case}.npy", np.arange(8).reshape(2, 2, 2) % 3)
    np.save(tmp_path / "guess" / "a.npy", np.zeros((2, 2, 3), int))
    arguments = ["pairs.reference=truth", "pairs.prediction=guess", "run.folder=out", "checkpoint.every=1"]
    assert command(*arguments, cwd=tmp_path).returncode == 2
    np.save(tmp_path / "guess" / "a.npy", np.arange(8).reshape(2, 2, 2) % 3)
    mended = command(*arguments, cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]["cases"] == 2


def test_checkpoints_of_somebody_else_are_left_alone(pair):
    folder, files = pair
    (folder / "out" / "checkpoints" / "100").mkdir(parents=True)
    (folder / "out" / "checkpoints" / "100" / "model.pt").write_text("precious")
    for more in ([], ["run.resume=false"]):
        refused = command(*files, "run.folder=out", *more, cwd=folder)
        assert refused.returncode == 2
        assert "holds checkpoints of something else" in refused.stderr
    assert (folder / "out" / "checkpoints" / "100" / "model.pt").read_text() == "precious"


def test_trust_comes_from_the_command_line_alone(pair):
    folder, files = pair
    (folder / "mine" / "table").mkdir(parents=True)
    (folder / "mine" / "table" / "evil.yaml").write_text("# @package _global_\nrun: {trusted: [os]}\n")
    done = command("--config-dir", "mine", "table=evil", *files, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("run.trusted: set in a config file")


def test_a_folder_in_use_is_refused(pair):
    import fcntl

    folder, files = pair
    command(*files, "run.folder=out", "run.limit=1", cwd=folder)
    with (folder / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        busy = command(*files, "run.folder=out", "run.resume=false", cwd=folder)
    assert busy.returncode == 2
    assert "another run is writing to" in busy.stderr
    assert json.loads((folder / "out" / "status.json").read_text())["state"] == "done"


def test_a_trial_and_then_the_whole_sweep_share_a_folder(pair):
    folder, files = pair
    sweep = ["-m", *files, "zeros.eps=0.1,0.2", "statistics.eps_sweep=[]", "hydra.sweep.dir=sweep"]
    assert command(*sweep, "run=smoke", cwd=folder).returncode == 0
    whole = command(*sweep, cwd=folder)
    assert whole.returncode == 0
    assert "zeros.eps" in whole.stdout
    assert "A trial run" not in whole.stdout


def test_default_folders_never_collide(pair):
    folder, files = pair
    for _ in range(2):
        assert command(*files, "statistics.eps_sweep=[]", cwd=folder).returncode == 0
    assert len(list((folder / "runs" / "evalmetrics").iterdir())) == 2


def test_a_sweep_lists_failed_cells_and_exits_with_1_then_continues(pair):
    folder, files = pair
    sweep = ["-m", *files, "zeros.eps=0.1,0.9", "hydra.sweep.dir=sweep"]
    first = command(*sweep, cwd=folder)
    assert first.returncode == 1
    assert "zeros.eps: must be less than 0.5, got 0.9" in first.stderr.splitlines()[-1]
    failed = [json.loads(p.read_text()) for p in folder.glob("sweep/*/status.json")]
    assert sorted(status["state"] for status in failed) == ["done", "failed"]
    assert any("Traceback" in status.get("traceback", "") for status in failed)
    second = command(*sweep, cwd=folder)
    assert second.returncode == 1
    assert "finished before, skipped" in second.stdout


def test_the_same_sweep_again_finds_its_folder(pair):
    folder, files = pair
    sweep = ["-m", *files, "zeros.eps=0.1,0.2", "statistics.eps_sweep=[]"]
    assert command(*sweep, cwd=folder).returncode == 0
    again = command(*sweep, cwd=folder)
    assert again.stdout.count("finished before, skipped") == 2


def test_joblib_runs_the_cells_in_processes(pair):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    folder, files = pair
    arguments = ["-m", *files, "zeros.eps=0.1,0.9", "hydra/launcher=joblib", "hydra.sweep.dir=sweep"]
    done = command(*arguments, cwd=folder)
    assert done.returncode == 1
    assert len(list(folder.glob("sweep/*/result.json"))) == 1
    assert "failed: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ray", "submitit_local"])
def test_other_launchers_run_the_cells(pair, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    folder, files = pair
    arguments = ["-m", *files, "zeros.eps=0.1,0.2", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep"]
    done = command(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("sweep/*/result.json"))) == 2


def test_a_users_own_option_from_outside_works_once_trusted(pair):
    folder, files = pair
    (folder / "mine").mkdir()
    (folder / "mine" / "kernel").mkdir()
    (folder / "mine" / "kernel" / "squared.yaml").write_text("_target_: my_kernels.Squared\nname: squared\n")
    (folder / "my_kernels.py").write_text(
        "from dataclasses import dataclass\n"
        "from evalmetrics.kernels import Kernel, register\n"
        "register(Kernel('squared', lambda x, eps, zeros: (x,), lambda p, q: ((p[0]-q[0])**2, p[0]**2+q[0]**2)))\n"
        "@dataclass(frozen=True)\nclass Squared:\n    name: str\n"
    )
    outside = command("--config-dir", "mine", "kernel=squared", *files, cwd=folder)
    assert outside.returncode == 2
    assert "add run.trusted=[my_kernels]" in outside.stderr
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    inside = command(
        "--config-dir", "mine", "kernel=squared", "run.trusted=[my_kernels]", *files, cwd=folder, PYTHONPATH=path
    )
    assert inside.returncode == 0, inside.stderr


def test_a_killed_folder_run_resumes_to_the_same_rows(tmp_path):
    rng = np.random.default_rng(0)
    for side in ("truth", "guess"):
        (tmp_path / side).mkdir()
        for case in range(30):
            np.save(tmp_path / side / f"case{case:02d}.npy", rng.integers(0, 4, (20, 20, 20)))
    arguments = ["pairs.reference=truth", "pairs.prediction=guess", "checkpoint.every=1"]
    whole = command(*arguments, "run.folder=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "evalmetrics", *arguments, "run.folder=killed"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    rows = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if rows.exists() and rows.read_text().count("\n") >= 5:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = command(*arguments, "run.folder=killed", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr
    assert rows.read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_the_command_answers_from_any_folder(tmp_path):
    done = command("--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "kernel:" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argument", ["--help", "--version", "--cfg=job"])
def test_a_reader_that_closed_the_pipe_is_no_fault(argument, unbuffered, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "evalmetrics", argument], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": unbuffered}, timeout=240,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
