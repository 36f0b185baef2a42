"""Sums that a stream leaves behind, and the metrics made of them. Sums of two parts of a stream add up to the whole's.

A task is binary, with logits f and labels 0 or 1, or real, with values f and labels in the same unit. Legend: n events,
K tasks of which N are real, G segments, R bins of logits, Q bins of values.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdrec.losses import Real, loss, predictions

RANGE = 12.0  # logits beyond are counted in the outermost bins
VALUES = 256  # Q


class Sums(NamedTuple):
    """What is kept of the predictions of a stretch of the stream, whatever its length. Add two to merge them.

    Attributes:
        events: `[]` how many.
        positive: `[K]` of their labels; their total in a real task.
        predicted: `[K]` sum of probabilities or values.
        loss: `[K]` sum of log losses or Huber losses.
        absolute: `[K]` sum of absolute errors of probabilities or values.
        by_segment: `[G, K, 3]` events, labels and predictions of each segment.
        bins: `[G, R, K, 2]` negative and positive labels by logit, in bins of equal width; none of a real task.
        joint: `[N, Q, Q]` events of each real task by value that was predicted and value that came, in bins of equal
            width in v / (1 + |v|); None where no task is real.
    """

    events: jax.Array
    positive: jax.Array
    predicted: jax.Array
    loss: jax.Array
    absolute: jax.Array
    by_segment: jax.Array
    bins: jax.Array
    joint: jax.Array | None


def zeros(tasks: int, segments: int, bins: int, real: Real = ()) -> Sums:
    """Sums of no event."""
    each = jnp.zeros(tasks)
    by_segment, by_logit = jnp.zeros((segments, tasks, 3)), jnp.zeros((segments, bins, tasks, 2))
    joint = jnp.zeros((sum(real), VALUES, VALUES)) if any(real) else None
    return Sums(jnp.zeros(()), each, each, each, each, by_segment, by_logit, joint)


def update(
    sums: Sums, logits: jax.Array, labels: jax.Array, weight: jax.Array, segment: jax.Array, real: Real = ()
) -> Sums:
    """Add a batch of predictions.

    Args:
        sums: so far.
        logits: `[n, K]` logits, values of real tasks.
        labels: `[n, K]`, 0 or 1; values of real tasks.
        weight: `[n]`, 1 for an event that counts and 0 for one that does not.
        segment: `[n]` int32 in [0, G).
        real: static.

    Returns:
        Sums with the batch.
    """
    only = weight
    weight = weight[:, None]
    p = predictions(logits, real)
    parts = jnp.stack([jnp.ones_like(p), labels, p], axis=-1) * weight[..., None]
    _, bins, tasks, _ = sums.bins.shape
    index = jnp.clip((logits / RANGE + 1) * (bins / 2), 0, bins - 1).astype(jnp.int32)
    signs = jnp.stack([1 - labels, labels], axis=-1) * weight[..., None]
    joint = sums.joint
    if joint is not None:
        signs = jnp.where(jnp.asarray(real)[None, :, None], 0, signs)
        rows = jnp.asarray([task for task, yes in enumerate(real) if yes])
        place = [_place(each[:, rows]) for each in (logits, labels)]
        joint = joint.at[jnp.arange(len(rows))[None], place[0], place[1]].add(only[:, None])
    return Sums(
        sums.events + weight.sum(),
        sums.positive + (labels * weight).sum(0),
        sums.predicted + (p * weight).sum(0),
        sums.loss + (loss(logits, labels, real) * weight).sum(0),
        sums.absolute + (jnp.abs(p - labels) * weight).sum(0),
        sums.by_segment.at[segment].add(parts),
        sums.bins.at[segment[:, None], index, jnp.arange(tasks)[None]].add(signs),
        joint,
    )


def _place(values: jax.Array) -> jax.Array:
    """Bin of a value; growing, so that the order of two values is kept or becomes a tie."""
    squeezed = values / (1 + jnp.abs(values))
    return jnp.clip((squeezed + 1) * (VALUES / 2), 0, VALUES - 1).astype(jnp.int32)


def merge(a: Sums, b: Sums) -> Sums:
    """Sums of two stretches together; float64 NumPy arrays stay so, as long streams need."""
    return jax.tree.map(lambda x, y: x + y, a, b)


class Metrics(NamedTuple):
    """Metrics of the events behind some sums, `[..., K]` each unless said otherwise; NaN where nothing was counted.

    Attributes:
        log_loss: nats an event; mean Huber loss of a real task.
        ne: normalised entropy, log loss over that of always predicting the mean label (He et al. 2014); 1 is useless.
            Of a real task the Huber loss over that of always predicting the mean, of labels rounded to the bins.
        calibration: mean probability over mean label, mean value over mean value of real tasks; 1 is right.
        auc: area under the ROC curve, of logits rounded to the bins; see `auc_bounds`. NaN of real tasks.
        group_auc: `auc` inside each segment, averaged with the segments' events; segments of one label are left out.
        ne_recalibrated: `ne` after the shift of all logits that makes calibration 1, of logits rounded to the bins.
            NaN of real tasks.
        by_segment: `[..., G, K]` calibration.
        base: mean label.
        mae: mean absolute error of probabilities or values.
        xauc: share of the pairs of events with different values that are predicted in the right order, ties counting
            one half, of values rounded to the bins (Zhan et al. 2022). NaN of binary tasks.
    """

    log_loss: np.ndarray
    ne: np.ndarray
    calibration: np.ndarray
    auc: np.ndarray
    group_auc: np.ndarray
    ne_recalibrated: np.ndarray
    by_segment: np.ndarray
    base: np.ndarray
    mae: np.ndarray
    xauc: np.ndarray


def metrics(sums: Sums, real: Real = ()) -> Metrics:
    """Make the metrics of some sums; all in float64 on the host.

    Args:
        sums: of one stretch of the stream, with any leading axes, those of learners.
        real: for each task whether it is real.

    Returns:
        Its metrics, with the same leading axes.
    """
    s: Any = jax.tree.map(lambda part: np.asarray(part, np.float64), sums)
    yes = np.asarray(real or (False,) * s.loss.shape[-1], bool)
    bins = s.bins.sum(-4)
    xauc, spread = (np.full(s.loss.shape, np.nan) for _ in range(2))
    with np.errstate(divide="ignore", invalid="ignore"):
        events = s.events[..., None]
        base, mean = s.positive / events, s.loss / events
        if s.joint is not None:
            xauc[..., yes], spread[..., yes] = concordance(s.joint), _of_the_mean(s.joint, base[..., yes])
        useless = np.where(yes, spread, entropy(base))
        recalibrated = np.where(yes, np.nan, _recalibrated(bins) / entropy(base))
        return Metrics(
            mean,
            mean / useless,
            s.predicted / s.positive,
            np.where(yes, np.nan, np.mean(auc_bounds(bins), axis=0)),
            np.where(yes, np.nan, _by_group(s.bins)),
            recalibrated,
            s.by_segment[..., 2] / s.by_segment[..., 1],
            base,
            s.absolute / events,
            xauc,
        )


def concordance(joint: np.ndarray) -> np.ndarray:
    """Share of pairs in the right order, of counts by predicted value and value that came.

    Args:
        joint: `[..., Q, Q]`.

    Returns:
        `[...]`; pairs that came with one value are left out, pairs that were predicted with one count one half. NaN
        where no pair is left.
    """
    below = np.cumsum(joint, axis=-2) - joint / 2  # predicted lower, half of those predicted alike
    lower = np.cumsum(below, axis=-1) - below  # and with a lower value that came
    came = joint.sum(-2)
    pairs = (came.sum(-1) ** 2 - (came**2).sum(-1)) / 2
    with np.errstate(invalid="ignore"):
        return (joint * lower).sum((-2, -1)) / pairs


def _of_the_mean(joint: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Huber loss of always predicting the mean label, of labels in the middle of their bins."""
    came = joint.sum(-2)
    middle = (np.arange(VALUES) + 0.5) / VALUES * 2 - 1
    size = np.abs(middle / (1 - np.abs(middle)) - mean[..., None])
    each = np.where(size <= 1, size**2 / 2, size - 0.5)
    return (came * each).sum(-1) / came.sum(-1)


def _by_group(bins: np.ndarray) -> np.ndarray:
    """AUC inside each segment, averaged with their events."""
    each = np.mean(auc_bounds(bins), axis=0)  # [..., G, K]
    events = np.where(np.isfinite(each), bins.sum((-3, -1)), 0)
    return (np.nan_to_num(each) * events).sum(-2) / events.sum(-2)


def entropy(rate: np.ndarray) -> np.ndarray:
    """Log loss of always predicting the rate, nats; 0 at 0 and 1."""
    rate = np.asarray(rate, np.float64)
    inner = np.clip(rate, 1e-300, 1 - 1e-16)
    return np.where((rate <= 0) | (rate >= 1), 0.0, -inner * np.log(inner) - (1 - inner) * np.log1p(-inner))


def auc_bounds(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest AUC that the unrounded logits can have; their mean is that of the rounded ones.

    Args:
        bins: `[..., R, K, 2]` negative and positive labels by logit.

    Returns:
        Two `[..., K]`; NaN where only one label occurred.
    """
    negative, positive = np.moveaxis(np.asarray(bins, np.float64), -1, 0)
    below = np.cumsum(negative, axis=-2) - negative
    with np.errstate(invalid="ignore"):
        pairs = negative.sum(-2) * positive.sum(-2)
        low = (positive * below).sum(-2) / pairs
        return low, low + (positive * negative).sum(-2) / pairs


def _recalibrated(bins: np.ndarray) -> np.ndarray:
    """`[..., K]` log loss after the best shift, by bisection: the mean probability grows with the shift."""
    count, positive = bins.sum(-1), bins[..., 1].sum(-2)
    width = bins.shape[-3]
    centres = ((np.arange(width) + 0.5) / width * 2 - 1)[:, None] * RANGE
    low, high = np.full(positive.shape, -2 * RANGE), np.full(positive.shape, 2 * RANGE)
    for _ in range(40):
        middle = (low + high) / 2
        above = (count / (1 + np.exp(-(centres + middle[..., None, :])))).sum(-2) > positive
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    shifted = centres + low[..., None, :]
    return (np.logaddexp(0, shifted) * count - shifted * bins[..., 1]).sum(-2) / count.sum(-2)


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
