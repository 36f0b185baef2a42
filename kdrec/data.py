"""Public streams and tables of the user: read once in blocks, given ids, kept as memory-mapped columns."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kdrec import io
from kdrec.io import InputError
from kdrec.stream import Columns, disorder

VERSION = 2  # of the layout of the cache
HASHES = 1 << 20  # values of a column whose hash is remembered


class Block(NamedTuple):
    """Events as a file tells them.

    Attributes:
        time: `[n]` seconds since 1970; NaN where missing.
        features: name to `[n]` values of any kind; the first two are the user and the item.
        numbers: name to `[n]`; a missing one counts as 0.
        labels: name to `[n]`, 0 or 1; NaN where missing.
        values: name to `[n]`, labels of real tasks, which come after the binary ones; NaN where missing.
    """

    time: np.ndarray
    features: Mapping[str, np.ndarray]
    numbers: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray] = MappingProxyType({})


class Rules(NamedTuple):
    """What a stream must be like.

    Attributes:
        sort: sort events by time, stably; else events out of order are refused.
        duplicates: `refuse` or `keep` events of the same time, user and item.
        gaps: `refuse` or `keep` days without events.
        buckets: hash ids into this many rows of the embedding table; None grows a row for each value.
    """

    sort: bool
    duplicates: str
    gaps: str
    buckets: int | None


class _Rows(dict):
    """Rows of the embedding table of one column: the next free one for a value not seen before, or its hash."""

    def __init__(self, column: str, free: Iterator[int], buckets: int | None) -> None:
        self._column, self._free, self._buckets = column, free, buckets

    def __missing__(self, value: Any) -> int:
        if self._buckets is None:
            row = next(self._free)
        else:
            row = zlib.crc32(f"{self._column}={value}".encode()) % self._buckets
            if len(self) >= HASHES:
                self.clear()  # a hash can be had again: memory stays flat however many values there are
        self[value] = row
        return row


def prepare(source: Sequence[Path], recipe: Any, blocks: Iterable[Block], rules: Rules, cache: str | None) -> Columns:
    """Give ids to the values of a stream, check its order, and map it into memory.

    Args:
        source: the files it comes from; the first names it in messages.
        recipe: whatever else decides what is read, for the name of the cache.
        blocks: the events; not touched where the cache has them.
        rules: what the stream must be like.
        cache: folder of the prepared columns; None takes `kdrec` under the user's cache folder.

    Returns:
        The stream.

    Raises:
        InputError: the stream breaks a rule, or a time or label is missing.
    """
    root = Path(cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "quartet" / "kdrec")
    stamps = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in source]
    name = hashlib.sha256(repr((VERSION, stamps, recipe, rules)).encode()).hexdigest()[:20]
    folder = root / name
    if not (folder / "meta.json").exists():
        root.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
        try:
            _write(making, source[0], blocks, rules)
            _install(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    meta = json.loads((folder / "meta.json").read_text())
    features, numeric, tasks = (tuple(meta[key]) for key in ("features", "numeric", "tasks"))
    real = tuple(meta["real"])
    return Columns(features, numeric, tasks, real, meta["vocabulary"], **io.map_columns(folder, meta["shapes"]))


def _install(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError:  # another process was faster; what it made is the same
        if not (folder / "meta.json").exists():
            raise


def _write(folder: Path, source: Path, blocks: Iterable[Block], rules: Rules) -> None:
    meta: dict[str, Any] = {}
    shapes = io.write_columns(folder, _encoded(source, blocks, rules.buckets, meta))
    if not shapes or not shapes["time"][1][0]:
        raise InputError(f"{source}: holds no events")
    columns = io.map_columns(folder, shapes)
    if np.any(np.diff(columns["time"]) < 0) and rules.sort:
        order = np.argsort(columns["time"], kind="stable")
        inner = folder / "sorted"
        inner.mkdir()
        chunks = np.array_split(order, max(1, len(order) >> 20))
        io.write_columns(inner, ({name: column[chunk] for name, column in columns.items()} for chunk in chunks))
        for path in inner.iterdir():
            path.replace(folder / path.name)
        inner.rmdir()
        columns = io.map_columns(folder, shapes)
    _check(source, columns, rules)
    (folder / "meta.json").write_text(json.dumps(meta | {"shapes": shapes}))


def _encoded(
    source: Path, blocks: Iterable[Block], buckets: int | None, meta: dict[str, Any]
) -> Iterator[dict[str, np.ndarray]]:
    free = itertools.count()
    rows: dict[str, _Rows] = {}
    done = 0
    for block in blocks:
        outcomes = {**block.labels, **block.values}
        for name, values in {"time": block.time, **outcomes}.items():
            if not np.all(np.isfinite(values)):
                row = done + int(np.flatnonzero(~np.isfinite(values))[0])
                what = "time" if name == "time" else f"label {name!r}"
                raise InputError(f"{source}: event {row} has no {what}; fill it in or leave the event out")
        for name in block.features:
            rows.setdefault(name, _Rows(name, free, buckets))
        meta.update(features=list(block.features), numeric=list(block.numbers), tasks=list(outcomes))
        meta.update(real=[name in block.values for name in outcomes])
        ids = [np.fromiter(map(rows[n].__getitem__, v.tolist()), np.int32, len(v)) for n, v in block.features.items()]
        filled = [np.nan_to_num(v) for v in block.numbers.values()]
        numbers = [np.sign(v) * np.log1p(np.abs(v)) for v in filled]
        count = len(block.time)
        yield {
            "time": block.time.astype(np.int64),
            "ids": np.stack(ids, axis=1),
            "numbers": np.stack(numbers, axis=1).astype(np.float32) if numbers else np.zeros((count, 0), np.float32),
            "labels": np.stack(list(outcomes.values()), axis=1).astype(np.float32),
        }
        done += count
    meta["vocabulary"] = buckets or next(free)


def _check(source: Path, columns: Mapping[str, np.ndarray], rules: Rules) -> None:
    found = disorder(columns["time"], columns["ids"][:, :2])
    if found.backwards is not None:
        before, here = columns["time"][found.backwards - 1], columns["time"][found.backwards]
        raise InputError(
            f"{source}: event {found.backwards} of time {here} comes after one of time {before}; "
            "sort the file, or let data.sort=true do it"
        )
    if found.repeated is not None and rules.duplicates == "refuse":
        raise InputError(
            f"{source}: event {found.repeated} repeats time {columns['time'][found.repeated]}, user and item of an "
            "earlier one; remove it, or set data.duplicates=keep"
        )
    if found.gap is not None and rules.gaps == "refuse":
        day = np.datetime64(int(columns["time"][found.gap - 1]), "s").astype("datetime64[D]") + 1
        raise InputError(f"{source}: {day} has no events; add them, or set data.gaps=keep if that is right")


def side(path: Path, key: str, columns: Sequence[str], kinds: str = "text", **how: Any) -> dict[Any, tuple[Any, ...]]:
    """Read a small table into memory: value of its key column to those of the others.

    Args:
        path: the file.
        key: name of the key column.
        columns: names of the others, all of them text.
        kinds: type of the key.
        how: as in `io.read`.

    Returns:
        One entry a row.
    """
    table: dict[Any, tuple[Any, ...]] = {}
    for block in io.read(path, {key: kinds, **dict.fromkeys(columns, "text")}, **how):
        table.update(zip(block[key].tolist(), zip(*(block[c].tolist() for c in columns), strict=True), strict=True))
    return table


def join(
    keys: np.ndarray, table: Mapping[Any, tuple[Any, ...]], width: int, *, unseen: str, what: str
) -> list[np.ndarray]:
    """Columns of a small table for the events that name its keys.

    Args:
        keys: `[n]`.
        table: as of `side`.
        width: number of columns.
        unseen: `refuse` a key that the table has not, or give it the value `unknown`, the same for all.
        what: what a key is, for the message.

    Returns:
        `width` arrays `[n]` of objects.

    Raises:
        InputError: a key is not in the table and `unseen` is `refuse`.
    """
    if unseen == "refuse" and (absent := [key for key in keys.tolist() if key not in table]):
        raise InputError(
            f"{what} {absent[0]} is not among the {len(table)} of its table ({len(absent)} events of this block); "
            "add it, or set data.unseen=unknown"
        )
    missing = ("unknown",) * width
    rows = [table.get(key, missing) for key in keys.tolist()]
    return [np.array(column, object) for column in zip(*rows, strict=True)]
