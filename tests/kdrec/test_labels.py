"""The label store: the same promises in memory and on disk, and what happens to it under fire."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from kdrec import delta, guard, labels
from kdrec.io import InputError
from kdrec.labels import Gate, Rows, Version, judge, pin
from kdrec.memory import Memory
from tests.conftest import REPOSITORY
from tests.kdrec import fire

TASKS = ("click", "at least 8")


def rows(teacher="a", version=0, start=0, n=6, published=100, shift=0.0):
    event = np.arange(start, start + n, dtype=np.int64)
    logits = np.stack([event + shift, -event], axis=1).astype(np.float32)
    return Rows(teacher, version, published, event, 50_000 * event, logits)


def known(teacher, version, status="good", n=6):
    return Version(teacher, version, status, n, (0.5, float("nan")), (1.0, 1.0), 1.0, "")


@pytest.fixture(params=["memory", "delta"])
def store(request, tmp_path):
    return Memory(TASKS) if request.param == "memory" else delta.Delta(tmp_path / "store", TASKS, every=3)


def test_what_is_appended_is_read_in_the_order_of_events(store):
    late, early = rows(start=6, version=1), rows(version=0)
    assert store.append("w", 0, [late, rows("b", 1, 6)])  # versions may come in any order
    assert store.append("w", 1, [early])
    store.promote("w", 0, [known("a", 0), known("a", 1), known("b", 1)])
    found = store.read(pin(store, ["b", "a"]), 3, 14)
    assert found.present.tolist() == [[False] * 3 + [True] * 6 + [False] * 2, [True] * 9 + [False] * 2]
    np.testing.assert_array_equal(found.logits[1, :9, 0], np.arange(3, 12))
    assert found.logits.dtype == np.float32
    assert np.all(found.logits[~found.present] == 0)
    assert found.version[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, -1, -1]


def test_a_repeated_batch_is_recognised(store):
    assert store.append("w", 0, [rows()])
    assert not store.append("w", 0, [rows(shift=9)])
    assert store.append("v", 0, [rows("b")])  # another writer counts for itself
    assert (store.batches("w"), store.batches("v"), store.batches("x")) == (0, 0, -1)
    assert store.promote("w", 0, [known("a", 0)])
    assert not store.promote("w", 0, [known("a", 0, "bad")])
    assert store.size()[0] == 12
    np.testing.assert_array_equal(store.read(pin(store, ["a"]), 0, 6).logits[0, :, 0], np.arange(6))


def test_the_highest_good_version_of_an_event_is_read_and_no_other(store):
    for version, status in enumerate(("good", "good", "bad", "candidate")):
        store.append("w", version, [rows(version=version, start=2 * version, shift=10 * version)])
        store.promote("w", version, [known("a", version, status)])
    found = store.read(pin(store, ["a"]), 0, 12)
    assert found.version[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1]
    assert store.read(pin(store, ["a"], 0, 0), 0, 12).version[0].tolist() == [0] * 6 + [-1] * 6
    store.promote("w", 4, [known("a", 3)])  # judged later
    assert store.read(pin(store, ["a"]), 0, 12).version[0].tolist() == [0, 0, 1, 1, 1, 1, *[3] * 6]


def test_a_pin_reads_the_same_for_ever(store):
    store.append("w", 0, [rows()])
    store.promote("w", 0, [known("a", 0)])
    before = pin(store, ["a"])
    first = store.read(before, 0, 12)
    store.append("w", 1, [rows(version=1, shift=5, n=12)])
    store.promote("w", 1, [known("a", 1), known("a", 0, "bad")])
    store.tidy()
    for a, b in zip(store.read(before, 0, 12)[:4], first[:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert store.read(pin(store, ["a"]), 0, 12).version[0].tolist() == [1] * 12


def test_labels_are_not_known_before_they_are_published_nor_where_they_are_not_finite(store):
    broken = rows(version=1, start=6, published=200)
    broken.logits[2, 1] = np.nan
    store.append("w", 0, [rows(published=100), broken])
    store.promote("w", 0, [known("a", 0), known("a", 1)])
    now = pin(store, ["a"])
    assert store.read(now._replace(known=150), 0, 12).present.sum() == 6
    assert store.read(now._replace(known=200), 0, 12).present[0].tolist() == [True] * 8 + [False] + [True] * 3


def test_backfill_adds_the_missing_rows_alone(store):
    store.append("w", 0, [rows(start=4)])
    store.promote("w", 0, [known("a", 0)])
    store.append("w", 1, [rows(version=1, n=12, shift=100)], missing=True)
    store.promote("w", 1, [known("a", 1)])
    found = store.read(pin(store, ["a"]), 0, 12)
    assert found.version[0].tolist() == [1] * 4 + [0] * 6 + [1] * 2
    assert store.size()[0] == 12
    assert not store.append("w", 1, [rows(version=1, n=12)], missing=True)


def test_a_version_that_is_not_there_is_answered_with_those_that_are(store):
    store.append("w", 0, [rows()])
    store.promote("w", 0, [known("a", 0), known("a", 1, "bad")])
    with pytest.raises(InputError, match=r"teacher 'a' has no good version 1; it has 0 \(good\), 1 \(bad\)"):
        pin(store, ["a"], 1, 1)
    with pytest.raises(InputError, match="no versions of teacher 'z'; the store has a"):
        pin(store, ["z"])


def test_the_gate_names_what_is_wrong():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 1, (4000, 2)).astype(np.float32)
    outcomes = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    gate = Gate(ne=1.1, calibration=1.3, coverage=0.9)
    right = Rows("a", 0, 0, np.arange(4000), np.arange(4000), logits)
    found = judge(right, outcomes, 4000, gate)
    assert (found.status, found.reason, found.coverage) == ("good", "", 1)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(found.calibration, p.mean(0) / outcomes.mean(0))
    base = outcomes.mean(0, dtype=float)
    entropy = -(base * np.log(base) + (1 - base) * np.log(1 - base))
    np.testing.assert_allclose(found.ne, -np.log(np.where(outcomes > 0, p, 1 - p)).mean(0) / entropy, rtol=1e-5)
    assert "calibration" in judge(right._replace(logits=logits + 1), outcomes, 4000, gate).reason
    assert "entropy" in judge(right._replace(logits=-3 * logits), outcomes, 4000, gate).reason
    assert judge(right, outcomes, 5000, gate).reason == "coverage 0.8 is below 0.9"
    assert judge(right._replace(logits=logits * np.nan), outcomes, 4000, None).status == "bad"
    assert judge(right._replace(logits=logits + 9), outcomes, 4000, None).status == "good"
    one_sided = judge(right, np.zeros_like(outcomes), 4000, gate)
    assert one_sided.status == "good"  # outcomes of one kind say nothing


def replayed(folder):
    """Rows of a table by the protocol's text alone: of files that its log adds and does not remove."""
    import pyarrow.parquet

    files = {}
    for commit in sorted((folder / "_delta_log").glob("*.json")):
        for action in map(json.loads, commit.read_text().splitlines()):
            if "add" in action:
                files[action["add"]["path"]] = action["add"]["partitionValues"]
            elif "remove" in action:
                del files[action["remove"]["path"]]
    for name, values in files.items():
        with (folder / unquote(name)).open("rb") as file:
            for row in pyarrow.parquet.read_table(file).to_pylist():
                yield row | values


def test_other_engines_read_the_same_rows(tmp_path):
    """DuckDB, whose reader of Delta Lake shares no code with the writer, Polars, and a replay of the log by hand."""
    import duckdb
    import duckdb_extension_delta
    import polars as pl

    store = delta.Delta(tmp_path / "store", TASKS)
    for batch in range(3):
        store.append("w", batch, [rows(t, batch, 6 * batch, shift=batch) for t in "ab"])
    columns = ("teacher_id", "event_id", "day", "logit_click", "logit_at_least_8")
    expected = [
        (t, e, str(np.datetime64(50_000 * e, "s").astype("datetime64[D]")), float(e + e // 6), float(-e))
        for t in "ab"
        for e in range(18)
    ]
    table = tmp_path / "store" / "labels"
    assert sorted(tuple(row[name] for name in columns) for row in replayed(table)) == expected
    store.tidy()  # from here on a checkpoint, and files that later ones replace
    extension = next(Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension"))
    with duckdb.connect() as connection:
        connection.execute(f"load '{extension}'")
        query = f"select {', '.join(columns)} from delta_scan('{table}') order by 1, 2"
        assert connection.execute(query).fetchall() == expected
    assert pl.read_delta(str(table)).select(columns).sort(columns[:2]).rows() == expected


def test_a_new_task_is_a_new_column_that_old_rows_lack(tmp_path):
    delta.Delta(tmp_path / "store", TASKS[:1]).append("w", 0, [rows()._replace(logits=np.ones((6, 1), np.float32))])
    store = delta.Delta(tmp_path / "store", TASKS)
    store.append("w", 1, [rows(version=1, start=6)])
    store.promote("w", 0, [known("a", 0), known("a", 1)])
    assert store.read(pin(store, ["a"]), 0, 12).present[0].tolist() == [False] * 6 + [True] * 6
    with pytest.raises(InputError, match=r"keeps logit_click, logit_at_least_8; this stream has logit_click; give"):
        delta.Delta(tmp_path / "store", TASKS[:1])


def test_files_that_nothing_needs_go_with_time(tmp_path):
    store = delta.Delta(tmp_path / "store", TASKS)
    for batch in range(4):
        store.append("w", batch, [rows(version=batch, start=6 * batch)])
        store.promote("w", batch, [known("a", batch)])
    before = store.read(pin(store, ["a"]), 0, 24)
    assert store.tidy(retention=24) == 0  # young files stay
    assert store.tidy(retention=0) > 0
    for a, b in zip(store.read(pin(store, ["a"]), 0, 24)[:4], before[:4], strict=True):
        np.testing.assert_array_equal(a, b)


def test_places_that_are_no_store_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").write_text("x")
    delta.Delta(tmp_path / "store", TASKS)
    log = tmp_path / "store" / "labels" / "_delta_log" / f"{0:020d}.json"
    for path, line in (("file", "is a file; give the folder"), ("other", "holds other things than a label store")):
        with pytest.raises(InputError, match=line):
            delta.Delta(tmp_path / path, TASKS)
    log.write_text("{broken")
    with pytest.raises(InputError, match="labels") as caught:
        delta.Delta(tmp_path / "store", TASKS)
    assert "\n" not in str(caught.value)


def test_a_second_process_with_the_name_of_a_writer_is_refused(tmp_path):
    store = delta.Delta(tmp_path / "store", TASKS)
    with guard.only(store.path, "w"), pytest.raises(InputError, match=r"another process writes to .* as 'w'"):
        store.append("w", 0, [rows()])
    assert store.append("w", 0, [rows()])


def test_a_full_disk_keeps_nothing_of_the_batch(tmp_path, monkeypatch):
    """A limit on the size of files stops the write of a data file in its middle, as a full disk does."""
    store = delta.Delta(tmp_path / "store", TASKS)
    store.append("w", 0, [rows()])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    large = rows(version=1, start=6, n=20_000)._replace(logits=noise, time=np.arange(20_000))  # of one day
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match="no space is left for a commit; free some and run the same command again"):
            store.append("w", 1, [large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.batches("w") == 0
    assert store.size()[0] == 6
    usage = shutil.disk_usage(tmp_path)._replace(free=large.logits.nbytes)  # found before the write begins
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="no space is left for a commit"):
        store.append("w", 1, [large])
    monkeypatch.undo()
    assert store.append("w", 1, [large])
    assert store.size()[0] == 20_006


def under_fire(folder, writers, readers, batches, kills):
    command = [sys.executable, "-m", "tests.kdrec.fire", folder / "store", writers, readers, batches, kills, 0]
    done = subprocess.run(list(map(str, command)), cwd=REPOSITORY, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    names = [f"teacher{number}" for number in range(writers)]
    assert told == {"killed": told["killed"], "failed": [], "done": names}, done.stderr
    import deltalake
    import duckdb

    kept_rows = deltalake.DeltaTable(str(folder / "store" / "labels")).to_pyarrow_dataset()  # noqa: F841
    kept = duckdb.sql(
        "select teacher_id, event_id, teacher_version, logit_click, logit_like from kept_rows order by 1, 2"
    )
    expected = [
        (name, e, e // fire.EVENTS, *fire.rows(name, e // fire.EVENTS).logits[e % fire.EVENTS].tolist())
        for name in names
        for e in range(batches * fire.EVENTS)
    ]
    assert kept.fetchall() == expected  # nothing lost, nothing doubled
    for name in names:
        acknowledged = {int(line) for line in (folder / f"{name}.acknowledged").read_text().split()}
        assert acknowledged == set(range(batches))
    seen = [line for path in folder.glob("*.seen") for line in path.read_text().splitlines()]
    assert set(seen) == {"ok"}
    return told["killed"], len(seen)


def test_writers_and_readers_that_are_killed_lose_and_double_nothing(tmp_path):
    killed, seen = under_fire(tmp_path, writers=2, readers=1, batches=8, kills=12)
    assert killed >= 5
    assert seen >= 1


@pytest.mark.slow
def test_many_kills_lose_and_double_nothing(tmp_path):
    killed, seen = under_fire(tmp_path, writers=3, readers=2, batches=40, kills=150)
    assert killed >= 60
    assert seen >= 10


def test_the_store_needs_no_jax():
    code = "import sys, kdrec.delta, kdrec.memory; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_a_task_is_a_column_that_every_engine_takes():
    assert labels.column("at least 8") == "logit_at_least_8"
    with pytest.raises(InputError, match="share the column"):
        delta.Delta("unused", ("a b", "a-b"))
