"""Students, events and writers for the benchmarks of kdrec."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH, FEATURES, TASKS, EMBEDDING, LAYERS, RATE = 128, 5, 2, 8, (32, 32), 0.005


def spec(rows: int) -> Any:
    """Shape of the student."""
    from kdrec.models import Spec

    return Spec("mlp", rows, FEATURES, 0, TASKS, EMBEDDING, LAYERS, 0, 0)


def events(steps: int, rows: int) -> dict[str, np.ndarray]:
    """Events `[T, B, ...]` with labels that can be learned, teacher logits, and initial parameters, flat by name."""
    import jax

    from kdrec import models

    rng = np.random.default_rng(0)
    # Popular ids come often, as they do: the n-th in proportion to 1/n.
    ids = np.exp(rng.random((steps, BATCH, FEATURES)) * np.log(rows // FEATURES)).astype(np.int32) - 1
    ids = (ids + np.arange(FEATURES) * (rows // FEATURES)).astype(np.int32)
    truth = rng.normal(0, 0.7, (rows, TASKS))[ids].sum(2) - 0.5
    labels = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    arrays = {"ids": ids, "labels": labels, "logits": truth.astype(np.float32), "rows": np.asarray(rows)}
    params = jax.jit(models.init, static_argnums=1)(jax.random.key(0), spec(rows))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        arrays["p/" + "/".join(part.key for part in path).replace("/", ".")] = np.asarray(leaf)
    return {name.replace("p/", "p_"): array for name, array in arrays.items()}


def _programs(arrays: dict[str, np.ndarray], method: str, seeds: int) -> tuple[Any, ...]:
    """Plan, what is traced, fresh students from the given parameters, and the events on the device."""
    import jax
    import jax.numpy as jnp

    from kdrec import distill, train
    from kdrec import plan as plans
    from kdrec.optimiser import fresh
    from kdrec.stream import Batches

    student = spec(int(arrays["rows"]))
    teacher = student.scaled(2)
    how = distill.Method(method, (1.0,) * TASKS, "probability", "sigmoid")
    plan = plans.Plan(student, teacher, how, 0, 4, 0, 256, tuple(range(FEATURES)))
    dose = train.Dose(jnp.float32(RATE), jnp.ones(1), jnp.float32(1))
    ranker: dict[str, Any] = {}
    for name in arrays:
        if name.startswith("p_"):
            *parents, leaf = name[2:].split(".")
            node = ranker
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = jnp.asarray(arrays[name])
    extra = distill.init(jax.random.key(1), how, student, teacher)
    one = fresh({"ranker": ranker, "extra": extra})
    students = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, 1, *x.shape)), one)
    t, b, _ = arrays["ids"].shape
    found = Batches(jnp.asarray(arrays["ids"]), jnp.zeros((t, b, 0)), jnp.asarray(arrays["labels"]), jnp.ones((t, b)))
    return plan, dose, students, found


def student(arrays: dict[str, np.ndarray], seeds: int = 1, groups: int = 1) -> Callable[[], Any]:
    """Students without a teacher over all steps, their seeds in so many groups."""
    import jax
    import jax.numpy as jnp

    from kdrec import cores, teach

    plan, dose, students, found = _programs(arrays, "none", seeds)
    steps, b, k = arrays["labels"].shape
    said = teach.Said(jnp.zeros((steps, seeds, b, k)), jnp.zeros((steps, seeds, b, 0)))
    present, span = jnp.zeros((steps, seeds, b)), (jnp.int32(0), jnp.int32(steps))

    def run() -> Any:
        return cores.follow(groups, plan, dose, jax.tree.map(jnp.copy, students), found, said, present, *span)

    return run


def by_intervals(arrays: dict[str, np.ndarray], method: str, labels: Any, interval: int = 100) -> Callable[[], Any]:
    """One student over all steps, interval by interval as an experiment goes.

    `labels` gives of first event, shape and times what `Channel.recall` does; None: there is no teacher.
    """
    import jax
    import jax.numpy as jnp

    from kdrec import teach, train
    from kdrec.stream import Batches

    plan, dose, students, whole = _programs(arrays, method, 1)
    whole = Batches(*(np.asarray(column) for column in whole))
    t, b, k = arrays["labels"].shape

    def run() -> Any:
        student, sums = jax.tree.map(jnp.copy, students), []
        for first in range(0, t, interval):
            last = min(first + interval, t)
            logits, present = np.zeros((last - first, 1, b, k), np.float32), np.zeros((last - first, 1, b), np.float32)
            if labels is not None:
                heard = labels(first * b, (last - first, b, k), np.arange(first * b, last * b))
                logits, present = heard.logits, heard.present.astype(np.float32)
            part = Batches(*(jnp.asarray(column[first:last]) for column in whole))
            said = teach.Said(jnp.asarray(logits), jnp.zeros((*logits.shape[:-1], 0)))
            span = (jnp.int32(0), jnp.int32(last - first))
            student, told = train.follow(plan, dose, student, part, said, jnp.asarray(present), *span)
            sums.append(told)
        return student, jax.tree.map(lambda *parts: sum(parts), *sums)

    return run


def reference(arrays: dict[str, np.ndarray], rate: float = RATE) -> np.ndarray:
    """`[K]` mean progressive log loss in float64: forward, backward and Adam by hand."""
    p = {name[2:]: np.asarray(array, np.float64) for name, array in arrays.items() if name.startswith("p_")}
    moments = {name: (np.zeros_like(x), np.zeros_like(x)) for name, x in p.items()}
    total, (steps, b, f) = np.zeros(TASKS), arrays["ids"].shape
    for t, (ids, labels) in enumerate(zip(arrays["ids"], arrays["labels"], strict=True)):
        x = p["embedding"][ids].reshape(b, -1)
        inner = []
        for number in range(len(LAYERS)):
            layer = f"trunk.mlp.layers.layer{number}."
            inner.append((layer, x))
            x = np.maximum(x @ p[layer + "kernel"] + p[layer + "bias"], 0)
        logits = x @ p["heads.kernel"].T + p["heads.bias"] + p["biases"][ids].sum(1)
        total += (np.logaddexp(0, logits) - logits * labels).sum(0)
        g = (1 / (1 + np.exp(-logits)) - labels) / b
        gradient = {"heads.kernel": g.T @ x, "heads.bias": g.sum(0), "biases": np.zeros_like(p["biases"])}
        np.add.at(gradient["biases"], ids, g[:, None])
        g = g @ p["heads.kernel"]
        for layer, before in reversed(inner):
            g = g * (x > 0)
            gradient |= {layer + "kernel": before.T @ g, layer + "bias": g.sum(0)}
            g, x = g @ p[layer + "kernel"].T, before
        gradient["embedding"] = np.zeros_like(p["embedding"])
        np.add.at(gradient["embedding"], ids, g.reshape(b, f, -1))
        for name, d in gradient.items():
            m, v = moments[name]
            m += 0.1 * (d - m)
            v += 0.001 * (d * d - v)
            p[name] -= rate * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    return total / (steps * b)


WRITER = """
import sys, numpy as np
from kdrec.delta import Delta
from kdrec.labels import Rows
name, commits, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    store = Delta(line.strip(), ("click", "like"))
    for batch in range(commits):
        event = np.arange(batch * rows, (batch + 1) * rows)
        logits = np.stack([event, -event], 1).astype(np.float32)
        store.append(name, batch, [Rows(name, batch, 0, event, event, logits)])
    print("done", flush=True)
"""


class Writers:
    """Processes that wait for a folder and then append to the store in it."""

    def __init__(self, count: int, commits: int, rows: int) -> None:
        """Start them; they end with this process, which closes their input."""
        command = [sys.executable, "-c", WRITER]
        self._running = [
            subprocess.Popen(
                [*command, f"writer{number}", str(commits), str(rows)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parent.parent.parent,
            )
            for number in range(count)
        ]
        for process in self._running:
            process.stdout.readline()

    def write(self, folder: Path) -> np.ndarray:
        """Rows that the table holds once all are done, and how many of them are distinct."""
        import deltalake

        for process in self._running:
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        for process in self._running:
            if process.stdout.readline().strip() != "done":
                raise RuntimeError("a writer failed")
        table = deltalake.DeltaTable(str(folder / "labels")).to_pyarrow_table(columns=["teacher_id", "event_id"])
        distinct = table.group_by(["teacher_id", "event_id"]).aggregate([])
        return np.asarray([table.num_rows, distinct.num_rows], np.float64)


def stream(steps: int) -> Callable[[], Any]:
    """A run of the experiment over a simulated stream; returns the number of events, `[1]`."""
    import jax

    from kdrec.experiment import Ranking
    from kdrec.options import Distill, Lockstep, Model, Teacher, Training
    from kdrec.sources import Simulated

    data = Simulated(
        events=BATCH * steps, users=500, items=300, birth=10**9, half_life=4e4, turn=4e5, dimension=8, strength=1.5,
        request=4, daily=20_000, watch=False, seed=0, segment="segment", group="user",
    )  # fmt: skip
    model = Model(trunk="mlp", embedding=EMBEDDING, layers=LAYERS, crosses=0, experts=0, shard=False, without=())
    teacher = Teacher(
        scale=2, layers=None, members=1, passes=1, rate=RATE, refresh=1, warmup=0, slope=1, shift=0, segment_shift=0
    )
    how = Distill(
        method="auxiliary", weight=1.5, form="mixed", tasks=None, temperature=1, space="probability", lists="sigmoid"
    )
    train = Training(
        batch=BATCH, interval=100, rate=RATE, start=0.4, skip=0.3, seeds=1, groups=1, segments=4, bins=256, value=None,
        export=False, limit=None,
    )  # fmt: skip
    experiment = Ranking(data, model, teacher, how, Lockstep(), train)

    def run() -> np.ndarray:
        rows = (row for _, row in experiment.run(experiment.init(jax.random.key(0))))
        return np.asarray([max(float(row["events"]) for row in rows)])

    return run
