"""How far a run is: a bar on a terminal, plain lines elsewhere. Everything goes to standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    """What the run loop tells about its progress."""

    def advance(self, note: str = "") -> None:
        """One interval is done."""

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""


def say(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


class _Lines:
    """Plain lines, at most one every `seconds` and always the last."""

    def __init__(self, title: str, total: int, done: int, seconds: float = 10.0) -> None:
        self._title, self._total, self._done, self._seconds = title, total, done, seconds
        self._start = self._spoken = time.monotonic()

    def advance(self, note: str = "") -> None:
        self._done += 1
        now = time.monotonic()
        if self._done >= self._total or now - self._spoken >= self._seconds:
            self._spoken = now
            self.say(f"{self._title}: {self._done}/{self._total}  {now - self._start:.1f} s  {note}".rstrip())

    def say(self, line: str) -> None:
        say(line)


class _Rich:
    def __init__(self, progress: Any, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, note: str = "") -> None:
        self._progress.update(self._task, advance=1, note=note)

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show progress over `total` intervals of which `done` are behind us already."""
    if not sys.stderr.isatty():
        yield _Lines(title, total, done)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Rich(progress, progress.add_task(title, total=total, completed=done, note=""))
