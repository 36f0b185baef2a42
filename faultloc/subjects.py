"""What the bugs of a collection are like: lines, tests, statements, faults that some test detects."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faultloc.corpus import Bug


class Subjects:
    """A collection as an experiment that describes it, one program an interval.

    Args:
        bugs: of the collection.
    """

    def __init__(self, bugs: Sequence[Bug]) -> None:
        self._bugs = list(bugs)
        self._programs = sorted({bug.program for bug in bugs})

    def __len__(self) -> int:
        return len(self._programs)

    def totals(self) -> np.ndarray:
        """Nothing is carried from interval to interval."""
        return np.zeros(0)

    def score(
        self,
        index: int,
        totals: np.ndarray,
        *,
        key: jax.Array,  # noqa: ARG002
        place: Callable[..., Any],  # noqa: ARG002
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Describe a program; the last row sums up the collection."""
        program = self._programs[index]
        row = {"program": program, **describe([bug for bug in self._bugs if bug.program == program])}
        if index == len(self) - 1:
            row |= {"summary": {"programs": len(self), **describe(self._bugs)}}
        return totals, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """The rows are all there is to show."""


def describe(bugs: Sequence[Bug]) -> dict[str, Any]:
    """Numbers of some bugs, all of which some test detects: means where not said otherwise."""
    spectra = [bug.recording.spectrum for bug in bugs]
    row: dict[str, Any] = {
        "faults": len(bugs),
        "reachable": sum(bug.reachable for bug in bugs),
        "omissions": sum(bug.kind == "omission" for bug in bugs),
        "lines": float(np.mean([spectrum.size for spectrum in spectra])),
        "least_lines": min(spectrum.size for spectrum in spectra),
        "most_lines": max(spectrum.size for spectrum in spectra),
        "tests": float(np.mean([spectrum.tests for spectrum in spectra])),
        "failing": float(np.mean([np.sum(spectrum.failed) for spectrum in spectra])),
        "faulty_lines": float(np.mean([len(bug.faulty) for bug in bugs])),
    }
    if all(bug.tree is not None for bug in bugs):
        row["statements"] = float(np.mean([len(bug.statements().symbols) for bug in bugs]))
    return row
