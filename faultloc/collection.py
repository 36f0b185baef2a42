"""Bugs of the user's own whose faulty lines are known, in any language whose files can be parsed.

    FOLDER/PROGRAM/BUG/faulty.txt     FILE:LINE of the fault, one a line
    FOLDER/PROGRAM/BUG/sources/...    the source files, under the paths that the spectrum gives them
    FOLDER/PROGRAM/BUG/spectrum.npz   what a run of faultloc left; or GZoltar's matrix.txt, spectra.csv and tests.csv

Bugs of one program share code: they are held out together.
"""

from pathlib import Path

import numpy as np

from faultloc import grammars
from faultloc.cases import locate
from faultloc.corpus import Bug
from faultloc.importers import GZOLTAR
from faultloc.io import InputError, Recording, read, read_table, read_text
from faultloc.ranking import with_trees

LABELS = "faulty.txt"


def load(folder: str | Path, limit: int | None = None) -> list[Bug]:
    """Read a collection of this form.

    Args:
        folder: see above.
        limit: at most so many programs, the first by name; None: all.

    Raises:
        InputError: there is no bug, or something of one is missing or damaged.
    """
    folder = Path(folder)
    found = sorted(path.parent for path in folder.glob(f"*/*/{LABELS}"))
    if not found:
        raise InputError(f"{folder}: no PROGRAM/BUG/{LABELS} below it; each holds FILE:LINE of a fault, one a line")
    programs = sorted({path.parent.name for path in found})[:limit]
    return [_bug(path) for path in found if path.parent.name in programs]


def _bug(folder: Path) -> Bug:
    gzoltar = (folder / GZOLTAR[0]).exists()
    given: Recording = read(folder if gzoltar else folder / "spectrum.npz")
    if not given.spectrum.failed.any():
        raise InputError(f"{folder}: no failing test; a bug has one that shows it")
    texts = {file: text for file in given.files if (text := read_text(folder / "sources" / file)) is not None}
    if not texts:
        raise InputError(f"{folder / 'sources'}: holds none of the files of the spectrum, such as {given.files[0]}")
    parsed, faults = grammars.parse(texts)
    if not parsed.files:
        raise InputError(f"{folder}: no file can be parsed ({next(iter(faults.values()))})")
    given = with_trees(given, parsed, [])
    named = [line for line in read_table(folder / LABELS).splitlines() if line.strip()]
    if not named:
        raise InputError(f"{folder / LABELS}: names no line; it holds FILE:LINE of a fault, one a line")
    try:
        faulty = np.unique([locate(given, name) for name in named])
    except InputError as error:
        raise InputError(f"{folder / LABELS}: {error}") from error
    program = folder.parent.name
    return Bug(f"{program}_{folder.name}", program, program, given, faulty, "changed", parsed)
