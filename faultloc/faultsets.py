"""Several faults at once: the most probable sets of lines that together explain every failing test.

Legend: L lines, T failing tests.

A set explains a failing test if the test ran one of its lines. Given that each fault lies where the single-fault
posterior p says, and that nothing is named in vain,

    score(S) = sum_{n in S} log p_n,    every failing test runs a line of S, no line of S can be left out.

The best sets are found exactly, best first.
"""

import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

LARGEST = 4  # faults at once
PATIENCE = 20_000  # partial sets that are looked at


class FaultSet(NamedTuple):
    """Lines that together explain every failing test.

    Attributes:
        lines: indices, ascending.
        score: sum of their log-probabilities.
    """

    lines: tuple[int, ...]
    score: float


def best(log_posterior: np.ndarray, run: np.ndarray, count: int, largest: int = LARGEST) -> list[FaultSet]:
    """The most probable sets of faults.

    Args:
        log_posterior: `[L]` of a single fault.
        run: `[T, L]` whether each failing test ran each line; a test that ran none is left out.
        count: how many sets.
        largest: number of lines in a set at most.

    Returns:
        At most `count` sets, the best first; fewer where there are no more, none where no such set explains all tests.

    Source: ours; branch and bound over minimal hitting sets.
    """
    run = np.unique(np.asarray(run, bool), axis=0)
    run = run[run.any(1)]
    candidates = _candidates(log_posterior, run, count)
    worth, tests = log_posterior[candidates], run[:, candidates]
    found: dict[tuple[int, ...], float] = {}
    for chosen, score in itertools.islice(_explore(worth, tests, largest), PATIENCE):
        if chosen is not None and _needs_all(tests[:, list(chosen)]):
            found.setdefault(tuple(sorted(int(candidates[i]) for i in chosen)), score)
            if len(found) == count:
                break
    return [FaultSet(lines, score) for lines, score in found.items()]


def _candidates(log_posterior: np.ndarray, run: np.ndarray, count: int) -> np.ndarray:
    """Of the lines that the same failing tests ran the best few; a worse one is in no set before those with each."""
    _, kind = np.unique(run, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    possible = np.flatnonzero(run.any(0) & np.isfinite(log_posterior))
    order = possible[np.argsort(-log_posterior[possible], kind="stable")]
    seen: dict[int, int] = {}
    kept = []
    for line in order:
        seen[kind[line]] = seen.get(kind[line], 0) + 1
        if seen[kind[line]] <= count:
            kept.append(line)
    return np.array(kept, np.int64)


def _explore(
    worth: np.ndarray, tests: np.ndarray, largest: int
) -> Iterator[tuple[tuple[int, ...] | None, float]]:  # fmt: skip
    """Sets in falling score, and None for each partial one; lines are in falling worth already."""
    able = [np.flatnonzero(row) for row in tests]
    order = itertools.count()

    def push(chosen: tuple[int, ...], score: float, left: frozenset[int], place: int) -> None:
        """Extend a set by the line at `place` among those that explain its next test, later by those after it."""
        test = min(left, key=lambda test: (len(able[test]), test))
        if place < len(able[test]):
            line = int(able[test][place])
            after = frozenset(other for other in left if not tests[other, line])
            # Neither a later line nor a further one can raise the score, so sets leave the heap in falling order.
            total = score + worth[line]
            heapq.heappush(heap, (-total, next(order), (*chosen, line), after, place, score, left))

    heap: list[tuple] = []
    if len(tests) and all(map(len, able)):
        push((), 0.0, frozenset(range(len(tests))), 0)
    while heap:
        lost, _, chosen, after, place, score, left = heapq.heappop(heap)
        push(chosen[:-1], score, left, place + 1)
        yield (None if after else chosen), -float(lost)
        if after and len(chosen) < largest:
            push(chosen, -lost, after, 0)


def _needs_all(columns: np.ndarray) -> bool:
    """Whether every line of a set explains a test that no other one does."""
    return bool((columns[columns.sum(1) == 1].any(0)).all())
