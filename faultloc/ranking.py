"""Rank the lines of a program whose tests fail, with the reasons for their places."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc import formulas, intervals, metrics, spectrum, tree
from faultloc.io import InputError, Recording
from faultloc.options import Statistics

BUDGET = 10**11  # entries of the coverage matrix that the intervals may look at: some seconds
FEWEST = 100  # draws, however large the program


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


class Ranking(NamedTuple):
    """A ranked program.

    Attributes:
        case: what was ranked.
        ranker: name of what ranked it.
        suspects: every line some failing test ran, best first.
        beside: mid rank of every line by other formulas, `[L]` each, by name.
        ranks: `[L]` mid rank of every line.
        notes: what a reader should know.
    """

    case: Case
    ranker: str
    suspects: tuple[Suspect, ...]
    beside: dict[str, np.ndarray]
    ranks: np.ndarray
    notes: tuple[str, ...]


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
    given = case.recording
    counts = spectrum.counts(given.spectrum)
    if counts.failing == 0:
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(case.outcomes.items()))
        raise InputError(
            f"{case.title}: no failing test ran a line of the program ({told}); without one no line is more suspect "
            "than another: add a test that shows the bug, or name the right ones with corpus.arguments=[FILE]"
        )
    if not counts.ef.any():
        raise InputError(f"{case.title}: no failing test ran a line that can be ranked; name the source (corpus.watch)")
    parsed, _ = tree.from_python({file: text for file, text in case.texts.items() if file.endswith(".py")})
    statements = _statements(parsed, given)
    fitted = ranker.fit(bugs, key)
    scores = fitted.scores(given, statements)
    bounds, notes = None, list(given.notes)
    if fitted.formula is not None:
        samples = min(statistics.resamples, max(BUDGET // (given.spectrum.tests * given.spectrum.size), FEWEST))
        if samples < statistics.resamples:
            notes.append(f"the program is large: its intervals come from {samples} draws of the tests")
        leading = statements.inside if ranker.needs_tree and statements else None
        bounds = intervals.rank_intervals(
            given.spectrum,
            fitted.formula,
            key,
            leading=leading,
            samples=samples,
            level=statistics.level,
        )
    reasons = fitted.reasons(given, statements)
    if counts.passing == 0:
        notes.append("no test passed: the lines of the failing tests cannot be told apart by passing ones")
    suspects = _suspects(case, scores, counts, statements, bounds, reasons, fitted.probabilistic)
    others = {name: metrics.mid_ranks(np.asarray(formulas.get(name)(counts))) for name in beside if name != ranker.name}
    return Ranking(case, ranker.name, suspects, others, metrics.mid_ranks(scores), tuple(notes))


def _statements(parsed: tree.Tree, given: Recording) -> tree.Statements | None:
    """The statements, where every file has a tree."""
    number = {file: index for index, file in enumerate(parsed.files)}
    if not all(file in number for file in given.files):
        return None
    return tree.statements(parsed, np.array([number[file] for file in given.files])[given.file], given.lines)


def _suspects(
    case: Case,
    scores: np.ndarray,
    counts: spectrum.Counts,
    statements: tree.Statements | None,
    bounds: intervals.Bounds | None,
    reasons: list[str],
    probabilistic: bool,
) -> tuple[Suspect, ...]:
    given = case.recording
    first, last = metrics.tie_bands(scores)
    scopes = {file: tree.scopes(text) if file.endswith(".py") else {} for file, text in case.texts.items()}
    texts = {file: text.splitlines() for file, text in case.texts.items()}
    failing, passing = int(counts.failing), int(counts.passing)
    found = []
    for i in sorted(np.flatnonzero(counts.ef > 0), key=lambda i: (first[i], given.file[i], given.lines[i])):
        file, line = given.files[given.file[i]], int(given.lines[i])
        ef, ep = int(counts.ef[i]), int(counts.ep[i])
        lines = texts.get(file, [])
        found.append(
            Suspect(
                file,
                line,
                float(scores[i]),
                int(first[i]),
                int(last[i]),
                float(bounds.low[i]) if bounds else None,
                float(bounds.high[i]) if bounds else None,
                float(np.exp(scores[i])) if probabilistic else None,
                ef,
                ep,
                scopes.get(file, {}).get(line, ""),
                statements.symbols[statements.owner[i]] if statements else "",
                lines[line - 1] if line <= len(lines) else "",
                f"run by {ef} of {failing} failing and {ep} of {passing} passing tests"
                + (f"; {reasons[i]}" if reasons[i] else ""),
            )
        )
    return tuple(found)
