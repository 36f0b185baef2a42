"""What the table of times measures is the same answer on every side, and a library that is not there is said to be."""

import sys

import numpy as np
import pytest

from faultloc import circuit, timing
from tests.conftest import REPOSITORY

WORKER = REPOSITORY / "scripts" / "peers" / "worker.py"


@pytest.fixture(scope="module")
def arrays():
    return timing.tree_inputs(60, 2)


SLOW = """\
import json, sys, time
import numpy as np
print(json.dumps({"ready": True}), flush=True)
np.save(sys.argv[1] + "/result.npy", np.array([-7.0]))
for seconds in (9.0, 2.0, 4.0):
    print(json.dumps({"seconds": seconds}), flush=True)
print('{"seco', end="", flush=True)
time.sleep(60)
"""


def timed(way, peers):
    return timing.Timing(way, 60, 2, repetitions=2, peers=peers, worker=WORKER, timeout=100.0)


def test_the_tree_pass_the_circuit_and_the_recursion_agree(arrays):
    exact = timing.recursion(arrays)
    infer, _ = timing.tree_pass(arrays)
    built = circuit.build(timing.grounded(arrays))
    np.testing.assert_allclose(infer()[2], exact, rtol=1e-5)
    np.testing.assert_allclose(circuit.log_density(built, np.zeros((1, 60), np.float32)), [exact], rtol=1e-5)


def test_a_round_of_learning_never_lowers_the_likelihood(arrays):
    learned = timing.tree_pass(arrays)[1]()
    better = {**arrays, "prior": np.asarray(learned.prior), "table": np.asarray(learned.table)}
    assert timing.recursion(better) > timing.recursion(arrays)


def test_our_own_time_is_measured(key, tmp_path):
    _, row = timed("tflm", tmp_path).score(0, np.zeros(0), key=key, place=None)
    assert row["seconds/inference"] > 0
    assert row["seconds/first"] > 0
    assert row["seconds/learning"] > 0
    assert row["microseconds/statement"] == pytest.approx(1e6 * row["seconds/inference"] / 60)
    assert row["difference"] < 1e-5


def test_a_library_that_is_not_installed_has_no_figures_and_is_told(key, tmp_path, capsys):
    run = timed("spflow", tmp_path)
    _, row = run.score(0, np.zeros(0), key=key, place=None)
    run.report([], tmp_path)
    assert row["installed"] == 0
    assert np.isnan([row["seconds/inference"], row["seconds/learning"], row["difference"]]).all()
    assert capsys.readouterr().err == (
        "SPFlow is not installed: `python scripts/bench.py faultloc --setup` makes it\n"
    )  # fmt: skip


def test_a_library_that_fails_says_why(key, tmp_path, capsys):
    (tmp_path / "deeprob" / "bin").mkdir(parents=True)
    (tmp_path / "deeprob" / "bin" / "python").symlink_to(sys.executable)
    run = timed("deeprob", tmp_path)
    _, row = run.score(0, np.zeros(0), key=key, place=None)
    run.report([], tmp_path)
    assert row["installed"] == 1
    assert np.isnan(row["seconds/inference"])
    assert capsys.readouterr().err.startswith("deeprob-kit failed: ModuleNotFoundError: No module named 'deeprob'")


def test_a_library_that_is_too_slow_is_ended_and_what_it_did_in_time_counts(key, tmp_path, capsys):
    (tmp_path / "deeprob" / "bin").mkdir(parents=True)
    (tmp_path / "deeprob" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "slow.py").write_text(SLOW)
    run = timing.Timing(
        "deeprob", 20, 2, repetitions=5, peers=tmp_path, worker=tmp_path / "slow.py", timeout=3.0
    )  # fmt: skip
    _, row = run.score(0, np.zeros(0), key=key, place=None)
    run.report([], tmp_path)
    assert row["seconds/inference"] == 3.0  # the first repetition does not count
    assert np.isnan(row["seconds/learning"])
    assert capsys.readouterr().err == (
        "deeprob-kit took more than 3 s for 20 statements, 2 of 5 repetitions came to an end\n"
    )
