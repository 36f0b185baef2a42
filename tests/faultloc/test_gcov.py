"""A C program of our own, built for gcov, with tests that pass, fail, crash and hang; QuixBugs' gcd in C as well."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from faultloc import localize, ranking
from faultloc.collect import gcov
from faultloc.io import InputError
from faultloc.options import CProgram, Statistics
from faultloc.rankers import Formula, Posterior

pytestmark = pytest.mark.skipif(shutil.which("gcov") is None, reason="gcov comes with gcc")

PROGRAM = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FAULTLOC_NEVER
int wrong(int a) { return a + ; }
#else
static int gcd(int a, int b) {
  if (b == 0)
    return a;
  return gcd(a % b, b); /* planted: should be gcd(b, a % b) */
}
#endif

static int sum_to(int n) {
  int total = 0;
  while (n != 0) {
    total += n;
    n -= 1;
  }
  return total;
}

static int first(const char *text) {
  const char *place = strchr(text, 'x');
  return *place;
}

int main(int count, char **given) {
  int answer = 0;
  if (count < 3)
    return 2;
  if (strcmp(given[1], "gcd") == 0 && count > 3)
    answer = gcd(atoi(given[2]), atoi(given[3]));
  else if (strcmp(given[1], "sum") == 0)
    answer = sum_to(atoi(given[2]));
  else
    answer = first(given[2]);
  printf("%d\\n", answer);
  return 0;
}
"""
TESTS = """\
# name: command
by zero: test "$(./program gcd 13 0)" = 13
sum: test "$(./program sum 4)" = 10
nothing: ./program; test $? = 2
found: test "$(./program first axe)" = 120
recursion: ./program gcd 35 21
null: ./program first abc
hangs: ./program sum -1
"""
# By hand: outcome and lines of each test. The recursion without end runs out of stack, strchr finds no x in "abc".
MAIN = [29, 30, 31]
RAN = {
    "by zero": ("passed", [8, 9, 10, *MAIN, 33, 34, 39, 40]),
    "sum": ("passed", [15, 16, 17, 18, 19, 21, *MAIN, 33, 35, 36, 39, 40]),
    "nothing": ("passed", [*MAIN, 32]),
    "found": ("passed", [24, 25, 26, *MAIN, 33, 35, 38, 39, 40]),
    "recursion": ("crash", [8, 9, 11, *MAIN, 33, 34]),
    "null": ("crash", [24, 25, 26, *MAIN, 33, 35, 38]),
    "hangs": ("timeout", [15, 16, 17, 18, 19, 21, *MAIN, 33, 35, 36]),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    (folder / "main.c").write_text(PROGRAM)
    (folder / "tests.txt").write_text(TESTS)
    return folder


def options(path, **changes):
    given = {"tests": "tests.txt", "build": None, "watch": (), "gcov": "gcov", "test_timeout": 1.0}
    return CProgram(**({"path": str(path)} | given | changes))


def test_outcomes_and_lines_are_those_worked_by_hand_also_of_what_dies(project):
    built = gcov.run(project, tests="tests.txt", test_timeout=0.5)
    file = str(project / "main.c")
    assert {test.name: (test.outcome, test.lines[file]) for test in built.session.tests} == RAN
    assert set(built.universe[file]) == {line for _, lines in RAN.values() for line in lines}
    messages = {test.name: test.message for test in built.session.tests}
    assert messages["null"] == "died by SIGSEGV"
    assert messages["hangs"] == "time limit of 0.5 s"
    assert sorted(path.name for path in project.iterdir()) == ["main.c", "tests.txt"]


def test_the_planted_line_is_found_by_formula_and_by_the_model_that_ships(project, tmp_path, key):
    pytest.importorskip("tree_sitter_c")
    for name in ("main.c", "tests.txt"):
        text = (project / name).read_text()
        (tmp_path / name).write_text(text.replace("null:", "# null:").replace("hangs:", "# hangs:"))
    case = localize.from_c(options(tmp_path))
    assert case.outcomes == {"passed": 4, "crash": 1}
    for ranker in (Formula("ochiai"), Formula("op2", inside_first=True), Posterior(ridge=10.0, steps=100)):
        found = ranking.rank(case, ranker, (), key, Statistics(resamples=100, level=0.9))
        assert (found.suspects[0].file, found.suspects[0].line) == ("main.c", 11)
    assert found.suspects[0].symbol == "return_statement/call_expression"
    assert found.suspects[0].text.endswith("should be gcd(b, a % b) */")


def test_the_command_ranks_a_c_program(project, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "faultloc", "corpus=c", f"corpus.path={project}", "corpus.test_timeout=0.5",
         f"run.folder={tmp_path / 'out'}", "ranker=ochiai"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 crash, 4 passed, 1 timeout; 24 lines, " in done.stdout
    assert "fails: recursion: died by SIGSEGV" in done.stdout


def test_a_build_of_the_users_own_is_run(project, tmp_path):
    (tmp_path / "source").mkdir()
    shutil.copy(project / "main.c", tmp_path / "source")
    (tmp_path / "tests.txt").write_text("zero: ./tool gcd 13 0\nloop: ./tool gcd 35 21\n")
    build = "cd source && cc $FAULTLOC_FLAGS -c main.c && cc $FAULTLOC_FLAGS -o ../tool main.o $FAULTLOC_DUMP"
    case = localize.from_c(options(tmp_path, build=build, watch=("source",)))
    assert case.recording.files == ("source/main.c",)
    assert np.asarray(case.recording.spectrum.failed).tolist() == [False, True]


def test_only_the_status_of_a_signal_is_that_of_a_crash(tmp_path):
    (tmp_path / "main.c").write_text("int main(int n, char **given) { return -n; }\n")
    (tmp_path / "tests.txt").write_text("minus one: ./program\nkilled: kill -9 $$\nchild: exit 137\n")
    tests = gcov.run(tmp_path, tests="tests.txt").session.tests
    assert {test.name: (test.outcome, test.message) for test in tests} == {
        "minus one": ("failed", "exit status 255"),
        "killed": ("crash", "died by SIGKILL"),
        "child": ("crash", "died by SIGKILL"),
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"path": "nowhere"}, "corpus.path: .*nowhere is not a folder"),
        ({"tests": "none.txt"}, "corpus.tests: .*none.txt does not exist; it holds one test a line"),
        ({"build": "false"}, r"corpus.build: the program does not build \(no message\)"),
        ({"build": "cc no_such.c"}, r"corpus.build: the program does not build \(.*no_such.c"),
        ({"build": "cc -o program main.c"}, r"corpus.build: nothing was compiled with \$FAULTLOC_FLAGS; .* make clean"),
        ({"gcov": "no-such-gcov"}, "corpus.gcov: cannot start no-such-gcov"),
        ({"watch": ("lib",)}, "corpus.watch: no compiled file lies in lib"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(project, changes, line):
    if "path" in changes:
        changes = {"path": str(project / changes["path"])}
    if changes.keys() & {"watch", "gcov"}:
        (project / "one.txt").write_text("nothing: ./program\n")
        changes = changes | {"tests": "one.txt"}
    with pytest.raises(InputError, match=line):
        localize.from_c(options(changes.pop("path", project), **changes))
    (project / "one.txt").unlink(missing_ok=True)
