"""The command as a user meets it: a planted bug in the printed list, faults in one line."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faultloc import localize
from faultloc.io import InputError
from faultloc.options import Display, Formula, Project, Spectrum, Statistics, Task
from faultloc.rankers import Posterior
from faultloc.selection import Setting, Tflm
from tests.conftest import REPOSITORY
from tests.faultloc import shop


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch):
    """A pytest of its own comes up eight times sooner without the plugins that happen to be installed here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def project(tmp_path):
    return shop.make(tmp_path)


@pytest.fixture(scope="module")
def case():
    return shop.case()


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "faultloc", "corpus=project", "ranker=ochiai", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def options(path, **changes):
    given = {"watch": (), "arguments": (), "python": None, "imports": "drop", "test_timeout": 60.0, "timeout": 100.0}
    return Project(**({"path": str(path)} | given | changes))


def run_and_rank(path, key, **changes):
    return shop.ranked(localize.from_project(options(path, **changes)), key)


def test_the_command_prints_the_planted_line_first_and_writes_the_files(project):
    done = command("run.folder=out", "statistics.resamples=100", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{project.name}: 2 failed, 2 passed; ")
    first = next(line for line in lines if line.startswith("#"))
    assert first.startswith("#1 ")
    assert f"shop.py:{shop.PLANTED}  score 1, rank 1 to " in first
    assert "; run by 2 of 2 failing and 0 of 2 passing tests; in price, Assign/BinOp" in first
    assert f"    >    {shop.PLANTED} |         net = net * 9  # planted: should be 0.9" in lines
    written = {path.name for path in (project / "out").iterdir()}
    assert {"heat.html", "faultloc.sarif", "suspects.csv", "suspects.json", "ranking.csv"} <= written
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["corpus.path=nowhere"], "corpus.path: "),
        (["ranker.name=ochai"], "ranker.name: no formula 'ochai'; there are tarantula, sbi, "),
        (["corpus.imports=all"], "corpus.imports: must be 'drop' or 'every', got 'all'"),
        (["corpus.arguments=[-k,test_book]"], " no failing test ran a line of the program (1 passed); "),
        (["corpus=spectrum"], "corpus.path: required; give an .npz, a coverage.py database or a GZoltar folder"),
    ],
)
def test_a_fault_of_the_user_is_one_line_and_exit_code_2(project, arguments, line):
    done = command(*arguments, cwd=project)
    assert done.returncode == 2
    told = [text for text in done.stderr.splitlines() if line in text]
    assert len(told) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_spectrum_of_gzoltar_is_ranked_by_the_command(tmp_path):
    (tmp_path / "spectra.csv").write_text("name\nshop$Cart#total():14\nshop$Cart#pay():7\n")
    (tmp_path / "tests.csv").write_text("name,outcome,runtime,stacktrace\nt1,PASS,1,\nt2,FAIL,2,\n")
    (tmp_path / "matrix.txt").write_text("0 1 +\n1 1 -\n")
    done = command("corpus=spectrum", f"corpus.path={tmp_path}", "run.folder=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#1       shop/Cart.java:14  score 1, rank 1 to 1 when tests are redrawn; run by 1 of 1 " in done.stdout


def test_what_the_plugin_recorded_is_ranked_as_a_run_is(project, key):
    recorded = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "faultloc.collect.plugin", "--faultloc=records"], cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert recorded.returncode == 1, recorded.stdout
    run = localize.from_project(options(project))
    read = localize.from_spectrum(Spectrum(path=str(project / "records"), outcomes=None, root=str(project)))
    assert (read.outcomes, read.texts, sorted(read.failures)) == (run.outcomes, run.texts, sorted(run.failures))
    assert shop.ranked(read, key).suspects == shop.ranked(run, key).suspects


def test_the_files_are_written_when_the_reader_of_the_list_has_seen_enough(tmp_path):
    (tmp_path / "spectra.csv").write_text("name\nshop$Cart#total():14\nshop$Cart#pay():7\n")
    (tmp_path / "tests.csv").write_text("name,outcome,runtime,stacktrace\nt1,PASS,1,\nt2,FAIL,2,\n")
    (tmp_path / "matrix.txt").write_text("0 1 +\n1 1 -\n")
    read, write = os.pipe()
    os.close(read)
    given = ["corpus=spectrum", f"corpus.path={tmp_path}", "ranker=ochiai", "run.folder=out"]
    done = subprocess.run(
        [sys.executable, "-m", "faultloc", *given], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True,
        timeout=200,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 0, done.stderr
    assert "BrokenPipe" not in done.stderr
    assert {"heat.html", "faultloc.sarif", "suspects.csv", "spectrum.npz"} <= {*os.listdir(tmp_path / "out")}
    assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "done"


def test_a_run_of_the_tests_finds_what_is_worked_by_hand(case, project):
    run = localize.from_project(options(project))
    names = [test.rpartition("::")[2] for test in run.recording.tests]
    order = [names.index(name) for name in case.recording.tests]
    np.testing.assert_array_equal(run.recording.spectrum.covered()[order], case.recording.spectrum.covered())
    np.testing.assert_array_equal(run.recording.spectrum.failed[order], case.recording.spectrum.failed)
    np.testing.assert_array_equal(run.recording.lines, case.recording.lines)
    assert (run.recording.files, run.texts, run.outcomes) == (case.recording.files, case.texts, case.outcomes)
    assert ["216" in message for _, message in sorted(run.failures)] == [True, False]


def test_import_lines_count_for_every_test_on_request(case, project, key):
    dropped, kept = shop.ranked(case, key), run_and_rank(project, key, imports="every")
    assert not any(s.line == 1 for s in dropped.suspects)
    assert {(s.ef, s.ep) for s in kept.suspects if s.line in (1, 4, 10)} == {(2, 2)}


def test_a_failing_test_that_runs_no_function_is_told_of_import_lines_and_ranked_by_them(tmp_path, key):
    (tmp_path / "limits.py").write_text("LOW = 1\nHIGH = 10\n")
    (tmp_path / "test_limits.py").write_text("import limits\n\ndef test_high():\n    assert limits.HIGH == 11\n")
    with pytest.raises(InputError, match=r"no test ran a line .*first test_limits.py::test_high; corpus.imports=every"):
        run_and_rank(tmp_path, key)
    assert [(s.line, s.ef) for s in run_and_rank(tmp_path, key, imports="every").suspects] == [(1, 1), (2, 1)]


def test_without_a_failing_test_what_was_noted_is_told(project, key):
    (project / "test_broken.py").write_text("import nothere\n")
    with pytest.raises(
        InputError, match=r"no failing test ran a line .*Noted: .*test_broken.py could not be collected"
    ):
        run_and_rank(project, key, arguments=("-k", "book and not many"))


def test_a_file_with_a_syntax_error_is_named_and_the_rest_is_run_and_rank(project, key):
    (project / "broken.py").write_text("def (:\n")
    (project / "test_broken.py").write_text("import broken\n")
    found = run_and_rank(project, key)
    assert found.suspects[0].line == shop.PLANTED
    assert any("test_broken.py could not be collected" in note for note in found.notes)


def test_a_source_that_no_test_imports_and_that_does_not_parse_is_named(project, key):
    (project / "inner").mkdir()
    (project / "inner" / "broken.py").write_text("def (:\n")
    (project / ".venv").mkdir()
    (project / ".venv" / "foreign.py").write_text("def (:\n")
    (project / "sound.py").write_text("A = 1\n")
    found = run_and_rank(project, key)
    assert [note.partition(",")[0] for note in found.notes] == ["inner/broken.py: left out"]
    assert {s.file for s in found.suspects} == {"shop.py"}
    for number in range(localize.NAMED + 1):
        (project / f"a{number}.py").write_text("def (:\n")
    notes = localize._never_imported({"shop.py"}, project, ())
    assert len(notes) == localize.NAMED + 1
    assert notes[-1] == "2 more files that no test imported do not parse"


def test_a_ranker_that_cannot_rank_is_refused_before_the_tests_run(key):
    def gather():
        raise AssertionError("the tests ran")

    statistics, task = Statistics(resamples=100, level=0.9), Task(name="rank", clean=(), buggy=())
    learner = Tflm([Setting()], criterion="skipped", restarts=1, steps=1, rate=0.1, seed=0)
    for ranker, beside, line in (
        (learner, (), "learns from bugs whose lines are known, and there are none here; rank by ranker=posterior"),
        (Formula(name="ochiai", inside_first=False).ranker(), ("ochai",), "display.beside: no formula 'ochai'"),
        (Posterior(ridge=10.0, steps=100, model="nowhere.npz"), (), "nowhere.npz: no such model"),
    ):
        display = Display(top=1, context=0, beside=beside)
        given = localize.Localizer(gather, ranker, display, statistics, task)
        with pytest.raises(InputError, match=line):
            given.score(0, given.totals(), key=key, place=None)
    formula, display = Formula(name="ochiai", inside_first=False).ranker(), Display(top=1, context=0, beside=())
    for name, clean, buggy in (("triage", (), ()), ("rank", ("shop.py:5",), ()), ("rank", (), ("shop.py:5",))):
        given = localize.Localizer(gather, formula, display, statistics, Task(name=name, clean=clean, buggy=buggy))
        with pytest.raises(InputError, match="task: ochiai is a formula and cannot be told what is known"):
            given.score(0, given.totals(), key=key, place=None)


def test_without_a_passing_test_the_list_says_what_it_lacks(project, key):
    found = run_and_rank(project, key, arguments=("-k", "many"))
    assert any(note.startswith("no test passed") for note in found.notes)
    assert {s.score for s in found.suspects if s.ef == 2} == {1.0}


def test_a_file_of_tests_that_is_to_be_watched_is_refused(project, key):
    with pytest.raises(InputError, match=r"corpus\.watch: test_shop\.py is no Python, or a file of tests by its name"):
        run_and_rank(project, key, watch=("shop.py", "test_shop.py"))
    assert run_and_rank(project, key, watch=("shop.py",)).suspects[0].line == shop.PLANTED


def test_without_a_line_of_the_program_it_says_so(tmp_path, key):
    (tmp_path / "test_only.py").write_text("def test_only():\n    assert 0\n")
    with pytest.raises(InputError, match="no test ran a line of the program"):
        run_and_rank(tmp_path, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "sound", "planted"),
    [
        ("itertoolz.py", "end = len(seq) % n", "end = len(seq) // n"),
        ("dicttoolz.py", "values[k](v)", "values[k](d)"),
        ("itertoolz.py", "if val not in seen:", "if item not in seen:"),
    ],
)
def test_a_bug_planted_in_a_real_project_is_on_the_list_of_the_model_that_ships(tmp_path, file, sound, planted):
    for name in ("toolz", "tlz"):
        shutil.copytree(Path(importlib.util.find_spec(name).origin).parent, tmp_path / name)
    path = tmp_path / "toolz" / file
    text = path.read_text()
    path.write_text(text.replace(sound, planted, 1))
    line = text[: text.index(sound)].count("\n") + 1
    done = command("ranker=posterior", "display.top=8", "run.folder=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (listed,) = [text for text in done.stdout.splitlines() if text.startswith("#") and f"toolz/{file}:{line} " in text]
    assert "probability" in listed
    assert "highest Ochiai in function" in listed


def test_display_and_statistics_refuse_nonsense():
    with pytest.raises(ValueError, match="greater than 0"):
        Display(top=0, context=1, beside=())
    with pytest.raises(ValueError, match="less than 1"):
        Statistics(resamples=100, level=1.5)


def test_nothing_of_the_repository_is_needed_to_import_the_options():
    code = "import sys, faultloc.options; assert not {'jax', 'numpy', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
