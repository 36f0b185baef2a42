"""Practice on synthetic bugs: make mutants of an installed package, learn from some, find the others.

The first intervals make one mutant each; the last one holds out each mutated file in turn, learns from the mutants of
the other files, and ranks the lines for those of the file. What is printed is the bug that stands in the middle of the
others: half of them are found sooner.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc import metrics, report, synthetic, triage
from faultloc.accuracy import HeldOut, figures
from faultloc.cases import Case
from faultloc.corpus import Bug
from faultloc.io import InputError
from faultloc.options import Display, Mutants, Statistics, Task
from faultloc.rankers import Formula
from faultloc.ranking import Ranking, rank

REFERENCES = ("ochiai", "tarantula", "op2")
COLUMNS = ("fs/strict", "fs/mid", "fs/best", "top/1", "top/5", "top/10", "mfr")


class Totals(NamedTuple):
    """What the mutants made so far did.

    Attributes:
        next: number of the mutant to try next.
        number: `[M]` of each; -1 for one that is still to be made, or that there is not.
        bits: `[M, T, ceil(L / 8)]` coverage.
        failed: `[M, T]`.
    """

    next: np.ndarray
    number: np.ndarray
    bits: np.ndarray
    failed: np.ndarray


class Exercise:
    """Mutants of one package as an experiment.

    Args:
        options: which package, how many mutants.
        ranker: see `faultloc.rankers`.
        display: what is shown.
        statistics: of the intervals.
        task: what is known of the bug that is shown, and whether more is asked for.
    """

    def __init__(
        self, options: Mutants, ranker: Any, display: Display, statistics: Statistics, task: Task
    ) -> None:  # fmt: skip
        self._options, self._ranker, self._display, self._statistics = options, ranker, display, statistics
        self._task = task
        self._ranking: Ranking | None = None
        self._scored: HeldOut | None = None
        self._rows: dict[str, dict[str, float]] = {}

    @property
    def _workshop(self) -> synthetic.Workshop:
        return synthetic.workshop(self._options.package, self._options.seed, self._options.test_timeout)

    def __len__(self) -> int:
        return self._options.count + 1

    def totals(self) -> Totals:
        """No mutant made yet."""
        tests, width = self._workshop.recording.spectrum.bits.shape
        count = self._options.count
        bits, failed = np.zeros((count, tests, width), np.uint8), np.zeros((count, tests), bool)
        return Totals(np.zeros((), np.int64), np.full(count, -1), bits, failed)

    def score(
        self,
        index: int,
        totals: Totals,
        *,
        key: jax.Array,
        place: Callable[..., Any],
    ) -> tuple[Totals, dict[str, Any]]:
        """Make a mutant; after the last one, learn and rank."""
        if index == self._options.count:
            return totals, self._evaluate(totals, key, place)
        found = self._workshop.after(int(totals.next))
        if found is None:
            return totals, {"case": f"{self._options.package} has no further mutant"}
        number, bits, failed = totals.number.copy(), totals.bits.copy(), totals.failed.copy()
        number[index], bits[index], failed[index] = found.number, found.bits, found.failed
        mutant = found.mutant
        row = {"case": f"{mutant.path}:{mutant.line} {mutant.operator}", "failing": int(found.failed.sum())}
        return Totals(np.asarray(found.number + 1), number, bits, failed), row

    def _evaluate(self, totals: Totals, key: jax.Array, place: Callable[..., Any]) -> dict[str, Any]:
        made = np.flatnonzero(totals.number >= 0)
        bugs = [self._workshop.bug(int(totals.number[i]), totals.bits[i], totals.failed[i]) for i in made]
        if len({bug.program for bug in bugs}) < 2:
            raise InputError(
                f"corpus.mutants: {len(bugs)} mutants of {self._options.package} lie in fewer than two files; one is "
                "held out while the others are learned from: ask for more"
            )
        held = HeldOut(bugs, self._ranker, resamples=self._statistics.resamples, level=self._statistics.level)
        scored, row = held.totals(), dict[str, Any]()
        for index in range(len(held)):
            scored, row = held.score(index, scored, key=key, place=place)
        self._scored = held
        self._rows = {self._ranker.name: {name: row[name] for name in COLUMNS}}
        for name in REFERENCES:
            if name != self._ranker.name:
                self._rows[name] = figures(bugs, Formula(name))
        ranks = [metrics.first_rank(metrics.Band(*map(int, band))) for band in scored.bands]
        typical = bugs[int(np.argsort(ranks, kind="stable")[len(bugs) // 2])]
        self._ranking = self._show(typical, held.fitted(typical.program, key, place), key)
        kept = {name: value for name, value in row.items() if name in ("bugs", *COLUMNS) or name.startswith("mass/")}
        return {"files": len(held)} | kept

    def _show(self, bug: Bug, fitted: Any, key: jax.Array) -> Ranking:
        """Rank the lines for one bug by what was learned from the bugs of other files."""
        mutant = self._workshop.mutant(int(bug.name.rsplit(":", 1)[1]))
        assert mutant is not None
        failed = bug.recording.spectrum.failed
        notes = (
            f"a synthetic bug, made for this run: {mutant.path}:{mutant.line} had {mutant.before!r} where it now has "
            f"{mutant.after!r}; nothing was learned from mutants of this file",
            *self._workshop.notes,
        )
        failures = tuple((name, "") for name, bad in zip(bug.recording.tests, failed, strict=True) if bad)
        case = Case(
            f"a mutant of {self._options.package}",
            self._workshop.root,
            bug.recording._replace(notes=notes),
            self._workshop.texts | {mutant.path: mutant.text},
            {"failed": int(failed.sum()), "passed": int((~failed).sum())},
            failures,
        )
        found = rank(case, self._ranker, self._display.beside, key, self._statistics, fitted)
        return triage.start(found, self._task.clean, self._task.buggy)

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Print how the rankers compare and the list of the typical bug; write the pages."""
        if self._ranking is None or self._scored is None:
            return
        self._scored.report(rows, folder)
        report.say("\n".join(self._summary()))
        triage.finish(self._ranking, folder, self._display, self._task)

    def _summary(self) -> list[str]:
        assert self._scored is not None
        bugs, files = len(self._scored.bugs), len(self._scored)
        lines = [
            f"{bugs} synthetic bugs in {files} files of {self._options.package}, one file held out at a time",
            f"{'':<14}{''.join(f'{name:>10}' for name in COLUMNS)}",
        ]
        for name, found in self._rows.items():
            lines.append(f"{name:<14}{''.join(f'{found[column]:>10.3f}' for column in COLUMNS)}")
        return [*lines, "The bug in the middle of them:", ""]
