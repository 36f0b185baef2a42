"""Read spectra that other tools left: packed arrays, coverage.py databases with contexts, GZoltar's three files."""

import contextlib
import csv
import re
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faultloc.spectrum import Spectrum, pack
from faultloc.writing import whole

GZOLTAR = ("matrix.txt", "spectra.csv", "tests.csv")


class InputError(ValueError):
    """A fault of the user's data, told in one line: what was given, what is allowed, what to do."""

    is_input_fault = True  # the command line shows the line without a traceback

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


class Recording(NamedTuple):
    """A spectrum with the names of what it counts.

    Attributes:
        spectrum: coverage and outcomes.
        files: paths.
        file: `[L]` index into `files`.
        lines: `[L]` numbers.
        tests: `[T]` names.
        notes: remarks that a reader of the result should see, one line each.
    """

    spectrum: Spectrum
    files: tuple[str, ...]
    file: np.ndarray
    lines: np.ndarray
    tests: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read(path: str | Path, outcomes: str | Path | None = None) -> Recording:
    """Read a spectrum, whatever tool left it.

    Args:
        path: an `.npz` with `M, shape, fail, lines` and perhaps `files`; a coverage.py database recorded with one
            context per test; or a folder with GZoltar's `matrix.txt`, `spectra.csv` and `tests.csv`.
        outcomes: for a coverage.py database, which does not hold them: a JUnit XML file, or a text file with one
            `name,outcome` per line.

    Raises:
        InputError: the file is missing, damaged or of another kind; or nothing in it can be ranked.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an .npz, a coverage.py database or a GZoltar folder")
    if path.is_dir():
        return read_gzoltar(path)
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"SQLite format 3"):
        return read_coverage(path, outcomes)
    if head.startswith(b"PK"):
        return read_npz(path)
    raise InputError(f"{path}: neither an .npz nor a coverage.py database; give one of these or a GZoltar folder")


def read_npz(path: str | Path) -> Recording:
    """Read packed arrays; see `read`."""
    arrays = load_arrays(path)
    for key in ("M", "shape", "fail", "lines"):
        if key not in arrays:
            raise InputError(f"{path}: no array {key!r}; a spectrum holds M, shape, fail, lines and perhaps files")
    tests, size = map(int, arrays["shape"])
    bits, failed, lines = arrays["M"], arrays["fail"].astype(bool), arrays["lines"].astype(np.int32)
    if bits.shape != (tests, -(-size // 8)) or failed.shape != (tests,) or lines.shape != (size,):
        raise InputError(
            f"{path}: shape says {tests} tests and {size} lines, but M is {bits.shape}, fail {failed.shape} and "
            f"lines {lines.shape}"
        )
    names = arrays["files"] if "files" in arrays else np.full(size, Path(path).stem)
    files, file = np.unique(names, return_inverse=True)
    labels = tuple(map(str, arrays["tests"])) if "tests" in arrays else tuple(f"test {i}" for i in range(tests))
    spectrum = Spectrum(bits, failed, size)
    return Recording(spectrum, tuple(map(str, files)), file.astype(np.int32), lines, labels)


def write_npz(path: str | Path, recording: Recording) -> None:
    """Write a recording, all of it or nothing, so that `read_npz` gets it back."""
    spectrum = recording.spectrum
    with whole(Path(path), "wb") as file:
        np.savez_compressed(
            file,
            M=np.asarray(spectrum.bits),
            shape=np.array([spectrum.tests, spectrum.size]),
            fail=np.asarray(spectrum.failed, np.uint8),
            lines=recording.lines,
            files=np.array(recording.files)[recording.file],
            tests=np.array(recording.tests),
        )


def read_text(path: str | Path) -> str | None:
    """Text of a source file in the encoding it declares; None where there is none to read."""
    import tokenize

    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def source_lines(text: str) -> list[str]:
    """The lines of a source as compilers count them: a form feed or another separator of Unicode ends none."""
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as an .npz of plain arrays ({error})") from error


def read_coverage(path: str | Path, outcomes: str | Path | None = None) -> Recording:
    """Read a coverage.py database whose contexts are tests (`dynamic_context = test_function` or pytest-cov's).

    The phase that pytest-cov puts after a bar (`name|setup`) is joined to its test; lines without a context were run
    by no test in particular and are left out. Outcomes: see `read`.
    """
    if outcomes is None:
        raise InputError(f"{path}: coverage.py keeps no outcomes; give corpus.outcomes=junit.xml of the same run")
    known = read_outcomes(outcomes)
    hits: dict[str, set[tuple[str, int]]] = {}
    for context, file, numbers in _coverage_rows(Path(path)):
        if context:
            hits.setdefault(context.split("|")[0], set()).update((file, number) for number in numbers)
    if not hits:
        raise InputError(f"{path}: no context names a test; run with --cov-context=test, or dynamic_context")
    matched = {test: outcome for test in hits if (outcome := _find(test, known)) is not None}
    if not matched:
        raise InputError(
            f"{outcomes}: names none of the {len(hits)} tests of {path}; the first there is {next(iter(hits))}"
        )
    missing = len(hits) - len(matched)
    notes = (f"{missing} tests without an outcome were left out",) if missing else ()
    return recording({t: hits[t] for t in matched}, {t: failed for t, failed in matched.items()}, notes)


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

    Raises:
        InputError: the file is missing or holds no outcome.
    """
    import xml.etree.ElementTree as ET

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    failed: dict[str, bool] = {}
    if text.lstrip().startswith("<"):
        try:
            cases = list(ET.fromstring(text).iter("testcase"))
        except ET.ParseError as error:
            raise InputError(f"{path}: not well-formed XML ({error})") from error
        for case in cases:
            kinds = {child.tag for child in case}
            if "skipped" not in kinds:
                failed[f"{case.get('classname', '')}.{case.get('name', '')}"] = bool(kinds & {"failure", "error"})
    else:
        for row in csv.reader(text.splitlines()):
            if len(row) >= 2 and row[1].strip().lower() not in ("outcome", "skip", "skipped"):
                failed[row[0].strip()] = _is_failure(row[1].strip(), path)
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


def _find(test: str, known: dict[str, bool]) -> bool | None:
    """Outcome of a test under the names that pytest, JUnit and coverage.py give it."""
    plain = re.sub(r"\.py::|::|/", ".", test)
    return known.get(test, known.get(plain))


def read_gzoltar(folder: str | Path) -> Recording:
    """Read GZoltar's `matrix.txt`, `spectra.csv` and `tests.csv`.

    A component is `package$Class#method(arguments):line`; the file is taken to be that of the outermost class.
    """
    folder = Path(folder)
    for name in GZOLTAR:
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}; a GZoltar folder holds {', '.join(GZOLTAR)}")
    components = [row[0] for row in _csv_rows(folder / "spectra.csv")]
    tests = [row[0] for row in _csv_rows(folder / "tests.csv")]
    rows = [line.split() for line in (folder / "matrix.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    wrong = [i for i, row in enumerate(rows) if len(row) != len(components) + 1 or row[-1] not in "+-"]
    if wrong or len(rows) != len(tests):
        where = f"row {wrong[0] + 1} does not fit" if wrong else f"{len(rows)} rows for {len(tests)} tests"
        raise InputError(f"{folder / 'matrix.txt'}: {where}; expected {len(components)} numbers and + or - in each row")
    covered = np.array([[entry != "0" for entry in row[:-1]] for row in rows], bool).reshape(len(rows), -1)
    places = [_component(text, folder) for text in components]
    files = tuple(dict.fromkeys(file for file, _ in places))
    file = np.array([files.index(file) for file, _ in places], np.int32)
    lines = np.array([line for _, line in places], np.int32)
    order = np.lexsort((lines, file))
    spectrum = pack(covered[:, order], np.array([row[-1] == "-" for row in rows], bool))
    return Recording(spectrum, files, file[order], lines[order], tuple(tests))


def _csv_rows(path: Path) -> list[list[str]]:
    """Rows after the header; names of components hold commas and no quotes, so the first column ends at the line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
    return [[line] for line in lines] if path.name == "spectra.csv" else list(csv.reader(lines))


def _component(text: str, folder: Path) -> tuple[str, int]:
    found = re.fullmatch(r"(?P<type>[^#]+)#.*:(?P<line>\d+)", text.strip())
    if found is None:
        raise InputError(f"{folder / 'spectra.csv'}: {text!r} is not package$Class#method(arguments):line")
    package, *classes = found["type"].split("$")
    outermost = classes[0] if classes else package
    folders = f"{package.replace('.', '/')}/" if classes and package else ""
    return f"{folders}{outermost}.java", int(found["line"])


def recording(
    hits: dict[str, set[tuple[str, int]]],
    failed: dict[str, bool],
    notes: tuple[str, ...] = (),
    universe: dict[str, list[int]] | None = None,
) -> Recording:
    """Put the lines that tests ran into one matrix.

    Args:
        hits: (file, line) pairs by test.
        failed: whether each of these tests failed.
        notes: see `Recording`.
        universe: the executable lines of each file; None: those that some test ran.

    Raises:
        InputError: no line was run.
    """
    if universe is None:
        universe = {}
        for file, line in set().union(*hits.values()) if hits else ():
            universe.setdefault(file, []).append(line)
    places = [(file, line) for file in sorted(universe) for line in sorted(universe[file])]
    if not places or not hits:
        raise InputError("no test ran a line of the program; name the folder with its source (corpus.watch=FOLDER)")
    column = {place: index for index, place in enumerate(places)}
    covered = np.zeros((len(hits), len(places)), bool)
    for row, pairs in enumerate(hits.values()):
        covered[row, [column[pair] for pair in pairs if pair in column]] = True
    files = tuple(sorted(universe))
    number = {file: index for index, file in enumerate(files)}
    file = np.array([number[file] for file, _ in places], np.int32)
    spectrum = pack(covered, np.array([failed[test] for test in hits], bool))
    return Recording(spectrum, files, file, np.array([line for _, line in places], np.int32), tuple(hits), notes)
