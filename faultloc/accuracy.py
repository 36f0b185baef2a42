"""Score a ranker on bugs whose faulty lines are known, programs held out one after the other."""

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc import metrics, stats
from faultloc.corpus import Bug
from faultloc.io import InputError
from faultloc.rankers import Formula
from faultloc.writing import whole

TOPS = (1, 5, 10, 50, 200)
MASSES = (1, 10, 50, 200)
BINS = (0.0, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.4, 1.0)  # edges of the probabilities of a reliability plot
REFERENCES = ("tarantula", "ochiai", "op2")


class Totals(NamedTuple):
    """What is known of the bugs scored so far; NaN for those to come.

    Attributes:
        bands: `[bugs, 4]` see `metrics.Band`.
        precision: `[bugs]` average precision.
        rank: `[bugs]` mean rank of all faulty lines.
        surprise: `[bugs]` negative log-probability of the faulty lines together, for a ranker that gives probabilities.
        mass: `[bugs, 4]` probability of the first 1, 10, 50 and 200 lines, likewise.
        brier: `[bugs]` sum over lines of (p - y)^2, y being the share of the fault at the line, likewise.
        bins: `[bugs, 8, 2]` sums of p and of y over the lines with p between two of `BINS`, likewise.
    """

    bands: np.ndarray
    precision: np.ndarray
    rank: np.ndarray
    surprise: np.ndarray
    mass: np.ndarray
    brier: np.ndarray
    bins: np.ndarray


class HeldOut:
    """Leave one program out, learn from the others, rank the lines of its bugs.

    Args:
        bugs: of a collection.
        ranker: see `faultloc.rankers`.
        resamples: of the bootstrap over clusters.
        level: of the intervals.

    Raises:
        InputError: the ranker learns, and there is no second program to learn from.
    """

    def __init__(self, bugs: Sequence[Bug], ranker: Any, *, resamples: int, level: float) -> None:
        self.bugs, self.ranker, self.resamples, self.level = list(bugs), ranker, resamples, level
        self.programs = sorted({bug.program for bug in self.bugs})
        if ranker.learns and len(self.programs) < 2:
            raise InputError(
                f"corpus: {ranker.name} learns from the bugs of other programs, and there are bugs of "
                f"{len(self.programs)}; give those of at least two, or rank by a formula such as ranker=ochiai"
            )
        self._bands: np.ndarray | None = None
        self._bins = np.zeros((0, len(BINS) - 1, 2))
        self._folds: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.programs)

    def totals(self) -> Totals:
        """Nothing scored yet."""
        size = len(self.bugs)
        bins = (size, len(BINS) - 1, 2)
        shapes = ((size, 4), (size,), (size,), (size,), (size, len(MASSES)), (size,), bins)
        return Totals(*(np.full(shape, np.nan) for shape in shapes))

    def score(
        self,
        index: int,
        totals: Totals,
        *,
        key: jax.Array,
        place: Callable[..., Any],
    ) -> tuple[Totals, dict[str, Any]]:
        """Rank the bugs of one program after learning from all others.

        Args:
            index: of the program.
            totals: so far.
            key: of what is random in learning, and in the intervals of the last row.
            place: puts the lines to learn from onto the devices.

        Returns:
            Totals with this program, and its row: the mean figures of its bugs, for the last program those of all.
        """
        program = self.programs[index]
        fitted = self.fitted(program, key, place)
        here = [i for i, bug in enumerate(self.bugs) if bug.program == program]
        for i in here:
            bug = self.bugs[i]
            scores = _scores(self.ranker, fitted, bug)
            totals.bands[i] = metrics.band(scores, bug.faulty)
            totals.precision[i] = metrics.average_precision(scores, bug.faulty)
            totals.rank[i] = metrics.average_rank(scores, bug.faulty)
            if fitted.probabilistic:
                totals.surprise[i] = -np.logaddexp.reduce(scores[bug.faulty])
                totals.mass[i] = [np.exp(np.sort(scores)[::-1][:n]).sum() for n in MASSES]
                totals.brier[i], totals.bins[i] = reliability(np.exp(scores), bug.faulty)
        if index < len(self) - 1:
            return totals, {"program": program, "bugs": len(here), **_figures(Totals(*(x[here] for x in totals)))}
        self._bands, self._bins = totals.bands, totals.bins
        return totals, {"program": program, **self._summary(totals, key)}

    def fitted(self, program: str, key: jax.Array, place: Callable[..., Any]) -> Any:
        """What was learned without a program; a ranker that can learns all folds together, once."""
        if hasattr(self.ranker, "fit_folds"):
            if self._folds is None:
                self._folds = self.ranker.fit_folds(self.bugs, place)
            return self._folds[program]
        return self.ranker.fit([bug for bug in self.bugs if bug.program != program], key)

    def _summary(self, totals: Totals, key: jax.Array) -> dict[str, Any]:
        clusters = np.array([bug.cluster for bug in self.bugs])
        row: dict[str, Any] = {"bugs": len(self.bugs), **_figures(totals)}
        for ties in metrics.TIES:
            ours = _skipped(totals.bands, ties)
            interval = stats.clustered_interval(ours, clusters, key, samples=self.resamples, level=self.level)
            row |= {f"low/{ties}": interval.low, f"high/{ties}": interval.high}
        reachable = np.array([bug.reachable for bug in self.bugs])
        row["reachable"] = int(reachable.sum())
        for ties in metrics.TIES:
            row[f"reachable/{ties}"] = float(_skipped(totals.bands, ties)[reachable].mean())
        for name in REFERENCES:
            row |= self._against(name, Formula(name), totals, clusters, key)
        if all(bug.tree is not None for bug in self.bugs):
            row |= self._against("inside_first", Formula("op2", inside_first=True), totals, clusters, key)
        return row | getattr(self.ranker, "found", {})

    def _against(
        self, name: str, other: Formula, totals: Totals, clusters: np.ndarray, key: jax.Array
    ) -> dict[str, float]:
        """Differences to another ranker on the same bugs, with intervals and paired tests."""
        theirs = np.array([metrics.band(_scores(other, other, bug), bug.faulty) for bug in self.bugs])
        row: dict[str, float] = {}
        for ties in metrics.TIES:
            pair = _skipped(totals.bands, ties), _skipped(theirs, ties)
            found = stats.paired(*pair)
            interval = stats.clustered_interval(
                pair[0] - pair[1], clusters, key, samples=self.resamples, level=self.level
            )
            prefix = f"minus_{name}/{ties}"
            row |= {prefix: found.difference, f"{prefix}/low": interval.low, f"{prefix}/high": interval.high}
            row |= {f"{prefix}/p": found.p_value, f"{prefix}/wins": found.wins, f"{prefix}/losses": found.losses}
        return row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:  # noqa: ARG002
        """Write `bugs.csv`, one line a bug, `curve.json`, the examination curve, and `reliability.png`."""
        if self._bands is None:
            return
        with whole(folder / "bugs.csv") as file:
            writer = csv.writer(file)
            writer.writerow(["bug", "program", "kind", "reachable", *metrics.Band._fields, *metrics.TIES])
            for bug, found in zip(self.bugs, _bands(self._bands), strict=True):
                skipped = [f"{metrics.fraction_skipped(found, ties):.6f}" for ties in metrics.TIES]
                writer.writerow([bug.name, bug.program, bug.kind, int(bug.reachable), *found, *skipped])
        at = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]
        curves = {
            ties: metrics.examination_curve(_skipped(self._bands, ties).tolist(), at).tolist() for ties in metrics.TIES
        }
        if len(self._bins) and not np.isnan(self._bins).any():
            _plot(self._bins, folder / "reliability.png")
        with whole(folder / "curve.json") as file:
            json.dump({"examined": at, "found": curves}, file, indent=1)


def figures(bugs: Sequence[Bug], ranker: Formula) -> dict[str, float]:
    """Mean figures of a formula, which learns nothing, over bugs."""
    bands = np.array([metrics.band(_scores(ranker, ranker, bug), bug.faulty) for bug in bugs], np.float64)
    return _places(bands)


def _scores(ranker: Any, fitted: Any, bug: Bug) -> np.ndarray:
    return fitted.scores(bug.recording, bug.statements() if ranker.needs_tree else None)


def _bands(table: np.ndarray) -> list[metrics.Band]:
    return [metrics.Band(*map(int, row)) for row in table]


def _skipped(table: np.ndarray, ties: metrics.Ties) -> np.ndarray:
    return np.array([metrics.fraction_skipped(entry, ties) for entry in _bands(table)])


def _figures(totals: Totals) -> dict[str, float]:
    """Means over bugs."""
    row = _places(totals.bands)
    row["mar"], row["map"] = float(totals.rank.mean()), float(totals.precision.mean())
    row["wasted"] = float(np.mean([metrics.wasted_effort(entry) for entry in _bands(totals.bands)]))
    if not np.isnan(totals.surprise).any():
        row["nll"] = float(totals.surprise.mean())
        row |= {f"mass/{n}": float(mass) for n, mass in zip(MASSES, totals.mass.mean(0), strict=True)}
        given, found = totals.bins.sum(0).T
        row["brier"], row["ece"] = float(totals.brier.mean()), float(np.abs(given - found).sum() / given.sum())
    return row


def _places(bands: np.ndarray) -> dict[str, float]:
    """How far down the fault stands, on the mean."""
    found = _bands(bands)
    row: dict[str, float] = {f"fs/{ties}": float(_skipped(bands, ties).mean()) for ties in metrics.TIES}
    row |= {f"top/{n}": float(np.mean([metrics.top(entry, n) for entry in found])) for n in TOPS}
    return row | {"mfr": float(np.mean([metrics.first_rank(entry) for entry in found]))}


def reliability(probability: np.ndarray, faulty: np.ndarray) -> tuple[float, np.ndarray]:
    """Brier score of a posterior over lines, and what its probabilities were worth by their size.

    Args:
        probability: `[L]`, adding up to one.
        faulty: indices of the faulty lines; a fault of several is at each of them with an equal share.

    Returns:
        Sum over lines of (p - y)^2, and `[8, 2]` sums of p and of y between two of `BINS` each. The expected
        calibration error adds up their differences over all bugs.
    """
    share = np.zeros(len(probability))
    share[np.unique(faulty)] = 1 / len(np.unique(faulty))
    place = np.clip(np.searchsorted(BINS, probability, side="left") - 1, 0, len(BINS) - 2)
    sums = [np.bincount(place, each, len(BINS) - 1) for each in (probability, share)]
    return float(((probability - share) ** 2).sum()), np.stack(sums, axis=1)


def _plot(bins: np.ndarray, file: Path) -> None:
    """Probability that was given against the share of the faults that was found, by size of the probability."""
    from matplotlib.figure import Figure

    given, found = bins.sum(0).T
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(BINS)]
    place = np.arange(len(labels))
    axes.bar(place - 0.2, given / len(bins), 0.4, label="probability given")
    axes.bar(place + 0.2, found / len(bins), 0.4, label="faults found")
    axes.set_xticks(place, labels, rotation=30, ha="right")
    axes.set(xlabel="probability of a line", ylabel="share of all bugs")
    axes.legend()
    figure.savefig(file, dpi=150)
