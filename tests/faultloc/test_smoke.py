"""Every option and every table of the configs composes, builds and runs on the synthetic twin of the data."""

import json
import re

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from faultloc import models
from faultloc.io import InputError
from quartet.launch import CONFIGS, execute
from quartet.results import RunFolder
from tests.faultloc.test_corpus import COVERED, TREE, spectrum_file

GROUPS = {
    group: sorted(path.stem for path in (CONFIGS / "faultloc" / group).glob("*.yaml"))
    for group in ("corpus", "ranker", "table", "task")
}

LEARNED = ("posterior", "transferred", "tflm", "hard_em", "soft_em", "plain_em", "tuned")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder as QUARTET_DATA names it, with a twin of each collection."""
    root = tmp_path_factory.mktemp("data")
    names = {"bugsinpy": ["Module", "Expr", "FunctionDef"], "sir": ["translation_unit", "declaration", "if_statement"]}
    extra = {"ast_file": np.zeros(5, np.int16), "ast_files": np.array(["a.py"]), "files": np.array(["a.py"] * 4)}
    for name in ("bugsinpy", "sir", "quixbugs"):
        folder = root / "faultloc" / f"{name}_spectra"
        folder.mkdir(parents=True)
        if name in names:
            (folder / "symbols.json").write_text(json.dumps(names[name]))
    for stem in ("one_1", "two_1", "three_1"):
        spectrum_file(root / f"faultloc/bugsinpy_spectra/{stem}.npz", bug_kind=np.array("changed"), **extra, **TREE)
        spectrum_file(root / f"faultloc/quixbugs_spectra/{stem}.npz", omission=np.array(0))
    for stem in ("flex_v1_F_A", "grep_v1_F_A", "gzip_v1_F_A"):
        spectrum_file(root / f"faultloc/sir_spectra/{stem}.npz", bug=np.array([2]), sites=np.array([2]), **TREE)
    return root


def run(overrides, folder, data, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(data))
    GlobalHydra.instance().clear()
    shell = ["run=smoke", "run.folder=" + str(folder), "checkpoint=none", "statistics.resamples=100"]
    with initialize_config_dir(str(CONFIGS / "faultloc"), version_base="1.3"):
        config = compose("config", [*overrides, *shell], return_hydra_config=False)
    result = execute(config, RunFolder(folder))
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("ranker", GROUPS["ranker"])
@pytest.mark.parametrize("corpus", ["bugsinpy", "sir"])
def test_every_ranker_scores_either_collection(corpus, ranker, data, tmp_path, monkeypatch):
    if (corpus, ranker) == ("sir", "transferred"):  # mutants are Python
        with pytest.raises(InputError, match="learned from python programs, the program is in c"):
            run([f"corpus={corpus}", f"ranker={ranker}"], tmp_path, data, monkeypatch)
        return
    result = run([f"corpus={corpus}", f"ranker={ranker}"], tmp_path, data, monkeypatch)
    assert 0 <= result["metrics"]["fs/strict"] <= result["metrics"]["fs/mid"] <= result["metrics"]["fs/best"] <= 1
    assert ("nll" in result["metrics"]) == (ranker in LEARNED)


def test_the_small_programs_are_scored(data, tmp_path, monkeypatch):
    assert run(["corpus=quixbugs", "ranker=ochiai"], tmp_path, data, monkeypatch)["metrics"]["bugs"] == 2


def test_mutants_are_made_and_found(data, tmp_path, monkeypatch, capsys):
    result = run([], tmp_path, data, monkeypatch)
    assert result["metrics"]["bugs"] == 10
    assert result["metrics"]["fs/mid"] > 0.9
    printed = capsys.readouterr().out
    assert "10 synthetic bugs in" in printed
    assert "note: a synthetic bug, made for this run: toolz/" in printed
    assert {"heat.html", "bugs.csv", "faultloc.sarif"} <= {path.name for path in tmp_path.iterdir()}


def test_a_collection_is_described(data, tmp_path, monkeypatch):
    metrics = run(["corpus=subjects"], tmp_path, data, monkeypatch)["metrics"]
    assert (metrics["programs"], metrics["faults"], metrics["lines"], metrics["tests"]) == (2, 2, 4, 3)


def test_a_model_is_learned_and_kept(data, tmp_path, monkeypatch, capsys):
    overrides = ["corpus=training", "ranker=tflm", "ranker.steps=5", "corpus.every=3", "ranker.restarts=2"]
    metrics = run(overrides, tmp_path, data, monkeypatch)["metrics"]
    assert metrics["steps"] == 5
    assert models.load(tmp_path / "model.npz").language == "python"
    assert "model.npz" in capsys.readouterr().out
    with pytest.raises(InputError, match="choose ranker=tflm without a grid"):
        run(["corpus=training", "ranker=ochiai"], tmp_path / "other", data, monkeypatch)


def test_a_spectrum_is_ranked(data, tmp_path, monkeypatch, capsys):
    np.savez(
        tmp_path / "given.npz", M=np.packbits(COVERED, axis=1), shape=np.array(COVERED.shape),
        fail=np.array([1, 0, 0]), lines=np.arange(1, 5),
    )  # fmt: skip
    result = run(
        ["corpus=spectrum", "ranker=ochiai", f"corpus.path={tmp_path / 'given.npz'}"],
        tmp_path / "out",
        data,
        monkeypatch,
    )
    assert result["metrics"]["suspects"] == 3
    assert "#1       given:2  score 0.7071" in capsys.readouterr().out


@pytest.mark.parametrize("table", GROUPS["table"])
def test_every_table_sweeps_over_what_exists_and_shows_what_is_measured(table, data, tmp_path, monkeypatch):
    content = OmegaConf.to_container(OmegaConf.load(CONFIGS / "faultloc" / "table" / f"{table}.yaml"))
    swept = content["hydra"]["sweeper"]["params"]
    for group, values in swept.items():
        assert group not in GROUPS or set(values.split(",")) <= set(GROUPS[group])
    first = [f"{key}={re.split(r',(?![^[]*])', values)[-1]}" for key, values in swept.items()]
    metrics = run([f"table={table}", *first], tmp_path, data, monkeypatch)["metrics"]
    assert set(content["report"]["columns"]) <= set(metrics)
    assert content["report"]["paper"] is None


def test_no_option_is_left_untried():
    assert set(GROUPS["corpus"]) == {
        "bugsinpy", "c", "mutants", "own", "project", "quixbugs", "sir", "spectrum", "subjects", "timing", "training",
    }  # fmt: skip
    assert set(GROUPS["task"]) == {"rank", "triage"}
