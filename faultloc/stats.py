"""Comparisons over bugs: intervals that respect clusters, and paired tests."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Interval(NamedTuple):
    """Mean and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


class Paired(NamedTuple):
    """Outcome of comparing two rankers bug by bug.

    Attributes:
        difference: mean of first minus second.
        wins, ties, losses: of the first, over bugs.
        p_value: two-sided Wilcoxon signed-rank test, ties left out; 1 where all bugs tie.
    """

    difference: float
    wins: int
    ties: int
    losses: int
    p_value: float


def clustered_interval(
    values: np.ndarray, clusters: np.ndarray, key: jax.Array, *, samples: int = 4000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of a mean over bugs, drawing whole clusters.

    Bugs of one program share code and tests; drawn one by one they would pretend to an evidence that is not there.

    Args:
        values: `[bugs]`.
        clusters: `[bugs]` name or number of the program each belongs to.
        key: random key; the same key gives the same interval.
        samples: number of resamples.
        level: probability that the interval covers the truth, in (0, 1).

    Raises:
        ValueError: no bug, shapes differ, or `level` outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if not values.size or values.shape != np.shape(clusters):
        raise ValueError(f"values and clusters must be [bugs], got {values.shape} and {np.shape(clusters)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is usual")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    groups = int(member.max()) + 1
    sums, sizes = np.bincount(member, values), np.bincount(member)
    drawn = np.asarray(jax.random.randint(key, (samples, groups), 0, groups, jnp.int32))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def paired(first: np.ndarray, second: np.ndarray, tolerance: float = 1e-12) -> Paired:
    """Compare two rankers on the same bugs.

    Args:
        first: `[bugs]`, higher is better.
        second: `[bugs]`.
        tolerance: differences up to it are ties.

    Raises:
        ValueError: shapes differ.
    """
    from scipy.stats import wilcoxon

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"both must be [bugs], got {first.shape} and {second.shape}; score the same bugs twice")
    difference = first - second
    apart = difference[np.abs(difference) > tolerance]
    p_value = float(wilcoxon(apart).pvalue) if apart.size else 1.0
    wins, losses = int((apart > 0).sum()), int((apart < 0).sum())
    return Paired(float(difference.mean()), wins, len(first) - wins - losses, losses, p_value)
