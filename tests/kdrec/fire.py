"""Writers and readers of one label store, killed at random points and started again: `python -m tests.kdrec.fire`.

Processes are forked from this one, which has loaded the libraries and not yet used them, so that a start takes
milliseconds. A batch is acknowledged by a line in the writer's file, written after `append` has returned.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import deltalake  # noqa: F401 - loaded here, so that each child need not
import numpy as np
import pyarrow.dataset  # noqa: F401 - likewise

from kdrec.delta import Delta
from kdrec.labels import LAST, Pin, Rows, Version

TASKS, EVENTS = ("click", "like"), 120


def rows(writer: str, batch: int) -> Rows:
    """The labels of a batch, which anybody can make again."""
    event = np.arange(batch * EVENTS, (batch + 1) * EVENTS, dtype=np.int64)
    logits = np.stack([event + len(writer) / 8, -event], axis=1).astype(np.float32)
    return Rows(writer, batch, batch, event, 1000 * event, logits)


def write(path: Path, writer: str, batches: int) -> None:
    store = Delta(path, TASKS, every=10)
    for batch in range(batches):  # all of them from the first on: a writer that starts again repeats itself
        if batch < store.batches(writer) - 1:
            continue
        store.append(writer, batch, [rows(writer, batch)])
        status = "bad" if batch % 5 == 4 else "good"
        with (path.parent / f"{writer}.acknowledged").open("a") as file:
            file.write(f"{batch}\n")
        store.promote(writer, batch, [Version(writer, batch, status, EVENTS, (1.0, 1.0), (1.0, 1.0), 1.0, "")])


def read(path: Path, writers: list[str], batches: int, number: int) -> None:
    """Pin, read twice, and see that each version is whole, good, and the same both times."""
    with (path.parent / f"reader{number}.seen").open("a", buffering=1) as file:
        while True:
            store = Delta(path, TASKS)
            log = store.heads()[1]
            pin = Pin(tuple(writers), 0, LAST, store.heads()[0], log)
            first, second = (store.read(pin, 0, batches * EVENTS) for _ in range(2))
            same = all(np.array_equal(a, b) for a, b in zip(first[:4], second[:4], strict=True))
            good = {(v.teacher, v.version) for v in store.versions(log) if v.status == "good"}
            kept = {(w, b) for i, w in enumerate(writers) for b in set(first.version[i].tolist()) - {-1}}
            whole = first.present.sum() == EVENTS * len(kept)
            file.write(f"{'ok' if same and whole and kept == good else f'broken {same} {whole} {kept ^ good}'}\n")


def start(work, *arguments) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
        except BaseException as error:
            print(type(error).__name__, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def main(path: Path, writers: int, readers: int, batches: int, kills: int, seed: int) -> None:
    """Kill and start again, then let the writers come to their end."""
    draw, names = random.Random(seed), [f"teacher{number}" for number in range(writers)]
    jobs = {name: (write, path, name, batches) for name in names}
    jobs |= {number: (read, path, names, batches, number) for number in range(readers)}
    alive = {who: start(*job) for who, job in jobs.items()}
    done, killed, failed = set(), 0, []

    def reap() -> None:
        for who, pid in list(alive.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del alive[who]
                (failed.append(who) if status else done.add(who))

    limit = time.monotonic() + 240
    while killed < kills and len(done) < writers and not failed and time.monotonic() < limit:
        time.sleep(draw.uniform(0, 0.12))
        reap()
        # Writers most of the time: what a reader can break is little.
        who = draw.choice([who for who in alive if draw.random() < (0.9 if who in names else 0.2)] or list(alive))
        os.kill(alive[who], signal.SIGKILL)
        os.waitpid(alive[who], 0)
        killed += 1
        alive[who] = start(*jobs[who])
    while len(done) < writers and not failed and time.monotonic() < limit:
        time.sleep(0.02)
        reap()
    time.sleep(0.5)  # a last look for the readers
    for pid in alive.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(json.dumps({"killed": killed, "failed": [str(who) for who in failed], "done": sorted(done)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
