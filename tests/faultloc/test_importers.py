import os
import sqlite3
import subprocess
import sys

import pytest

from faultloc import io
from faultloc.io import InputError

CODE = "def f(x):\n    if x:\n        return 1\n    return 2\n"
TESTS = "from subject import f\n\ndef test_one():\n    assert f(1) == 1\n\ndef test_two():\n    assert f(0) == 3\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A database and a JUnit file that coverage.py and pytest really wrote, with lines and with branches."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "subject.py").write_text(CODE)
    (folder / "test_code.py").write_text(TESTS)
    for name, branch in (("lines", "False"), ("branches", "True")):
        (folder / f"{name}.rc").write_text(
            f"[run]\ndynamic_context = test_function\nbranch = {branch}\ndata_file = {name}.db\ncore = ctrace\n"
        )
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={name}.rc", "-m", "pytest", "-q"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
        done = subprocess.run(
            [*command, "--junitxml=junit.xml", "-p", "no:cacheprovider"],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (folder / f"{name}.db").exists(), done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", ["lines", "branches"])
def test_reads_what_coverage_wrote(measured, name):
    found = io.read(measured / f"{name}.db", measured / "junit.xml")
    assert [file.rpartition("/")[2] for file in found.files] == ["subject.py"]
    assert [note.rpartition("/")[::2] for note in found.notes] == [
        (f"1 files of tests or other packages were left out, first {measured}", "test_code.py")
    ]
    assert found.lines.tolist() == [2, 3, 4]
    rows = dict(zip(found.tests, found.spectrum.covered().tolist(), strict=True))
    assert rows == {"test_code.test_one": [1, 1, 0], "test_code.test_two": [1, 0, 1]}
    assert dict(zip(found.tests, found.spectrum.failed.tolist(), strict=True)) == {
        "test_code.test_one": False,
        "test_code.test_two": True,
    }


def test_a_database_needs_outcomes_that_name_its_tests(measured, tmp_path):
    with pytest.raises(InputError, match=r"give corpus\.outcomes=junit\.xml"):
        io.read(measured / "lines.db")
    (tmp_path / "other.csv").write_text("name,outcome\nsome.test,passed\n")
    with pytest.raises(InputError, match="names none of the 2 tests"):
        io.read(measured / "lines.db", tmp_path / "other.csv")
    (tmp_path / "odd.csv").write_text("test_code.test_one,perhaps\n")
    with pytest.raises(InputError, match="unknown outcome 'perhaps'"):
        io.read(measured / "lines.db", tmp_path / "odd.csv")
    (tmp_path / "half.csv").write_text("test_code.test_two,failed\n")
    notes = io.read(measured / "lines.db", tmp_path / "half.csv").notes
    assert notes[0] == "1 tests without an outcome were left out"


def database(path, contexts):
    """A database of lines by context and file."""
    base = sqlite3.connect(path)
    base.executescript(
        "create table file (id, path); create table context (id, context);"
        "create table line_bits (file_id, context_id, numbits); create table arc (file_id, context_id, fromno, tono);"
    )
    files = sorted({file for ran in contexts.values() for file in ran})
    base.executemany("insert into file values (?, ?)", enumerate(files))
    for number, (context, ran) in enumerate(contexts.items()):
        base.execute("insert into context values (?, ?)", (number, context))
        for file, lines in ran.items():
            bits = bytes([sum(1 << line for line in lines)])
            base.execute("insert into line_bits values (?, ?, ?)", (files.index(file), number, bits))
    base.commit()
    base.close()
    return path


def junit(path, *cases):
    """Outcomes of tests of one class."""
    rows = [f'<testcase classname="t" name="{name}">{"<failure/>" if bad else ""}</testcase>' for name, bad in cases]
    path.write_text(f"<testsuite>{''.join(rows)}</testsuite>")
    return path


def outcomes(found):
    return dict(zip(found.tests, found.spectrum.failed.tolist(), strict=True))


def test_parameters_that_share_a_context_are_one_test_that_fails_with_one_of_them(tmp_path):
    path = database(tmp_path / "x.db", {"t.test_a": {"a.py": [1, 2]}, "t.test_b": {"a.py": [1]}})
    given = junit(tmp_path / "x.xml", ("test_a[1-2]", False), ("test_a[9]", True), ("test_b", False), ("test_ab", True))
    found = io.read(path, given)
    assert outcomes(found) == {"t.test_a": True, "t.test_b": False}
    assert found.notes == ()


def test_parameters_may_hold_bars_and_slashes(tmp_path):
    names = ("test_x[a|b]", "test_y[a/b]", "test_z[a::b|run]", "test_w[c.py::d]")
    contexts = {f"t.py::{name}|{phase}": {"a.py": [1]} for name in names for phase in ("setup", "run", "teardown")}
    path = database(tmp_path / "x.db", contexts)
    found = io.read(path, junit(tmp_path / "x.xml", *((name, name == names[0]) for name in names)))
    assert outcomes(found) == {f"t.py::{name}": name == names[0] for name in names}


def test_code_of_the_tests_is_not_ranked(tmp_path):
    root = tmp_path / "tests" / "checkout"  # a folder above the root does not make it one of tests
    ours, theirs = str(root / "shop.py"), str(root / "tests" / "unit" / "cart.py")
    ran = {"t.test_a": {ours: [1], theirs: [2]}, "t.test_b": {ours: [2], theirs: [3]}, "t.test_c": {theirs: [7]}}
    path = database(tmp_path / "x.db", ran)
    given = junit(tmp_path / "x.xml", ("test_a", True), ("test_b", False), ("test_c", True))
    for where in (root, tmp_path / "elsewhere"):
        found = io.read(path, given, where)
        assert (found.files, found.tests, found.lines.tolist()) == ((ours,), ("t.test_a", "t.test_b"), [1, 2])
        assert found.notes == (
            f"1 files of tests or other packages were left out, first {theirs}",
            "1 failing tests ran no line of the program and were left out, first t.test_c",
        )
    relative = database(tmp_path / "y.db", {"t.test_a": {"shop.py": [1], "test_shop.py": [2], "page.html": [3]}})
    assert io.read(relative, given, root).files == ("page.html", "shop.py")
    alone = database(tmp_path / "z.db", {"t.test_a": {"test_shop.py": [2]}})
    with pytest.raises(InputError, match=r"measured tests or other packages alone, such as test_shop\.py; "):
        io.read(alone, given, root)


def test_a_test_that_junit_names_twice_failed_if_it_failed_once(tmp_path):
    path = database(tmp_path / "x.db", {"t.test_a": {"a.py": [1]}, "t.test_b": {"a.py": [1]}})
    cases = ("test_a", True), ("test_a", False), ("test_b", False), ("test_b", True)
    assert outcomes(io.read(path, junit(tmp_path / "x.xml", *cases))) == {"t.test_a": True, "t.test_b": True}
    (tmp_path / "x.csv").write_text("t.test_a,failed\nt.test_a,passed\nt.test_b,passed\n")
    assert outcomes(io.read(path, tmp_path / "x.csv")) == {"t.test_a": True, "t.test_b": False}


@pytest.fixture
def gzoltar(tmp_path):
    (tmp_path / "spectra.csv").write_text(
        "name\norg.shop$Cart#total(int,java.lang.String):14\norg.shop$Cart$Line#<init>():7\n$Main#main():3\n"
    )
    (tmp_path / "tests.csv").write_text(
        'name,outcome,runtime,stacktrace\na#t1,PASS,1,\na#t2,FAIL,2,"boom, at line"\na#t3,PASS,1,\n'
    )
    (tmp_path / "matrix.txt").write_text("1 0 1 +\n1 1 0 -\n0 0 1 +\n")
    return tmp_path


def test_reads_the_three_files_of_gzoltar(gzoltar):
    found = io.read(gzoltar)
    places = [(found.files[f], line) for f, line in zip(found.file.tolist(), found.lines.tolist(), strict=True)]
    assert places == [("org/shop/Cart.java", 7), ("org/shop/Cart.java", 14), ("Main.java", 3)]
    assert found.spectrum.covered().tolist() == [[0, 1, 1], [1, 1, 0], [0, 0, 1]]
    assert found.spectrum.failed.tolist() == [False, True, False]
    assert found.tests == ("a#t1", "a#t2", "a#t3")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("matrix.txt", "1 0 +\n1 1 0 -\n0 0 1 +\n", "row 1 does not fit; expected 3 numbers and"),
        ("matrix.txt", "1 0 1 +\n", "1 rows for 3 tests"),
        ("spectra.csv", "name\na\nb\nc\n", "'a' is not package"),
        ("tests.csv", None, "no tests.csv"),
        ("spectra.csv", "name\nshop$Käse#a():1\n", "spectra.csv: is not text in UTF-8; convert it"),
    ],
)
def test_a_damaged_gzoltar_folder_is_explained(gzoltar, name, text, line):
    (gzoltar / name).unlink()
    if text is not None:
        (gzoltar / name).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=line):
        io.read(gzoltar)


def test_an_empty_gzoltar_folder_is_explained(gzoltar):
    for name in ("matrix.txt", "spectra.csv", "tests.csv"):
        (gzoltar / name).write_text("")
    with pytest.raises(InputError, match="names 0 tests and 0 lines"):
        io.read(gzoltar)


def test_components_of_one_line_are_one_line(gzoltar):
    (gzoltar / "spectra.csv").write_text("name\np$A#m():5\np$A#n():4\np$A$1#run():5\n")
    (gzoltar / "matrix.txt").write_text("1 0 0 +\n0 1 0 -\n0 0 1 +\n")
    found = io.read(gzoltar)
    assert (found.files, found.file.tolist(), found.lines.tolist()) == (("p/A.java",), [0, 0], [4, 5])
    assert found.spectrum.covered().tolist() == [[0, 1], [1, 0], [0, 1]]


def test_names_of_tests_may_hold_commas(gzoltar):
    (gzoltar / "tests.csv").write_text('name,outcome,runtime\na#t[1, 2],PASS,1,\n"a#t[3,4]",FAIL,2,x\nb,PASS\n')
    assert io.read(gzoltar).tests == ("a#t[1, 2]", "a#t[3,4]", "b")


def test_outcomes_that_are_not_text_are_explained(tmp_path):
    path = database(tmp_path / "x.db", {"t.test_a": {"a.py": [1]}})
    (tmp_path / "x.csv").write_bytes("t.test_a,failed,Käse\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.csv: is not text in UTF-8; convert it"):
        io.read(path, tmp_path / "x.csv")


def test_a_database_without_contexts_is_explained(tmp_path):
    database(tmp_path / "empty.db", {})
    (tmp_path / "outcomes.csv").write_text("a,passed\n")
    with pytest.raises(InputError, match="no context names a test"):
        io.read(tmp_path / "empty.db", tmp_path / "outcomes.csv")
