"""Side-by-side timing: a benchmark is data, a row is one peer of one benchmark.

Both sides prepare their inputs outside the clock and hand back a callable; only that callable is timed, ours and the
peer's in turn (A B A B ...), so that a busy moment of the machine falls on both. Each peer runs in a fresh process of
its own: what other libraries did to the allocator must not make it faster or slower than its users see it.
"""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Inputs = Mapping[str, np.ndarray]
Run = Callable[[], Any]
Side = Callable[[], tuple[float, Any]]

PAUSE = 0.02  # seconds between two sides: lets the idle threads of the one stop spinning before the other starts
ROW_BUDGET = 4.0  # seconds of repetitions of one row
LEAST, MOST = 3, 15  # repetitions of one row
ALONE = 30.0  # seconds of a peer's first call beyond which it is the measurement: what it set up is a small part of it


def largest_difference(result: Any, reference: Any) -> float:
    """Largest absolute difference of two results of the same shape; infinite where a number is not finite.

    Raises:
        ValueError: the shapes differ, so the two sides do not answer the same question.
    """
    result, reference = np.asarray(result, np.float64), np.asarray(reference, np.float64)
    if result.shape != reference.shape:
        raise ValueError(f"result of shape {result.shape} cannot be compared with a reference of {reference.shape}")
    difference = np.abs(result - reference)
    return float(np.where(np.isfinite(difference), difference, np.inf).max(initial=0.0))


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another program for the same job.

    Attributes:
        name: as printed.
        function: `module:function` of `scripts/peers`; takes the inputs, returns the callable to time.
        bar: least ratio (peer's seconds over ours) that counts as met; None where there is nothing to reach.
        needs: modules that the environment of this project must have.
        environment: stem of a requirements file in `scripts/peers`; None is the environment of this project.
    """

    name: str
    function: str
    bar: float | None = None
    needs: tuple[str, ...] = ()
    environment: str | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One job, our way of doing it and its peers.

    Attributes:
        name: as given to `--only`.
        about: one line for the reader of the table.
        inputs: makes the arrays that every side receives.
        ours: takes the inputs, returns the callable to time; its result may be any pytree of arrays.
        reference: takes the inputs, returns the exact result (float64), compared with the result of each side.
        tolerance: largest error of ours with which a bar may count as met.
        peers: the other sides.
        answer: takes a result of ours to the form of the reference.
        error: of an answer against the reference.
        memory_mb: bar on the extra memory of one run of ours, in megabytes; None where it is not measured.
        seconds: bar on one run of ours; None where only ratios count.
    """

    name: str
    about: str
    inputs: Callable[[], Inputs]
    ours: Callable[[Inputs], Run]
    reference: Callable[[Inputs], Any]
    tolerance: float
    peers: tuple[Peer, ...] = ()
    answer: Callable[[Any], Any] = lambda result: result
    error: Callable[[Any, Any], float] = largest_difference
    memory_mb: float | None = None
    seconds: float | None = None


class Timing(NamedTuple):
    """Seconds of both sides over the repetitions; where least and median are far apart, the machine was busy."""

    ours: float
    peer: float
    ours_least: float
    peer_least: float
    repetitions: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; the keys are those of the JSON file."""

    name: str
    peer: str
    ours_s: float | None = None
    peer_s: float | None = None
    ratio: float | None = None
    error: float | None = None
    bar: float | None = None
    met: bool | None = None


@dataclasses.dataclass(frozen=True)
class Detail:
    """What belongs to a row and has no key in it."""

    status: str = "measured"  # or "not installed", or "failed: ..."
    timing: Timing | None = None
    peer_error: float | None = None
    floor_s: float | None = None  # one read of the inputs
    extra_mb: float | None = None


def timed(run: Run) -> Side:
    """Wrap a callable of JAX into a side: seconds until its result is there, and the result."""
    import jax

    def side() -> tuple[float, Any]:
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        return time.perf_counter() - start, result

    return side


def interleave(ours: Side, peer: Side, repetitions: int | None = None, pause: float = PAUSE) -> tuple[Timing, Any, Any]:
    """Time two sides in turn, after a warm-up of each; a peer that takes minutes is called once.

    Args:
        ours: first side.
        peer: second side.
        repetitions: pairs to time; None takes as many as fit in `ROW_BUDGET` seconds, from `LEAST` to `MOST`.
        pause: seconds to wait before each call.

    Returns:
        The timing, the last result of ours, of the peer.
    """
    first, (took, found) = ours()[0], peer()
    if took > ALONE:
        mine, result = ours()
        return Timing(mine, took, mine, took, 1), result, found
    once = first + took
    if repetitions is None:
        if once < ROW_BUDGET:  # the first call may have compiled: look again, unless that is dear
            once = ours()[0] + peer()[0] + 2 * pause
        repetitions = int(np.clip(ROW_BUDGET / once, LEAST, MOST))
    gc.collect()
    seconds: tuple[list[float], list[float]] = ([], [])
    results: list[Any] = [None, None]
    for _ in range(repetitions):
        for index, side in enumerate((ours, peer)):
            time.sleep(pause)
            took, results[index] = side()
            seconds[index].append(took)
    return Timing(*map(statistics.median, seconds), *map(min, seconds), repetitions), *results


def judge(ratio: float, error: float, bar: float | None, tolerance: float) -> bool | None:
    """Say whether a bar is met; a fast wrong answer does not meet it, and without a bar there is no verdict."""
    return None if bar is None else bool(ratio >= bar and error <= tolerance)
