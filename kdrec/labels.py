"""Teacher labels, kept for as many students as want them: what a store promises, the quality gate.

A row is one event as one version of one teacher saw it. Rows are appended in numbered batches, judged version by
version, and read by students that pin what they read. Legend: n events, K tasks, S teachers.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from kdrec.io import InputError

Real = tuple[bool, ...]
LAST = 2**62  # no upper end of a range of versions


class Rows(NamedTuple):
    """Labels of one version of one teacher.

    Attributes:
        teacher: its name.
        version: number of the version, such as the step of the stream at which it was published.
        published: s since 1970, when the labels became known.
        event: `[n]` int64, strictly increasing: number of the event in the stream.
        time: `[n]` int64, s since 1970, of the event.
        logits: `[n, K]` float32.
    """

    teacher: str
    version: int
    published: int
    event: np.ndarray
    time: np.ndarray
    logits: np.ndarray


class Version(NamedTuple):
    """What is known of one version of one teacher.

    Attributes:
        teacher: its name.
        version: its number.
        status: `candidate`, `good` or `bad`; students read good ones alone.
        events: rows that it labelled.
        ne: `[K]` normalised entropy of its labels.
        calibration: `[K]` mean probability over mean outcome.
        coverage: share of the events that it should have labelled.
        reason: why it is bad.
    """

    teacher: str
    version: int
    status: str
    events: int
    ne: tuple[float, ...]
    calibration: tuple[float, ...]
    coverage: float
    reason: str


class Pin(NamedTuple):
    """What a student reads: with it, a read gives the same rows for ever.

    Attributes:
        teachers: `[S]` names.
        first: lowest version.
        last: highest version.
        table: version of the table of labels.
        log: version of the table of versions.
        known: s since 1970: labels that were published later are not there yet.
    """

    teachers: tuple[str, ...]
    first: int
    last: int
    table: int
    log: int
    known: int = LAST


class Found(NamedTuple):
    """Labels of consecutive events; of several good versions of an event the highest one.

    Attributes:
        logits: `[S, n, K]` float32; 0 where there is none.
        present: `[S, n]` bool.
        version: `[S, n]` int64; -1 where there is none.
        published: `[S, n]` int64, s since 1970; 0 where there is none.
        bytes: of the rows that were read for it.
    """

    logits: np.ndarray
    present: np.ndarray
    version: np.ndarray
    published: np.ndarray
    bytes: int = 0


class Gate(NamedTuple):
    """Limits beyond which a version is bad.

    Attributes:
        ne: largest normalised entropy of any task.
        calibration: largest factor by which mean probability and mean outcome may differ.
        coverage: smallest share of events.
    """

    ne: float
    calibration: float
    coverage: float


class Store(Protocol):
    """Where labels are kept."""

    tasks: tuple[str, ...]

    def append(self, writer: str, batch: int, rows: Sequence[Rows], *, missing: bool = False) -> bool:
        """Keep a batch: all of it once this returns, none of it where it raises.

        Args:
            writer: name of the only process that writes under this name.
            batch: number of the batch, from 0 on; one not above the last that was kept is a repeated one.
            rows: labels.
            missing: keep only rows of events that the teacher has not labelled yet.

        Returns:
            False where the batch was kept before: nothing is written.
        """

    def read(self, pin: Pin, start: int, stop: int) -> Found:
        """Labels of events `start` to `stop`."""

    def versions(self, log: int | None = None) -> list[Version]:
        """All versions by teacher and number, each with its last status."""

    def promote(self, writer: str, batch: int, versions: Sequence[Version]) -> bool:
        """Set what is known of versions, numbered like `append`."""

    def heads(self) -> tuple[int, int]:
        """Versions of the table of labels and of the table of versions as they are now."""

    def batches(self, writer: str) -> int:
        """Number of the last batch of a writer that was kept; -1 before the first."""

    def size(self) -> tuple[int, int]:
        """Rows and bytes of the table of labels."""

    def count(self, teacher: str, version: int) -> int:
        """Rows of a version of a teacher."""

    def tidy(self, retention: float | None = None) -> int:
        """Make later reads cheap; files that no version younger than `retention` hours needs go."""


def pin(store: Store, teachers: Sequence[str], first: int = 0, last: int = LAST, table: int | None = None) -> Pin:
    """Pin what a student reads.

    Args:
        store: where from.
        teachers: names.
        first: lowest version.
        last: highest version.
        table: version of the table of labels; None takes what it is now.

    Returns:
        The pin.

    Raises:
        InputError: a teacher has no good version in the range, with those that it has.
    """
    log = store.heads()[1]
    labels = store.heads()[0]  # asked after the log: a version is good only once its rows are kept
    known = store.versions(log)
    for teacher in teachers:
        own = [v for v in known if v.teacher == teacher]
        if not own:
            names = ", ".join(sorted({v.teacher for v in known})) or "none"
            raise InputError(f"labels.teacher: no versions of teacher {teacher!r}; the store has {names}")
        if not any(first <= v.version <= last and v.status == "good" for v in own):
            shown = ", ".join(f"{v.version} ({v.status})" for v in own[:12]) + (" ..." if len(own) > 12 else "")
            asked = f"version {first}" if first == last else f"version from {first} on" if last == LAST else None
            asked = asked or f"version from {first} to {last}"
            raise InputError(f"labels.first: teacher {teacher!r} has no good {asked}; it has {shown}")
    return Pin(tuple(teachers), first, last, labels if table is None else table, log)


def column(task: str) -> str:
    """Name of a task's column, of letters, digits and underscores, which every engine takes."""
    return "logit_" + re.sub(r"\W", "_", task)


def good(versions: Iterable[Version], pin: Pin) -> dict[str, np.ndarray]:
    """Sorted numbers of each pinned teacher's good versions in the range."""
    found: dict[str, list[int]] = {teacher: [] for teacher in pin.teachers}
    for v in versions:
        if v.teacher in found and v.status == "good" and pin.first <= v.version <= pin.last:
            found[v.teacher].append(v.version)
    return {teacher: np.sort(np.asarray(numbers, np.int64)) for teacher, numbers in found.items()}


def align(
    rows: Sequence[tuple[np.ndarray, ...]],
    allowed: Sequence[np.ndarray],
    start: int,
    stop: int,
    tasks: int,
    known: int = LAST,
) -> Found:
    """Bring rows in any order into the order of events, by one sorted merge a teacher.

    Args:
        rows: `[S]` of event `[n]`, version `[n]`, published `[n]`, logits `[n, K]`.
        allowed: `[S]` sorted versions that may be read.
        start: first event.
        stop: the one after the last event.
        tasks: K.
        known: rows that were published later are left out.

    Returns:
        Labels of the events. A row whose logits are not finite counts as missing.
    """
    shape = (len(rows), stop - start)
    found = Found(
        np.zeros((*shape, tasks), np.float32), np.zeros(shape, bool), np.full(shape, -1, np.int64),
        np.zeros(shape, np.int64),
    )  # fmt: skip
    for teacher, (event, version, published, logits) in enumerate(rows):
        keep = np.isin(version, allowed[teacher])
        keep &= (event >= start) & (event < stop) & (published <= known)
        for logit in logits.T:
            keep &= np.isfinite(logit)
        order = np.flatnonzero(keep)
        if not np.all(np.diff(event[order]) > 0):  # rows of one version come in order, and once
            order = order[np.lexsort((version[order], event[order]))]
            highest = np.ones(len(order), bool)
            highest[:-1] = np.diff(event[order]) > 0
            order = order[highest]
        place, order = _run(event[order] - start), _run(order)
        found.logits[teacher, place] = logits[order]
        found.present[teacher, place] = True
        found.version[teacher, place] = version[order]
        found.published[teacher, place] = published[order]
    return found


def _run(index: np.ndarray) -> np.ndarray | slice:
    """Consecutive numbers as a slice, which copies many times faster."""
    whole = len(index) > 0 and index[-1] - index[0] == len(index) - 1 and bool(np.all(np.diff(index) == 1))
    return slice(int(index[0]), int(index[-1]) + 1) if whole else index


def judge(rows: Rows, outcomes: np.ndarray, expected: int, gate: Gate | None, real: Real = ()) -> Version:
    """Judge a version by the outcomes of the events that it labelled, which it had not seen.

    Args:
        rows: its labels.
        outcomes: `[n, K]`, 0 or 1; values of real tasks.
        expected: number of events that it should have labelled.
        gate: limits; None lets every version pass.
        real: for each task whether it is real: Huber loss over that of always saying the mean takes the place of
            normalised entropy there.

    Returns:
        The version, good or bad.
    """
    from kdrec.metrics import entropy  # here, so that a process that only reads and writes labels needs no jax

    f, y = rows.logits.astype(np.float64), outcomes.astype(np.float64)
    which = np.asarray(real or (False,) * f.shape[1], bool)
    with np.errstate(all="ignore"):
        base = y.mean(0)
        loss = np.where(which, _huber(f - y), np.logaddexp(0, f) - f * y).mean(0)
        ne = loss / np.where(which, _huber(base - y).mean(0), entropy(base))
        calibration = np.where(which, f, 1 / (1 + np.exp(-f))).mean(0) / base
    coverage = len(f) / max(expected, 1)
    if not np.isfinite(f).all():
        reason = "logits that are not finite"
    else:
        reason = "" if gate is None else _beyond(ne, calibration, coverage, gate)
    status = "bad" if reason else "good"
    numbers = (tuple(map(float, ne)), tuple(map(float, calibration)), float(coverage))
    return Version(rows.teacher, rows.version, status, len(f), *numbers, reason)


def _huber(error: np.ndarray) -> np.ndarray:
    size = np.abs(error)
    return np.where(size <= 1, size**2 / 2, size - 0.5)


def _beyond(ne: np.ndarray, calibration: np.ndarray, coverage: float, gate: Gate) -> str:
    """The first limit that is passed; tasks that had one outcome alone have no finite figures and are not judged."""
    for task in np.flatnonzero(np.isfinite(ne) & np.isfinite(calibration)):
        if ne[task] > gate.ne:
            return f"normalised entropy {ne[task]:.4g} of task {task + 1} is above {gate.ne:g}"
        if not 1 / gate.calibration <= calibration[task] <= gate.calibration:
            return f"calibration {calibration[task]:.4g} of task {task + 1} is off by more than {gate.calibration:g}"
    return f"coverage {coverage:.4g} is below {gate.coverage:g}" if coverage < gate.coverage else ""
