"""Learn which lines are faulty from bugs whose lines are known: the exact posterior over the place of a single fault.

Legend: see `faultloc.forest`; K latent subclasses.

The log-odds of a line of subclass k, o = (w + d_k) . x + b_k + c[kind] + e[kind, k], say how likely a fault is there.
Given that a program has exactly one, the probability of its place is P(n), proportional to sum_k Q_n(k) exp o_n(k),
with Q the posterior of the subclasses when all lines are clean; see `faults.single_fault`. With one subclass it is the
softmax of the log-odds. Many models are learned in one pass over the forest: every fold, and every restart of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import forest as forests
from faultloc import gradient, models
from faultloc.features import NAMES
from faultloc.forest import Example, Forest
from faultloc.gradient import Parameters, Penalty

RATE = 0.2  # of the first step: within 80 steps the loss comes to a thousandth of its minimum; with 0.06 it does not


def fit(
    examples: Sequence[Example], *, key: jax.Array | None = None, subclasses: int = 1, restarts: int = 1,
    ridge: float = 10.0, steps: int = 80, rate: float = RATE,
) -> models.Model:  # fmt: skip
    """Learn the model of a collection, every bug counting alike.

    Minimises, over bugs with faulty lines Y,

        - log sum_{n in Y} P(n) + pairwise / L_b sum_{n not in Y} softplus(log P(n) - log sum_{m in Y} P(m))

    with a penalty of ridge / 2 on squared weights and offsets, three times as much on what tells subclasses apart: the
    first term wants the mass on the faulty lines, the second every other line below them.

    Args:
        examples: bugs of programs other than those that will be ranked.
        key: of the starts; with one subclass the first is from zero, and without restarts nothing is random.
        subclasses: K.
        restarts: starts, of which the one with the least loss is kept.
        ridge: see `Penalty`, which has the weights of the two terms.
        steps: of Adam, its rate falling to zero along a cosine.
        rate: the first.

    Raises:
        ValueError: see `forest.plant`.

    Source: ours; the first term is the exact likelihood of a single fault under the model of `faultloc.tflm`.
    """
    forest = forests.plant(examples)
    learned = fit_folds(
        forest, np.ones((forest.bugs, 1)), jax.random.key(0) if key is None else key, subclasses=subclasses,
        restarts=restarts, steps=steps, rate=rate, penalty=Penalty(ridge=ridge),
    )  # fmt: skip
    return learned.model[0]


class Learned(NamedTuple):
    """Models that were learned together, the restarts of a fold side by side.

    Attributes:
        model: one for each fold, the restart with the least loss.
        scores: `[L, folds, restarts]` log-probability of every line under every one; see `Forest.place`.
        loss: `[folds, restarts]`.
    """

    model: list[models.Model]
    scores: np.ndarray
    loss: np.ndarray


def fit_folds(
    forest: Forest, weight: np.ndarray, key: jax.Array, *, subclasses: int, restarts: int, steps: int, rate: float,
    penalty: Penalty,
) -> Learned:  # fmt: skip
    """Learn one model for each column of `weight`, all of them together; the other arguments are those of `fit`.

    Args:
        forest: of all bugs.
        weight: `[B, folds]` one for the bugs that a fold learns from, zero for the others.
        key: of the starts.
        subclasses: K.
        restarts: of each fold.
        steps: of Adam.
        rate: the first.
        penalty: what is minimised.
    """
    drawn = np.repeat(weight, restarts, axis=1)
    first = gradient.start(forest, key, subclasses, drawn.shape[1], rate=rate, steps=steps, restarts=restarts)
    ended = gradient.advance(first, forest, drawn, penalty, steps, rate, steps).parameters
    loss = gradient.losses(ended, forest, drawn, penalty).reshape(-1, restarts)
    scores = gradient.log_posteriors(gradient.masked(ended, jnp.asarray(penalty.use, jnp.float32)), forest, drawn)
    best = loss.argmin(1) + restarts * np.arange(len(loss))
    chosen = [model(ended, forest, drawn, penalty, int(g)) for g in best]
    return Learned(chosen, scores.reshape(len(scores), -1, restarts), loss)


def model(
    parameters: Parameters, forest: Forest, weight: np.ndarray, penalty: Penalty, index: int
) -> models.Model:  # fmt: skip
    """One of the models that were learned together, as a user of it needs it.

    Args:
        parameters: of all of them.
        forest: that they were learned from.
        weight: `[B, G]` with which bugs.
        penalty: with which features.
        index: which.
    """
    parameters = gradient.masked(parameters, jnp.asarray(penalty.use, jnp.float32))
    parameters = Parameters(*(each[..., index : index + 1] for each in parameters))
    p = Parameters(*(np.asarray(each, np.float64)[..., 0] for each in parameters))
    mean, scale = (each[:, index] for each in forest.moments(weight))
    tables = gradient.tables(parameters, forest.lines)
    offsets = p.bias + np.concatenate([p.kinds[:, None] + p.kinds_by_subclass, np.zeros((1, len(p.bias)))])
    nothing = np.zeros((*offsets.shape, 0))
    return models.Model(
        forest.language, "posterior", forest.symbols, NAMES, forest.shift + forest.stretch * mean,
        forest.stretch * scale, p.weights + p.by_subclass.T, offsets, np.asarray(tables.prior, np.float64)[:, 0],
        np.asarray(forest.lines.pairs), np.asarray(tables.table, np.float64)[..., 0], np.zeros(0, np.int64), nothing,
        nothing, np.full(offsets.shape, 0.5),
    )  # fmt: skip
