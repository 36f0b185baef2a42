"""Benchmarks of kdrec: a student of 8-wide embeddings and two layers of 32, batches of 128 events, dense Adam.

Both sides get the same events and the same initial parameters, and hand back the mean log loss of each task over what
was predicted before it was learned; a float64 loop in NumPy says what that must be.
"""

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _students
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings

LOCAL, TORCH, FUXICTR = "kdrec_local", "kdrec_torch", "kdrec_fuxictr"
WRITERS = 3


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    steps = settings.size or 300
    return [
        training("train", steps, 1_000),
        training("train_large", steps, 34_000),
        seeds("seeds", steps, 1_000),
        seeds("seeds_large", steps, 34_000),
        stored("stored", steps, "auxiliary"),
        stored("stored_direct", steps, "direct"),
        stored("reading", 4 * steps, "auxiliary", Peer("kdrec, labels at hand", f"{LOCAL}:labels_at_hand", 1 / 1.05)),
        append("append", 20, 2_000),
        append("append_intervals", 10, 12_800),
        memory("memory", settings.size or 1_000),
        memory("memory_longer", 4 * (settings.size or 1_000)),
    ]


def _losses(result: Any) -> np.ndarray:
    """`[K]` mean log loss of the first student."""
    sums = result[1]
    return np.asarray(sums.loss[0, 0], np.float64) / float(sums.events[0, 0])


def training(name: str, steps: int, rows: int) -> Benchmark:
    """One student without a teacher: examples a second."""
    return Benchmark(
        name, f"{steps} steps, embedding table of {rows:,} rows",
        functools.partial(_students.events, steps, rows), _students.student, _students.reference,
        tolerance=2e-3, answer=_losses,
        peers=(
            Peer("PyTorch, plain loop", f"{TORCH}:plain_loop", 2, environment="torch"),
            Peer("FuxiCTR's trainer", f"{FUXICTR}:trainer", 3, environment="fuxictr"),
        ),
    )  # fmt: skip


def seeds(name: str, steps: int, rows: int) -> Benchmark:
    """Ten students at once, in five groups, against the same ten one after the other, and in one group."""
    return Benchmark(
        name, f"ten seeds of {steps} steps at once, embedding table of {rows:,} rows",
        functools.partial(_students.events, steps, rows), functools.partial(_students.student, seeds=10, groups=5),
        _students.reference, tolerance=2e-3, answer=_losses,
        peers=(
            Peer("kdrec, one seed after the other", f"{LOCAL}:ten_in_turn", 10 / 3),
            Peer("kdrec, ten seeds in one program", f"{LOCAL}:ten_in_one"),
        ),
    )  # fmt: skip


NO_TEACHER = Peer("kdrec, no teacher", f"{LOCAL}:no_teacher", 0.9)


def stored(name: str, steps: int, method: str, peer: Peer = NO_TEACHER) -> Benchmark:
    """A student that reads its labels from a Delta table, against one that needs not; both by intervals of 100."""

    def ours(arrays: Inputs) -> Run:
        from kdrec.channel import Channel
        from kdrec.delta import Delta
        from kdrec.labels import Rows, Version, pin

        folder = Path(tempfile.mkdtemp(prefix="labels-"))
        store = Delta(folder / "store", ("click", "like"))
        t, b, k = arrays["labels"].shape
        for number, part in enumerate(np.array_split(np.arange(t * b), max(1, t // 100))):
            logits = arrays["logits"].reshape(-1, k)[part]
            store.append("teacher", number, [Rows("teacher", 0, 0, part, part, logits)])
        store.promote("teacher", 0, [Version("teacher", 0, "good", t * b, (1, 1), (1, 1), 1, "")])
        store.tidy()  # as a run does at its end
        pinned = pin(store, ["teacher"])
        channel = Channel(store, "student", ["teacher"], None, "none")
        return _students.by_intervals(arrays, method, lambda *asked: channel.recall(*asked, pinned))

    return Benchmark(
        name, f"{steps} steps, {method} distillation from a Delta table, an interval at a time",
        functools.partial(_students.events, steps, 34_000), ours, functools.partial(_students.reference, rate=0.005),
        tolerance=5e-2, answer=_losses,
        peers=(peer,),
    )  # fmt: skip


def append(name: str, commits: int, size: int) -> Benchmark:
    """Three processes append to one table; the peer is the time that 60,000 rows a second would take.

    A run commits an interval at a time, 12,800 events by default; 2,000 rows a commit are harder than what it does.
    """
    rows = WRITERS * commits * size

    def ours(_: Inputs) -> Run:
        workers = _students.Writers(WRITERS, commits, size)

        def run() -> np.ndarray:
            folder = Path(tempfile.mkdtemp(prefix="labels-"))
            try:
                return workers.write(folder / "store")
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return run

    return Benchmark(
        name, f"{WRITERS} writers, {commits} commits of {size:,} rows each; rows kept, of them distinct",
        lambda: {"rows": np.asarray([rows, rows])}, ours, lambda arrays: arrays["rows"], tolerance=0,
        peers=(Peer("60,000 rows a second", f"{LOCAL}:sixty_thousand", 1),),
    )  # fmt: skip


def memory(name: str, steps: int) -> Benchmark:
    """A whole stream: what it takes beyond its first intervals must not depend on its length; see the pair of rows."""

    def ours(_: Inputs) -> Run:
        return _students.stream(steps)

    return Benchmark(
        name, f"teacher and students over {128 * steps:,} simulated events, interval after interval",
        lambda: {"events": np.asarray([float(128 * steps)])}, ours, lambda arrays: arrays["events"], tolerance=0,
        memory_mb=32,
    )  # fmt: skip
