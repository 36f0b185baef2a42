"""Read and write spectra as packed arrays and the sources they are of; `faultloc.importers` knows other tools."""

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faultloc.spectrum import Spectrum, pack
from faultloc.writing import whole

# What NumPy and zipfile raise, depending on which byte of an .npz is wrong; TypeError where it is a single array.
DAMAGED = (
    OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RuntimeError, MemoryError, OverflowError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip

NOTED = 5  # notes beside a fault; of more, their number is told
BYTES = (".c", ".h", ".java")  # whose compilers take any bytes in comments and strings
# Kinds of the arrays of a spectrum, by NumPy's letters and in words.
KINDS = {
    "M": ("u", "uint8, eight lines in each"), "shape": ("iu", "integers"), "fail": ("biu", "0 and 1"),
    "lines": ("iu", "integers"), "files": ("U", "text"), "tests": ("U", "text"),
}  # fmt: skip


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


def read(path: str | Path, outcomes: str | Path | None = None, root: str | Path = ".") -> Recording:
    """Read a spectrum, whatever tool left it.

    Args:
        path: an `.npz` with `M, shape, fail, lines` and perhaps `files`; a coverage.py database recorded with one
            context per test; or a folder with GZoltar's `matrix.txt`, `spectra.csv` and `tests.csv`.
        outcomes: for a coverage.py database, which does not hold them: a JUnit XML file, or a text file with one
            `name,outcome` per line.
        root: folder of the sources; which files of a database are tests is told by their path below it.

    Raises:
        InputError: the file is missing, damaged or of another kind; or nothing in it can be ranked.
    """
    from faultloc import importers  # they build on this module

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give an .npz, a coverage.py database or a GZoltar folder")
    if path.is_dir():
        return importers.read_gzoltar(path)
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"SQLite format 3"):
        return importers.read_coverage(path, outcomes, root)
    if head.startswith(b"PK"):
        return read_npz(path)
    raise InputError(f"{path}: neither an .npz nor a coverage.py database; give one of these or a GZoltar folder")


def read_npz(path: str | Path) -> Recording:
    """Read packed arrays; see `read`."""
    arrays = load_arrays(path)
    tests, size = _shape(arrays, path)
    names = arrays["files"] if "files" in arrays else np.full(size, Path(path).stem)
    files, file = np.unique(names, return_inverse=True)
    labels = tuple(map(str, arrays["tests"])) if "tests" in arrays else tuple(f"test {i}" for i in range(tests))
    spectrum = Spectrum(arrays["M"], arrays["fail"].astype(bool), size)
    lines = arrays["lines"].astype(np.int32)
    return Recording(spectrum, tuple(map(str, files)), file.astype(np.int32), lines, labels)


def _shape(arrays: dict[str, np.ndarray], path: str | Path) -> tuple[int, int]:
    """Numbers of tests and of lines, once every array of a spectrum is known to fit them."""
    for key, (kinds, told) in KINDS.items():
        if key in arrays and arrays[key].size and arrays[key].dtype.kind not in kinds:
            raise InputError(f"{path}: {key} holds {arrays[key].dtype}; it has to hold {told}")
        if key not in arrays and key not in ("files", "tests"):
            raise InputError(f"{path}: no array {key!r}; a spectrum holds M, shape, fail, lines and perhaps files")
    if arrays["shape"].shape != (2,):
        raise InputError(f"{path}: shape is {arrays['shape'].tolist()}; it has to hold the numbers of tests and lines")
    tests, size = map(int, arrays["shape"])
    fitting = {"M": (tests, -(-size // 8)), "fail": (tests,), "lines": (size,), "files": (size,), "tests": (tests,)}
    if wrong := [key for key in fitting if key in arrays and arrays[key].shape != fitting[key]]:
        told = ", ".join(f"{key} is {arrays[key].shape}" for key in wrong)
        raise InputError(f"{path}: shape says {tests} tests and {size} lines, but {told}")
    if arrays["M"].dtype != np.uint8:
        raise InputError(f"{path}: M holds {arrays['M'].dtype}; it has to hold uint8, eight lines in each")
    if (arrays["lines"] < 1).any():
        raise InputError(f"{path}: lines holds {arrays['lines'].min()}; lines count from 1")
    return tests, size


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
    """Text of a source file, None where there is none to read: Python in the encoding it declares, else UTF-8.

    C and Java declare none; what is not UTF-8 there is taken for Latin-1, which moves no line.
    """
    for encoding in ("utf-8-sig", "latin-1") if Path(path).suffix in BYTES else (None,):
        try:
            with tokenize.open(path) if encoding is None else open(path, encoding=encoding) as file:
                return file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
    return None


def read_table(path: str | Path) -> str:
    """Text of a file that a tool or the user wrote for us.

    Raises:
        InputError: it cannot be read, or is not in UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; convert it, as by iconv -f LATIN1 -t UTF-8") from error


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
    except DAMAGED as error:
        told = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as an .npz of plain arrays ({told})") from error


def noted(message: str, notes: Sequence[str]) -> str:
    """A message with the first notes of a run behind it: why nothing can be ranked often stands there."""
    more = [f"and {len(notes) - NOTED} more"] if len(notes) > NOTED else []
    return f"{message}. Noted: {'; '.join([*notes[:NOTED], *more])}" if notes else message


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
        message = "no test ran a line of the program; name the folder with its source (corpus.watch=FOLDER)"
        raise InputError(noted(message, notes))
    column = {place: index for index, place in enumerate(places)}
    covered = np.zeros((len(hits), len(places)), bool)
    for row, pairs in enumerate(hits.values()):
        covered[row, [column[pair] for pair in pairs if pair in column]] = True
    files = tuple(sorted(universe))
    number = {file: index for index, file in enumerate(files)}
    file = np.array([number[file] for file, _ in places], np.int32)
    spectrum = pack(covered, np.array([failed[test] for test in hits], bool))
    return Recording(spectrum, files, file, np.array([line for _, line in places], np.int32), tuple(hits), notes)
