"""Benchmark of faultloc's pytest plugin: a suite of 500 tests, each in a fresh process of pytest."""

import sys

import numpy as np
from harness.measure import Benchmark, Inputs, Peer, Run
from peers import faultloc_collect

QUICK = sys.version_info >= (3, 12)  # `sys.monitoring`; before it every line of the program is traced


def collect(tests: int) -> Benchmark:
    """Per-test coverage."""

    def inputs() -> Inputs:
        return {"seed": np.array(0), "tests": np.array(tests)}

    def ours(arrays: Inputs) -> Run:
        from faultloc.collect import runner

        folder = faultloc_collect.suite(arrays)

        def run() -> np.ndarray:
            session = runner.run(folder.name, arguments=["-p", "no:cacheprovider", "-p", "no:xdist"])
            found = sorted(session.tests, key=lambda test: test.name)
            return np.array([sum(map(len, test.lines.values())) for test in found])

        return run

    way = "sys.monitoring" if QUICK else "sys.settrace"
    return Benchmark(
        "collect", f"a suite of {tests} tests with per-test coverage, by {way}", inputs, ours, faultloc_collect.exact,
        tolerance=0.5,
        peers=(
            Peer("plain pytest", "faultloc_collect:plain", 1 / 1.5),
            Peer("coverage.py contexts", "faultloc_collect:contexts", needs=("coverage",)),
        ),
    )  # fmt: skip
