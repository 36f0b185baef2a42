"""Run the test suite of a project once, with the plugin lent to its interpreter, and read what was recorded."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faultloc.collect import process
from faultloc.io import InputError

FAILURES = ("failed", "error", "timeout", "crash")
CRASHES = 5  # of the interpreter, hangs included, after which the other tests are not run
_LENT = "faultloc_lent"
_NO_TESTS, _USAGE = 5, 4


class Test(NamedTuple):
    """What one test did.

    Attributes:
        name: pytest's.
        outcome: passed | failed | error | skipped | timeout | crash.
        seconds: it took.
        lines: of functions, by file.
        message: of the failure, its first line.
    """

    name: str
    outcome: str
    seconds: float
    lines: dict[str, list[int]]
    message: str = ""


class Session(NamedTuple):
    """What a run of a test suite left.

    Attributes:
        tests: in the order they ran.
        imports: lines that ran outside functions or outside any test, by file.
        notes: what a reader of the result should know, one line each.
        seconds: of the whole run.
    """

    tests: tuple[Test, ...]
    imports: dict[str, list[int]]
    notes: tuple[str, ...]
    seconds: float


def run(
    project: str | Path,
    *,
    source: Sequence[str | Path] = (),
    arguments: Sequence[str] = (),
    python: str | None = None,
    test_timeout: float | None = None,
    timeout: float | None = None,
) -> Session:
    """Run pytest in a project and record which lines each test runs.

    A test that kills the interpreter, or hangs where nothing interrupts it until its process is ended, is noted; the
    tests after it are run by a further session.

    Args:
        project: its folder.
        source: files or folders to watch; all of the project if empty. Files of tests are never watched.
        arguments: further ones for pytest.
        python: interpreter of the project; ours if None.
        test_timeout: limit of one test, seconds; one that does not end by it is ended with its process somewhat later.
        timeout: limit of the whole run, seconds.

    Raises:
        InputError: there is no such folder or interpreter, pytest does not start, or no test runs.
    """
    project = Path(project)
    if not project.is_dir():
        raise InputError(f"corpus.path: {project} is not a folder; give that of a project with tests")
    watched = [project / path for path in source]
    for path in watched:
        if not path.exists():
            raise InputError(f"corpus.watch: {path} does not exist; name files or folders below {project}")
    start = time.perf_counter()
    with process.leaving_nothing(), tempfile.TemporaryDirectory(prefix="faultloc-") as scratch:
        lent = Path(scratch) / _LENT
        lent.mkdir()
        for name in ("__init__.py", "plugin.py", "recorder.py"):
            shutil.copy(Path(__file__).with_name(name), lent)
        records, notes = Path(scratch) / "records", []
        tried: set[str] = set()
        # A test that dies with its process takes along what it ran; a second session runs it again, line by line.
        for _ in range(2 * CRASHES):
            done, fragile = _state(records, tried)
            tried |= fragile
            _write(scratch, done - fragile, fragile)
            command = _command(python, scratch, watched or [project], arguments, test_timeout)
            left = None if timeout is None else timeout - (time.perf_counter() - start)
            status, output, silent = process.call(
                command, project, _environment(scratch), records, test_timeout=test_timeout, timeout=left
            )
            finished = _finish(records, killed=status is None, silent=silent)
            if status is None:
                notes.append(f"the run was stopped after {timeout:g} s: not all tests ran")
            if finished or status is None or status in (_NO_TESTS, _USAGE):
                break
        else:
            notes.append(f"the interpreter died or fell silent {CRASHES} times: not all tests ran")
        session = read(records, notes, time.perf_counter() - start)
    if not session.tests:
        raise InputError(_nothing_ran(project, status, output, session.notes))
    return session


def _state(records: Path, tried: set[str]) -> tuple[set[str], set[str]]:
    """Tests that were run, and of them those that died and were not yet run again."""
    tests = [entry for path in sorted(records.glob("*.jsonl")) for entry in _entries(path) if "test" in entry]
    died = {entry["test"] for entry in tests if entry.get("died")}
    return {entry["test"] for entry in tests}, died - tried


def _write(scratch: str, skip: set[str], fragile: set[str]) -> None:
    for name, tests in (("skip", skip), ("fragile", fragile)):
        (Path(scratch) / name).write_text("\n".join(sorted(tests)), encoding="utf-8")


def _command(
    python: str | None, scratch: str, source: Iterable[Path], arguments: Sequence[str], test_timeout: float | None
) -> list[str]:
    command = [python or sys.executable, "-m", "pytest", "-p", "no:faultloc", "-p", f"{_LENT}.plugin"]
    # With a blank instead of =, pytest takes the folders for tests and looks for its rootdir above them.
    command += ["-q", "--continue-on-collection-errors", f"--faultloc={Path(scratch) / 'records'}"]
    # A project may ask to stop at the first failure; what `arguments` ask for comes later.
    command.append("--maxfail=0")
    command += [*(f"--faultloc-{name}={Path(scratch) / name}" for name in ("skip", "fragile"))]
    command += [*(f"--faultloc-source={path.resolve()}" for path in source)]
    if test_timeout is not None:
        command.append(f"--faultloc-timeout={test_timeout}")
    return [*command, *arguments]


def _environment(scratch: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [scratch, os.environ.get("PYTHONPATH")]))}


def _entries(path: Path) -> Iterable[dict[str, Any]]:
    """What one process wrote, a line cut short by a crash left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _finish(records: Path, *, killed: bool, silent: Collection[Path]) -> bool:
    """Note the tests that never ended; whether every process of the last session ended by itself."""
    whole = True
    for path in sorted(records.glob("*.jsonl")):
        entries = list(_entries(path))
        ended = any("end" in entry for entry in entries)
        begun = [entry["start"] for entry in entries if "start" in entry]
        done = {entry["test"] for entry in entries if "test" in entry}
        if ended or any("given up" in entry for entry in entries):
            continue
        whole = False
        if killed:
            outcome, message = "timeout", "still ran when the time was over"
        elif path in silent:
            outcome, message = "timeout", "fell silent, its process was ended"
        else:
            outcome, message = "crash", "the interpreter died"
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
            for name in (name for name in begun[-1:] if name not in done):
                lines = _told(entries)
                entry = {"test": name, "outcome": outcome, "seconds": 0.0, "lines": lines, "message": message}
                file.write(json.dumps(entry | {"died": not killed}) + "\n")
            file.write(json.dumps({"given up": True}) + "\n")
    return whole


def _told(entries: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Lines that the last test of a process said one by one."""
    start = max(index for index, entry in enumerate(entries) if "start" in entry)
    lines: dict[str, set[int]] = {}
    for entry in entries[start:]:
        if "ran" in entry:
            lines.setdefault(entry["ran"][0], set()).add(entry["ran"][1])
    return {file: sorted(numbers) for file, numbers in lines.items()}


def read(records: Path, notes: Iterable[str] = (), seconds: float = 0.0) -> Session:
    """Put together what the processes of a run recorded; see `faultloc.collect.plugin` for the format.

    Args:
        records: folder that was given to `--faultloc`.
        notes: to start with.
        seconds: that the run took.
    """
    tests: dict[str, Test] = {}
    imports: dict[str, set[int]] = {}
    said = list(notes)
    for path in sorted(records.glob("*.jsonl")):
        for entry in _entries(path):
            if "test" in entry:
                tests[entry["test"]] = Test(
                    entry["test"],
                    entry["outcome"],
                    entry["seconds"],
                    entry["lines"],
                    entry.get("message", ""),
                )
            for file, lines in entry.get("imports", {}).items():
                imports.setdefault(file, set()).update(lines)
            if "broken" in entry:
                said.append(f"{entry['broken']} could not be collected: {entry['message']}")
    for test in tests.values():
        if test.outcome in ("crash", "timeout"):
            said.append(f"{test.name}: {test.message}")
    return Session(
        tuple(tests.values()), {file: sorted(lines) for file, lines in imports.items()}, tuple(said), seconds
    )


def _nothing_ran(project: Path, status: int | None, output: str, notes: Sequence[str]) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if notes:
        return f"{project}: no test ran: {'; '.join(notes)}"
    if status == _NO_TESTS:
        return f"{project}: pytest found no test; give corpus.arguments=[FOLDER_OF_TESTS]"
    last = lines[-1] if lines else f"exit status {status}"
    return f"{project}: pytest ran no test ({last}); run it by itself to see why"
