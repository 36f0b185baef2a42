import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from harness import environment, floor, measure, output, runner  # noqa: E402

KEYS = ["name", "peer", "ours_s", "peer_s", "ratio", "error", "bar", "met"]
PEERS = """
import sys, time

def total(arrays):
    print("a library that talks must not disturb the pipe")
    return lambda: arrays["x"].sum()

def slow_total(arrays):
    def run():
        time.sleep(0.005)
        return arrays["x"].sum()
    return run

def breaks(arrays):
    def run():
        raise ArithmeticError("no luck")
    return run

def dies(arrays):
    return lambda: sys.exit("gone")

def many(arrays):
    return lambda: arrays["x"]

def golden(inputs):
    return {"twice": [2 * x for x in inputs["x"]]}
"""


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """A module of peers that the worker finds beside its own."""
    (tmp_path / "peers_of_test.py").write_text(PEERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda function, **options: measure.Peer(function, f"peers_of_test:{function}", **options)


def benchmark(*peers, ours=lambda arrays: lambda: arrays["x"].sum(), **options):
    return measure.Benchmark(
        "sum", "a sum", lambda: {"x": np.arange(100.0)}, ours, lambda arrays: arrays["x"].sum(), 0.0, peers, **options
    )


def rows(benchmark, **settings):
    return list(runner.Bench(runner.Settings(**settings), repetitions=3).rows(benchmark))


def command(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPTS / "bench.py", *arguments], capture_output=True, text=True, timeout=120
    )


def test_the_sides_take_turns_after_a_warm_up_of_each():
    calls = []

    def side(name, seconds):
        def run():
            calls.append(name)
            return next(seconds), f"result of {name}"

        return run

    ours, peer = iter([9.0, 1.0, 5.0, 2.0]), iter([9.0, 4.0, 3.0, 30.0])
    timing, *results = measure.interleave(side("A", ours), side("B", peer), repetitions=3, pause=0)
    assert "".join(calls) == "ABABABAB"
    assert timing == measure.Timing(ours=2.0, peer=4.0, ours_least=1.0, peer_least=3.0, repetitions=3)
    assert results == ["result of A", "result of B"]


@pytest.mark.parametrize(("seconds", "repetitions"), [(1e-6, measure.MOST), (10.0, measure.LEAST), (100.0, 1)])
def test_repetitions_follow_from_the_time_of_a_pair(seconds, repetitions):
    side = lambda: (seconds, None)  # noqa: E731
    assert measure.interleave(side, side, pause=0)[0].repetitions == repetitions


def test_a_row_holds_both_times_their_ratio_and_the_error(peers):
    ((row, detail),) = rows(benchmark(peers("slow_total", bar=2.0)))
    assert row.peer_s >= 0.005 > row.ours_s > 0
    assert row.ratio == row.peer_s / row.ours_s
    assert (row.error, row.bar, row.met) == (0.0, 2.0, True)
    assert (detail.status, detail.timing.repetitions, detail.peer_error) == ("measured", 3, 0.0)


def test_a_fast_wrong_answer_meets_no_bar(peers):
    wrong = benchmark(peers("slow_total", bar=2.0), ours=lambda arrays: lambda: arrays["x"].sum() + 1)
    ((row, _),) = rows(wrong)
    assert row.ratio > 2
    assert (row.error, row.met) == (1.0, False)


def test_a_row_below_its_bar_is_not_met_and_one_without_has_no_verdict(peers):
    below, without = rows(benchmark(peers("total", bar=1e9), peers("total")))
    assert below[0].met is False
    assert without[0].met is None
    assert without[0].ratio > 0


def test_no_bar_applies_to_a_trial_of_another_size(peers):
    ((row, _),) = rows(benchmark(peers("slow_total", bar=2.0)), size=8)
    assert (row.bar, row.met) == (None, None)


@pytest.mark.parametrize("lacks", [{"needs": ("no_such_module",)}, {"environment": "no_such_environment"}])
def test_a_peer_that_is_not_installed_is_shown_as_such_and_never_met(peers, lacks, capsys):
    measured = rows(benchmark(peers("total", bar=0.0, **lacks)))
    ((row, detail),) = measured
    assert (row.peer_s, row.ratio, row.met, detail.status) == (None, None, None, "not installed")
    output.show(measured, "title")
    line = next(line for line in capsys.readouterr().out.splitlines() if "total" in line)
    assert "not installed" in line
    assert "yes" not in line


def test_a_peer_that_breaks_costs_its_row_only(peers):
    broken, dead, other, good = rows(benchmark(*(peers(name, bar=0.0) for name in ("breaks", "dies", "many", "total"))))
    assert broken[1].status == "failed: ArithmeticError: no luck"
    assert dead[1].status == "failed: the peers' process ended: gone"
    assert "shape" in other[1].status
    assert [row.met for row, _ in (broken, dead, other)] == [None, None, None]
    assert good[0].met is True


def test_the_worker_computes_golden_values_and_knows_its_versions(peers):  # noqa: ARG001
    with environment.Worker(None, threads=1) as worker:
        assert worker.golden("peers_of_test", {"x": [1, 2]}) == {"twice": [2, 4]}
        assert worker.versions["numpy"] == np.__version__


def test_the_worker_is_confined_to_the_threads_it_is_given(tmp_path, monkeypatch):
    (tmp_path / "threads.py").write_text("import os\ndef golden(_): return dict(os.environ)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with environment.Worker(None, threads=3) as worker:
        values = worker.golden("threads", {})
    assert {values[name] for name in environment.THREAD_VARIABLES} == {"3"}


def test_pins_are_exact_and_torch_comes_first():
    for name in environment.environments():
        assert all("==" in pin for pin in environment.pins(name))
    assert environment.pins("torch")[0].startswith("torch==")


def test_memory_of_a_run_is_seen_and_judged():
    def ours(arrays):
        return lambda: np.ones(5_000_000) * arrays["x"][0] + arrays["x"].sum()

    greedy = benchmark(ours=ours, memory_mb=1.0, answer=lambda result: result[0])
    ((row, detail),) = rows(greedy)
    assert 35 < detail.extra_mb < 130  # 40 MB a temporary
    assert row.ratio == pytest.approx(1 / detail.extra_mb)
    assert (row.bar, row.met, row.peer_s) == (1.0, False, None)
    ((row, _),) = rows(dataclasses.replace(greedy, memory_mb=1000.0))
    assert row.met is True


def test_one_read_of_the_inputs_takes_longer_for_more_of_them():
    few, many = np.zeros(3), np.zeros(40_000_000, np.uint8)
    assert 0 < floor.read_once([few], 2) < floor.read_once([many, few], 2)


def test_the_file_holds_rows_of_the_agreed_keys_with_provenance(tmp_path, peers):
    file = tmp_path / "new" / "bench.json"
    measured = rows(benchmark(peers("total", bar=1e-9), peers("total", environment="no_such_environment")))
    output.write(file, {"commit": "abc"}, measured)
    content = json.loads(file.read_text())
    assert content["provenance"] == {"commit": "abc"}
    assert [list(row) for row in content["rows"]] == [KEYS, KEYS]
    assert [row["met"] for row in content["rows"]] == [True, None]
    assert [detail["status"] for detail in content["details"]] == ["measured", "not installed"]
    assert list(file.parent.iterdir()) == [file]


def test_an_error_that_is_not_finite_is_infinite():
    assert measure.largest_difference([1.0, np.nan], [1.0, 2.0]) == np.inf
    assert measure.judge(10.0, np.inf, 1.0, 1.0) is False


def test_an_unknown_package_is_one_line_that_lists_what_exists():
    ended = command("nosuch")
    assert ended.returncode == 2
    assert ended.stderr == "bench: no benchmarks of 'nosuch'; there are: evalmetrics, faultloc, kdrec, rwalk\n"


def test_an_unknown_name_is_one_line_that_lists_what_exists():
    ended = command("evalmetrics", "--only", "nosuch")
    assert ended.returncode == 2
    assert ended.stderr.startswith("bench: evalmetrics has no benchmark 'nosuch'; it has: label_maps, soft_pairs,")
    assert ended.stderr.count("\n") == 1


def test_the_command_measures_at_a_small_size(tmp_path):
    file = tmp_path / "bench.json"
    names = "aitchison_map", "region_benchmark"
    only = [word for name in names for word in ("--only", name)]
    ended = command("evalmetrics", *only, "--size", "16", "--repetitions", "1", "--json", str(file))
    assert ended.returncode == 0, ended.stderr
    content = json.loads(file.read_text())
    assert {row["name"] for row in content["rows"]} == set(names)
    measured = [row for row in content["rows"] if row["ratio"] is not None]
    assert len(measured) >= 3  # peers of a development group may be absent
    assert all(row["error"] <= 1e-5 and row["met"] is None for row in measured)
    assert {"commit", "hardware", "versions", "date", "command", "peers"} <= set(content["provenance"])
    assert "NumPy, straightforward" in ended.stdout
