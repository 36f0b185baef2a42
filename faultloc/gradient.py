"""The loss of a single fault's place, and the steps that lower it.

Legend: see `faultloc.learn`, of which this is the inner part; K latent subclasses, G models on the last axis.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from faultloc import forest as forests
from faultloc import tflm
from faultloc.forest import Forest, Lines

DECAY = 0.99  # of Adam's second moment
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
        listwise: weight of the first term of `learn.fit`.
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
    return Progress(jnp.zeros((), jnp.int32), parameters, optimiser(rate, steps).init(parameters))


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
    descent = optimiser(rate, steps)

    def step(progress: Progress, _: None) -> tuple[Progress, None]:
        slopes = jax.grad(lambda p: _losses(p, lines, weight, mean, scale, penalty).sum())(progress.parameters)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, state = descent.update(slopes, progress.optimiser, progress.parameters)
        return Progress(progress.step + 1, optax.apply_updates(progress.parameters, updates), state), None

    return jax.lax.scan(step, progress, None, length=count)[0]


def optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam, its rate falling from `rate` to zero along a cosine within `steps` steps."""

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
    parameters = masked(parameters, penalty.use)
    scores = jnp.where(lines.real[:, None], _scores(parameters, lines, mean, scale), -jnp.inf)
    every = forests.log_sum_by_bug(scores, lines)
    target = forests.log_sum_of_faulty(scores, lines)
    above = forests.by_bug(jax.nn.softplus(scores - forests.of_bug(target, lines)), lines)
    faulty = jax.nn.softplus(scores[lines.faulty] - target[lines.bug])
    pairs = (above - jax.ops.segment_sum(faulty, lines.bug, lines.size.shape[0])) / lines.size[:, None]
    data = (weight * (penalty.listwise * (every - target) + penalty.pairwise * pairs)).sum(0)
    return data + penalty.ridge / 2 * _ridge(parameters) + _ridge_of_tables(parameters) / 2


def masked(p: Parameters, use: jax.Array) -> Parameters:
    """With zeros for the features that are not learned from; see `Penalty.use`."""
    return p._replace(weights=p.weights * use, by_subclass=p.by_subclass * (use if use.ndim == 0 else use[:, None]))


def _ridge(p: Parameters) -> jax.Array:
    shared = (p.weights**2).sum(0) + (p.kinds**2).sum(0)
    apart = (p.by_subclass**2).sum((0, 1)) + (p.kinds_by_subclass**2).sum((0, 1))
    return shared + 3 * apart + 0.1 * ((p.bias - START) ** 2).sum(0)


def _ridge_of_tables(p: Parameters) -> jax.Array:
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
    found = tflm.subclasses(lines.order, tables(p, lines), lines.relation, clean)
    return jax.nn.logsumexp(odds, axis=1, b=found[lines.owner])


def tables(p: Parameters, lines: Lines) -> tflm.Tables:
    """Of the tree: subclasses of roots all alike, those of inner statements by the logits of their pair of kinds."""
    outer, inner = lines.pairs[:, 0], lines.pairs[:, 1]
    seen = p.stay[None] + p.outer[outer][:, None] + p.inner[inner][:, None]
    logits = jnp.concatenate([seen, p.stay[None]])  # the last row is for pairs that were not seen
    prior = jnp.full(p.bias.shape, -jnp.log(jnp.float32(p.bias.shape[0])))
    return tflm.Tables(prior, jax.nn.log_softmax(logits, axis=2))
