"""The road of labels from teachers to students through a store: publish, judge, pin, read; and what can go wrong on it.

Legend: n events of an interval, S teachers, K tasks.
"""

import time as clock
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from kdrec.io import InputError
from kdrec.labels import LAST, Found, Gate, Pin, Rows, Store, judge, pin

FAULTS = ("none", "killed", "late", "duplicate", "missing", "bad")
PERIOD = 3  # intervals of which one is hit by a fault
AHEAD = 8  # intervals of another run's labels that are read in one go: a read has a price of its own


class Interval(NamedTuple):
    """Events of an interval that have a teacher label.

    Attributes:
        version: of the labels.
        event: number of the first.
        time: `[n]` s since 1970.
        outcomes: `[n, K]`.
        logits: `[S, n, K]`.
    """

    version: int
    event: int
    time: np.ndarray
    outcomes: np.ndarray
    logits: np.ndarray


class Heard(NamedTuple):
    """What students hear of an interval.

    Attributes:
        logits: `[T, S, B, K]`; 0 where there is no label.
        present: `[T, S, B]` bool.
        offset: batches appended so far.
        note: `coverage`, share of the events with a label; `lag`, s from an event to its label, None without any.
        spent: s of writing, s of reading, bytes that were read.
    """

    logits: np.ndarray
    present: np.ndarray
    offset: int
    note: dict[str, Any]
    spent: tuple[float, float, int]


class Channel:
    """One publisher and its readers on a store.

    Attributes:
        store: where labels are kept.
        writer: name under which it writes.
        teachers: `[S]` names.
        gate: limits of a good version; None lets all pass.
        fault: one of `FAULTS`, put in on purpose.
        real: for each task whether it is real.
        fill: publish only what the store lacks.
        outage: `killed`: numbers of the first interval that the teacher misses and of the one at which it is back, and
            the time of the stream then.
    """

    def __init__(
        self,
        store: Store,
        writer: str,
        teachers: Sequence[str],
        gate: Gate | None,
        fault: str,
        *,
        real: tuple[bool, ...] = (),
        fill: bool = False,
    ) -> None:
        if fault not in FAULTS:
            raise ValueError(f"fault must be one of {', '.join(FAULTS)}, got {fault!r}")
        self.store, self.writer, self.teachers = store, writer, tuple(teachers)
        self.gate, self.fault, self.real, self.fill = gate, fault, real, fill
        self.outage: tuple[int, int, int] = (0, 0, 0)
        self._reader = ThreadPoolExecutor(1, "labels")
        self._read: tuple[tuple[Pin, int, int], Found] | None = None
        self._coming: tuple[tuple[Pin, int, int], Future[Found]] | None = None

    def check(self, offset: int, *, durable: bool) -> None:
        """See that the store is the one that this run left, or one that no other run has written to under these names.

        Args:
            offset: batches that this run has appended.
            durable: whether the store outlives a process.

        Raises:
            InputError: it is not.
        """
        kept = self.store.batches(self.writer)
        if durable and kept < offset - 1:
            raise InputError(
                f"labels.path: the store has {kept + 1} batches of this run, which had appended {offset}; bring the "
                "store back, or start over with run.resume=false and another labels.path"
            )
        taken = {v.teacher for v in self.store.versions()} & set(self.teachers)
        if self.fill and not taken:
            names = ", ".join(sorted({v.teacher for v in self.store.versions()})) or "none"
            raise InputError(
                f"labels.teacher: nothing to fill in of teacher {self.teachers[0]!r}; the store has {names}"
            )
        if kept < 0 and offset == 0 and taken and not self.fill:
            raise InputError(
                f"labels.teacher: another run has published teacher {min(taken)!r} in this store; give "
                "labels.teacher=NAME or another labels.path, or fill its gaps with labels.source=backfill"
            )

    def publish(self, index: int, found: Interval, offset: int) -> int:
        """Append the labels of an interval, judge them, and promote or reject their version.

        Args:
            index: number of the interval; faults are timed by it.
            found: its labels.
            offset: number of batches before.

        Returns:
            Number of batches after.
        """
        hit = index % PERIOD == 1
        if not len(found.time) or (self.fault == "missing" and hit):
            return offset
        published = int(found.time[-1])
        if self.fault == "late" and hit:
            published += int(found.time[-1] - found.time[0]) + 1
        if self.fault == "killed" and self.outage[0] <= index < self.outage[1]:
            published = max(published, self.outage[2])
        offset = self._append(found, published, offset)
        if self.fault == "duplicate" and hit:
            kept = self.store.batches(self.writer)
            self._append(found, published, kept)  # the same number again: the store must know it
        if self.fault == "bad" and hit:
            broken = found._replace(version=found.version + 1, logits=found.logits + np.float32(3))
            offset = self._append(broken, published, offset)
        return offset

    def _append(self, found: Interval, published: int, number: int) -> int:
        event = np.arange(found.event, found.event + len(found.time), dtype=np.int64)
        rows = [
            Rows(teacher, found.version, published, event, found.time, logits)
            for teacher, logits in zip(self.teachers, found.logits, strict=True)
        ]
        self.store.append(self.writer, number, rows, missing=self.fill)
        # Judged even where the rows were known: a process may have died between the two commits.
        told = [judge(r, found.outcomes, len(event), self.gate, self.real) for r in rows]
        if self.fill:
            told = [v._replace(events=self.store.count(v.teacher, v.version)) for v in told]
        self.store.promote(self.writer, number, told)
        return number + 1

    def exchange(
        self, index: int, step: int, silent: int, logits: Any, outcomes: Any, time: np.ndarray, offset: int
    ) -> Heard:
        """Publish what teachers say of an interval, and read what students may know of it by its end.

        Args:
            index: number of the interval.
            step: number of its first step in the stream: the version.
            silent: steps of it before there are labels.
            logits: `[T, S, B, K]`.
            outcomes: `[T, B, K]`.
            time: `[n]` of its events, fillers left out.
            offset: batches appended before.

        Returns:
            What students hear.
        """
        shape, count = np.shape(logits), len(time)
        flat = np.asarray(logits).transpose(1, 0, 2, 3).reshape(shape[1], -1, shape[3])[:, :count]
        events, skip = np.asarray(outcomes).reshape(-1, shape[3])[:count], min(silent * shape[2], count)
        start = step * shape[2]
        begin = clock.perf_counter()
        offset = self.publish(index, Interval(step, start + skip, time[skip:], events[skip:], flat[:, skip:]), offset)
        written = clock.perf_counter()
        log = self.store.heads()[1]
        now = Pin(self.teachers, 0, LAST, self.store.heads()[0], log, int(time[-1]))
        found = self.store.read(now, start, start + count)
        spent = (written - begin, clock.perf_counter() - written, found.bytes)
        return self._heard(found, shape, time, offset, spent)

    def recall(self, start: int, shape: tuple[int, ...], time: np.ndarray, pinned: Pin) -> Heard:
        """Read what another run has published of an interval.

        Args:
            start: first event.
            shape: T, B, K.
            time: `[n]` of its events, fillers left out.
            pinned: what is read.

        Returns:
            What students hear.
        """
        begin = clock.perf_counter()
        found = self._ahead(pinned, start, start + len(time))
        spent = (0.0, clock.perf_counter() - begin, found.bytes)
        return self._heard(found, (shape[0], len(self.teachers), *shape[1:]), time, 0, spent)

    def _ahead(self, pinned: Pin, start: int, stop: int) -> Found:
        """Labels of some events; many are read in one go, the next ones while students learn from these."""
        wanted = (pinned, start, start + AHEAD * (stop - start))
        begun, fresh = self._read, False
        if begun is None or begun[0][0] != pinned or not begun[0][1] <= start <= stop <= begun[0][2]:
            coming = self._coming
            found = coming[1].result() if coming and coming[0] == wanted else self.store.read(*wanted)
            begun, fresh = (wanted, found), True
            following = (pinned, wanted[2], 2 * wanted[2] - start)
            self._read, self._coming = begun, (following, self._reader.submit(self.store.read, *following))
        (_, first, _), found = begun
        part = slice(start - first, stop - first)
        size = found.bytes if fresh else 0
        return Found(*(column[:, part] for column in found[:4]), size)  # type: ignore[call-arg, arg-type]

    def _heard(
        self, found: Found, shape: tuple[int, ...], time: np.ndarray, offset: int, spent: tuple[float, float, int]
    ) -> Heard:
        def batched(column: np.ndarray) -> np.ndarray:
            filled = np.zeros((shape[1], shape[0] * shape[2], *column.shape[2:]), column.dtype)
            filled[:, : len(time)] = column
            return filled.reshape(shape[1], shape[0], shape[2], *column.shape[2:]).swapaxes(0, 1)

        lag = (found.published - time[None])[found.present]
        note = {"coverage": float(found.present.mean()), "lag": float(lag.mean()) if lag.size else None}
        return Heard(batched(found.logits), batched(found.present), offset, note, spent)

    def pinned(self, first: int, last: int | None, table: int | None, kept: int, log: int) -> Pin:
        """Pin what another run has published: what the state of this one says, else what there is now.

        Args:
            first: lowest version.
            last: highest version; None for no end.
            table: version of the table of labels; None takes what it is now.
            kept: version of the table of labels that a state has pinned, -1 where none has.
            log: version of the table of versions, likewise.

        Returns:
            The pin; see `kdrec.labels.pin`.
        """
        last = LAST if last is None else last
        if kept >= 0:
            return Pin(self.teachers, first, last, kept, log)
        return pin(self.store, self.teachers, first, last, table)

    def ledger(self, expected: int) -> dict[str, float]:
        """What the store holds of this channel's teachers.

        Args:
            expected: events that have been labelled.

        Returns:
            `labels/versions`, `labels/bad`; `labels/lost` and `labels/doubled`, rows that the table of labels has too
            few or too many of against those acknowledged; `labels/coverage`, share of the events with a good label.
        """
        known = [v for v in self.store.versions() if v.teacher in self.teachers]
        rows, size = self.store.size()
        acknowledged = sum(v.events for v in self.store.versions())
        good = sum(v.events for v in known if v.status == "good")
        return {
            "labels/versions": len(known),
            "labels/bad": sum(v.status == "bad" for v in known),
            "labels/lost": max(acknowledged - rows, 0),
            "labels/doubled": max(rows - acknowledged, 0),
            "labels/coverage": good / max(expected * len(self.teachers), 1),
            "cost/labels/bytes": size,
            "cost/labels/bytes_a_row": size / max(rows, 1),
        }
