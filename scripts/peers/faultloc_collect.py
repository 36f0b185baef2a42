"""Ways to run a suite of tests: plain pytest, and coverage.py with one context a test.

A function takes `seed` and `tests` (int64, `[]` each), writes the suite that they describe, and returns the callable to
time; its result is the number of lines of the program that each test ran, int64 `[tests]`, in the order of the tests.
"""

import contextlib
import importlib.util
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

KINDS = 12
FUNCTION = """\
def work{0}(n):
    total, seen = 0, []
    for i in range(n):
        if i % {1} == 0:
            total += i
        elif i % 3 == {2}:
            seen.append(total)
        else:
            total -= 1
    if n > {3}:
        seen.sort(reverse=True)
    return total + len(seen)


"""


def suite(arrays):
    """A project with the tests, in a temporary folder that lives as long as the returned object."""
    rng = np.random.default_rng(int(arrays["seed"]))
    folder = tempfile.TemporaryDirectory(prefix="bench-")
    drawn = rng.integers(2, 9, KINDS)
    functions = [FUNCTION.format(k, drawn[k], k % 3, 200 + 20 * k) for k in range(KINDS)]
    Path(folder.name, "program.py").write_text("".join(functions))
    calls = rng.integers(0, KINDS, (int(arrays["tests"]), 3))
    sizes = rng.integers(1, 400, len(calls))
    tests = [
        f"def test_{i:04d}():\n    assert [program.work{a}({n}), program.work{b}({n}), program.work{c}(2)]\n"
        for i, ((a, b, c), n) in enumerate(zip(calls, sizes, strict=True))
    ]
    Path(folder.name, "test_all.py").write_text("import program\n\n\n" + "\n\n".join(tests))
    Path(folder.name, "conftest.py").write_text("")
    return folder


def pytest_run(folder, *arguments, **environment):
    """Run pytest there."""
    command = [sys.executable, *arguments, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return lambda *more: subprocess.run(
        [*command, *more], cwd=folder, env=os.environ | environment, check=True, capture_output=True
    )


def exact(arrays):
    """The answer by a trace function of our own, without pytest."""
    folder = suite(arrays)
    spec = importlib.util.spec_from_file_location("program", Path(folder.name, "program.py"))
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    names = {"program": program}
    text = Path(folder.name, "test_all.py").read_text().replace("import program\n", "")
    exec(compile(text, "test_all.py", "exec"), names)
    lines = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename != program.__file__:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    found = []
    for name in sorted(name for name in names if name.startswith("test_")):
        lines.clear()
        sys.settrace(trace)
        try:
            names[name]()
        finally:
            sys.settrace(None)
        found.append(len(lines))
    return np.array(found)


def plain(arrays):
    """Pytest alone; it records nothing, so its answer is 0 throughout."""
    folder = suite(arrays)
    call = pytest_run(folder.name)

    def run():
        call("-p", "no:faultloc")
        return np.zeros(int(arrays["tests"]), np.int64)

    run.folder = folder
    return run


def contexts(arrays):
    """coverage.py with `dynamic_context = test_function`, its C tracer."""
    folder = suite(arrays)
    settings = "[run]\ndynamic_context = test_function\ninclude = program.py\n[report]\n"
    Path(folder.name, ".coveragerc").write_text(settings)
    call = pytest_run(folder.name, "-m", "coverage", "run", COVERAGE_CORE="ctrace")
    base = Path(folder.name, ".coverage")

    def run():
        call("-p", "no:faultloc")
        bits = "select context, numbits from line_bits join context on context.id = context_id where context != ''"
        with contextlib.closing(sqlite3.connect(base)) as stored:
            rows = {name.rsplit(".", 1)[1]: np.frombuffer(bits, np.uint8) for name, bits in stored.execute(bits)}
        base.unlink()
        return np.array([int(np.unpackbits(rows[name]).sum()) for name in sorted(rows)])

    run.folder = folder
    return run
