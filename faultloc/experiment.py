"""Fault localization as an experiment: a project or spectrum of the user, or a collection of known bugs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc.options import Display, Statistics, Task


class State(NamedTuple):
    """Everything needed to go on after interval number `step`."""

    step: np.ndarray
    key: jax.Array
    totals: Any


@dataclass(frozen=True)
class Localization:
    """Ranks the lines of programs.

    `corpus` is an option with a method `source(ranker, statistics, display, task)`. A source has a length, `totals()`
    before the first interval, `score(index, totals, key=, place=) -> (totals, row)` and `report(rows, folder)`.
    """

    corpus: Any
    ranker: Any
    statistics: Statistics
    display: Display
    task: Task

    @cached_property
    def source(self) -> Any:
        """What is ranked."""
        return self.corpus.source(self.ranker, self.statistics, self.display, self.task)

    def length(self) -> int:
        """Number of intervals: programs held out, or the one that is ranked."""
        return len(self.source)

    def init(self, key: jax.Array) -> State:
        """State before the first interval."""
        return State(np.zeros((), np.int64), key, self.source.totals())

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`."""
        for index in range(int(state.step), self.length()):
            key = jax.random.fold_in(state.key, index)
            totals, row = self.source.score(index, state.totals, key=key, place=place)
            state = State(np.asarray(index + 1), state.key, totals)
            yield state, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Print the list and write the pages of a finished run."""
        self.source.report(rows, folder)
