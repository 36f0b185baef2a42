"""Rank the lines of a program whose tests fail, with the reasons for their places."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc import faultsets, formulas, grammars, intervals, metrics, spectrum, tree
from faultloc.io import InputError, Recording
from faultloc.options import Statistics

BUDGET = 10**11  # entries of the coverage matrix that the intervals may look at: some seconds
FEWEST = 100  # draws, however large the program
SETS = 5  # of faults that explain every failing test


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
        low, high: interval of its mid rank when the tests are drawn anew; None for a learned ranker.
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


class Basis(NamedTuple):
    """What stays when lines become known to be sound or faulty; `[L]` each but `score`.

    Attributes:
        score: scores of the lines, given indices of clean and of buggy ones; None where the ranker cannot condition.
        counts: failing and passing tests.
        bounds: intervals of the ranks, None for a learned ranker.
        scope, symbol, text, reason: see `Suspect`.
    """

    score: Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray] | None
    counts: spectrum.Counts
    bounds: intervals.Bounds | None
    scope: tuple[str, ...]
    symbol: tuple[str, ...]
    text: tuple[str, ...]
    reason: tuple[str, ...]


class Ranking(NamedTuple):
    """A ranked program.

    Attributes:
        case: what was ranked.
        ranker: name of what ranked it.
        suspects: every line some failing test ran and that is not known to be sound or faulty, best first.
        beside: mid rank of every line by other formulas, `[L]` each, by name.
        ranks: `[L]` mid rank of every line.
        notes: what a reader should know.
        clean, buggy: indices of the lines that are known.
        sets: places that together explain every failing test, best first, and the log-probability of each set.
        basis: to rank again.
    """

    case: Case
    ranker: str
    suspects: tuple[Suspect, ...]
    beside: dict[str, np.ndarray]
    ranks: np.ndarray
    notes: tuple[str, ...]
    clean: tuple[int, ...]
    buggy: tuple[int, ...]
    sets: tuple[tuple[tuple[tuple[str, int], ...], float], ...]
    basis: Basis


def rank(
    case: Case,
    ranker: Any,
    beside: Iterable[str],
    key: jax.Array,
    statistics: Statistics,
    bugs: Sequence[Any] = (),
) -> Ranking:
    """Rank the lines of a program.

    Args:
        case: with its coverage.
        ranker: what scores, see `faultloc.rankers`.
        beside: formulas shown for comparison.
        key: of the tests drawn anew for the intervals.
        statistics: number of draws and level of the intervals.
        bugs: to learn from; none leaves that to the ranker.

    Raises:
        InputError: no test fails, or no failing test runs a line.
    """
    given, counts = case.recording, spectrum.counts(case.recording.spectrum)
    _demand(case, counts)
    parsed, faults = grammars.parse(case.texts)
    notes = [*given.notes, *faults.values()]
    statements = _statements(parsed, given)
    fitted = ranker.fit(bugs, key)
    score = fitted.scorer(given, statements) if fitted.probabilistic else None
    scores = fitted.scores(given, statements) if score is None else score((), ())
    bounds = None
    if fitted.formula is not None:
        samples = min(statistics.resamples, max(BUDGET // (given.spectrum.tests * given.spectrum.size), FEWEST))
        if samples < statistics.resamples:
            notes.append(f"the program is large: its intervals come from {samples} draws of the tests")
        leading = statements.inside if ranker.needs_tree and statements else None
        bounds = intervals.rank_intervals(
            given.spectrum, fitted.formula, key, leading=leading, samples=samples, level=statistics.level
        )
    if counts.passing == 0:
        notes.append("no test passed: the lines of the failing tests cannot be told apart by passing ones")
    basis = _basis(case, score, counts, bounds, statements, fitted.reasons(given, statements))
    others = {name: metrics.mid_ranks(np.asarray(formulas.get(name)(counts))) for name in beside if name != ranker.name}
    return _ranking(case, ranker.name, scores, others, tuple(notes), (), (), basis)


def rerank(found: Ranking, clean: Iterable[int], buggy: Iterable[int]) -> Ranking:
    """Rank again after some lines became known, exactly and without looking at the program anew.

    Args:
        found: an earlier ranking of the same program.
        clean: indices of all lines known to be sound.
        buggy: of those known to be faulty; the others are ranked as places of one more fault.

    Raises:
        InputError: the ranker cannot condition, or a line is known to be both.
    """
    clean, buggy = tuple(sorted(set(clean))), tuple(sorted(set(buggy)))
    if found.basis.score is None:
        raise InputError(f"task: {found.ranker} is a formula and cannot be told what is known; choose ranker=posterior")
    if both := set(clean) & set(buggy):
        file, line = place(found.case.recording, min(both))
        raise InputError(f"task: {file}:{line} is named both clean and buggy")
    scores = found.basis.score(clean, buggy)
    return _ranking(found.case, found.ranker, scores, found.beside, found.notes, clean, buggy, found.basis)


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


def _demand(case: Case, counts: spectrum.Counts) -> None:
    if counts.failing == 0:
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(case.outcomes.items()))
        raise InputError(
            f"{case.title}: no failing test ran a line of the program ({told}); without one no line is more suspect "
            "than another: add a test that shows the bug, or name the right ones with corpus.arguments=[FILE]"
        )
    if not counts.ef.any():
        raise InputError(f"{case.title}: no failing test ran a line that can be ranked; name the source (corpus.watch)")


def _statements(parsed: tree.Tree, given: Recording) -> tree.Statements | None:
    """The statements, where every file has a tree."""
    number = {file: index for index, file in enumerate(parsed.files)}
    if not all(file in number for file in given.files):
        return None
    return tree.statements(parsed, np.array([number[file] for file in given.files])[given.file], given.lines)


def _basis(
    case: Case,
    score: Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray] | None,
    counts: spectrum.Counts,
    bounds: intervals.Bounds | None,
    statements: tree.Statements | None,
    reasons: Sequence[str],
) -> Basis:
    given = case.recording
    scopes = {file: tree.scopes(text) if file.endswith(".py") else {} for file, text in case.texts.items()}
    texts = {file: text.splitlines() for file, text in case.texts.items()}
    scope, symbol, text, reason = [], [], [], []
    for i in range(len(given.lines)):
        file, line = place(given, i)
        lines = texts.get(file, [])
        scope.append(scopes.get(file, {}).get(line, ""))
        symbol.append(statements.symbols[statements.owner[i]] if statements else "")
        text.append(lines[line - 1] if line <= len(lines) else "")
        run = f"run by {int(counts.ef[i])} of {int(counts.failing)} failing and "
        run += f"{int(counts.ep[i])} of {int(counts.passing)} passing tests"
        reason.append(f"{run}; {reasons[i]}" if reasons[i] else run)
    return Basis(score, counts, bounds, tuple(scope), tuple(symbol), tuple(text), tuple(reason))


def _ranking(
    case: Case,
    ranker: str,
    scores: np.ndarray,
    beside: dict[str, np.ndarray],
    notes: tuple[str, ...],
    clean: tuple[int, ...],
    buggy: tuple[int, ...],
    basis: Basis,
) -> Ranking:
    given = case.recording
    sets: list[faultsets.FaultSet] = []
    if basis.score is not None:
        failed = np.asarray(given.spectrum.failed, bool)
        run = np.asarray(given.spectrum.covered(), bool)[failed]
        sets = faultsets.best(scores, run[~run[:, list(buggy)].any(1)], SETS)
    named = tuple((tuple(place(given, i) for i in entry.lines), entry.score) for entry in sets)
    suspects = _suspects(given, scores, basis, {*clean, *buggy})
    return Ranking(
        case, ranker, suspects, beside, metrics.mid_ranks(scores), notes, clean, buggy, named, basis
    )  # fmt: skip


def _suspects(given: Recording, scores: np.ndarray, basis: Basis, known: set[int]) -> tuple[Suspect, ...]:
    first, last = metrics.tie_bands(scores)
    ef, ep, bounds = basis.counts.ef, basis.counts.ep, basis.bounds
    chosen = [i for i in np.flatnonzero(ef > 0).tolist() if i not in known]
    return tuple(
        Suspect(
            *place(given, i),
            float(scores[i]),
            int(first[i]),
            int(last[i]),
            float(bounds.low[i]) if bounds else None,
            float(bounds.high[i]) if bounds else None,
            float(np.exp(scores[i])) if basis.score else None,
            int(ef[i]),
            int(ep[i]),
            basis.scope[i],
            basis.symbol[i],
            basis.text[i],
            basis.reason[i],
        )
        for i in sorted(chosen, key=lambda i: (first[i], given.file[i], given.lines[i]))
    )
