"""Recipes: which columns of which file make a stream. Events of each are read in blocks."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrec import io
from kdrec.data import Block, Rules, join, prepare, side
from kdrec.io import InputError
from kdrec.stream import Columns

UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
MINUTE = "hourmin"
HALF_MINUTE = 30_000  # ms; the unit of watch time, in which Huber's loss turns linear
_ONE_HOT = tuple(f"onehot_feat{i}" for i in range(12))
_ACTIVITY = ("user_active_degree", "follow_user_num_range", "fans_user_num_range", "register_days_range")
_LOGS = ("log_standard_4_08_to_4_21_{}.csv", "log_standard_4_22_to_5_08_{}.csv", "user_features_{}.csv")


def _title_year(title: str) -> str:
    found = re.search(r"\((\d{4})\)\s*$", title)
    return found.group(1) if found else "unknown"


def _stars(rating: np.ndarray, levels: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Tasks `rating at least so much`; a missing rating stays missing."""
    return {name: np.where(np.isnan(rating), np.nan, rating >= level) for name, level in levels.items()}


def movietweetings(folder: Path, unseen: str) -> Iterator[Block]:
    """MovieTweetings: user, item, year, genres and first genre; tasks `rating >= 8`, `rating >= 9`, real `rating`."""
    names: dict[str, Any] = {"delimiter": "::", "names": ("user", "item", "rating", "time")}
    movies = {}
    known = side(folder / "movies.dat.gz", "id", ("title", "genres"), delimiter="::", names=("id", "title", "genres"))
    for key, (title, genres) in known.items():
        movies[key] = (_title_year(title or ""), genres or "none", (genres or "none").split("|")[0])
    kinds = {"user": "text", "item": "text", "rating": "number", "time": "integer"}
    for block in io.read(folder / "ratings.dat.gz", kinds, **names):
        year, genres, genre = join(block["item"], movies, 3, unseen=unseen, what="ratings.dat.gz: movie")
        features = {"user": block["user"], "item": block["item"], "year": year, "genres": genres, "genre": genre}
        labels = _stars(block["rating"], {"at least 8": 8, "at least 9": 9})
        yield Block(block["time"], features, {}, labels, {"rating": block["rating"]})


def movielens_100k(folder: Path, unseen: str) -> Iterator[Block]:
    """MovieLens-100K as RecBole's atomic files; tasks `rating >= 4`, `rating >= 5`, real `rating`."""
    tab = {"delimiter": "\t"}
    users = side(folder / "ml-100k.user.gz", "user_id:token", ("age:token", "gender:token", "occupation:token"), **tab)
    users = {key: (str(int(age) // 10 * 10), gender, job) for key, (age, gender, job) in users.items()}
    items = side(folder / "ml-100k.item.gz", "item_id:token", ("class:token_seq", "release_year:token"), **tab)
    items = {key: (kind, (year or "?")[:3], year or "?") for key, (kind, year) in items.items()}
    kinds = {"user_id:token": "text", "item_id:token": "text", "rating:float": "number", "timestamp:float": "number"}
    for block in io.read(folder / "ml-100k.inter.gz", kinds, **tab):
        user, item, rating, time = (block[name] for name in kinds)
        age, gender, occupation = join(user, users, 3, unseen=unseen, what="ml-100k.inter.gz: user")
        genres, decade, year = join(item, items, 3, unseen=unseen, what="ml-100k.inter.gz: item")
        features = {"user": user, "item": item, "age": age, "gender": gender, "occupation": occupation}
        features |= {"genres": genres, "decade": decade, "year": year}
        yield Block(time, features, {}, _stars(rating, {"at least 4": 4, "at least 5": 5}), {"rating": rating})


def movielens_1m(folder: Path, unseen: str) -> Iterator[Block]:
    """MovieLens-1M, whole or a sample of its ratings; tasks `rating >= 4`, `rating >= 5`, real `rating`."""
    colons: dict[str, Any] = {"delimiter": "::", "encoding": "latin1"}
    fields = ("user", "gender", "age", "occupation", "zip")
    users = side(_either(folder, "users.dat"), "user", fields[1:4], names=fields, **colons)
    fields = ("item", "title", "genres")
    items = side(_either(folder, "movies.dat"), "item", fields[1:], names=fields, **colons)
    items = {key: (genres, _title_year(title)) for key, (title, genres) in items.items()}
    kinds = {"user": "text", "item": "text", "rating": "number", "time": "integer"}
    for block in io.read(_either(folder, "ratings.dat"), kinds, names=tuple(kinds), **colons):
        features = {"user": block["user"], "item": block["item"]}
        columns = join(block["user"], users, 3, unseen=unseen, what="ratings.dat: user")
        columns += join(block["item"], items, 2, unseen=unseen, what="ratings.dat: movie")
        features |= dict(zip(("gender", "age", "occupation", "genres", "year"), columns, strict=True))
        labels = _stars(block["rating"], {"at least 4": 4, "at least 5": 5})
        yield Block(block["time"], features, {}, labels, {"rating": block["rating"]})


def movielens_small(folder: Path, unseen: str) -> Iterator[Block]:
    """MovieLens latest-small, and every other MovieLens of its form (25M, 32M, latest).

    Tasks `rating >= 4`, `rating >= 5`, real `rating`; nothing is told of users.
    """
    movies = {}
    for key, (title, genres) in side(_either(folder, "movies.csv"), "movieId", ("title", "genres")).items():
        movies[key] = (_title_year(title or ""), genres or "none", (genres or "none").split("|")[0])
    kinds = {"userId": "text", "movieId": "text", "rating": "number", "timestamp": "integer"}
    for block in io.read(_either(folder, "ratings.csv"), kinds):
        user, item, rating, time = (block[name] for name in kinds)
        year, genres, genre = join(item, movies, 3, unseen=unseen, what="ratings.csv: movie")
        features = {"user": user, "item": item, "year": year, "genres": genres, "genre": genre}
        yield Block(time, features, {}, _stars(rating, {"at least 4": 4, "at least 5": 5}), {"rating": rating})


def _either(folder: Path, name: str) -> Path:
    """A file or its gzipped form."""
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"


def kuairand(folder: Path, unseen: str) -> Iterator[Block]:
    """KuaiRand, k-core sample: tasks `long view`, `like` (explicit like against hate); real: `watch`, half minutes."""
    log, users = (folder / name for name in PUBLIC["kuairand"][2])
    return _videos([log], users, {"long view": "long_view", "like": "label"}, unseen, delimiter="\t")


def kuairand_logs(folder: Path, unseen: str, size: str) -> Iterator[Block]:
    """KuaiRand as published, `pure` or `1k`: both logs of what the recommender chose, randomly shown videos left out.

    Tasks `click`, `long view`, `like`; real: `watch`, half minutes.
    """
    *logs, users = (_either(folder, name.format(size)) for name in _LOGS)
    labels = {"click": "is_click", "long view": "long_view", "like": "is_like"}
    return _videos(logs, users, labels, unseen, also=("tab",))


def _videos(
    logs: Sequence[Path],
    users: Path,
    labels: Mapping[str, str],
    unseen: str,
    delimiter: str = ",",
    also: Sequence[str] = (),
) -> Iterator[Block]:
    """Events of short videos; `also` names further columns.

    Durations are cut into 30 bins of equal width in their logarithm, from 1 s to 1000 s, which needs no statistic of
    the events to come; 0, which stands for an unknown one, is a bin of its own.
    """
    known = side(users, "user_id", (*_ACTIVITY, *_ONE_HOT), "integer")
    kinds = dict.fromkeys(("user_id", "video_id", "time_ms", MINUTE, *also), "integer")
    kinds |= dict.fromkeys(("duration_ms", "play_time_ms", *labels.values()), "number")
    for log in logs:
        for block in io.read(log, kinds, delimiter=delimiter):
            seconds = block["duration_ms"] / 1000
            bins = np.clip(np.log10(np.maximum(seconds, 1)) * 10, 0, 29).astype(np.int64)
            columns = join(block["user_id"], known, 16, unseen=unseen, what=f"{log.name}: user")
            features = {"user": block["user_id"], "item": block["video_id"]}
            features |= {"duration": np.where(seconds > 0, bins, -1), "hour": block[MINUTE] // 100}
            features |= {name: block[name] for name in also}
            features |= dict(zip((*_ACTIVITY, *_ONE_HOT), columns, strict=True))
            found = {task: block[name] for task, name in labels.items()}
            yield Block(block["time_ms"] // 1000, features, {}, found, {"watch": block["play_time_ms"] / HALF_MINUTE})


PUBLIC: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "movietweetings": (movietweetings, "movietweetings-141k", ("ratings.dat.gz", "movies.dat.gz")),
    "movielens_100k": (movielens_100k, "ml-100k", ("ml-100k.inter.gz", "ml-100k.user.gz", "ml-100k.item.gz")),
    "movielens_1m": (movielens_1m, "ml-1m-sample100k", ("ratings.dat", "users.dat", "movies.dat")),
    "movielens_small": (movielens_small, "ml-latest-small", ("ratings.csv", "movies.csv")),
    "kuairand": (
        kuairand,
        "kuairand27k_kcore15",
        ("processed_standard_kcore_15.tsv.gz", "user_features_pure.csv.gz"),
    ),
}
for _size, _folder in (("pure", "KuaiRand-Pure/data"), ("1k", "KuaiRand-1K/data")):
    _files = tuple(name.format(_size) for name in _LOGS)
    PUBLIC[f"kuairand_{_size}"] = (functools.partial(kuairand_logs, size=_size), _folder, _files)


def public(
    name: str, path: str | None, unseen: str, rules: Rules, cache: str | None, *, values: bool = False
) -> Columns:
    """Open a public stream.

    Args:
        name: a key of `PUBLIC`.
        path: its folder, or one that holds it; None looks under the environment variable QUARTET_DATA.
        unseen: see `kdrec.data.join`.
        rules: what the stream must be like.
        cache: see `kdrec.data.prepare`.
        values: its real task too.

    Returns:
        The stream.

    Raises:
        InputError: it is not there, or breaks a rule.
    """
    recipe, shipped, files = PUBLIC[name]
    gzipped = files[0] if files[0].endswith(".gz") else f"{files[0]}.gz"
    try:
        folder = io.locate(shipped, path, files[0])
    except InputError:
        folder = io.locate(shipped, path, gzipped)
    source = [_either(folder, file) for file in files]
    if absent := [file for file in source if not file.exists()]:
        raise InputError(f"{folder}: {name} needs {absent[0].name} too; fetch it from where the data set came from")
    blocks = recipe(folder, unseen)
    if not values:
        blocks = (block._replace(values={}) for block in blocks)
    return prepare(source, (name, unseen, values), blocks, rules, cache)


def table(
    path: Path,
    *,
    roles: Mapping[str, str | None],
    categories: Sequence[str],
    numbers: Sequence[str],
    labels: Mapping[str, float],
    values: Mapping[str, float],
    unit: str,
    delimiter: str,
    rules: Rules,
    cache: str | None,
    columns: Sequence[str] | None = None,
    pace: float = 1,
) -> Columns:
    """Open a table of the user as a stream.

    Args:
        path: text or Parquet; see `kdrec.io.read`.
        roles: names of the columns that are `user`, `item` and `time`; None where the table has no such column.
        categories: further columns whose values get rows of the embedding table.
        numbers: columns of numbers, taken as sign(x) log(1 + |x|).
        labels: a task for each column, positive from the given value on.
        values: a real task for each column, in units of the given value.
        unit: of the time since 1970: `s`, `ms` or `us`; or `yymmddhh`, hours of the calendar.
        delimiter: of text.
        rules: what the stream must be like.
        cache: see `kdrec.data.prepare`.
        columns: names of the columns of a text without a line of names.
        pace: rows a second of a table without times, whose order is taken for that of time.

    Returns:
        The stream.

    Raises:
        InputError: the file or a column is absent, or the stream breaks a rule.
    """
    ids = {role: name for role, name in roles.items() if name is not None and role != "time"}
    time = roles["time"]
    kinds = dict.fromkeys((*ids.values(), *categories), "text")
    kinds |= dict.fromkeys((*numbers, *labels, *values, *([] if time is None else [time])), "number")
    _check_roles((*ids, *categories), labels, values, rules)
    read = io.read(path, kinds, delimiter=delimiter, names=columns)

    def blocks() -> Iterator[Block]:
        done = 0
        for block in read:
            features = {role: block[name] for role, name in ids.items()} | {name: block[name] for name in categories}
            found = {name: np.where(np.isnan(block[name]), np.nan, block[name] >= y) for name, y in labels.items()}
            real = {name: block[name] / one for name, one in values.items()}
            count = len(next(iter(block.values())))
            at = np.arange(done, done + count) / pace if time is None else _seconds(block[time], unit, path)
            done += count
            yield Block(at, features, {n: block[n] for n in numbers}, found, real)

    given = [tuple(each.items()) for each in (roles, labels, values)]
    recipe = (*given, tuple(categories), tuple(numbers), unit, delimiter, columns and tuple(columns), pace)
    return prepare([path], recipe, blocks(), rules, cache)


def _check_roles(
    features: Sequence[str], labels: Mapping[str, float], values: Mapping[str, float], rules: Rules
) -> None:
    if both := set(labels) & set(values):
        raise InputError(f"data.values: {min(both)!r} is in data.labels too; take it out of one of the two")
    if not labels and not values:
        raise InputError("data.labels: no task; name a column in data.labels or data.values")
    if not features:
        raise InputError("data.categories: nothing to learn from; name a column in data.user, item or categories")
    if features[:2] != ("user", "item") and rules.duplicates == "refuse":
        raise InputError("data.duplicates: repeated events show by user and item; name both, or set it to keep")


def _seconds(time: np.ndarray, unit: str, path: Path) -> np.ndarray:
    """`[n]` seconds since 1970; NaN where missing."""
    if unit != "yymmddhh":
        return time / UNITS[unit]
    known = np.isfinite(time)
    year, month, day, hour = (np.where(known, time, 10100) // 100**place % 100 for place in (3, 2, 1, 0))
    wrong = (month < 1) | (month > 12) | (day < 1) | (day > 31) | (hour > 23) | (time >= 1e8)
    if wrong.any():
        raise InputError(f"{path}: time {time[wrong][0]:.0f} is not of the form YYMMDDHH; give another data.unit")
    months = ((30 + year) * 12 + month - 1).astype("datetime64[M]").astype("datetime64[D]")
    seconds = (months.astype(np.int64) + day - 1) * 86_400 + hour * 3_600
    return np.where(known, seconds, np.nan)
