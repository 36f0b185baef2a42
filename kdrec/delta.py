"""A label store as two Delta Lake tables, `labels` and `versions`, in one folder.

A commit is all or nothing and any version can be read again. One process at a time writes under one name, which a lock
sees to; any number of names and readers may be at work. Spark, Flink, Trino, DuckDB and Polars read the same tables.
"""

import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrec.guard import check_folder, check_room, faults, only
from kdrec.io import InputError
from kdrec.labels import Found, Pin, Rows, Version, align, column, good
from kdrec.stream import DAY

KEYS = ("event_id", "event_ts", "label_ts", "teacher_version", "teacher_id", "day")
ATTEMPTS, PAUSE = 40, 0.02  # of a commit that meets others; s, doubled from attempt to attempt up to 1 s


class Delta:
    """Labels in a folder.

    Attributes:
        path: the folder; made where it is not there.
        tasks: of the labels.
        every: commits between two checkpoints of the tables' logs.
    """

    def __init__(self, path: str | Path, tasks: Sequence[str], every: int = 50) -> None:
        self.path, self.tasks, self.every = Path(path).absolute(), tuple(tasks), every
        self._pinned: tuple[tuple[int, int], Any, list[Version]] | None = None
        self._at_hand: dict[str, tuple[Any, int]] = {}  # tables, and how often each was brought up to date
        check_folder(self.path)
        columns = [column(task) for task in self.tasks]
        if len(set(columns)) < len(columns):
            raise InputError(f"labels: tasks {', '.join(self.tasks)} share the column {columns[0]}; rename one")
        self._make("labels", self._schema(), ["day", "teacher_id"])
        self._make("versions", _versions_schema(), [])
        self._check_tasks(columns)

    def _schema(self) -> Any:
        import pyarrow as pa

        kinds = (pa.int64(), pa.int64(), pa.int64(), pa.int64(), pa.string(), pa.string())
        fields = [*zip(KEYS, kinds, strict=True), *((column(task), pa.float32()) for task in self.tasks)]
        return pa.schema(fields)

    def _make(self, name: str, schema: Any, partitions: list[str]) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        where = self.path / name
        with faults(where):
            try:
                if not DeltaTable.is_deltatable(str(where)):
                    DeltaTable.create(str(where), schema, mode="ignore", partition_by=partitions or None)
            except DeltaError:  # another process made it first
                if not DeltaTable.is_deltatable(str(where)):
                    raise

    def _check_tasks(self, columns: list[str]) -> None:
        fields = [field.name for field in self._table("labels").schema().fields]
        kept = [name for name in fields if name.startswith("logit_")]
        if set(KEYS) - set(fields):
            missing = ", ".join(sorted(set(KEYS) - set(fields)))
            raise InputError(f"labels.path: {self.path} is not a label store: no column {missing}; give another path")
        if set(kept) - set(columns):
            raise InputError(
                f"labels.path: {self.path} keeps {', '.join(kept)}; this stream has {', '.join(columns)}; "
                "give another path"
            )

    def _table(self, name: str, version: int | None = None) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            return DeltaTable(str(self.path / name), version=version)
        except DeltaError as error:
            newest = "" if version is None else f"; its versions go up to {DeltaTable(str(self.path / name)).version()}"
            found = f"version {version} of " if version is not None else ""
            raise InputError(f"labels.path: {found}{self.path / name} cannot be read{newest} ({error})") from error

    def _newest(self, name: str) -> Any:
        """A table as it is now: what is at hand brought up to date, which reads the new commits alone.

        It is opened anew after as many times as there are commits between two checkpoints: what it keeps in memory
        grows with each.
        """
        from deltalake.exceptions import DeltaError

        table, times = self._at_hand.pop(name, (None, self.every))
        if times < self.every:
            with contextlib.suppress(DeltaError):  # opening it anew tells what is wrong
                table.update_incremental()
                self._at_hand[name] = (table, times + 1)
                return table
        table = self._table(name)
        self._at_hand[name] = (table, 1)
        return table

    def append(self, writer: str, batch: int, rows: Sequence[Rows], *, missing: bool = False) -> bool:
        """See `kdrec.labels.Store`."""
        return self._commit("labels", writer, batch, self._arrow(rows), missing)

    def _arrow(self, rows: Sequence[Rows]) -> Any:
        import pyarrow as pa

        parts = []
        for r in rows:
            n = len(r.event)
            number, day = np.unique(np.asarray(r.time) // DAY, return_inverse=True)
            names = pa.array(np.datetime_as_string(number.astype("datetime64[D]")), pa.string())
            values = [
                pa.array(r.event, pa.int64()), pa.array(r.time, pa.int64()),
                pa.array(np.full(n, r.published), pa.int64()), pa.array(np.full(n, r.version), pa.int64()),
                pa.array([r.teacher], pa.string()).take(pa.array(np.zeros(n, np.int64))),
                names.take(pa.array(day.astype(np.int64))),
            ]  # fmt: skip
            logits = np.ascontiguousarray(np.asarray(r.logits, np.float32).T)
            values += [pa.array(each, pa.float32()) for each in logits]
            parts.append(pa.table(values, schema=self._schema()))
        return pa.concat_tables(parts) if parts else self._schema().empty_table()

    def promote(self, writer: str, batch: int, versions: Sequence[Version]) -> bool:
        """See `kdrec.labels.Store`."""
        import pyarrow as pa

        rows = [{**v._asdict(), "set_at": time.time_ns(), "rank": number} for number, v in enumerate(versions)]
        return self._commit("versions", writer, batch, pa.Table.from_pylist(rows, _versions_schema()), False)

    def _commit(self, name: str, writer: str, batch: int, rows: Any, missing: bool) -> bool:
        """Write once; a commit that meets another one is tried again after a random pause."""
        import deltalake
        from deltalake.exceptions import CommitFailedError

        where, fault = self.path / name, None
        with only(self.path, writer), faults(where):
            check_room(where, rows.nbytes)
            for attempt in range(ATTEMPTS):
                table = self._newest(name)
                last = table.transaction_version(writer)
                if last is not None and last >= batch:
                    return attempt > 0  # kept before this call, or by an attempt whose answer was lost
                stamp = deltalake.CommitProperties(app_transactions=[deltalake.Transaction(writer, batch)])
                quiet = deltalake.PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
                try:
                    if missing:
                        same = (
                            "kept.event_id = new.event_id AND kept.teacher_id = new.teacher_id AND kept.day = new.day"
                        )
                        merge = table.merge(rows, same, "new", "kept", commit_properties=stamp)
                        merge.when_not_matched_insert_all().execute()
                    else:
                        deltalake.write_deltalake(
                            table, rows, mode="append", schema_mode="merge", commit_properties=stamp,
                            post_commithook_properties=quiet,
                        )  # fmt: skip
                except CommitFailedError as error:
                    fault = error
                    self._at_hand.pop(name)
                    time.sleep(random.uniform(0, min(1.0, PAUSE * 2**attempt)))
                    continue
                if table.version() % self.every == 0:
                    # It shortens the log that a reader must walk. Another process may do the same: the newest counts.
                    with contextlib.suppress(OSError):
                        table.create_checkpoint()
                return True
        raise InputError(f"labels.path: {where}: {ATTEMPTS} commits met others ({fault}); use fewer writers at a time")

    def read(self, pin: Pin, start: int, stop: int) -> Found:
        """See `kdrec.labels.Store`."""
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        dataset, known = self._at(pin)
        allowed = good(known, pin)
        event, teacher, versions = ds.field("event_id"), ds.field("teacher_id"), ds.field("teacher_version")
        wanted = (event >= start) & (event < stop) & teacher.isin(pin.teachers)
        wanted &= (versions >= pin.first) & (versions <= pin.last)
        have = [column(task) for task in self.tasks if column(task) in dataset.schema.names]
        names = ("event_id", "teacher_version", "label_ts")
        several = ["teacher_id"] if len(pin.teachers) > 1 else []
        found = dataset.to_table([*names, *several, *have], filter=wanted)
        keys = [found[name].to_numpy() for name in names]
        logits = np.full((len(found), len(self.tasks)), np.nan, np.float32)
        for task, name in enumerate(self.tasks):
            if column(name) in have:
                logits[:, task] = found[column(name)].to_numpy()
        rows = [(*keys, logits)]
        if several:
            own = [pc.equal(found["teacher_id"], name).to_numpy() for name in pin.teachers]
            rows = [tuple(each[mine] for each in rows[0]) for mine in own]
        taken = align(rows, [allowed[teacher] for teacher in pin.teachers], start, stop, len(self.tasks), pin.known)
        return taken._replace(bytes=found.nbytes)

    def _at(self, pin: Pin) -> tuple[Any, list[Version]]:
        """The table of labels and what is known of versions as they were; of the last pin they are at hand."""
        if self._pinned is None or self._pinned[0] != (pin.table, pin.log):
            known = self.versions(pin.log)
            self._pinned = ((pin.table, pin.log), self._table("labels", pin.table).to_pyarrow_dataset(), known)
        return self._pinned[1:]

    def versions(self, log: int | None = None) -> list[Version]:
        """See `kdrec.labels.Store`."""
        found = self._table("versions", log).to_pyarrow_dataset().to_table().to_pylist()
        last: dict[tuple[str, int], Version] = {}
        for row in sorted(found, key=lambda row: (row["set_at"], row["rank"])):
            values: Any = {
                name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in Version._fields
            }
            last[row["teacher"], row["version"]] = Version(**values)
        return [last[name] for name in sorted(last)]

    def heads(self) -> tuple[int, int]:
        """See `kdrec.labels.Store`."""
        return self._newest("labels").version(), self._newest("versions").version()

    def batches(self, writer: str) -> int:
        """See `kdrec.labels.Store`."""
        last = self._newest("labels").transaction_version(writer)
        return -1 if last is None else last

    def size(self) -> tuple[int, int]:
        """See `kdrec.labels.Store`."""
        import pyarrow as pa

        files = pa.table(self._table("labels").get_add_actions(flatten=True))
        return tuple(sum(files[name].to_pylist()) for name in ("num_records", "size_bytes"))  # type: ignore[return-value]

    def count(self, teacher: str, version: int) -> int:
        """See `kdrec.labels.Store`."""
        import pyarrow.dataset as ds

        wanted = (ds.field("teacher_id") == teacher) & (ds.field("teacher_version") == version)
        return self._table("labels").to_pyarrow_dataset().count_rows(filter=wanted)

    def tidy(self, retention: float | None = None) -> int:
        """Rewrite many small files into few, and remove those that no version younger than `retention` hours needs.

        Args:
            retention: h, longer than the longest run that has pinned a version; None keeps every file.

        Returns:
            Number of files that were removed.
        """
        removed = 0
        for name in ("labels", "versions"):
            with faults(self.path / name):
                table = self._table(name)
                table.optimize.compact()
                table.create_checkpoint()
                if retention is not None:
                    removed += len(table.vacuum(int(retention), dry_run=False, enforce_retention_duration=False))
        return removed


def _versions_schema() -> Any:
    import pyarrow as pa

    kinds = {"teacher": pa.string(), "version": pa.int64(), "status": pa.string(), "events": pa.int64()}
    kinds |= {"ne": pa.list_(pa.float64()), "calibration": pa.list_(pa.float64()), "coverage": pa.float64()}
    return pa.schema(list((kinds | {"reason": pa.string(), "set_at": pa.int64(), "rank": pa.int64()}).items()))
