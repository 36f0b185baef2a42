"""Uncertainty of scores over cases: bootstrap intervals, paired permutation tests, agreement of raters.

Legend: n cases; scores are `[n, ...]`, one column per metric, and every statistic is taken over the cases.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtr, ndtri
from jax.typing import ArrayLike

from evalmetrics.scores import score

BATCH = 64


class Interval(NamedTuple):
    """Point estimate and bounds of a confidence interval, each `[...]`."""

    estimate: jax.Array
    low: jax.Array
    high: jax.Array


class PermutationTest(NamedTuple):
    """Outcome of a paired test."""

    difference: jax.Array
    """[...] mean of first minus second."""
    p_value: jax.Array
    """[...] NaN where a score is NaN."""
    permutations: int
    """Number of sign patterns looked at."""
    exact: bool
    """All patterns were looked at, so the p-value has no random error."""


def bootstrap_ci(
    scores: ArrayLike,
    key: jax.Array,
    *,
    statistic: Callable[[jax.Array], jax.Array] | None = None,
    confidence: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    samples: int = 10_000,
) -> Interval:
    """Confidence interval of a statistic over cases, from resampling the cases with replacement.

    `percentile` reads the bounds off the resampled statistics; `bca` first corrects the two levels for the bias of the
    resamples and for the change of their spread with the statistic (acceleration, by leaving out one case at a time).

    Args:
        scores: `[n, ...]` floating, one row per case. All metrics are resampled together.
        key: random key; the same key gives the same interval.
        statistic: from `[n, m]` to `[m]`, reducing the cases; None is the mean. Give the same function each time: a
            new one is compiled anew.
        confidence: probability that the interval covers the truth, in (0, 1).
        method: "percentile" or "bca".
        samples: number of resamples.

    Returns:
        Interval of fields `[...]`; NaN where a score is NaN.

    Raises:
        ValueError: no case, `confidence` outside (0, 1), fewer than one resample, unknown method.
        TypeError: scores are not floating.

    Source: Efron 1987 (BCa); Efron & Tibshirani 1993, chapters 13 and 14.
    """
    scores = _cases(scores, "scores")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}; 0.95 is usual")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be percentile or bca, got {method!r}")
    metrics = scores.shape[1:]
    interval = _bootstrap(scores.reshape(len(scores), -1), key, confidence, statistic or _mean, method, samples)
    return Interval(*(field.reshape(metrics) for field in interval))


def _mean(scores: jax.Array) -> jax.Array:
    return scores.mean(0)


@functools.partial(jax.jit, static_argnames=("statistic", "method", "samples"))
def _bootstrap(
    scores: jax.Array,
    key: jax.Array,
    confidence: jax.Array | float,
    statistic: Callable[[jax.Array], jax.Array],
    method: str,
    samples: int,
) -> Interval:
    cases, metrics = scores.shape
    estimate = statistic(scores)
    draws = jax.random.randint(key, (samples, cases), 0, cases)
    resampled = lax.map(lambda draw: statistic(scores[draw]), draws, batch_size=min(BATCH, samples))
    tail = (1 - jnp.asarray(confidence, scores.dtype)) / 2
    levels = jnp.broadcast_to(jnp.stack([tail, 1 - tail])[:, None], (2, metrics))
    if method == "bca":
        # Ties count by half, so that a discrete statistic is not biased by them.
        below = ((resampled < estimate[None]).mean(0) + (resampled <= estimate[None]).mean(0)) / 2
        bias = ndtri(jnp.clip(below.astype(scores.dtype), 0.5 / samples, 1 - 0.5 / samples))
        acceleration = _acceleration(scores, statistic)
        shifted = bias[None] + ndtri(levels)
        levels = ndtr(bias[None] + shifted / (1 - acceleration[None] * shifted))
    bounds = jax.vmap(jnp.quantile, in_axes=1, out_axes=1)(resampled, jnp.clip(levels, 0, 1))
    # Comparisons drop NaN without a word, quantiles of one metric must not.
    bounds = jnp.where(jnp.isnan(estimate)[None], jnp.nan, bounds)
    return Interval(estimate, bounds[0], bounds[1])


def _acceleration(scores: jax.Array, statistic: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Skewness of the leave-one-out statistics over six, `[m]`; 0 where they are all equal."""
    cases = len(scores)
    if cases == 1:
        return jnp.zeros(scores.shape[1], scores.dtype)
    rest, left_out = jnp.arange(cases - 1)[None, :], jnp.arange(cases)[:, None]
    kept = jnp.where(rest < left_out, rest, rest + 1)
    jackknife = lax.map(lambda rows: statistic(scores[rows]), kept, batch_size=min(BATCH, cases))
    spread = jackknife.mean(0, keepdims=True) - jackknife
    cubes, squares = (spread**3).sum(0), (spread**2).sum(0)
    return jnp.where(squares > 0, cubes / (6 * jnp.where(squares > 0, squares, 1) ** 1.5), 0)


def paired_permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    key: jax.Array | None = None,
    *,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    permutations: int = 9999,
) -> PermutationTest:
    """Whether two methods scored on the same cases differ: how often chance gives as large a mean difference.

    If the methods are exchangeable, each case's difference has either sign with equal chance. All 2^n sign patterns
    are looked at where `permutations` allows it, else that many random ones, counting the observed one among them.

    Args:
        first: `[n, ...]` floating scores of one method.
        second: the other's, same shape, same cases in the same order.
        key: random key; needed for random patterns only.
        alternative: "two-sided", or "greater" / "less" for first above / below second.
        permutations: largest number of sign patterns.

    Returns:
        PermutationTest of fields `[...]`; metrics are tested one by one, without correction for their number.

    Raises:
        ValueError: no case, shapes differ, unknown alternative, or random patterns without a key.
        TypeError: scores are not floating.

    Source: Fisher 1935; Phipson & Smyth 2010 for counting the observed pattern.
    """
    first, second = _cases(first, "first"), _cases(second, "second")
    if first.shape != second.shape:
        raise ValueError(f"both methods must be scored on the same cases, got shapes {first.shape} and {second.shape}")
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f"alternative must be two-sided, greater or less, got {alternative!r}")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    cases, metrics = len(first), first.shape[1:]
    differences = (first - second).reshape(cases, -1)
    exact = 2**cases <= permutations
    if exact:
        patterns = 2**cases
        signs = 1 - 2 * ((np.arange(patterns)[:, None] >> np.arange(cases)) & 1)
    elif key is None:
        raise ValueError(f"{cases} cases have 2^{cases} sign patterns, more than {permutations}: pass a random key")
    else:
        patterns = permutations
        signs = 2 * jax.random.bernoulli(key, shape=(patterns, cases)).astype(jnp.int32) - 1
    difference, count = _count_extreme(differences, jnp.asarray(signs), alternative)
    p_value = count / patterns if exact else (count + 1) / (patterns + 1)
    p_value = jnp.where(jnp.isnan(difference), jnp.nan, p_value)
    return PermutationTest(difference.reshape(metrics), p_value.reshape(metrics), patterns, exact)


@functools.partial(jax.jit, static_argnames="alternative")
def _count_extreme(differences: jax.Array, signs: jax.Array, alternative: str) -> tuple[jax.Array, jax.Array]:
    """Mean differences `[m]` and number of sign patterns whose mean is as extreme."""
    cases = len(differences)
    observed = differences.mean(0)
    means = jnp.matmul(signs.astype(differences.dtype), differences, precision=lax.Precision.HIGHEST) / cases
    # Equal sums taken in another order may differ in the last bits: they count as equal.
    slack = 16 * jnp.finfo(differences.dtype).eps * jnp.abs(differences).mean(0)
    if alternative == "less":
        extreme = means <= (observed + slack)[None]
    elif alternative == "greater":
        extreme = means >= (observed - slack)[None]
    else:
        extreme = jnp.abs(means) >= (jnp.abs(observed) - slack)[None]
    return observed, extreme.sum(0).astype(differences.dtype)


def agreement_matrix(
    raters: Sequence[Any], measure: Callable[[Any, Any], Any] | None = None, *, symmetric: bool = True
) -> np.ndarray:
    """Score every rater against every other.

    Args:
        raters: one segmentation each, whatever `measure` takes; at least one.
        measure: from two raters to a number; None is the macro score of `evalmetrics.score`.
        symmetric: the measure does not tell the two apart, so each pair is scored once.

    Returns:
        `[raters, raters]` float64, row against column; the diagonal is each rater against itself.

    Raises:
        ValueError: no rater.
    """
    count = len(raters)
    if count == 0:
        raise ValueError("raters must hold at least one segmentation, got none")
    measure = measure or (lambda a, b: score(a, b).macro)
    matrix = np.empty((count, count))
    for i in range(count):
        for j in range(i if symmetric else 0, count):
            matrix[i, j] = float(measure(raters[i], raters[j]))
            if symmetric:
                matrix[j, i] = matrix[i, j]
    return matrix


def _cases(scores: ArrayLike, name: str) -> jax.Array:
    scores = jnp.asarray(scores)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {scores.dtype}; cast counts to a float dtype")
    if scores.ndim == 0 or scores.size == 0:
        raise ValueError(f"{name} must be [cases, ...] with at least one case, got shape {scores.shape}")
    return scores
