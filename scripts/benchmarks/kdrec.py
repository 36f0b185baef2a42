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
WRITERS, COMMITS, ROWS = 3, 20, 2000


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    steps = settings.size or 300
    return [
        training("train", steps, 1_000),
        training("train_large", steps, 34_000),
        seeds(steps),
        stored(steps),
        append(),
        memory(settings.size or 2_000),
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


def seeds(steps: int) -> Benchmark:
    """Ten students at once against the same ten one after the other."""
    return Benchmark(
        "seeds", f"ten seeds of {steps} steps at once",
        functools.partial(_students.events, steps, 1_000), functools.partial(_students.student, seeds=10),
        _students.reference, tolerance=2e-3, answer=_losses,
        peers=(Peer("kdrec, one seed after the other", f"{LOCAL}:ten_in_turn", 10 / 3),),
    )  # fmt: skip


def stored(steps: int) -> Benchmark:
    """A student with an auxiliary task that reads its labels from a Delta table, against one without a teacher."""

    def ours(arrays: Inputs) -> Run:
        from kdrec.delta import Delta
        from kdrec.labels import Rows, Version, pin

        folder = Path(tempfile.mkdtemp(prefix="labels-"))
        store = Delta(folder / "store", ("click", "like"))
        t, b, k = arrays["labels"].shape
        for number, part in enumerate(np.array_split(np.arange(t * b), max(1, t // 100))):
            logits = arrays["logits"].reshape(-1, k)[part]
            store.append("teacher", number, [Rows("teacher", 0, 0, part, part, logits)])
        store.promote("teacher", 0, [Version("teacher", 0, "good", t * b, (1, 1), (1, 1), 1, "")])
        pinned = pin(store, ["teacher"])
        learn = _students.taught(arrays)

        def run() -> Any:
            found = store.read(pinned, 0, t * b)
            return learn(found.logits.reshape(1, t, b, k).swapaxes(0, 1), found.present.reshape(1, t, b).swapaxes(0, 1))

        return run

    return Benchmark(
        "stored", f"{steps} steps with labels from a Delta table",
        functools.partial(_students.events, steps, 34_000), ours, functools.partial(_students.reference, rate=0.005),
        tolerance=5e-2, answer=_losses,
        peers=(Peer("kdrec, no teacher", f"{LOCAL}:no_teacher", 0.9),),
    )  # fmt: skip


def append() -> Benchmark:
    """Three processes append to one table; the peer is the time that 60,000 rows a second would take."""
    rows = WRITERS * COMMITS * ROWS

    def ours(_: Inputs) -> Run:
        workers = _students.Writers(WRITERS, COMMITS, ROWS)

        def run() -> np.ndarray:
            folder = Path(tempfile.mkdtemp(prefix="labels-"))
            try:
                return workers.write(folder / "store")
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        return run

    return Benchmark(
        "append", f"{WRITERS} writers, {COMMITS} commits of {ROWS:,} rows each; rows kept, of them distinct",
        lambda: {"rows": np.asarray([rows, rows])}, ours, lambda arrays: arrays["rows"], tolerance=0,
        peers=(Peer("60,000 rows a second", f"{LOCAL}:sixty_thousand", 1),),
    )  # fmt: skip


def memory(steps: int) -> Benchmark:
    """A whole stream: what it takes beyond its first intervals must not depend on its length."""

    def ours(_: Inputs) -> Run:
        return _students.stream(steps)

    return Benchmark(
        "memory", f"teacher and students over {128 * steps:,} simulated events, interval after interval",
        lambda: {"events": np.asarray([float(128 * steps)])}, ours, lambda arrays: arrays["events"], tolerance=0,
        memory_mb=32,
    )  # fmt: skip
