"""How long an exported student takes to answer."""

import time

import jax.numpy as jnp
import numpy as np

from kdrec import export
from kdrec.stream import Stream

SIZES, CALLS = (1, 32, 256), 200


def latency(
    artefact: bytes | bytearray, stream: Stream, columns: tuple[int, ...], sizes: tuple[int, ...] = SIZES
) -> dict[int, tuple[float, float]]:
    """Time single calls, from ids in the host's memory to logits in the host's memory.

    Args:
        artefact: as of `kdrec.export.serialise`.
        stream: whose first events are asked for, again and again.
        columns: numbers of the categorical columns that the student sees.
        sizes: numbers of events in a call.

    Returns:
        For each size the median and the 99th percentile of `CALLS` calls, s; a first call, which compiles, is left out.
    """
    call, events = export.load(artefact), stream.read(0, max(sizes))
    found = {}
    for size in sizes:
        ids, numbers = (
            np.resize(column, (size, *column.shape[1:])) for column in (events.ids[:, columns], events.numbers)
        )
        numbers = numbers.astype(jnp.zeros(()).dtype)
        seconds = []
        for _ in range(CALLS + 1):
            start = time.perf_counter()
            np.asarray(call(jnp.asarray(ids), jnp.asarray(numbers)))
            seconds.append(time.perf_counter() - start)
        found[size] = (float(np.median(seconds[1:])), float(np.quantile(seconds[1:], 0.99)))
    return found
