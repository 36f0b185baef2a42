"""Learn which lines are faulty from bugs whose lines are known: the exact posterior over the place of a single fault.

Legend: see `faultloc.forest`; K latent subclasses.

The log-odds of a line of subclass k, o = (w + d_k) . x + b_k + c[kind] + e[kind, k], say how likely a fault is there.
Given that a program has exactly one, the probability of its place is P(n), proportional to sum_k Q_n(k) exp o_n(k),
with Q the posterior of the subclasses when all lines are clean; see `faults.single_fault`. With one subclass it is the
softmax of the log-odds. Many models are learned in one pass over the forest: every fold, and every restart of it.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from faultloc import forest as forests
from faultloc import models, tflm
from faultloc.features import NAMES
from faultloc.forest import Example, Forest, Lines

DECAY = 0.99  # of Adam's second moment
RATE = 0.2  # of its first step: within 80 steps the loss comes to a thousandth of its minimum; with 0.06 it does not
START = -6.0  # log-odds of a fault before anything is learned
STICKY = 1.5  # how much a subclass prefers itself in the statements it encloses, before anything is learned
SPREAD = 0.3  # of the random starts


class Parameters(NamedTuple):
    """What the gradient changes; G models on the last axis.

    Attributes:
        weights: `[F, G]` w.
        by_subclass: `[F, K, G]` d.
        bias: `[K, G]` b.
        kinds: `[S, G]` c.
        kinds_by_subclass: `[S, K, G]` e.
        stay: `[K, K, G]` logits of the inner statement's subclass, second axis, given the outer one's.
        inner, outer: `[S, K, G]` added to these for the kind of the inner and of the outer statement.
    """

    weights: Any
    by_subclass: Any
    bias: Any
    kinds: Any
    kinds_by_subclass: Any
    stay: Any
    inner: Any
    outer: Any


class Penalty(NamedTuple):
    """What is minimised; a number for all models, or one each in an array `[G]`.

    Attributes:
        ridge: of weights and offsets.
        listwise: weight of the first term of `fit`.
        pairwise: weight of the second.
        use: one for the features to learn from, zero for the others; a number, or `[F, 1]`, or `[F, G]`.
    """

    ridge: Any = 10.0
    listwise: Any = 1.0
    pairwise: Any = 10.0
    use: Any = 1.0


class Progress(NamedTuple):
    """Everything needed to go on learning after `step` steps."""

    step: jax.Array
    parameters: Parameters
    optimiser: Any


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
    first = start(forest, key, subclasses, drawn.shape[1], rate=rate, steps=steps, restarts=restarts)
    ended = advance(first, forest, drawn, penalty, steps, rate, steps).parameters
    loss = losses(ended, forest, drawn, penalty).reshape(-1, restarts)
    scores = log_posteriors(_masked(ended, jnp.asarray(penalty.use, jnp.float32)), forest, drawn)
    best = loss.argmin(1) + restarts * np.arange(len(loss))
    chosen = [model(ended, forest, drawn, penalty, int(g)) for g in best]
    return Learned(chosen, scores.reshape(len(scores), -1, restarts), loss)


def start(
    forest: Forest, key: jax.Array, subclasses: int, count: int, *, rate: float, steps: int, restarts: int = 1
) -> Progress:
    """Before the first step: random, but with one subclass the first of the restarts of a fold is from zero."""
    size, kinds, k = len(forest.shift), len(forest.symbols), subclasses
    shapes = Parameters(
        (size,), (size, k), (k,), (kinds,), (kinds, k), (k, k), (kinds, k), (kinds, k)
    )  # fmt: skip
    keys = Parameters(*jax.random.split(key, len(shapes)))
    apart = {"by_subclass", "bias", "stay", "inner", "outer"}
    random = apart if subclasses > 1 else {"weights"}
    spread = SPREAD * np.where((np.arange(count) % restarts > 0) | (subclasses > 1), 1, 0).astype(np.float32)
    drawn = [
        jnp.broadcast_to(spread, (*shape, count)) * jax.random.normal(key, (*shape, count))
        if name in random
        else jnp.zeros((*shape, count))
        for name, shape, key in zip(Parameters._fields, shapes, keys, strict=True)
    ]
    parameters = Parameters(*drawn)
    sticky = STICKY * jnp.eye(subclasses)[:, :, None]
    parameters = parameters._replace(bias=parameters.bias + START, stay=parameters.stay + sticky)
    return Progress(jnp.zeros((), jnp.int32), parameters, _optimiser(rate, steps).init(parameters))


def advance(
    progress: Progress, forest: Forest, weight: np.ndarray, penalty: Penalty, count: int, rate: float, steps: int
) -> Progress:
    """Take `count` of altogether `steps` steps."""
    mean, scale = forest.moments(weight)
    given = jnp.asarray(weight, jnp.float32), jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
    return _advance(progress, forest.lines, *given, _device(penalty), count, rate, steps)


@functools.partial(jax.jit, static_argnames=("count", "rate", "steps"))
def _advance(
    progress: Progress, lines: Lines, weight: jax.Array, mean: jax.Array, scale: jax.Array, penalty: Penalty,
    count: int, rate: float, steps: int,
) -> Progress:  # fmt: skip
    optimiser = _optimiser(rate, steps)

    def step(progress: Progress, _: None) -> tuple[Progress, None]:
        slopes = jax.grad(lambda p: _losses(p, lines, weight, mean, scale, penalty).sum())(progress.parameters)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, state = optimiser.update(slopes, progress.optimiser, progress.parameters)
        return Progress(progress.step + 1, optax.apply_updates(progress.parameters, updates), state), None

    return jax.lax.scan(step, progress, None, length=count)[0]


def _optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    def cosine(count: jax.Array) -> jax.Array:
        done = jnp.minimum(count.astype(jnp.float32) / steps, 1.0)
        return rate * (1 + jnp.cos(jnp.pi * done)) / 2

    return optax.adam(cosine, b2=DECAY)


def log_posteriors(parameters: Parameters, forest: Forest, weight: np.ndarray) -> np.ndarray:
    """`[L, G]` log-probability of every line of every bug under every model; see `Forest.place`."""
    mean, scale = (jnp.asarray(each, jnp.float32) for each in forest.moments(weight))
    return np.asarray(_log_posteriors(parameters, forest.lines, mean, scale))


@jax.jit
def _log_posteriors(p: Parameters, lines: Lines, mean: jax.Array, scale: jax.Array) -> jax.Array:
    scores = jnp.where(lines.real[:, None], _scores(p, lines, mean, scale), -jnp.inf)
    return scores - forests.of_bug(forests.log_sum_by_bug(scores, lines), lines)


def losses(parameters: Parameters, forest: Forest, weight: np.ndarray, penalty: Penalty) -> np.ndarray:
    """`[G]` what `fit` minimises."""
    mean, scale = forest.moments(weight)
    given = (jnp.asarray(each, jnp.float32) for each in (weight, mean, scale))
    return np.asarray(jax.jit(_losses)(parameters, forest.lines, *given, _device(penalty)))


def _device(penalty: Penalty) -> Penalty:
    return Penalty(*(jnp.asarray(each, jnp.float32) for each in penalty))


def _losses(
    parameters: Parameters, lines: Lines, weight: jax.Array, mean: jax.Array, scale: jax.Array, penalty: Penalty
) -> jax.Array:  # fmt: skip
    parameters = _masked(parameters, penalty.use)
    scores = jnp.where(lines.real[:, None], _scores(parameters, lines, mean, scale), -jnp.inf)
    every = forests.log_sum_by_bug(scores, lines)
    target = forests.log_sum_of_faulty(scores, lines)
    above = forests.by_bug(jax.nn.softplus(scores - forests.of_bug(target, lines)), lines)
    faulty = jax.nn.softplus(scores[lines.faulty] - target[lines.bug])
    pairs = (above - jax.ops.segment_sum(faulty, lines.bug, lines.size.shape[0])) / lines.size[:, None]
    data = (weight * (penalty.listwise * (every - target) + penalty.pairwise * pairs)).sum(0)
    return data + penalty.ridge / 2 * _ridge(parameters) + _table_ridge(parameters) / 2


def _masked(p: Parameters, use: jax.Array) -> Parameters:
    return p._replace(weights=p.weights * use, by_subclass=p.by_subclass * (use if use.ndim == 0 else use[:, None]))


def _ridge(p: Parameters) -> jax.Array:
    shared = (p.weights**2).sum(0) + (p.kinds**2).sum(0)
    apart = (p.by_subclass**2).sum((0, 1)) + (p.kinds_by_subclass**2).sum((0, 1))
    return shared + 3 * apart + 0.1 * ((p.bias - START) ** 2).sum(0)


def _table_ridge(p: Parameters) -> jax.Array:
    sticky = STICKY * jnp.eye(p.stay.shape[0])[:, :, None]
    return (p.inner**2).sum((0, 1)) + (p.outer**2).sum((0, 1)) + 0.3 * ((p.stay - sticky) ** 2).sum((0, 1))


def _scores(p: Parameters, lines: Lines, mean: jax.Array, scale: jax.Array) -> jax.Array:
    """`[L, G]` log P up to a constant of the bug."""
    if p.bias.shape[0] == 1:  # nothing to tell apart, and an offset of all lines cancels
        fixed = jax.lax.stop_gradient((p.by_subclass, p.kinds_by_subclass, p.bias))
        p = p._replace(by_subclass=fixed[0], kinds_by_subclass=fixed[1], bias=fixed[2])
    weights = (p.weights[:, None] + p.by_subclass) / scale[:, None]
    odds = jnp.einsum("lf,fkg->lkg", lines.values, weights) + (p.bias - (mean[:, None] * weights).sum(0))[None]
    odds = odds + (p.kinds[:, None] + p.kinds_by_subclass)[lines.kind]
    if p.bias.shape[0] == 1:
        return odds[:, 0]
    clean = jnp.zeros((lines.symbol.shape[0], *odds.shape[1:])).at[lines.owner].set(-jax.nn.softplus(odds), mode="drop")
    found = tflm.subclasses(lines.order, _tables(p, lines), lines.relation, clean)
    return jax.nn.logsumexp(odds, axis=1, b=found[lines.owner])


def _tables(p: Parameters, lines: Lines) -> tflm.Tables:
    outer, inner = lines.pairs[:, 0], lines.pairs[:, 1]
    seen = p.stay[None] + p.outer[outer][:, None] + p.inner[inner][:, None]
    logits = jnp.concatenate([seen, p.stay[None]])  # the last row is for pairs that were not seen
    prior = jnp.full(p.bias.shape, -jnp.log(jnp.float32(p.bias.shape[0])))
    return tflm.Tables(prior, jax.nn.log_softmax(logits, axis=2))


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
    parameters = _masked(parameters, jnp.asarray(penalty.use, jnp.float32))
    parameters = Parameters(*(each[..., index : index + 1] for each in parameters))
    p = Parameters(*(np.asarray(each, np.float64)[..., 0] for each in parameters))
    mean, scale = (each[:, index] for each in forest.moments(weight))
    tables = _tables(parameters, forest.lines)
    offsets = p.bias + np.concatenate([p.kinds[:, None] + p.kinds_by_subclass, np.zeros((1, len(p.bias)))])
    nothing = np.zeros((*offsets.shape, 0))
    return models.Model(
        forest.language, "posterior", forest.symbols, NAMES, forest.shift + forest.stretch * mean,
        forest.stretch * scale, p.weights + p.by_subclass.T, offsets, np.asarray(tables.prior, np.float64)[:, 0],
        np.asarray(forest.lines.pairs), np.asarray(tables.table, np.float64)[..., 0], np.zeros(0, np.int64), nothing,
        nothing, np.full(offsets.shape, 0.5),
    )  # fmt: skip
