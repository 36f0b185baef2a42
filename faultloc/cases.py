"""A program whose tests fail, and how its lines are named."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from faultloc.io import InputError, Recording


class Case(NamedTuple):
    """A program whose tests fail.

    Attributes:
        title: what it is called.
        root: folder that the paths of files are relative to.
        recording: coverage and outcomes.
        texts: source of each file, as far as it can be read.
        outcomes: number of tests by outcome.
        failures: name and message of each failing test.
    """

    title: str
    root: Path
    recording: Recording
    texts: dict[str, str]
    outcomes: dict[str, int]
    failures: tuple[tuple[str, str], ...]


class Suspect(NamedTuple):
    """A line and why it stands where it stands.

    Attributes:
        file: path relative to the root of the case.
        line: its number.
        score: of the ranker.
        first, last: places it can have, from 1, when equal scores are put in any order.
        low, high: interval of its mid rank when the tests are drawn anew; None once something is known of other lines.
        probability: that the one fault is here, by a learned ranker; None for a formula.
        ef, ep: failing and passing tests that ran it.
        scope: function around it, may be empty.
        symbol: kind of statement, may be empty.
        text: of the line.
        reason: one sentence.
    """

    file: str
    line: int
    score: float
    first: int
    last: int
    low: float | None
    high: float | None
    probability: float | None
    ef: int
    ep: int
    scope: str
    symbol: str
    text: str
    reason: str


def locate(recording: Recording, name: str) -> int:
    """Index of the line that `FILE:LINE` names; the end of a path is enough where only one file ends so.

    Raises:
        InputError: there is no such line.
    """
    file, _, number = name.strip().rpartition(":")
    fitting = [f for f in recording.files if f == file] or [f for f in recording.files if f.endswith(f"/{file}")]
    if len(fitting) != 1 or not number.isdigit():
        known = ", ".join(recording.files[:5]) + (", ..." if len(recording.files) > 5 else "")
        raise InputError(f"{name}: is not FILE:LINE of one file of the program ({known})")
    lines = recording.lines[recording.file == recording.files.index(fitting[0])]
    if int(number) not in lines:
        nearest = int(lines[np.abs(lines - int(number)).argmin()])
        raise InputError(f"{name}: holds no instruction; the nearest line of {fitting[0]} that does is {nearest}")
    chosen = (recording.file == recording.files.index(fitting[0])) & (recording.lines == int(number))
    return int(np.flatnonzero(chosen)[0])


def place(recording: Recording, index: int) -> tuple[str, int]:
    """File and number of a line."""
    return recording.files[recording.file[index]], int(recording.lines[index])
