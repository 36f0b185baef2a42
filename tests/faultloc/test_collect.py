"""Recording of real pytest runs, in an interpreter of their own, as a user's project would be."""

import subprocess
import sys

import numpy as np
import pytest

from faultloc.collect import runner
from faultloc.io import InputError

MODULE = """\
import threading


def halve(x):
    if x % 2:
        return [y for y in (x - 1,)][0] // 2
    return x // 2


def spread(x):
    worker = threading.Thread(target=halve, args=(x,))
    worker.start()
    worker.join()


def lazily(n):
    for i in range(n):
        yield i


class Counter:
    def up(self):
        self.n = 1
        return self.n
"""

TESTS = """\
import time

import pytest

from pkg import numbers


@pytest.fixture
def broken():
    numbers.halve(2)
    raise RuntimeError("no fixture")


def test_even():
    assert numbers.halve(4) == 2


def test_odd():
    assert numbers.halve(5) == 3, "wrong on purpose"


def test_thread():
    numbers.spread(3)


def test_generator():
    assert list(numbers.lazily(2)) == [0, 1]


def test_fixture(broken):
    pass


@pytest.mark.skip
def test_skipped():
    pass


@pytest.mark.xfail
def test_expected():
    assert numbers.halve(2) == 7


def test_again():
    assert numbers.halve(4) == 2
"""

# By hand: which lines of MODULE each test runs; `def` lines run at import.
LINES = {
    "test_even": [5, 7],
    "test_odd": [5, 6],
    "test_thread": [5, 6, 11, 12, 13],
    "test_generator": [17, 18],
    "test_fixture": [5, 7],
    "test_expected": [5, 7],
    "test_again": [5, 7],
}
OUTCOMES = {
    "test_even": "passed", "test_odd": "failed", "test_thread": "passed", "test_generator": "passed",
    "test_fixture": "error", "test_skipped": "skipped", "test_expected": "skipped", "test_again": "passed",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch):
    """A pytest of its own comes up eight times sooner without the plugins that happen to be installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def make(folder, tests=TESTS, module=MODULE):
    for path, text in {"pkg/__init__.py": "", "pkg/numbers.py": module, "tests/test_numbers.py": tests}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "conftest.py").write_text("")
    return folder


def test_outcomes_and_lines_are_those_worked_by_hand(tmp_path):
    session = runner.run(make(tmp_path))
    by_name = {test.name.split("::")[1]: test for test in session.tests}
    assert {name: test.outcome for name, test in by_name.items()} == OUTCOMES
    file = str(tmp_path / "pkg" / "numbers.py")
    assert {name: test.lines.get(file) for name, test in by_name.items() if test.lines} == LINES
    assert by_name["test_odd"].message == "AssertionError: wrong on purpose"
    # Line 21 to 22: a class and its method are made at import, its body is never run.
    assert {1, 4, 10, 16, 21, 22} <= set(session.imports[file])
    assert not {5, 6, 7, 23, 24} & set(session.imports[file])
    assert session.notes == ()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_both_ways_to_watch_see_the_same_lines(tmp_path):
    make(tmp_path)
    (tmp_path / "conftest.py").write_text("import sys\ndel sys.monitoring\n")
    session = runner.run(tmp_path)
    file = str(tmp_path / "pkg" / "numbers.py")
    found = {test.name.split("::")[1]: test.lines.get(file) for test in session.tests if test.lines}
    assert found == LINES


def test_a_test_that_hangs_is_stopped_and_the_others_go_on(tmp_path):
    tests = "from pkg import numbers\n\ndef test_hangs():\n    while True:\n        numbers.halve(2)\n\n"
    session = runner.run(make(tmp_path, tests + "def test_after():\n    numbers.halve(3)\n"), test_timeout=0.5)
    assert [test.outcome for test in session.tests] == ["timeout", "passed"]
    assert session.tests[0].lines[str(tmp_path / "pkg" / "numbers.py")] == [5, 7]
    assert "time limit of 0.5 s" in session.notes[0]


def test_a_limit_that_is_swallowed_once_comes_again(tmp_path):
    tests = (
        "import time\nfrom pkg import numbers\n\ndef test_swallows():\n    try:\n        time.sleep(60)\n"
        "    except BaseException:\n        numbers.halve(2)\n    time.sleep(60)\n"
    )
    (only,) = runner.run(make(tmp_path, tests), test_timeout=0.5, timeout=50).tests
    assert (only.outcome, only.message) == ("timeout", "Failed: time limit of 0.5 s")
    assert list(only.lines.values()) == [[5, 7]]


def test_an_interpreter_that_dies_is_noted_and_the_tests_after_it_are_run(tmp_path):
    tests = (
        "import os\nfrom pkg import numbers\n\ndef test_first():\n    numbers.halve(2)\n\n"
        "def test_dies():\n    numbers.halve(3)\n    os.abort()\n\ndef test_last():\n    numbers.halve(3)\n"
    )
    session = runner.run(make(tmp_path, tests))
    found = {test.name.split("::")[1]: test.outcome for test in session.tests}
    assert found == {"test_first": "passed", "test_dies": "crash", "test_last": "passed"}
    assert [list(test.lines.values()) for test in session.tests if "test_dies" in test.name] == [[[5, 6]]]
    assert session.notes == ("tests/test_numbers.py::test_dies: the interpreter died",)


def test_files_that_cannot_be_collected_are_named(tmp_path):
    make(tmp_path)
    (tmp_path / "tests" / "test_broken.py").write_text("def (:\n")
    session = runner.run(tmp_path)
    assert len(session.tests) == len(OUTCOMES)
    assert session.notes[0].startswith("tests/test_broken.py could not be collected: ")
    assert "SyntaxError" in session.notes[0]


def test_the_plugin_of_the_installed_package_records_too(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")  # its entry point must be found
    make(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", f"--faultloc={tmp_path / 'out'}", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    session = runner.read(tmp_path / "out")
    assert {test.name.split("::")[1]: test.outcome for test in session.tests} == OUTCOMES


def test_a_file_in_place_of_the_folder_of_records_is_refused_in_one_line(tmp_path):
    make(tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "faultloc.collect.plugin", "--faultloc=conftest.py", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    line = f"ERROR: --faultloc: {tmp_path / 'conftest.py'} is a file; give a folder, which need not exist"
    assert done.stderr.strip() == line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"project": "nowhere"}, "corpus.path: .*nowhere is not a folder"),
        ({"source": ["lib"]}, "corpus.watch: .*lib does not exist"),
        ({"python": "/no/such/python"}, "corpus.python: cannot start /no/such/python"),
        ({"arguments": ["-k", "nothing_like_it"]}, "pytest found no test"),
        ({"arguments": ["--no-such-option"]}, "pytest ran no test"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(tmp_path, arguments, line):
    project = tmp_path / arguments.pop("project", "")
    if project == tmp_path:
        make(tmp_path)
    with pytest.raises(InputError, match=line):
        runner.run(project, **arguments)


def test_tests_environments_and_hidden_folders_are_not_watched(tmp_path):
    make(
        tmp_path, "from pkg import numbers\nfrom env.lib import code\n\ndef test_all():\n    code.f(numbers.halve(2))\n"
    )
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "env" / "lib" / "code.py").write_text("def f(x):\n    return x\n")
    (only,) = runner.run(tmp_path, arguments=["tests"]).tests
    assert np.array_equal(list(only.lines), [str(tmp_path / "pkg" / "numbers.py")])


def test_a_project_that_stops_at_the_first_failure_is_run_to_its_end(tmp_path):
    make(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -x\n")
    session = runner.run(tmp_path)
    assert {test.name.split("::")[1]: test.outcome for test in session.tests} == OUTCOMES
    (*_, last) = runner.run(tmp_path, arguments=["-x"]).tests
    assert last.outcome == "failed"


def test_files_of_tests_are_not_watched_whatever_their_names(tmp_path):
    doctest = '\n\ndef tested():\n    """\n    >>> tested()\n    1\n    """\n    return 1\n'
    make(tmp_path, "", MODULE + doctest)
    tests = "from pkg import numbers\n\ndef doubled(x):\n    return x + x\n\nSTART = doubled(1)\n\ndef test_it():\n"
    tests += "    numbers.halve(doubled(START))\n"
    (tmp_path / "pkg" / "tests.py").write_text(tests)
    (tmp_path / "pkg" / "check_numbers.py").write_text(tests)
    settings = "python_files = tests.py check_*.py\naddopts = --doctest-modules\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{settings}")
    session = runner.run(tmp_path)
    numbers = str(tmp_path / "pkg" / "numbers.py")
    assert {test.name: list(test.lines) for test in session.tests} == {
        "pkg/check_numbers.py::test_it": [numbers],
        "pkg/numbers.py::pkg.numbers.tested": [numbers],
        "pkg/tests.py::test_it": [numbers],
    }
    assert sorted(session.imports) == [str(tmp_path / "pkg" / "__init__.py"), numbers]
    # A file that is watched by its own name is the program, also where its tests lie beside the code.
    session = runner.run(tmp_path, source=["pkg/check_numbers.py"], arguments=["pkg/check_numbers.py"])
    assert [list(test.lines.values()) for test in session.tests] == [[[4, 9]]]


SPREAD = """\
import os
from pkg import numbers

def test_a():
    numbers.halve(2)

def test_b():
    assert numbers.halve(3) == 5

def test_dies():
    numbers.halve(2)
    os.abort()

def test_c():
    numbers.halve(3)

def test_d():
    numbers.halve(2)
"""


def test_workers_are_put_together_and_one_that_dies_costs_only_its_test(tmp_path):
    pytest.importorskip("xdist")
    session = runner.run(make(tmp_path, SPREAD), arguments=["-p", "xdist", "-n2", "--dist=load"])
    outcomes = {test.name.split("::")[1]: test.outcome for test in session.tests}
    assert outcomes == {
        "test_a": "passed", "test_b": "failed", "test_dies": "crash", "test_c": "passed", "test_d": "passed",
    }  # fmt: skip
    lines = {test.name.split("::")[1]: list(test.lines.values()) for test in session.tests}
    assert lines["test_a"] == lines["test_d"] == [[5, 7]]
    assert lines["test_b"] == lines["test_c"] == [[5, 6]]
    assert lines["test_dies"] == [[5, 7]]
    assert session.notes == ("tests/test_numbers.py::test_dies: the interpreter died",)


@pytest.mark.slow
def test_a_suite_that_dies_again_and_again_is_given_up_with_what_was_recorded(tmp_path):
    deaths = "".join(f"def test_{i}():\n    numbers.halve({i})\n    os.abort()\n\n" for i in range(8))
    session = runner.run(make(tmp_path, f"import os\nfrom pkg import numbers\n\n{deaths}"))
    assert [test.outcome for test in session.tests] == ["crash"] * runner.CRASHES
    assert session.notes[0] == f"the interpreter died or fell silent {runner.CRASHES} times: not all tests ran"
