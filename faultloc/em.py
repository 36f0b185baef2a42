"""Learn a tractable fault localization model by expectation maximisation, hard as in the paper or soft.

Legend: see `faultloc.forest`; K latent subclasses, A generated features.

The E-step is one pass of `faultloc.tflm` over all programs: the most probable subclasses together, or their posteriors.
The M-step counts: which subclass of which kind stands under which, how many statements one encloses, mean and deviation
of the generated features, and refits the logistic regression of each subclass by one step of Newton's method. One fault
in thousands of lines tells little about a (kind, subclass): every estimate is shrunk to that of the subclass alone,
and slopes of the regression are those of the subclass, only its intercept differs by kind.

Source: reconstruction from the abstract of Nath, Domingos 2016; the shrinkage is ours.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import forest as forests
from faultloc import models, tflm
from faultloc.features import NAMES
from faultloc.forest import Forest, Lines
from faultloc.gradient import START, STICKY
from faultloc.learn import Learned

SHRINKAGE = 10.0  # observations that the estimate of the subclass alone counts for
FLOOR = 0.15  # of the deviation of a generated feature, standardised
LONGEST = 1.0  # of a step of Newton's method in any slope


class Parameters(NamedTuple):
    """What is learned; G models on the last axis, the last of S + 1 rows for a kind that was not seen.

    Attributes:
        prior: `[K, G]` log-probability of the subclass of a root.
        table: `[R + 1, K, K, G]` log-probability of the inner statement's kind and subclass given the outer one's.
        branching: `[S + 1, K, G]` probability that a statement encloses one more.
        centre, spread: `[S + 1, K, A, G]` of the generated features.
        weights: `[F, K, G]` of the regression.
        offsets: `[S + 1, K, G]` its intercepts.
    """

    prior: Any
    table: Any
    branching: Any
    centre: Any
    spread: Any
    weights: Any
    offsets: Any


class Given(NamedTuple):
    """Weights and standardisation of each model: `[B, G]`, `[F, G]`, `[F, G]`, and `[F]` the features in use."""

    weight: jax.Array
    mean: jax.Array
    scale: jax.Array
    use: jax.Array
    ridge: jax.Array


def fit_folds(
    forest: Forest, weight: np.ndarray, key: jax.Array, *, subclasses: int, restarts: int, rounds: int, hard: bool,
    generated: np.ndarray, use: np.ndarray, ridge: float, tune: int = 0,
) -> Learned:  # fmt: skip
    """Learn one model for each column of `weight`, all of them together.

    Args:
        forest: of all bugs.
        weight: `[B, folds]` one for the bugs that a fold learns from, zero for the others.
        key: of the starts.
        subclasses: K.
        restarts: starts, of which the one with the largest likelihood is kept.
        rounds: of EM.
        hard: the most probable subclasses in place of their posteriors.
        generated: places of the features that the subclasses generate.
        use: `[F]` one for the features of the regression.
        ridge: penalty of the regression.
        tune: steps of the gradient that follow, see `faultloc.tuning`; then the least of its objective is what is kept.
    """
    drawn = np.repeat(weight, restarts, axis=1)
    mean, scale = forest.moments(drawn)
    given = Given(*(jnp.asarray(each, jnp.float32) for each in (drawn, mean, scale, use, ridge)))
    chosen = tuple(map(int, generated))
    first = start(forest, key, subclasses, drawn.shape[1], len(chosen))
    ended, likelihood = advance(first, forest.lines, given, rounds, hard, chosen)
    loss = -np.asarray(likelihood, np.float64)
    if tune:
        from faultloc import tuning

        ended, past = tuning.tune(ended, forest.lines, given, chosen, tune)
        loss = np.asarray(past, np.float64)[-1]
    scores = np.asarray(log_posteriors(ended, forest.lines, given, chosen))
    loss = loss.reshape(-1, restarts)
    best = loss.argmin(1) + restarts * np.arange(len(loss))
    learner = f"{'hard' if hard else 'soft'} EM{', fine-tuned' if tune else ''}"
    learned = [model(ended, forest, drawn, int(g), chosen, learner) for g in best]
    return Learned(learned, scores.reshape(len(scores), -1, restarts), loss)


def start(forest: Forest, key: jax.Array, subclasses: int, count: int, generated: int) -> Parameters:
    """Random parameters, all features alike."""
    kinds, k = len(forest.symbols) + 1, subclasses
    for_centre, for_branching, for_offsets = jax.random.split(key, 3)
    stay = jax.nn.log_softmax(STICKY * jnp.eye(k), axis=1)[None, :, :, None]
    shape = (len(forest.lines.pairs) + 1, k, k, count)
    branching = jax.nn.sigmoid(jax.random.normal(for_branching, (1, k, count)) / 3)
    centre = jax.random.normal(for_centre, (1, k, generated, count)) / 2
    offsets = START + jax.random.normal(for_offsets, (1, k, count)) / 3
    return Parameters(
        jnp.full((k, count), -np.float32(np.log(k))), jnp.broadcast_to(stay, shape),
        jnp.broadcast_to(branching, (kinds, k, count)), jnp.broadcast_to(centre, (kinds, k, generated, count)),
        jnp.ones((kinds, k, generated, count)), jnp.zeros((len(forest.shift), k, count)),
        jnp.broadcast_to(offsets, (kinds, k, count)),
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("rounds", "hard", "generated"))
def advance(
    parameters: Parameters, lines: Lines, given: Any, rounds: int, hard: bool, generated: tuple[int, ...]
) -> tuple[Parameters, jax.Array]:
    """Go through `rounds` rounds; the new parameters, and `[G]` the log-likelihood before the last one."""

    def step(p: Parameters, _: None) -> tuple[Parameters, jax.Array]:
        odds = _odds(p, lines, given)
        faulty = jnp.zeros_like(odds).at[lines.faulty].set(odds[lines.faulty])
        seen = _evidence(p, lines, given, generated, faulty - jax.nn.softplus(odds))
        found, counts, total = tflm.posteriors(
            lines.order, tflm.Tables(p.prior, p.table), lines.relation, seen,
            semiring="max" if hard else "sum", weight=given.weight[lines.tree],
        )  # fmt: skip
        by_line = jnp.where(lines.real[:, None, None], found[lines.owner], 0)
        weights, offsets = _newton(p, lines, given, odds, by_line)
        prior, table = _tables(counts, lines, p.branching.shape[0] - 1)
        centre, spread = _gaussian(lines, given, by_line, generated, p.branching.shape[0] - 1)
        branching = _branching(lines, found, p.branching.shape[0] - 1)
        return Parameters(prior, table, branching, centre, spread, weights, offsets), total

    parameters, totals = jax.lax.scan(step, parameters, None, length=rounds)
    return parameters, totals[-1]


def _standardised(lines: Lines, given: Given, feature: int) -> jax.Array:
    """`[L, G]` one feature as each model sees it."""
    return (lines.values[:, feature, None] - given.mean[None, feature]) / given.scale[None, feature]


def _odds(p: Parameters, lines: Lines, given: Given) -> jax.Array:
    """`[L, K, G]` log-odds of a fault."""
    weights = p.weights / given.scale[:, None]
    shift = (given.mean[:, None] * weights).sum(0)
    return jnp.einsum("lf,fkg->lkg", lines.values, weights) - shift[None] + p.offsets[lines.kind]


def _evidence(
    p: Parameters, lines: Lines, given: Given, generated: tuple[int, ...], of_lines: jax.Array
) -> jax.Array:  # fmt: skip
    """`[N, K, G]` log-probability of what is generated at each statement, and `of_lines` at those with a line."""
    for a, feature in enumerate(generated):
        x = _standardised(lines, given, feature)[:, None]
        spread = p.spread[lines.kind][:, :, a]
        normal = -(((x - p.centre[lines.kind][:, :, a]) / spread) ** 2) / 2 - jnp.log(spread)
        of_lines = of_lines + normal - jnp.float32(np.log(2 * np.pi) / 2)
    more = p.branching[lines.symbol]
    children = lines.children.astype(jnp.float32)[:, None, None]
    return (children * jnp.log(more) + jnp.log1p(-more)).at[lines.owner].add(of_lines, mode="drop")


def _by_kind(values: jax.Array, kind: jax.Array, kinds: int) -> jax.Array:
    return jax.ops.segment_sum(values, kind, kinds)


def _tables(counts: tflm.Tables, lines: Lines, kinds: int) -> tuple[jax.Array, jax.Array]:
    """Smoothed counts; those of a (kind, subclass) shrunk to how the subclass alone passes to others."""
    prior = counts.prior + 1
    used = counts.table[:-1]
    stay = used.sum(0) + 1
    stay = stay / stay.sum(1, keepdims=True)
    outer = lines.pairs[:, 0]
    seen = used.sum((1, 2)) + 0.5
    inner = seen / _by_kind(seen, outer, kinds)[outer]  # P(kind of the inner | kind of the outer)
    total = _by_kind(used.sum(2), outer, kinds)[outer][:, :, None]
    shrunk = (used + SHRINKAGE * inner[:, None, None] * stay[None]) / (total + SHRINKAGE)
    table = jnp.concatenate([shrunk, stay[None]])
    return jnp.log(prior / prior.sum(0, keepdims=True)), jnp.log(table)


def _branching(lines: Lines, found: jax.Array, kinds: int) -> jax.Array:
    more = _by_kind(found * lines.children.astype(jnp.float32)[:, None, None], lines.symbol, kinds)
    ended = _by_kind(found, lines.symbol, kinds)
    alone = (more.sum(0) + 1) / (more.sum(0) + ended.sum(0) + 2)
    shrunk = (more + SHRINKAGE * alone[None]) / (more + ended + SHRINKAGE)
    return jnp.concatenate([shrunk, alone[None]])


def _gaussian(
    lines: Lines, given: Given, found: jax.Array, generated: tuple[int, ...], kinds: int
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    centres, spreads = [], []
    count = _by_kind(found, lines.kind, kinds)
    for feature in generated:
        x = _standardised(lines, given, feature)[:, None]
        first, second = _by_kind(found * x, lines.kind, kinds), _by_kind(found * x**2, lines.kind, kinds)
        total = count.sum(0) + 1
        mean = first.sum(0) / total
        variance = (second.sum(0) + 1) / total - mean**2
        centre = (first + SHRINKAGE * mean[None]) / (count + SHRINKAGE)
        about = second - 2 * centre * first + centre**2 * count
        own = (about + SHRINKAGE * variance[None]) / (count + SHRINKAGE)
        centres.append(jnp.concatenate([centre, mean[None]]))
        spreads.append(jnp.sqrt(jnp.maximum(jnp.concatenate([own, variance[None]]), FLOOR**2)))
    nothing = jnp.zeros((kinds + 1, *count.shape[1:]))
    stack = lambda each: jnp.stack(each, axis=2) if each else nothing[:, :, None][:, :, :0]  # noqa: E731
    return stack(centres), stack(spreads)


def _newton(
    p: Parameters, lines: Lines, given: Given, odds: jax.Array, found: jax.Array
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """One step on the slopes of each subclass with its common intercept, one on the intercepts by kind."""
    chance = jax.nn.sigmoid(odds)
    slope = (found * chance).at[lines.faulty].add(-found[lines.faulty])
    curve = found * chance * (1 - chance)
    size, kinds = p.weights.shape[0], p.offsets.shape[0] - 1
    # Moments of the raw values, from which those of the standardised ones of every model follow.
    values = jnp.concatenate([lines.values, jnp.ones_like(lines.values[:, :1])], axis=1)
    to = _affine(given)
    first = jnp.einsum("gij,jkg->ikg", to, jnp.einsum("lf,lkg->fkg", values, slope))
    raw = jnp.einsum("lf,lkg,lh->kgfh", values, curve, values)
    second = jnp.einsum("gij,kgjh,gmh->kgim", to, raw, to)
    common = p.offsets[-1]
    now = jnp.concatenate([p.weights, common[None]])
    ridge = jnp.full(size + 1, given.ridge).at[size].set(0.1)
    home = jnp.zeros(size + 1).at[size].set(START)
    mask = jnp.concatenate([given.use, jnp.ones_like(given.use[:1])])
    first = (first + ridge[:, None, None] * (now - home[:, None, None])) * mask[:, None, None]
    second = second * (mask[:, None] * mask[None])[None, None] + jnp.diag(ridge + 1 - mask)[None, None]
    step = jnp.moveaxis(jnp.linalg.solve(second, jnp.moveaxis(first, 0, -1)[..., None])[..., 0], -1, 0)
    now = now - step / jnp.maximum(1, jnp.abs(step).max(0, keepdims=True) / LONGEST)
    apart = p.offsets[:-1] - common[None]
    by_kind, curves = _by_kind(slope, lines.kind, kinds), _by_kind(curve, lines.kind, kinds)
    own = (by_kind + given.ridge * apart) / (curves + given.ridge)
    apart = apart - jnp.clip(own, -LONGEST, LONGEST)
    return now[:-1], jnp.concatenate([now[-1][None] + apart, now[-1][None]])


def _affine(given: Given) -> jax.Array:
    """`[G, F + 1, F + 1]` takes (values, 1) to (standardised values, 1)."""
    size = given.mean.shape[0]
    scaled = jnp.eye(size)[None] / given.scale.T[:, None]
    top = jnp.concatenate([scaled, -(given.mean / given.scale).T[:, :, None]], axis=2)
    last = jnp.broadcast_to((jnp.arange(size + 1) == size).astype(jnp.float32), (top.shape[0], 1, size + 1))
    return jnp.concatenate([top, last], axis=1)


@functools.partial(jax.jit, static_argnames="generated")
def log_posteriors(p: Parameters, lines: Lines, given: Any, generated: tuple[int, ...]) -> jax.Array:
    """`[L, G]` log-probability that the one fault of each bug is at each of its lines.

    Args:
        p: what was learned.
        lines: of the forest.
        given: `Given`, with the standardisation that it was learned with.
        generated: places of the features that the subclasses generate.
    """
    odds = _odds(p, lines, given)
    seen = _evidence(p, lines, given, generated, -jax.nn.softplus(odds))
    found = tflm.subclasses(lines.order, tflm.Tables(p.prior, p.table), lines.relation, seen)[lines.owner]
    scores = jnp.where(lines.real[:, None], jax.nn.logsumexp(odds, axis=1, b=found), -jnp.inf)
    return scores - forests.of_bug(forests.log_sum_by_bug(scores, lines), lines)


def model(
    parameters: Parameters, forest: Forest, weight: np.ndarray, index: int, generated: tuple[int, ...], learner: str
) -> models.Model:
    """One of the models that were learned together, as a user of it needs it; see `learn.model`."""
    p = Parameters(*(np.asarray(each, np.float64)[..., index] for each in parameters))
    mean, scale = (each[:, index] for each in forest.moments(weight))
    return models.Model(
        forest.language, learner, forest.symbols, NAMES, forest.shift + forest.stretch * mean, forest.stretch * scale,
        p.weights.T, p.offsets, p.prior, np.asarray(forest.lines.pairs), p.table, np.array(generated, np.int64),
        p.centre, p.spread, p.branching,
    )  # fmt: skip
