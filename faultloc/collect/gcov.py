"""Run the tests of a C program, compiled for coverage, and read from gcov which lines each of them ran.

A test is a shell command; it passes if its exit status is 0. It runs in a copy of the project where the program was
built. What crashes, and what is stopped at the time limit, writes its lines all the same: a signal handler that is
linked into the program sees to that.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from faultloc.collect.process import leaving_nothing
from faultloc.collect.runner import Session, Test
from faultloc.io import InputError

FLAGS = "--coverage -O0 -g"
GRACE = 2.0  # seconds to write its lines, for a program that is stopped
DUMP = Path(__file__).with_name("dump.c")


class Built(NamedTuple):
    """What the runs of a C program left.

    Attributes:
        session: its tests; their files are absolute paths in the user's project.
        universe: executable lines by file, likewise.
    """

    session: Session
    universe: dict[str, list[int]]


def run(
    project: str | Path,
    *,
    tests: str,
    build: str | None = None,
    gcov: str = "gcov",
    test_timeout: float = 10.0,
) -> Built:
    """Build a program and run its tests.

    Args:
        project: folder of the source.
        tests: file in it, one test a line: `name: shell command`; a line that begins with # is none.
        build: shell command that builds the program in that folder. `$FAULTLOC_FLAGS` are the flags to compile and to
            link with, `$FAULTLOC_DUMP` the object to link in. None compiles all `*.c` of the folder into `program`.
        gcov: of the same version as the compiler.
        test_timeout: limit of one test, seconds.

    Raises:
        InputError: there is no such folder or test, the program does not build or not for coverage, or gcov does not
            answer.
    """
    project = Path(project).resolve()
    if not project.is_dir():
        raise InputError(f"corpus.path: {project} is not a folder; give that of a C program")
    commands = _tests(project / tests)
    start = time.perf_counter()
    with leaving_nothing(), tempfile.TemporaryDirectory(prefix="faultloc-") as scratch:
        copy = Path(scratch).resolve() / "project"
        shutil.copytree(project, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "*.gcda", "*.gcno"))
        _build(copy, build)
        done, universe, notes = [], {}, []
        for name, command in commands:
            for old in copy.rglob("*.gcda"):
                old.unlink()
            began = time.perf_counter()
            outcome, message = _call(command, copy, test_timeout)
            seconds = time.perf_counter() - began
            lines, known = _lines(copy, project, gcov)
            universe.update(known)
            if not lines:
                notes.append(f"{name}: left no coverage ({outcome})")
            done.append(Test(name, outcome, seconds, lines, message))
    return Built(Session(tuple(done), {}, tuple(notes), time.perf_counter() - start), universe)


def _tests(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise InputError(f"corpus.tests: {path} does not exist; it holds one test a line, name: shell command")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, colon, command = line.partition(":")
        if not colon or not command.strip():
            raise InputError(f"{path}: line {number} is not name: shell command")
        found.append((name.strip(), command.strip()))
    if not found:
        raise InputError(f"{path}: names no test; it holds one a line, name: shell command")
    return found


def _build(copy: Path, build: str | None) -> None:
    dump = copy.parent / "dump.o"
    sources = " ".join(shlex.quote(path.name) for path in sorted(copy.glob("*.c")))
    if build is None and not sources:
        raise InputError(f"corpus.path: no *.c to compile; give corpus.build, a shell command such as {'make'!r}")
    command = build or f"${{CC:-cc}} $FAULTLOC_FLAGS -o program {sources} $FAULTLOC_DUMP -lm"
    environment = os.environ | {"FAULTLOC_FLAGS": FLAGS, "FAULTLOC_DUMP": str(dump)}
    compile_dump = f"${{CC:-cc}} -O1 -c -o {shlex.quote(str(dump))} {shlex.quote(str(DUMP))}"
    for step in (compile_dump, command):
        done = subprocess.run(
            step, shell=True, cwd=copy, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace",
        )  # fmt: skip
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-1:]
            raise InputError(f"corpus.build: the program does not build ({(said or ['no message'])[0].strip()})")
    if next(copy.rglob("*.gcno"), None) is None:  # what gcc leaves beside each object; a copy of the project has none
        raise InputError(
            "corpus.build: nothing was compiled with $FAULTLOC_FLAGS; pass them to the compiler and the linker, and "
            "begin with what removes an earlier build, such as make clean"
        )


def _call(command: str, folder: Path, limit: float) -> tuple[str, str]:
    process = subprocess.Popen(
        command, shell=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True, text=True, errors="replace",
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=limit)
    except BaseException as reason:
        _stop(process)
        if isinstance(reason, subprocess.TimeoutExpired):
            return "timeout", f"time limit of {limit:g} s"
        raise
    status = process.returncode
    if status == 0:
        return "passed", ""
    last = (said.strip().splitlines() or [""])[-1][:300]
    number = -status if status < 0 else status - 128  # a shell adds 128; 255 may also be the -1 of a program
    if number in set(signal.Signals):
        return "crash", f"died by {signal.Signals(number).name}"
    if status < 0:
        return "crash", f"died by signal {number}"
    return "failed", last or f"exit status {status}"


def _stop(process: subprocess.Popen[str]) -> None:
    """End a test with all it started: first so that it can write its lines, then so that it cannot refuse."""
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _lines(copy: Path, project: Path, gcov: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Lines that ran, and all executable ones, by file of the user's project."""
    counts = sorted(copy.rglob("*.gcda"))
    if not counts:
        return {}, {}
    try:
        done = subprocess.run(
            [gcov, "--json-format", "--stdout", *map(str, counts)], cwd=copy, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise InputError(f"corpus.gcov: cannot start {gcov}; give the gcov of your compiler") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"corpus.gcov: {gcov} failed ({error.stderr.strip()[:200]})") from error
    ran: dict[str, set[int]] = {}
    known: dict[str, set[int]] = {}
    for text in done.stdout.splitlines():
        report = json.loads(text)
        for file in report["files"]:
            path = Path(report["current_working_directory"], file["file"]).resolve()
            if not path.is_relative_to(copy):
                continue  # a header of the system
            name = str(project / path.relative_to(copy))
            for line in file["lines"]:
                known.setdefault(name, set()).add(line["line_number"])
                if line["count"]:
                    ran.setdefault(name, set()).add(line["line_number"])
    return tuple({name: sorted(lines) for name, lines in found.items()} for found in (ran, known))  # type: ignore[return-value]


def watched(paths: Sequence[str], universe: dict[str, list[int]], root: Path) -> dict[str, list[int]]:
    """The part of a universe that lies in the named files or folders; all of it if none is named.

    Raises:
        InputError: nothing lies there.
    """
    if not paths:
        return universe
    inside = [root / path for path in paths]
    found = {file: lines for file, lines in universe.items() if any(Path(file).is_relative_to(path) for path in inside)}
    if not found:
        raise InputError(f"corpus.watch: no compiled file lies in {', '.join(paths)}")
    return found
