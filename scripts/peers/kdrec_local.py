"""Peers of kdrec that run beside it: itself in other ways, and an allowance of time."""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `benchmarks`, whose students these are


def _losses(result):
    sums = result[1]
    return np.asarray(sums.loss[0, 0], np.float64) / float(sums.events[0, 0])


def no_teacher(arrays):
    """One student that learns from outcomes alone."""
    from benchmarks import _students

    run = _students.by_intervals(arrays, "none", None)
    return lambda: _losses(run())


def labels_at_hand(arrays):
    """One student of the auxiliary task whose labels lie in memory."""
    from benchmarks import _students

    from kdrec.channel import Heard

    logits = arrays["logits"][:, None]
    present = np.ones(logits.shape[:-1], bool)

    def heard(first, shape, _):
        steps = slice(first // shape[1], first // shape[1] + shape[0])
        return Heard(logits[steps], present[steps], 0, {}, (0.0, 0.0, 0))

    run = _students.by_intervals(arrays, "auxiliary", heard)
    return lambda: _losses(run())


def ten_in_one(arrays):
    """Ten students in one program."""
    from benchmarks import _students

    run = _students.student(arrays, seeds=10)
    return lambda: _losses(run())


def ten_in_turn(arrays):
    """Ten students one after the other."""
    from benchmarks import _students

    run = _students.student(arrays)

    def ten():
        return [_losses(run()) for _ in range(10)][-1]

    return ten


def sixty_thousand(arrays):
    """The time that the rows may take, slept."""

    def allowance():
        time.sleep(arrays["rows"][0] / 60_000)
        return arrays["rows"]

    return allowance
