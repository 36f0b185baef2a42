"""The process of a test session: it does not outlive its time, and a test in it that fell silent is ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from faultloc.io import InputError

SILENCE = 4  # limits of a test after which a process is ended: one for each of its phases, and one to end by itself
LOOK = 0.25  # seconds between looks at the records


class Ended(NamedTuple):
    """How a session ended.

    Attributes:
        status: for exit; None where the time was over.
        output: what was printed.
        silent: records of the processes that were ended since their test had fallen silent.
    """

    status: int | None
    output: str
    silent: frozenset[Path]


@contextlib.contextmanager
def leaving_nothing() -> Iterator[None]:
    """Let a request to terminate unwind what is inside, so that what it started ends and its folders go."""

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clean-up
        sys.exit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # of whom embeds us
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def call(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    records: Path,
    *,
    test_timeout: float | None,
    timeout: float | None,
) -> Ended:
    """Run a session to its end.

    Args:
        command: that starts it.
        folder: where it runs.
        environment: all of it.
        records: folder that its processes write to; see `faultloc.collect.plugin`.
        test_timeout: limit of one test, seconds; a process is ended whose test says nothing for `SILENCE` times that.
        timeout: limit of the session, seconds.

    Raises:
        InputError: it cannot be started.
    """
    end = None if timeout is None else time.monotonic() + max(timeout, 0.1)
    watch = None if test_timeout is None else _Silence(records, SILENCE * test_timeout)
    silent: set[Path] = set()
    try:
        # A session of its own, so that a hanging suite goes with everything it started.
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"corpus.python: cannot start {command[0]} ({error.strerror})") from error
    try:
        while True:
            wait = LOOK if end is None else min(LOOK, max(end - time.monotonic(), 0))
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = process.communicate(timeout=wait)
                return Ended(process.returncode, output, frozenset(silent))
            if end is not None and time.monotonic() >= end:
                return Ended(None, _kill(process), frozenset(silent))
            silent |= {path for path in (watch.over() if watch else ()) if _end_writer(path, process.pid)}
    except BaseException:
        _kill(process)
        raise


def _kill(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


def _end_writer(path: Path, leader: int) -> bool:
    """End the process that writes a file, the session itself or a worker of it; whether it still was there."""
    writer = int(path.stem.rpartition("-")[2])
    try:
        if os.getpgid(writer) != leader:
            return False
        (os.killpg if writer == leader else os.kill)(writer, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class _Silence:
    """Knows the processes that run a test and have written nothing for too long."""

    def __init__(self, records: Path, patience: float) -> None:
        self.records, self.patience = records, patience
        self.seen: dict[Path, tuple[int, float]] = {}  # size of each file, and since when

    def over(self) -> Iterator[Path]:
        now = time.monotonic()
        for path in self.records.glob("*.jsonl"):
            size = path.stat().st_size
            if path not in self.seen or self.seen[path][0] != size:
                self.seen[path] = size, now
            elif now - self.seen[path][1] > self.patience and _runs_a_test(path):
                yield path


def _runs_a_test(path: Path) -> bool:
    last = path.read_text(encoding="utf-8").splitlines()[-1:]
    try:
        return any(json.loads(line).keys() & {"start", "ran"} for line in last)
    except json.JSONDecodeError:
        return False
