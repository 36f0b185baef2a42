"""Rank the lines of a program whose tests fail, with the reasons for their places."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from faultloc import faultsets, formulas, grammars, intervals, metrics, spectrum, tree
from faultloc.cases import Case, Suspect, place
from faultloc.io import InputError, Recording, noted, source_lines
from faultloc.options import Statistics

BUDGET = 10**11  # entries of the coverage matrix that the intervals may look at: some seconds
FEWEST = 100  # draws, however large the program
SETS = 5  # of faults that explain every failing test


class Basis(NamedTuple):
    """What stays when lines become known to be sound or faulty; `[L]` each but `score`.

    Attributes:
        score: scores of the lines, given indices of clean and of buggy ones; None where the ranker cannot condition.
        counts: failing and passing tests.
        bounds: intervals of the ranks before anything was known.
        scope, symbol, text, reason: see `Suspect`.
    """

    score: Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray] | None
    counts: spectrum.Counts
    bounds: intervals.Bounds
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
    fitted: Any = None,
) -> Ranking:
    """Rank the lines of a program.

    Args:
        case: with its coverage.
        ranker: what scores, see `faultloc.rankers`.
        beside: formulas shown for comparison.
        key: of the tests drawn anew for the intervals.
        statistics: number of draws and level of the intervals.
        fitted: what the ranker learned before; None lets it learn, or take what it has.

    Raises:
        InputError: no test fails, no failing test runs a line, the ranker needs trees that are not to be had, or there
            is no formula of a name.
    """
    beside = compared(name for name in beside if name != ranker.name)
    parsed, faults = grammars.parse(case.texts)
    notes = [*case.recording.notes, *faults.values()]
    if ranker.needs_tree:
        case = case._replace(recording=with_trees(case.recording, parsed, notes))
    given, counts = case.recording, spectrum.counts(case.recording.spectrum)
    _demand(case, counts, notes)
    statements = _statements(parsed, given)
    if ranker.needs_tree and statements is None:
        raise InputError(_treeless(case, ranker.name, faults))
    fitted = ranker.fit((), key) if fitted is None else fitted
    score = fitted.scorer(given, statements) if fitted.probabilistic else None
    scores = fitted.scores(given, statements) if score is None else score((), ())
    work = given.spectrum.tests * given.spectrum.size
    work += fitted.work(given, statements) if fitted.formula is None else 0
    samples = min(statistics.resamples, max(BUDGET // work, FEWEST))
    if samples < statistics.resamples:
        notes.append(f"the program is large: its intervals come from {samples} draws of the tests")
    if fitted.formula is None:
        bounds = fitted.bounds(given, statements, key, samples, statistics.level)
    else:
        leading = statements.inside if ranker.needs_tree and statements else None
        bounds = intervals.rank_intervals(
            given.spectrum, fitted.formula, key, leading=leading, samples=samples, level=statistics.level
        )
    if counts.passing == 0:
        notes.append("no test passed: the lines of the failing tests cannot be told apart by passing ones")
    basis = _basis(case, score, counts, bounds, statements, fitted.reasons(given, statements))
    others = {name: metrics.mid_ranks(np.asarray(formula(counts))) for name, formula in beside.items()}
    return _ranking(case, ranker.name, scores, others, tuple(notes), (), (), basis)


def compared(names: Iterable[str]) -> dict[str, formulas.Formula]:
    """The formulas that stand beside a ranking, by name.

    Raises:
        InputError: there is none of a name.
    """
    try:
        return {name: formulas.get(name) for name in names}
    except ValueError as error:
        raise InputError(f"display.beside: {error}") from error


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
        raise deaf(found.ranker)
    if both := set(clean) & set(buggy):
        file, line = place(found.case.recording, min(both))
        raise InputError(f"task: {file}:{line} is named both clean and buggy")
    scores = found.basis.score(clean, buggy)
    return _ranking(found.case, found.ranker, scores, found.beside, found.notes, clean, buggy, found.basis)


def deaf(ranker: str) -> InputError:
    """The fault of telling a formula what is known."""
    return InputError(f"task: {ranker} is a formula and cannot be told what is known; choose ranker=posterior")


def _demand(case: Case, counts: spectrum.Counts, notes: Sequence[str]) -> None:
    if counts.failing == 0:
        told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(case.outcomes.items()))
        message = (
            f"{case.title}: no failing test ran a line of the program ({told}); without one no line is more suspect "
            "than another. What can be ranked: the run with a test that shows the bug (add it, or name its file with "
            "corpus.arguments=[FILE]), or an earlier run that failed (corpus=spectrum corpus.path=RUN/spectrum.npz)"
        )
        raise InputError(noted(message, notes))
    if not counts.ef.any():
        message = f"{case.title}: no failing test ran a line that can be ranked; name the source (corpus.watch)"
        raise InputError(noted(message, notes))


def _treeless(case: Case, ranker: str, faults: dict[str, str]) -> str:
    """Why a program has no syntax trees, and what can be done."""
    absent = [file for file in case.recording.files if file not in case.texts]
    if faults:
        why = next(iter(faults.values()))
    elif absent:
        there = (case.root / absent[0]).is_file()
        why = f"{absent[0]} {'cannot be read as text' if there else f'is not below {case.root}'}"
    else:
        why = f"{case.recording.files[0]} is not Python, C or Java"
    return f"ranker: {ranker} needs the syntax trees of {case.title} ({why}); rank by a formula, such as ranker=ochiai"


def with_trees(given: Recording, parsed: tree.Tree, notes: list[str]) -> Recording:
    """The lines of files that have a tree, all of them where no file has one.

    Args:
        given: coverage and outcomes.
        parsed: the trees.
        notes: get a line about the files without one.
    """
    known = np.array([file in parsed.files for file in given.files], bool)
    if known.all() or not known.any():
        return given
    without = [file for file, good in zip(given.files, known, strict=True) if not good]
    notes.append(f"{len(without)} files without a syntax tree were left out, first {without[0]}")
    kept = known[given.file]
    covered = spectrum.pack(np.asarray(given.spectrum.covered(), bool)[:, kept], given.spectrum.failed)
    number = np.cumsum(known) - 1
    files = tuple(file for file, good in zip(given.files, known, strict=True) if good)
    return given._replace(
        spectrum=covered, files=files, file=number[given.file[kept]].astype(np.int32), lines=given.lines[kept]
    )


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
    bounds: intervals.Bounds,
    statements: tree.Statements | None,
    reasons: Sequence[str],
) -> Basis:
    given = case.recording
    scopes = {file: grammars.scopes(file, text) for file, text in case.texts.items()}
    texts = {file: source_lines(text) for file, text in case.texts.items()}
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
            None if known else float(bounds.low[i]),
            None if known else float(bounds.high[i]),
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
