"""Events in the order of their time, read once, in batches of one shape.

Legend: N events of the stream, T steps of an interval, B events of a batch, F categorical columns, M numeric columns,
K tasks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

DAY = 86400  # s


class Events(NamedTuple):
    """Consecutive events.

    Attributes:
        time: `[n]` int64, seconds since 1970, never decreasing.
        ids: `[n, F]` int32, rows of the shared embedding table.
        numbers: `[n, M]` float32.
        labels: `[n, K]` float32, 0 or 1; values of real tasks.
        truth: `[n, K]` float32, the logits that the labels were drawn from, means of real tasks; None where nobody
            knows them.
    """

    time: np.ndarray
    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    truth: np.ndarray | None = None


class Stream(Protocol):
    """What training needs to know of a stream; any object with these members is one."""

    features: tuple[str, ...]
    """`[F]` names of the categorical columns."""
    numeric: tuple[str, ...]
    """`[M]` names of the numeric columns."""
    tasks: tuple[str, ...]
    """`[K]` names of the tasks."""
    real: tuple[bool, ...]
    """`[K]` whether a task is real: a value is predicted, not a probability."""
    vocabulary: int
    """Rows of the shared embedding table; ids are below."""

    def __len__(self) -> int:
        """Number of events."""

    def read(self, start: int, stop: int) -> Events:
        """Events `start` to `stop` of the stream; the same call always returns the same events."""


@dataclass(frozen=True)
class Columns:
    """A stream in columns, in memory or memory-mapped: only what is read is ever loaded."""

    features: tuple[str, ...]
    numeric: tuple[str, ...]
    tasks: tuple[str, ...]
    real: tuple[bool, ...]
    vocabulary: int
    time: np.ndarray
    ids: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def read(self, start: int, stop: int) -> Events:
        """Events `start` to `stop`, copied out of the columns."""
        columns = (self.time, self.ids, self.numbers, self.labels)
        return Events(*(np.array(column[start:stop]) for column in columns))


class Batches(NamedTuple):
    """An interval of the stream in batches; the last one is filled up with events of weight zero.

    NumPy arrays as they are read, JAX arrays once they are placed.

    Attributes:
        ids: `[T, B, F]` int32.
        numbers: `[T, B, M]` float32.
        labels: `[T, B, K]` float32.
        valid: `[T, B]` float32, 1 for an event of the stream and 0 for a filler.
    """

    ids: Any
    numbers: Any
    labels: Any
    valid: Any


def steps(events: int, batch: int) -> int:
    """Number of batches that `events` fill, the last one perhaps in part."""
    return -(-events // batch)


def batches(stream: Stream, step: int, count: int, batch: int, limit: int) -> tuple[Batches, np.ndarray]:
    """Read `count` batches from batch number `step` on.

    Batch s always holds events s B to (s + 1) B of the stream: a run that resumes at a step reads what it would have.

    Args:
        stream: where from.
        step: first batch.
        count: T.
        batch: B.
        limit: events of the stream that are used; those after it are fillers.

    Returns:
        T batches, of the same shape wherever in the stream they lie, and the times `[n]` of the events in them, s.
    """
    start = step * batch
    found = stream.read(start, max(start, min((step + count) * batch, limit)))
    present = len(found.time)

    def shape(column: np.ndarray) -> np.ndarray:
        filled = np.zeros((count * batch, *column.shape[1:]), column.dtype)
        filled[:present] = column
        return filled.reshape(count, batch, *column.shape[1:])

    valid = np.ones(present, np.float32)
    return Batches(shape(found.ids), shape(found.numbers), shape(found.labels), shape(valid)), found.time


class Disorder(NamedTuple):
    """The first event, by its number in the stream, that breaks a rule of the order; None where all keep it.

    Attributes:
        backwards: lies before its predecessor.
        repeated: has the time and the keys of an earlier one.
        gap: comes after a whole day without events.
    """

    backwards: int | None
    repeated: int | None
    gap: int | None


def disorder(time: np.ndarray, keys: np.ndarray, chunk: int = 1 << 20) -> Disorder:
    """Look for events out of order, repeated events and empty days.

    Args:
        time: `[N]` seconds, memory-mapped or not.
        keys: `[N, F]` what makes two events of one time the same.
        chunk: events looked at together.

    Returns:
        The first of each kind. Repeated events and gaps are looked for only in a stream that never goes backwards.
    """
    backwards = next(_backwards(time, chunk), None)
    if backwards is not None:
        return Disorder(backwards, None, None)
    repeated = gap = None
    start = 0
    while start < len(time) and (repeated is None or gap is None):
        stop = min(start + chunk, len(time))
        if stop < len(time):  # a chunk ends where the time changes, so that equal times are seen together
            stop = int(np.searchsorted(time, time[stop], "left"))
            stop = stop if stop > start else int(np.searchsorted(time, time[start], "right"))
        here = np.asarray(time[start:stop])
        if repeated is None:
            repeated = _repeated(here, np.asarray(keys[start:stop]), start)
        if gap is None:
            days = np.concatenate([[time[max(start - 1, 0)]], here]) // DAY
            jumps = np.flatnonzero(np.diff(days) > 1)
            gap = start + int(jumps[0]) if len(jumps) else None
        start = stop
    return Disorder(None, repeated, gap)


def _backwards(time: np.ndarray, chunk: int) -> Iterator[int]:
    for start in range(0, len(time), chunk):
        first = max(start - 1, 0)
        found = np.flatnonzero(np.diff(time[first : start + chunk]) < 0)
        if len(found):
            yield first + int(found[0]) + 1


def _repeated(time: np.ndarray, keys: np.ndarray, start: int) -> int | None:
    rows = np.column_stack([time, keys])
    order = np.lexsort(rows.T[::-1])  # stable: among equal rows the earliest comes first
    same = np.all(rows[order[1:]] == rows[order[:-1]], axis=1)
    return start + int(order[1:][same].min()) if same.any() else None
