"""A label store in memory, gone with its process: the shortest reading of what `kdrec.labels.Store` promises."""

from collections.abc import Sequence

import numpy as np

from kdrec.labels import Found, Pin, Rows, Version, align, good


class Memory:
    """A store in memory, gone with its process."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._batches: list[list[Rows]] = []
        self._log: list[list[Version]] = []
        self._last: dict[tuple[str, str], int] = {}

    def append(self, writer: str, batch: int, rows: Sequence[Rows], *, missing: bool = False) -> bool:
        """See `Store`."""
        if batch <= self._last.get(("append", writer), -1):
            return False
        kept = [self._missing(each) for each in rows] if missing else list(rows)
        self._batches.append(kept)
        self._last["append", writer] = batch
        return True

    def _missing(self, rows: Rows) -> Rows:
        old = [each.event for batch in self._batches for each in batch if each.teacher == rows.teacher]
        new = ~np.isin(rows.event, np.concatenate([np.zeros(0, np.int64), *old]))
        return rows._replace(event=rows.event[new], time=rows.time[new], logits=rows.logits[new])

    def read(self, pin: Pin, start: int, stop: int) -> Found:
        """See `Store`."""
        allowed = good(self.versions(pin.log), pin)
        rows = []
        for teacher in pin.teachers:
            own = [each for batch in self._batches[: pin.table] for each in batch if each.teacher == teacher]
            own = [each for each in own if len(each.event) and each.event[0] < stop and each.event[-1] >= start]
            empty = (np.zeros(0, np.int64),) * 3
            parts = [(*empty, np.zeros((0, len(self.tasks)), np.float32))]
            for e in own:
                parts.append((e.event, np.full(len(e.event), e.version), np.full(len(e.event), e.published), e.logits))
            rows.append(tuple(np.concatenate(each) for each in zip(*parts, strict=True)))
        found = align(rows, [allowed[teacher] for teacher in pin.teachers], start, stop, len(self.tasks), pin.known)
        return found._replace(bytes=sum(column.nbytes for each in rows for column in each))

    def versions(self, log: int | None = None) -> list[Version]:
        """See `Store`."""
        last = {(v.teacher, v.version): v for entry in self._log[:log] for v in entry}
        return [last[name] for name in sorted(last)]

    def promote(self, writer: str, batch: int, versions: Sequence[Version]) -> bool:
        """See `Store`."""
        if batch <= self._last.get(("promote", writer), -1):
            return False
        self._log.append(list(versions))
        self._last["promote", writer] = batch
        return True

    def heads(self) -> tuple[int, int]:
        """See `Store`."""
        return len(self._batches), len(self._log)

    def batches(self, writer: str) -> int:
        """See `Store`."""
        return self._last.get(("append", writer), -1)

    def size(self) -> tuple[int, int]:
        """See `Store`."""
        kept = [each for batch in self._batches for each in batch]
        return sum(len(r.event) for r in kept), sum(r.event.nbytes + r.time.nbytes + r.logits.nbytes for r in kept)

    def count(self, teacher: str, version: int) -> int:
        """See `Store`."""
        kept = [each for batch in self._batches for each in batch]
        return sum(len(r.event) for r in kept if (r.teacher, r.version) == (teacher, version))

    def tidy(self, retention: float | None = None) -> int:  # noqa: ARG002
        """See `Store`; there is nothing to do."""
        return 0
