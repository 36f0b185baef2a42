"""The physical limits of a run: one read of its inputs, and the memory it takes beyond them."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

STATUS = Path("/proc/self/status")


def read_once(arrays: Iterable[np.ndarray], threads: int, repetitions: int = 7) -> float:
    """Seconds of one read of the arrays from memory, the floor under any one-pass algorithm.

    Each thread takes the integer maximum of its share of the bytes: the cheapest reduction, vectorised and outside the
    interpreter's lock.

    Args:
        arrays: contiguous arrays of any dtype.
        threads: readers at work together.
        repetitions: the least time of so many counts.
    """
    pieces = [piece for array in arrays for piece in np.array_split(_words(array), threads) if piece.size]
    if not pieces:
        return 0.0
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repetitions + 1):
            start = time.perf_counter()
            list(pool.map(np.max, pieces))
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _words(array: np.ndarray) -> np.ndarray:
    """View an array as 32-bit words, without the last bytes that do not fill one."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat[: flat.size // 4 * 4].view(np.int32)


def extra_memory(run: Callable[[], Any], every: float = 0.0005) -> float | None:
    """Peak of the memory that one warmed-up run takes beyond what is held before it, in megabytes (10^6 bytes).

    Anonymous memory only (`RssAnon`): pages of a memory-mapped file can be dropped by the system at any time. Memory
    that the allocator keeps from earlier calls is given back first, so that it cannot hide an allocation.

    Args:
        run: callable that blocks until its result is there.
        every: seconds between two looks.

    Returns:
        Megabytes, or None where the system does not tell (no `/proc`).
    """
    if not STATUS.exists():
        return None
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _anonymous()
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _anonymous())
            time.sleep(every)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = run()
        peak[0] = max(peak[0], _anonymous())
    finally:
        done.set()
        watcher.join()
    del result
    return (peak[0] - before) / 1e6


def _anonymous() -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} does not state RssAnon")
