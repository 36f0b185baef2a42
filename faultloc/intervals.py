"""How far the rank of a line depends on which tests happened to be written: a bootstrap over tests."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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

    drawn = lax.map(ranks, jax.random.split(key, samples), batch_size=min(BATCH, samples))
    tail = (1 - level) / 2
    bounds = jnp.quantile(drawn, jnp.array([tail, 1 - tail], drawn.dtype), axis=0)
    return bounds[0], bounds[1]


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
