"""The tests of an installed package, run in one process for many variants of its source; see `worker`."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faultloc.collect.runner import Test
from faultloc.io import InputError

START = 60.0  # seconds that the worker may take to come up
SLACK = 10.0  # of the wall clock to one of the processor, before a silent worker is ended


class Answer(NamedTuple):
    """What the tests did on one variant.

    Attributes:
        tests: by name.
        imports: lines that ran outside functions or outside any test, by file.
        broken: files of tests that could not be imported, each with its message.
        hangs: whether it was given up because test after test ran out of time.
    """

    tests: dict[str, Test]
    imports: dict[str, list[int]]
    broken: tuple[str, ...]
    hangs: bool


class Suite:
    """Runs the tests of a package on variants of it.

    Args:
        package: name of an installed package that ships its tests.
        limit: of one test, seconds of the processor.

    Raises:
        InputError: there is no such package.
    """

    def __init__(self, package: str, limit: float) -> None:
        self.package, self.limit = package, limit
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting = b""
        self.folder = Path(self._start())

    def run(self, replace: Mapping[str, str], tests: Sequence[str] | None = None) -> Answer:
        """Run tests with the text of some files replaced.

        A test that falls silent, or takes the interpreter with it, is noted, and the rest runs in a new process.

        Args:
            replace: text by absolute path.
            tests: names; None runs all.
        """
        found: dict[str, Test] = {}
        imports: dict[str, list[int]] = {}
        broken: list[str] = []
        died = 0
        while True:
            left = tests if tests is None else [name for name in tests if name not in found]
            if left == [] and found:
                return Answer(found, imports, tuple(broken), hangs=False)
            self._send({"replace": dict(replace), "tests": left, "limit": self.limit})
            running, silent = None, False
            for entry in self._entries(SLACK * self.limit):
                if entry is None:
                    silent = True
                elif "start" in entry:
                    running = entry["start"]
                elif "broken" in entry:
                    broken.append(f"{entry['broken']}: {entry['message']}")
                elif "test" in entry:
                    name, outcome = entry["test"], entry["outcome"]
                    found[name] = Test(name, outcome, entry["seconds"], entry["lines"], entry["message"])
                else:
                    return Answer(found, entry["imports"], tuple(broken), entry["hangs"])
            died += 1
            if running is not None:
                outcome, message = ("timeout", "fell silent") if silent else ("crash", "the interpreter died")
                found[running] = Test(running, outcome, 0.0, {}, message)
            if died == 3 or running is None or tests is None:
                return Answer(found, imports, tuple(broken), hangs=True)

    def _start(self) -> str:
        command = [sys.executable, "-m", "faultloc.collect.worker", self.package]
        # Hash seeds would make coverage, and so the whole run, differ from one time to the next.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        weakref.finalize(self, _end, self._process)
        self._waiting = b""
        for entry in self._entries(START):
            if entry is not None and "ready" in entry:
                return entry["ready"]
        stderr = self._process.stderr
        last = (stderr.read().decode(errors="replace") if stderr else "").strip().splitlines()[-1:]
        raise InputError(
            f"corpus.package: cannot load {self.package} ({''.join(last) or 'no answer'}); is it installed?"
        )

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _entries(self, patience: float) -> Iterator[dict[str, Any] | None]:
        """What the worker says, to its end; None first where it fell silent and was ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, last = self._process.stdout.fileno(), time.monotonic()
        while True:
            line, newline, rest = self._waiting.partition(b"\n")
            if newline:
                self._waiting = rest
                yield json.loads(line)
                continue
            ready, _, _ = select.select([pipe], [], [], max(last + patience - time.monotonic(), 0))
            if not ready:
                yield None
                self._process.kill()
                self._process.wait()
                return
            block = os.read(pipe, 1 << 16)
            if not block:
                self._process.wait()
                return
            self._waiting, last = self._waiting + block, time.monotonic()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not sent cannot be
                pipe.close()
