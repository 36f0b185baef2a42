"""Every option and every table runs; the command line answers faults in one line."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import yaml

from quartet.launch import CONFIGS
from tests.conftest import REPOSITORY
from tests.kdrec.test_experiment import build

SMALL = ["run=smoke", "train.interval=4", "train.batch=16", "train.seeds=1", "train.bins=32"]
OPTIONS = [(g, p.stem) for g in ("model", "distill") for p in sorted((CONFIGS / "kdrec" / g).glob("*.yaml"))]
TABLES = sorted(path.stem for path in (CONFIGS / "kdrec" / "table").glob("*.yaml"))


def command(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "kdrec", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_runs(group, option):
    experiment, _ = build("run.folder=unused", *SMALL, f"{group}={option}", "train.start=0")
    row = [row for _, row in experiment.run(experiment.init(jax.random.key(0)))][-1]
    assert row["events"] == 128
    assert np.isfinite(row["log_loss"])
    assert row["change/1"] == 0 if option == "none" else row["change/1"] != 0


def test_every_data_option_builds_what_it_says():
    for path in sorted((CONFIGS / "kdrec" / "data").glob("*.yaml")):
        given = ["data.path=here", "data.labels={click: 1}"] if path.stem == "table" else []
        experiment, _ = build("run.folder=unused", f"data={path.stem}", *given, small=path.stem == "simulator")
        values = yaml.safe_load(path.read_text())
        assert experiment.data.segment == values["segment"]


def test_a_table_changes_what_the_defaults_say():
    experiment, _ = build("run.folder=unused", "table=freshness", "data=simulator", keep=True)
    assert experiment.train.seeds == 5
    assert not experiment.train.export


@pytest.mark.parametrize("table", TABLES)
def test_every_table_runs_on_the_simulator(table, tmp_path):
    axes = {"freshness": "teacher.refresh=1,never", "bias_leak": "teacher.shift=0,0.8"}[table]
    sweep = ["-m", f"table={table}", "data=simulator", "distill=none,auxiliary", axes, "hydra.sweep.dir=out"]
    done = command(*sweep, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("out/*/result.json")]
    assert len(results) == 4
    columns = yaml.safe_load((CONFIGS / "kdrec" / "table" / f"{table}.yaml").read_text())["report"]["columns"]
    for result in results:
        missing = set(columns) - set(result["metrics"])
        assert missing <= {"change_error/1", "change_error/2"}  # one seed has no spread


def test_a_public_stream_runs_from_the_command_line(public_data, tmp_path):
    if not (public_data / "kdrec" / "movietweetings-141k").is_dir():
        pytest.skip(f"no movietweetings-141k under {public_data}")
    done = command("data=movietweetings", f"data.path={public_data}", *SMALL, "run.folder=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "ne.png").stat().st_size > 10_000


def test_a_table_of_the_user_runs_from_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"u{rng.integers(20)},i{rng.integers(30)},{10 * t},{rng.integers(0, 2)}" for t in range(600)]
    (tmp_path / "log.csv").write_text("uid,vid,ts,click\n" + "\n".join(rows) + "\n")
    roles = ["data=table", "data.path=log.csv", "data.user=uid", "data.item=vid", "data.time=ts", "data.segment=item"]
    done = command(*roles, "data.labels={click: 1}", *SMALL, "run.folder=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    broken = command(*roles, "data.labels={like: 1}", *SMALL, "run.folder=other", cwd=tmp_path)
    assert broken.returncode == 2
    assert broken.stderr.strip() == "log.csv: no column 'like'; it has uid, vid, ts, click"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data=table"], "data.path: required; give data.path=VALUE"),
        (["distill=best"], "distill: no option 'best'; available: affine, auxiliary, direct, hidden, listwise, none"),
        (["teacher.refresh=0"], "teacher.refresh"),
        (["data=movietweetings", "data.path=nowhere"], "data.path: neither nowhere nor its movietweetings-141k holds"),
        (["train.start=1"], "train.start: must be less than 1, got 1"),
    ],
)
def test_a_fault_of_the_user_is_one_line(arguments, line, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith(line)
