"""Read what other tools recorded: coverage.py databases with contexts and the outcomes beside them, GZoltar's files."""

import contextlib
import csv
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from faultloc.collect.recorder import Program
from faultloc.io import InputError, Recording, read_table, recording
from faultloc.spectrum import pack

PHASES = ("setup", "run", "call", "teardown")  # of a test, as contexts name them
GZOLTAR = ("matrix.txt", "spectra.csv", "tests.csv")


def read_coverage(path: str | Path, outcomes: str | Path | None = None, root: str | Path = ".") -> Recording:
    """Read a coverage.py database whose contexts are tests (`dynamic_context = test_function` or pytest-cov's).

    The phase that pytest-cov puts after a bar (`name|setup`) is joined to its test; lines without a context were run
    by no test in particular and are left out, and so is the code of the tests itself. Where all parameters of a test
    share a context, they count as one test, which failed if one of them did. Arguments: see `faultloc.io.read`.
    """
    if outcomes is None:
        raise InputError(f"{path}: coverage.py keeps no outcomes; give corpus.outcomes=junit.xml of the same run")
    known = read_outcomes(outcomes)
    hits: dict[str, set[tuple[str, int]]] = {}
    for context, file, numbers in _coverage_rows(Path(path)):
        if context:
            hits.setdefault(_test(context), set()).update((file, number) for number in numbers)
    if not hits:
        raise InputError(f"{path}: no context names a test; run with --cov-context=test, or dynamic_context")
    failed = _outcomes(hits, known)
    if not failed:
        raise InputError(
            f"{outcomes}: names none of the {len(hits)} tests of {path}; the first there is {next(iter(hits))}"
        )
    notes = [f"{len(hits) - len(failed)} tests without an outcome were left out"] if len(failed) < len(hits) else []
    files = {file for pairs in hits.values() for file, _ in pairs}
    ours = _program(files, Path(root).resolve())
    if not ours:
        raise InputError(f"{path}: measured tests or other packages alone, such as {min(files)}; measure the source")
    if foreign := files - ours:
        notes.append(f"{len(foreign)} files of tests or other packages were left out, first {min(foreign)}")
    own = {test: {pair for pair in hits[test] if pair[0] in ours} for test in failed}
    if blind := [test for test in failed if failed[test] and not own[test]]:
        notes.append(f"{len(blind)} failing tests ran no line of the program and were left out, first {blind[0]}")
    kept = {test: pairs for test, pairs in own.items() if test not in blind}
    return recording(kept, failed, tuple(notes))


def _program(files: set[str], root: Path) -> set[str]:
    """The files that belong to the program; those outside `root` are judged by their path below what they share."""
    path = {file: os.path.join(root, file) for file in files}
    outside = [os.path.dirname(each) for each in path.values() if not Path(each).is_relative_to(root)]
    program = Program([root, *([os.path.commonpath(outside)] if outside else [])])
    # What a plugin of coverage.py measures, such as a template, has another ending.
    return {file for file in files if not file.endswith(".py") or program.path(path[file]) is not None}


def _coverage_rows(path: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Context, file and lines of every row; a database with branches holds pairs of lines instead of bits."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            joined = "join file on file.id = file_id join context on context.id = context_id"
            for context, file, bits in base.execute(f"select context, path, numbits from line_bits {joined}"):
                flags = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
                yield context, file, np.flatnonzero(flags).tolist()
            for context, file, number in base.execute(f"select distinct context, path, tono from arc {joined}"):
                if number > 0:
                    yield context, file, [number]
    except sqlite3.Error as error:
        raise InputError(f"{path}: cannot be read as a coverage.py database ({error})") from error


def read_outcomes(path: str | Path) -> dict[str, bool]:
    """Whether each test failed, from a JUnit XML file or lines `name,outcome`; skipped tests are left out.

    A test that is named more than once failed if it failed once.

    Raises:
        InputError: the file is missing or holds no outcome.
    """
    import xml.etree.ElementTree as ET

    text = read_table(path)
    failed: dict[str, bool] = {}
    if text.lstrip().startswith("<"):
        try:
            cases = list(ET.fromstring(text).iter("testcase"))
        except ET.ParseError as error:
            raise InputError(f"{path}: not well-formed XML ({error})") from error
        for case in cases:
            kinds = {child.tag for child in case}
            if "skipped" not in kinds:
                name = f"{case.get('classname', '')}.{case.get('name', '')}"
                # A test that passes and then errs in a fixture, or that runs again, is there twice.
                failed[name] = failed.get(name, False) or bool(kinds & {"failure", "error"})
    else:
        for row in csv.reader(text.splitlines()):
            if len(row) >= 2 and row[1].strip().lower() not in ("outcome", "skip", "skipped"):
                name = row[0].strip()
                failed[name] = _is_failure(row[1].strip(), path) or failed.get(name, False)
    if not failed:
        raise InputError(f"{path}: holds no outcome of a test; expected JUnit XML or lines name,outcome")
    return failed


def _is_failure(word: str, path: str | Path) -> bool:
    words = {
        "pass": False,
        "passed": False,
        "fail": True,
        "failed": True,
        "error": True,
        "timeout": True,
        "crash": True,
    }
    if word.lower() not in words:
        raise InputError(f"{path}: unknown outcome {word!r}; known are {', '.join(words)}, skip")
    return words[word.lower()]


def _outcomes(tests: Iterable[str], known: dict[str, bool]) -> dict[str, bool]:
    """Whether each test failed, as far as it has an outcome."""
    families: dict[str, bool] = {}
    for name, bad in known.items():
        family = name.partition("[")[0]
        families[family] = families.get(family, False) or bad
    return {test: bad for test in tests if (bad := _find(test, known, families)) is not None}


def _test(context: str) -> str:
    """The name of a test without its phase; parameters may hold bars of their own."""
    name, _, phase = context.rpartition("|")
    return name if phase in PHASES and name else context


def _find(test: str, known: dict[str, bool], families: dict[str, bool]) -> bool | None:
    """Outcome of a test under the names that pytest, JUnit and coverage.py give it, or of all its parameters."""
    name, bracket, parameters = test.partition("[")
    plain = re.sub(r"\.py::|::|/", ".", name)
    found = known.get(test, known.get(plain + bracket + parameters))
    return families.get(plain) if found is None and not bracket else found


def read_gzoltar(folder: str | Path) -> Recording:
    """Read GZoltar's `matrix.txt`, `spectra.csv` and `tests.csv`.

    A component is `package$Class#method(arguments):line`; the file is taken to be that of the outermost class.
    """
    folder = Path(folder)
    for name in GZOLTAR:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}; a GZoltar folder holds {', '.join(GZOLTAR)}")
    components = _rows(folder / "spectra.csv")
    tests = [_test_name(row) for row in csv.reader(_rows(folder / "tests.csv"))]
    rows = [line.split() for line in read_table(folder / "matrix.txt").splitlines() if line.strip()]
    wrong = [i for i, row in enumerate(rows) if len(row) != len(components) + 1 or row[-1] not in "+-"]
    if wrong or len(rows) != len(tests):
        where = f"row {wrong[0] + 1} does not fit" if wrong else f"{len(rows)} rows for {len(tests)} tests"
        raise InputError(f"{folder / 'matrix.txt'}: {where}; expected {len(components)} numbers and + or - in each row")
    if not rows or not components:
        raise InputError(f"{folder}: names {len(tests)} tests and {len(components)} lines; run the tests again")
    covered = np.array([[entry != "0" for entry in row[:-1]] for row in rows], bool)
    files, places = _places([_component(text, folder) for text in components])
    # Components of a line, such as a lambda and what is around it, are one suspect.
    places, place = np.unique(places, axis=0, return_inverse=True)
    joined = np.zeros((len(rows), len(places)), bool)
    for column, target in enumerate(place.ravel()):
        joined[:, target] |= covered[:, column]
    spectrum = pack(joined, np.array([row[-1] == "-" for row in rows], bool))
    return Recording(spectrum, files, places[:, 0], places[:, 1], tuple(tests))


def _places(named: list[tuple[str, int]]) -> tuple[tuple[str, ...], np.ndarray]:
    """The files in the order they are named, and `[n, 2]` number of the file and of the line."""
    files = {file: number for number, file in enumerate(dict.fromkeys(file for file, _ in named))}
    return tuple(files), np.array([(files[file], line) for file, line in named], np.int32)


def _rows(path: Path) -> list[str]:
    """Rows after the header; names of components hold commas and no quotes, so such a row is one name."""
    return [line for line in read_table(path).splitlines()[1:] if line.strip()]


def _test_name(row: list[str]) -> str:
    """What stands before the outcome; names may hold commas without quotes."""
    return ",".join(row[: next((i for i, word in enumerate(row) if i and word in ("PASS", "FAIL")), 1)])


def _component(text: str, folder: Path) -> tuple[str, int]:
    found = re.fullmatch(r"(?P<type>[^#]+)#.*:(?P<line>\d+)", text.strip())
    if found is None:
        raise InputError(f"{folder / 'spectra.csv'}: {text!r} is not package$Class#method(arguments):line")
    package, *classes = found["type"].split("$")
    outermost = classes[0] if classes else package
    folders = f"{package.replace('.', '/')}/" if classes and package else ""
    return f"{folders}{outermost}.java", int(found["line"])
