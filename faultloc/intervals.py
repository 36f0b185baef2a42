"""How far the rank of a line depends on which tests happened to be written: a bootstrap over tests."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from faultloc import tflm
from faultloc.features import RANKED
from faultloc.formulas import get
from faultloc.metrics import DECIMALS
from faultloc.spectrum import Counts, Spectrum, counts

BATCH = 16


class Bounds(NamedTuple):
    """Interval of the mid rank of each line, `[L]` each, 1 is the best."""

    low: np.ndarray
    high: np.ndarray


def rank_intervals(
    spectrum: Spectrum,
    formula: Callable[[Counts], Any],
    key: jax.Array,
    *,
    leading: np.ndarray | None = None,
    samples: int = 1000,
    level: float = 0.95,
) -> Bounds:
    """Percentile interval of every line's mid rank when failing and passing tests are drawn anew.

    Each kind keeps its number, so that a draw never lacks a failing test.

    Args:
        spectrum: of the program.
        formula: the same function each time; a new one is compiled anew.
        key: random key.
        leading: `[L]` lines that come before all others whatever their score; None: none do.
        samples: number of draws.
        level: probability, in (0, 1).

    Raises:
        ValueError: `level` outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.95 is usual")
    device = Spectrum(jnp.asarray(spectrum.bits), jnp.asarray(spectrum.failed, bool), spectrum.size)
    ahead = jnp.zeros(spectrum.size, bool) if leading is None else jnp.asarray(leading, bool)
    low, high = _intervals(device, ahead, key, formula, samples, level)
    return Bounds(np.asarray(low), np.asarray(high))


class Linear(NamedTuple):
    """Log-odds of lines as a function of their coverage.

    Attributes:
        fixed: `[L]` part that does not depend on coverage.
        slope: `[7]` of the features that do, see `dynamic`.
        function: `[L]` number of the function around each line, from 0.
    """

    fixed: Any
    slope: Any
    function: Any


def learned_intervals(
    spectrum: Spectrum, odds: Linear, key: jax.Array, *, samples: int = 1000, level: float = 0.95
) -> Bounds:
    """As `rank_intervals`, for a learned model whose log-odds are linear.

    Args:
        spectrum: of the program.
        odds: of its lines.
        key: random key.
        samples: number of draws.
        level: probability, in (0, 1).
    """
    device = Spectrum(jnp.asarray(spectrum.bits), jnp.asarray(spectrum.failed, bool), spectrum.size)
    fixed, slope = jnp.asarray(odds.fixed, jnp.float32), jnp.asarray(odds.slope, jnp.float32)
    given = Linear(fixed, slope, jnp.asarray(odds.function, jnp.int32))
    low, high = _learned(device, given, key, int(odds.function.max()) + 1, samples, level)
    return Bounds(np.asarray(low), np.asarray(high))


class Latent(NamedTuple):
    """What a model of several subclasses makes of the coverage of a program; M features move with it, see `dynamic`.

    Attributes:
        fixed: `[L, K]` part of the log-odds that does not depend on coverage.
        slope: `[M, K]` of the features that do.
        function: `[L]` number of the function around each line, from 0.
        evidence: `[N, K]` of the statements, without what the moving features add.
        owner: `[L]` statement of each line.
        centre: `[L, K, M]` at which the subclasses generate the moving features.
        precision: `[L, K, M]` one over the variance; 0 for one that they do not generate.
        order, tables, relation: see `tflm.log_total`.
    """

    fixed: Any
    slope: Any
    function: Any
    evidence: Any
    owner: Any
    centre: Any
    precision: Any
    order: tflm.Schedule
    tables: tflm.Tables
    relation: Any


def latent_intervals(
    spectrum: Spectrum, given: Latent, key: jax.Array, *, samples: int = 1000, level: float = 0.95
) -> Bounds:
    """As `rank_intervals`, for a model of several subclasses: each draw is a pass over the tree of its own.

    Args:
        spectrum: of the program.
        given: what the model makes of it.
        key: random key.
        samples: number of draws.
        level: probability, in (0, 1).
    """
    device = Spectrum(jnp.asarray(spectrum.bits), jnp.asarray(spectrum.failed, bool), spectrum.size)
    low, high = _latent(device, given, key, int(given.function.max()) + 1, samples, level)
    return Bounds(np.asarray(low), np.asarray(high))


@functools.partial(jax.jit, static_argnames=("functions", "samples", "level"))
def _latent(
    spectrum: Spectrum, given: Latent, key: jax.Array, functions: int, samples: int, level: float
) -> tuple[jax.Array, jax.Array]:
    def ranks(draw: jax.Array) -> jax.Array:
        drawn = dynamic(counts(spectrum, _weights(spectrum.failed, draw)), given.function, functions)
        odds = given.fixed + drawn @ given.slope
        generated = -((drawn[:, None] - given.centre) ** 2 * given.precision).sum(2) / 2
        clean = given.evidence.at[given.owner].add(generated - jax.nn.softplus(odds))
        found = tflm.subclasses(given.order, given.tables, given.relation, clean)[given.owner]
        scores = jax.nn.logsumexp(odds, axis=1, b=found)
        return _mid_ranks(jnp.round(scores - jax.nn.logsumexp(scores), DECIMALS))

    return _percentiles(ranks, key, samples, level)


@functools.partial(jax.jit, static_argnames=("functions", "samples", "level"))
def _learned(
    spectrum: Spectrum, odds: Linear, key: jax.Array, functions: int, samples: int, level: float
) -> tuple[jax.Array, jax.Array]:
    def ranks(draw: jax.Array) -> jax.Array:
        drawn = dynamic(counts(spectrum, _weights(spectrum.failed, draw)), odds.function, functions)
        return _mid_ranks(jnp.round(odds.fixed + drawn @ odds.slope, DECIMALS))

    return _percentiles(ranks, key, samples, level)


def dynamic(given: Counts, function: jax.Array, functions: int) -> jax.Array:
    """`[L, 7]` the features of `faultloc.features` that depend on coverage, on the device.

    Args:
        given: counts of a program.
        function: `[L]` number of the function around each line, from 0.
        functions: how many there are.
    """
    lines = given.ef.shape[0]
    places = [_mid_ranks(jnp.round(get(name)(given), DECIMALS)) for name in RANKED]
    logs = [-jnp.log(place) / jnp.log(jnp.float32(max(lines, 2))) for place in places]
    score = get("ochiai")(given)
    nothing = jnp.zeros(functions, score.dtype)
    size = nothing.at[function].add(1)
    highest = nothing.at[function].max(score)
    mean = nothing.at[function].add(score) / size
    run = nothing.at[function].add((given.ef > 0).astype(score.dtype)) / size
    place = 1 - (_mid_ranks(jnp.round(highest[function], DECIMALS)) - 0.5) / lines
    return jnp.stack([*logs, highest[function], mean[function], place, run[function]], axis=1)


def _percentiles(
    ranks: Callable[[jax.Array], jax.Array], key: jax.Array, samples: int, level: float
) -> tuple[jax.Array, jax.Array]:
    drawn = lax.map(ranks, jax.random.split(key, samples), batch_size=min(BATCH, samples))
    tail = (1 - level) / 2
    bounds = jnp.quantile(drawn, jnp.array([tail, 1 - tail], drawn.dtype), axis=0)
    return bounds[0], bounds[1]


@functools.partial(jax.jit, static_argnames=("formula", "samples", "level"))
def _intervals(
    spectrum: Spectrum,
    leading: jax.Array,
    key: jax.Array,
    formula: Callable[[Counts], Any],
    samples: int,
    level: float,
) -> tuple[jax.Array, jax.Array]:
    def ranks(draw: jax.Array) -> jax.Array:
        scores = formula(counts(spectrum, _weights(spectrum.failed, draw)))
        by_score = _mid_ranks(jnp.round(scores, DECIMALS))
        return _mid_ranks(jnp.where(leading, jnp.float32(2 * spectrum.size), jnp.float32(0)) - by_score)

    return _percentiles(ranks, key, samples, level)


def _weights(failed: jax.Array, key: jax.Array) -> jax.Array:
    """How often each test is drawn, `[T]`: as many failing and as many passing ones as there are."""
    # The tests sorted by outcome lie in two blocks; an index is drawn within the block of its place.
    order = jnp.argsort(failed)
    passing = (~failed).sum()
    place = jnp.arange(failed.size)
    start, size = jnp.where(place < passing, 0, passing), jnp.where(place < passing, passing, failed.size - passing)
    drawn = jax.random.randint(key, place.shape, 0, 2**30) % jnp.maximum(size, 1) + start
    return jnp.zeros(failed.shape, jnp.float32).at[order[drawn]].add(1.0)


def _mid_ranks(scores: jax.Array) -> jax.Array:
    ascending = jnp.sort(scores)
    below = jnp.searchsorted(ascending, scores, side="left")
    upto = jnp.searchsorted(ascending, scores, side="right")
    return scores.size - (below + upto - 1).astype(jnp.float32) / 2
