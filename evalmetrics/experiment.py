"""Scoring as an experiment: one case an interval, over the user's files or a public benchmark."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from evalmetrics import scoring
from evalmetrics.io import InputError
from evalmetrics.options import Kernel, Match, Pairs, Regions, Scoring, Statistics, Zeros


class State(NamedTuple):
    """Everything needed to go on after case number `step`."""

    step: np.ndarray
    key: jax.Array
    totals: Any


@dataclass(frozen=True)
class Evaluation:
    """Scores cases one by one.

    `data` is an option with a method `source(scoring)`; without it the cases are those of `pairs`. A source has a
    length, `totals()` before the first case, `score(index, totals, key=, place=) -> (totals, row)` and, if it has
    something to show, `report(rows, folder)`. The batch axis that `place` spreads is that of the voxels.
    """

    pairs: Pairs
    kernel: Kernel
    zeros: Zeros
    match: Match
    regions: Regions
    statistics: Statistics
    data: Any = None

    @cached_property
    def source(self) -> Any:
        """The cases."""
        how = Scoring(
            kernel=self.kernel, zeros=self.zeros, match=self.match, regions=self.regions, statistics=self.statistics
        )
        if self.data is None:
            return scoring.Files(self.pairs, how)
        if self.pairs.reference or self.pairs.prediction:
            raise InputError("pairs.reference, pairs.prediction: not read by a benchmark; leave out these or data=NAME")
        return self.data.source(how)

    def inputs(self) -> dict[str, list[int]]:
        """Absolute path of every file of the user's cases, with its size and time of change."""
        return self.source.inputs() if self.data is None else {}

    def length(self) -> int:
        """Number of cases."""
        return len(self.source)

    def init(self, key: jax.Array) -> State:
        """State before the first case."""
        return State(np.zeros((), np.int64), key, self.source.totals())

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Score the cases from `state.step` on; see `quartet.drive`."""
        for index in range(int(state.step), self.length()):
            key = jax.random.fold_in(state.key, index)
            totals, row = self.source.score(index, state.totals, key=key, place=place)
            state = State(np.asarray(index + 1), state.key, totals)
            yield state, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write pages and pictures of a finished run, where its source has any."""
        if hasattr(self.source, "report"):
            self.source.report(rows, folder)
