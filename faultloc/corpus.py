"""Bugs whose faulty lines are known: the seeded faults of SIR, real bugs of BugsInPy, the small programs of QuixBugs.

Nothing is downloaded. A collection is looked for in the folder that the caller names (`corpus.path=` on the command
line), else in `faultloc/<name>_spectra` under the environment variable QUARTET_DATA.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faultloc.io import InputError, Recording, load_arrays, read_npz
from faultloc.tree import Statements, Tree, from_preorder, statements

ROOT = "QUARTET_DATA"
NAMES = ("bugsinpy", "sir", "quixbugs", "own")


class Bug(NamedTuple):
    """One faulty version of a program.

    Attributes:
        name: of the bug.
        program: what must not be split between training and test.
        cluster: what a bootstrap draws as a whole; a version of a program where its bugs share the code.
        recording: coverage and outcomes.
        faulty: indices of the faulty lines; for an omission the nearest executable ones.
        kind: changed | insertion | omission.
        tree: syntax trees, or None where the collection has none.
    """

    name: str
    program: str
    cluster: str
    recording: Recording
    faulty: np.ndarray
    kind: str
    tree: Tree | None

    @property
    def reachable(self) -> bool:
        """Whether some failing test ran a faulty line; no coverage points at one that none ran."""
        spectrum = self.recording.spectrum
        return bool(spectrum.covered()[spectrum.failed.astype(bool)][:, self.faulty].any())

    def statements(self) -> Statements:
        """The statements that answer for the lines.

        Raises:
            InputError: the collection has no syntax trees.
        """
        if self.tree is None:
            raise InputError(f"{self.name}: this collection has no syntax trees; rank it by a formula")
        number = {path: index for index, path in enumerate(self.tree.files)}
        files = np.array([number[path] for path in self.recording.files], np.int32)[self.recording.file]
        return statements(self.tree, files, self.recording.lines)


def find(name: str, path: str | Path | None = None) -> Path:
    """The folder of a collection.

    Raises:
        InputError: it is not there.
    """
    if path is None:
        root = os.environ.get(ROOT)
        if root is None:
            raise InputError(f"corpus.path: required; give the folder of {name}, or set {ROOT} to that of the data")
        path = Path(root) / "faultloc" / f"{name}_spectra"
    path = Path(path)
    if not any(path.glob("*.npz")):
        raise InputError(f"{path}: no spectrum *.npz in this folder; give corpus.path=FOLDER or set {ROOT}")
    return path


def load(name: str, path: str | Path | None = None, limit: int | None = None) -> list[Bug]:
    """Read a collection.

    Args:
        name: bugsinpy | sir | quixbugs, or own for bugs of the user, see `faultloc.collection`.
        path: its folder; None looks under QUARTET_DATA.
        limit: at most so many programs, the first by name; None: all.

    Returns:
        Its bugs by name, those without a faulty line or a failing test left out.

    Raises:
        InputError: the folder or a file is missing or damaged.
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"no collection {name!r}; there are {', '.join(NAMES)}")
    if name == "own":
        from faultloc import collection

        if path is None:
            raise InputError("corpus.path: required; give the folder of your collection")
        return collection.load(path, limit)
    folder = find(name, path)
    files = sorted(folder.glob("*.npz"))
    programs = sorted({_program(name, file.stem) for file in files})[:limit]
    return list(_bugs(name, folder, [file for file in files if _program(name, file.stem) in programs]))


def _bugs(name: str, folder: Path, files: list[Path]) -> Iterator[Bug]:
    symbols = folder / "symbols.json"
    names = tuple(json.loads(symbols.read_text(encoding="utf-8"))) if symbols.is_file() else ()
    for file in files:
        arrays, recording = load_arrays(file), read_npz(file)
        if "bug" not in arrays:
            raise InputError(f"{file}: no array 'bug'; a bug with known faulty lines has one")
        faulty, kind = _labels(name, arrays, recording.lines)
        if len(faulty) and recording.spectrum.failed.any():
            program = _program(name, file.stem)
            yield Bug(
                file.stem, program, _cluster(name, file.stem), recording, faulty, kind, _grown(arrays, names, recording)
            )


def _program(name: str, stem: str) -> str:
    """What folds are grouped by: the project, for SIR the program, for QuixBugs the file itself."""
    return stem.split("_")[0] if name == "sir" else stem.rpartition("_")[0] if name == "bugsinpy" else stem


def _cluster(name: str, stem: str) -> str:
    found = re.match(r"[a-z]+_v\d+", stem)
    return found[0] if name == "sir" and found else _program(name, stem)


def _labels(name: str, arrays: dict[str, Any], lines: np.ndarray) -> tuple[np.ndarray, str]:
    """Indices of the faulty lines, and the kind of the bug.

    SIR gives source lines; one that is not executable moves to the nearest executable one before it.
    """
    if name != "sir":
        kind = str(arrays["bug_kind"]) if "bug_kind" in arrays else "omission" if arrays["omission"] else "changed"
        return np.unique(arrays["bug"]), kind
    given, kind = (arrays["bug"], "changed") if len(arrays["bug"]) else (arrays["sites"], "omission")
    return np.unique(np.maximum(np.searchsorted(lines, given, side="right") - 1, 0)), kind


def _grown(arrays: dict[str, Any], names: tuple[str, ...], recording: Recording) -> Tree | None:
    if "ast_type" not in arrays:
        return None
    files = tuple(map(str, arrays["ast_files"])) if "ast_files" in arrays else recording.files
    return from_preorder(
        names, arrays["ast_type"], arrays["ast_depth"], arrays["ast_line"], arrays.get("ast_file"), files
    )
