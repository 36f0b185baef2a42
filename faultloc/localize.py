"""From a failing test suite, or what another tool recorded of one, to a ranked program."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faultloc import tree, triage
from faultloc.cases import Case
from faultloc.collect import gcov, runner
from faultloc.collect.recorder import Program
from faultloc.io import InputError, read, read_text, recording
from faultloc.options import CProgram, Display, Project, Spectrum, Statistics, Task
from faultloc.ranking import Ranking, compared, deaf, rank

NAMED = 5  # files that no test imported and that do not parse; of more, their number is told


def from_project(options: Project) -> Case:
    """Run the tests of a Python project.

    Raises:
        InputError: no test runs, none of them runs a line of the program, or a file to watch cannot be one of it.
    """
    root = Path(options.path).resolve()
    for path in (root / name for name in options.watch):
        if path.is_file() and Program([str(path)]).path(str(path)) is None:
            raise InputError(
                f"corpus.watch: {path.name} is no Python, or a file of tests by its name, and those are never watched; "
                "name files or folders of the program"
            )
    session = runner.run(
        root,
        source=options.watch,
        arguments=options.arguments,
        python=options.python,
        test_timeout=options.test_timeout,
        timeout=options.timeout,
    )
    return _case(session, root, watch=options.watch, every=options.imports == "every")


def from_c(options: CProgram) -> Case:
    """Build a C program and run its tests.

    Raises:
        InputError: it does not build, has no test, or none of them runs a line of it.
    """
    root = Path(options.path).resolve()
    built = gcov.run(
        root, tests=options.tests, build=options.build, gcov=options.gcov, test_timeout=options.test_timeout
    )
    universe = gcov.watched(options.watch, built.universe, root)
    return _case(built.session, root, {_relative(file, root): lines for file, lines in universe.items()})


def _case(
    session: runner.Session,
    root: Path,
    universe: dict[str, list[int]] | None = None,
    *,
    watch: Sequence[str] | None = None,
    every: bool = False,
) -> Case:
    """What a run left, as a case; without a universe the files are Python and their executable lines are looked up.

    Files that no test imported are looked at where `watch` says what there is.
    """
    everywhere = session.imports if every else {}
    tests = [test for test in session.tests if test.outcome != "skipped"]
    blind = [test for test in tests if test.outcome in runner.FAILURES and not test.lines and not everywhere]
    known = [test for test in tests if test.lines or everywhere or test.outcome == "passed"]
    notes = list(session.notes)
    if blind:
        first = f"{len(blind)} failing tests ran no line of the program and were left out, first {blind[0].name}"
        notes.append(first + ("; corpus.imports=every counts what ran at import for them" if session.imports else ""))
    hits = {test.name: _pairs(test.lines, root) | _pairs(everywhere, root) for test in known}
    if universe is None:
        seen = {_relative(file, root) for test in session.tests for file in test.lines}
        seen |= {_relative(file, root) for file in session.imports}
        texts, universe = _sources(sorted(seen), root, notes)
        notes += [] if watch is None else _never_imported(seen, root, watch)
    else:
        texts = {file: text for file in universe if (text := read_text(root / file)) is not None}
    whole = recording(hits, {t.name: t.outcome in runner.FAILURES for t in known}, tuple(notes), universe)
    outcomes = dict(Counter(test.outcome for test in session.tests))
    failures = tuple((test.name, test.message) for test in session.tests if test.outcome in runner.FAILURES)
    return Case(root.name, root, whole, texts, outcomes, failures)


def from_spectrum(options: Spectrum) -> Case:
    """Read a spectrum that another tool or our plugin left, and of the source files what can be found.

    Raises:
        InputError: it cannot be read.
    """
    if options.path is None:
        raise InputError("corpus.path: required; give an .npz, a coverage.py database or a GZoltar folder")
    root = Path(options.root).resolve()
    if any(Path(options.path).glob("*.jsonl")):
        return _case(runner.read(Path(options.path)), root)
    found = read(options.path, options.outcomes, root)
    found = found._replace(files=tuple(_relative(file, root) for file in found.files))
    texts = {file: text for file in found.files if (text := read_text(root / file)) is not None}
    failed = np.asarray(found.spectrum.failed, bool)
    outcomes = {"failed": int(failed.sum()), "passed": int((~failed).sum())}
    failures = tuple((name, "") for name, bad in zip(found.tests, failed, strict=True) if bad)
    return Case(Path(options.path).name, root, found, texts, outcomes, failures)


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _pairs(lines: dict[str, list[int]], root: Path) -> set[tuple[str, int]]:
    return {(_relative(file, root), line) for file, numbers in lines.items() for line in numbers}


def _sources(files: Iterable[str], root: Path, notes: list[str]) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Text and executable lines of each file; one that does not parse is left out and named."""
    texts, universe = {}, {}
    for file in files:
        text = read_text(root / file)
        if text is None:
            notes.append(f"{file}: left out, it cannot be read")
            continue
        try:
            universe[file] = tree.executable(text, file)
        except (SyntaxError, ValueError) as error:
            notes.append(f"{file}: left out, {error}")
            continue
        texts[file] = text
    return texts, universe


def _never_imported(seen: set[str], root: Path, watch: Sequence[str]) -> list[str]:
    """A line about each file of the program that no test could have imported, since it does not parse."""
    program = Program([str(root / path) for path in watch] or [str(root)])
    notes: list[str] = []
    _sources((file for path in program.files() if (file := _relative(path, root)) not in seen), root, notes)
    more = len(notes) - NAMED
    return notes if more <= 0 else [*notes[:NAMED], f"{more} more files that no test imported do not parse"]


class Localizer:
    """A single case as an experiment of one interval.

    Args:
        gather: runs the tests or reads the spectrum.
        ranker: what scores.
        display: what is shown.
        statistics: of the intervals.
        task: what is known, and whether more is asked for.
    """

    def __init__(
        self, gather: Callable[[], Case], ranker: Any, display: Display, statistics: Statistics, task: Task
    ) -> None:
        self._gather, self._ranker, self._display, self._statistics = gather, ranker, display, statistics
        self._task = task
        self._ranking: Ranking | None = None

    def __len__(self) -> int:
        return 1

    def totals(self) -> np.ndarray:
        """Nothing is carried from interval to interval."""
        return np.zeros(0)

    def score(
        self,
        index: int,  # noqa: ARG002
        totals: np.ndarray,
        *,
        key: jax.Array,
        place: Callable[..., Any],  # noqa: ARG002
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Gather and rank; the row says how much there was."""
        # What is wrong with the ranker is told before the tests run, which may take an hour.
        compared(self._display.beside)
        fitted = self._ranker.fit((), key)
        if (self._task.name == "triage" or self._task.clean or self._task.buggy) and not fitted.probabilistic:
            raise deaf(self._ranker.name)
        case = self._gather()
        found = rank(case, self._ranker, self._display.beside, key, self._statistics, fitted)
        found = self._ranking = triage.start(found, self._task.clean, self._task.buggy)
        row = {
            "case": case.title,
            "failing": int(case.recording.spectrum.failed.sum()),
            "passing": int((~case.recording.spectrum.failed.astype(bool)).sum()),
            "lines": case.recording.spectrum.size,
            "suspects": len(found.suspects),
            "first_band": sum(suspect.first == found.suspects[0].first for suspect in found.suspects),
        }
        return totals, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:  # noqa: ARG002
        """Print the list, go through it if that is the task, and write the pages."""
        if self._ranking is not None:
            triage.finish(self._ranking, folder, self._display, self._task)
