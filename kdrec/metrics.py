"""Sums that a stream leaves behind, and the metrics made of them. Sums of two parts of a stream add up to the whole's.

Legend: n events, K tasks, G segments, R bins.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RANGE = 12.0  # logits beyond are counted in the outermost bins


class Sums(NamedTuple):
    """What is kept of the predictions of a stretch of the stream, whatever its length. Add two to merge them.

    Attributes:
        events: `[]` how many.
        positive: `[K]` of their labels.
        predicted: `[K]` sum of probabilities.
        loss: `[K]` sum of log losses.
        by_segment: `[G, K, 3]` events, positive labels and probabilities of each segment.
        bins: `[R, K, 2]` negative and positive labels by logit, in bins of equal width.
    """

    events: jax.Array
    positive: jax.Array
    predicted: jax.Array
    loss: jax.Array
    by_segment: jax.Array
    bins: jax.Array


def zeros(tasks: int, segments: int, bins: int) -> Sums:
    """Sums of no event."""
    return Sums(
        jnp.zeros(()), jnp.zeros(tasks), jnp.zeros(tasks), jnp.zeros(tasks),
        jnp.zeros((segments, tasks, 3)), jnp.zeros((bins, tasks, 2)),
    )  # fmt: skip


def log_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross entropy -y log s(f) - (1 - y) log(1 - s(f)), elementwise, for labels in [0, 1].

    Args:
        logits: f, any shape.
        labels: y, the same shape; soft ones are allowed.

    Returns:
        The same shape, nats.
    """
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def update(sums: Sums, logits: jax.Array, labels: jax.Array, weight: jax.Array, segment: jax.Array) -> Sums:
    """Add a batch of predictions.

    Args:
        sums: so far.
        logits: `[n, K]`.
        labels: `[n, K]`, 0 or 1.
        weight: `[n]`, 1 for an event that counts and 0 for one that does not.
        segment: `[n]` int32 in [0, G).

    Returns:
        Sums with the batch.
    """
    weight = weight[:, None]
    p = jax.nn.sigmoid(logits)
    parts = jnp.stack([jnp.ones_like(p), labels, p], axis=-1) * weight[..., None]
    bins, tasks, _ = sums.bins.shape
    index = jnp.clip((logits / RANGE + 1) * (bins / 2), 0, bins - 1).astype(jnp.int32)
    signs = jnp.stack([1 - labels, labels], axis=-1) * weight[..., None]
    return Sums(
        sums.events + weight.sum(),
        sums.positive + (labels * weight).sum(0),
        sums.predicted + (p * weight).sum(0),
        sums.loss + (log_loss(logits, labels) * weight).sum(0),
        sums.by_segment.at[segment].add(parts),
        sums.bins.at[index, jnp.arange(tasks)[None]].add(signs),
    )


def merge(a: Sums, b: Sums) -> Sums:
    """Sums of two stretches together; float64 NumPy arrays stay so, as long streams need."""
    return jax.tree.map(lambda x, y: x + y, a, b)


class Metrics(NamedTuple):
    """Metrics of the events behind some sums, `[K]` each unless said otherwise; NaN where nothing was counted.

    Attributes:
        log_loss: nats an event.
        ne: normalised entropy, log loss over that of always predicting the mean label (He et al. 2014); 1 is useless.
        calibration: mean probability over mean label; 1 is right.
        auc: area under the ROC curve, of logits rounded to the bins; see `auc_bounds`.
        ne_recalibrated: `ne` after the shift of all logits that makes calibration 1, of logits rounded to the bins.
        by_segment: `[G, K]` calibration.
        base: mean label.
    """

    log_loss: np.ndarray
    ne: np.ndarray
    calibration: np.ndarray
    auc: np.ndarray
    ne_recalibrated: np.ndarray
    by_segment: np.ndarray
    base: np.ndarray


def metrics(sums: Sums) -> Metrics:
    """Make the metrics of some sums; all in float64 on the host.

    Args:
        sums: of one stretch of the stream, without further axes.

    Returns:
        Its metrics.
    """
    s: Any = jax.tree.map(lambda part: np.asarray(part, np.float64), sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        base = s.positive / s.events
        loss = s.loss / s.events
        return Metrics(
            loss,
            loss / entropy(base),
            s.predicted / s.positive,
            np.mean(auc_bounds(s), axis=0),
            _recalibrated(s.bins) / entropy(base),
            s.by_segment[..., 2] / s.by_segment[..., 1],
            base,
        )


def entropy(rate: np.ndarray) -> np.ndarray:
    """Log loss of always predicting the rate, nats; 0 at 0 and 1."""
    rate = np.asarray(rate, np.float64)
    inner = np.clip(rate, 1e-300, 1 - 1e-16)
    return np.where((rate <= 0) | (rate >= 1), 0.0, -inner * np.log(inner) - (1 - inner) * np.log1p(-inner))


def auc_bounds(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest AUC that the unrounded logits can have; their mean is that of the rounded ones.

    Args:
        sums: of one stretch of the stream.

    Returns:
        Two `[K]`; NaN where only one label occurred.
    """
    negative, positive = np.moveaxis(np.asarray(sums.bins, np.float64), -1, 0)
    below = np.cumsum(negative, axis=0) - negative
    with np.errstate(invalid="ignore"):
        pairs = negative.sum(0) * positive.sum(0)
        low = (positive * below).sum(0) / pairs
        return low, low + (positive * negative).sum(0) / pairs


def _recalibrated(bins: np.ndarray) -> np.ndarray:
    """`[K]` log loss after the best shift, by bisection: the mean probability grows with the shift."""
    count = bins.sum(-1)
    centres = ((np.arange(len(bins)) + 0.5) / len(bins) * 2 - 1)[:, None] * RANGE
    low, high = np.full(bins.shape[1], -2 * RANGE), np.full(bins.shape[1], 2 * RANGE)
    for _ in range(60):
        middle = (low + high) / 2
        above = (count / (1 + np.exp(-(centres + middle)))).sum(0) > bins[..., 1].sum(0)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    shifted = centres + low
    return (np.logaddexp(0, shifted) * count - shifted * bins[..., 1]).sum(0) / count.sum(0)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Exact area under the ROC curve: the share of pairs in the right order, ties counting one half.

    Args:
        scores: `[n]`.
        labels: `[n]`, 0 or 1.

    Returns:
        In [0, 1]; NaN where only one label occurs.

    Source: Hanley and McNeil 1982, by the sum of ranks of the positives.
    """
    from scipy.stats import rankdata

    positive = np.asarray(labels) > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def group_auc(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """AUC inside each group, averaged with the groups' sizes; groups with one kind of label are left out.

    Args:
        scores: `[n]`.
        labels: `[n]`, 0 or 1.
        groups: `[n]`, any values.

    Returns:
        In [0, 1]; NaN where no group has both labels.

    Source: Zhou et al. 2018 (DIN), equation 7.
    """
    order = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(np.asarray(groups)[order])) + 1
    total = weight = 0.0
    for rows in np.split(order, cuts):
        value = auc(np.asarray(scores)[rows], np.asarray(labels)[rows])
        if not np.isnan(value):
            total, weight = total + value * len(rows), weight + len(rows)
    return total / weight if weight else float("nan")
