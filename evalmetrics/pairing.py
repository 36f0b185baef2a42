"""Which files belong together: single files, lists of maps, and folders of cases paired by name."""

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evalmetrics.naming import atlas_files
from evalmetrics.readers import ALLOWED, InputError, suffix_of, unsupported

Source = str | os.PathLike | Sequence[str | os.PathLike]


class Case(NamedTuple):
    """Two sources that `io.pair` reads as one case: a file, a list of maps, or a folder of maps each."""

    name: str
    reference: Source
    prediction: Source


class Pairing(NamedTuple):
    """Cases to score, and those that cannot be, as rows `{"case": name, "error": line}` of the report."""

    cases: list[Case]
    faults: list[dict[str, str]]


def is_several(source: object) -> bool:
    """True for a list of maps, also where a configuration library wraps the list in its own sequence type."""
    return isinstance(source, Sequence) and not isinstance(source, str)


def files_of(source: Any) -> list[Path]:
    """The files of a list of maps, or the one file or folder."""
    return [Path(part).expanduser() for part in (source if is_several(source) else [source])]


def files_behind(source: Source) -> list[Path]:
    """Every file that reading a source opens: the maps of a folder, the files of a list, the file itself."""
    found = files_of(source)
    return [
        file
        for path in found
        for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
    ]


def describe(source: Source) -> str:
    """Short text of a source for messages and reports."""
    return " + ".join(map(str, files_of(source)))


def case_name(source: Source) -> str:
    """File name without folder and ending (`a/b.nii.gz` is `b`); of a list, that of its first map."""
    path = files_of(source)[0]
    ending = suffix_of(path)
    return path.name[: -len(ending)] if ending and not path.is_dir() else path.name


def maps_of(folder: Path) -> tuple[list[Path], dict[int, str]]:
    """Files of a folder with one map per region, and the names they carry.

    The order is that of `info_label.txt` where the folder has one, otherwise that of the names.

    Raises:
        InputError: a listed file is missing, or the folder holds no readable file.
    """
    listed = atlas_files(folder)
    if listed is not None:
        return [folder / name for name in listed], dict(enumerate(listed.values()))
    files = sorted(path for path in folder.iterdir() if path.is_file() and suffix_of(path) and path.name[0] != ".")
    if not files:
        raise InputError(f"{folder}: folder holds no readable file; supported are {ALLOWED}: check the path")
    return files, {index: case_name(path) for index, path in enumerate(files)}


def _matching(folder: Path, pattern: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Entries of a folder by case name, and the names that are no use with the reason."""
    cases: dict[str, Path] = {}
    faults: dict[str, str] = {}
    star = re.compile(fnmatch.translate(pattern).replace(".*", "(.*)", 1), re.IGNORECASE)
    for path in sorted(folder.iterdir()):
        found = star.match(path.name)
        if path.name.startswith(".") or not found:
            continue
        if path.is_file() and suffix_of(path) is None:
            faults[path.stem] = unsupported(path)
            continue
        name = case_name(path) if pattern == "*" or not found.groups() else case_name(found[1] or path)
        if name in cases:
            faults[name] = f"{path}: second file of case '{name}' beside {cases[name].name}: keep one, or set a pattern"
        else:
            cases[name] = path
    return cases, faults


def _folder_of_cases(source: Source) -> bool:
    first = files_of(source)[0]
    return not is_several(source) and first.is_dir() and not (first / "info_label.txt").is_file()


def find_pairs(reference: Source, prediction: Source, pattern: str | tuple[str, str] = "*") -> Pairing:
    """Pair references with predictions.

    Two folders are folders of cases, paired by name: the file name without its ending, or what the first `*` of the
    pattern stands for; a sub-folder in them is one case with one map per region. Everything else is a single case: a
    file, a list of maps, or a folder beside a file or holding `info_label.txt` (one map per region).

    Args:
        reference: file, list of maps (one per region), or folder.
        prediction: likewise.
        pattern: glob for the names in both folders, or one for each (`("*_gt.nii.gz", "*_pred.nii.gz")`).

    Returns:
        The cases in the order of their names, and one line for each that has no partner or an unsupported type.

    Raises:
        InputError: a source is missing, or a folder holds nothing that fits.
    """
    for source in (reference, prediction):
        if not files_of(source):
            raise InputError("an empty list of maps was given; give one file per region")
        for path in files_of(source):
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; give an existing one: check the path")
    if not (_folder_of_cases(reference) and _folder_of_cases(prediction)):
        several = is_several(prediction) or files_of(prediction)[0].is_dir()
        name = case_name(reference if several else prediction)
        return Pairing([Case(name, reference, prediction)], [])
    patterns = (pattern, pattern) if isinstance(pattern, str) else tuple(pattern)
    if len(patterns) != 2:
        raise InputError(f"pattern {pattern!r} has {len(patterns)} entries; give one for both folders or one each")
    folders = files_of(reference)[0], files_of(prediction)[0]
    found = [_matching(folder, glob) for folder, glob in zip(folders, patterns, strict=True)]
    for folder, glob, (cases, _) in zip(folders, patterns, found, strict=True):
        if not cases:
            held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
            raise InputError(
                f"{folder}: no readable file matches the pattern '{glob}' (it holds {held}); supported are {ALLOWED}: "
                "check the folder or the pattern"
            )
    return _join(folders, found)


def _join(folders: tuple[Path, Path], found: list[tuple[dict[str, Path], dict[str, str]]]) -> Pairing:
    (references, bad_references), (predictions, bad_predictions) = found
    cases = [Case(name, path, predictions[name]) for name, path in references.items() if name in predictions]
    faults = {}
    for here, there, folder, bad in (
        (references, predictions, folders[1], bad_predictions),
        (predictions, references, folders[0], bad_references),
    ):
        for name in here.keys() - there.keys():
            # A partner of an unsupported type is the better explanation of a missing one.
            missing = f"{here[name]}: unpaired, {folder} holds no '{name}'; names must agree: add it or set a pattern"
            faults[name] = bad.get(name) or missing
    twice = {n: line for bad in (bad_references, bad_predictions) for n, line in bad.items() if ": second file" in line}
    faults |= twice
    return Pairing(
        [case for case in cases if case.name not in twice],
        [{"case": name, "error": faults[name]} for name in sorted(faults)],
    )
