"""Every option of every config group, and every table, in seconds: that they compose, validate and run."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from evalmetrics import data
from quartet.collect import collect
from quartet.launch import CONFIGS, execute
from quartet.results import RunFolder
from tests.evalmetrics import twins

PACKAGE = CONFIGS / "evalmetrics"
GROUPS = [
    (folder.name, option.stem)
    for root in (PACKAGE, CONFIGS / "shared")
    for folder in sorted(root.iterdir())
    if folder.is_dir() and folder.name not in ("table", "data", "hydra")
    for option in sorted(folder.glob("*.yaml"))
]
TABLES = sorted(path.stem for path in (PACKAGE / "table").glob("*.yaml"))


def run(folder: Path, *overrides: str):
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        config = compose("config", overrides=[f"run.folder={folder}", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    return execute(config, RunFolder(folder))[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    soft = np.random.default_rng(0).dirichlet(np.ones(3), (6, 7, 8)).astype(np.float32).transpose(3, 0, 1, 2)
    np.save(folder / "truth.npy", soft)
    np.save(folder / "guess.npy", soft)
    return [f"pairs.reference={folder / 'truth.npy'}", f"pairs.prediction={folder / 'guess.npy'}"]


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_option(group, option, pair, tmp_path):
    if option == "multihost":
        pytest.skip("needs several processes: tests/quartet/test_devices.py")
    result = run(tmp_path / "run", f"{group}={option}", *pair)
    # The map against itself; a soft correspondence averages over other regions too.
    assert result["metrics"]["macro"] == pytest.approx(1, abs=0.1 if option == "sinkhorn" else 1e-6)
    assert result["failed"] == []


def sweeps(table: str) -> list[list[str]]:
    """First two cells of a table: its sweep parameters, first value each, then the last."""
    params = yaml.safe_load((PACKAGE / "table" / f"{table}.yaml").read_text())["hydra"].get("sweeper", {})
    axes = {key: str(values).split(",") for key, values in params.get("params", {}).items()}
    cells = [[f"{key}={values[place]}" for key, values in axes.items()] for place in (0, -1)]
    return cells if axes else [[]]


@pytest.fixture(scope="module")
def brain():
    return twins.mni152()


@pytest.mark.parametrize("table", TABLES)
def test_table(table, brain, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "mni152", lambda: brain)
    twin = twins.make(table, tmp_path / "data")
    for number, cell in enumerate(sweeps(table)):
        result = run(tmp_path / "runs" / str(number), f"table={table}", "run=smoke", *twin, *cell)
        assert result["failed"] == []
    shown = collect(tmp_path / "runs")
    report = yaml.safe_load((PACKAGE / "table" / f"{table}.yaml").read_text())["report"]
    assert list(shown.columns) == report["columns"]
    for _, cells in shown.rows:
        assert all(cell.mean is not None for cell in cells)


def test_every_table_says_what_is_published():
    for table in TABLES:
        report = yaml.safe_load((PACKAGE / "table" / f"{table}.yaml").read_text())["report"]
        assert "paper" in report, table
        if report["paper"] is not None:
            assert report["paper"]["source"], table
