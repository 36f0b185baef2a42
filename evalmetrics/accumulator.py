"""Scores over many cases: pooled over all their voxels, and one by one for intervals.

Legend: K regions of the reference, K' of the prediction, n = max(K, K').
"""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from evalmetrics import pairs, scores
from evalmetrics.scores import Scores

_OF_STATS = frozenset(inspect.signature(pairs.pair_stats).parameters) - {"reference", "prediction", "weights", "match"}
_OF_SCORES = frozenset(inspect.signature(scores.from_stats).parameters) - {"stats"}


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """Cases seen so far; every verb returns a new accumulator.

    Regions must mean the same in every case: pooling adds their voxels and matches labels once for all cases, while
    the scores case by case match labels in each.

    Attributes:
        options: options of `pair_stats` and `from_stats`.
        stats: sum over cases, or None before the first.
        cases: scores of each case, left on the device until asked for.
    """

    options: dict[str, Any]
    stats: pairs.PairStats | None = None
    cases: tuple[Scores, ...] = ()

    def update(self, reference: Any, prediction: Any, *, weights: Any = None) -> "Accumulator":
        """Add a case.

        Args:
            reference: soft map `[K, *spatial]` or label map `[*spatial]`; grids may differ between cases.
            prediction: soft map `[K', *spatial]` or label map `[*spatial]`.
            weights: `[*spatial]` or None.

        Returns:
            Accumulator.

        Raises:
            ValueError: as `pair_stats` and `from_stats`, or a case with other regions than those before.
        """
        stats = pairs.pair_stats(reference, prediction, weights=weights, **_pick(self.options, _OF_STATS))
        case = scores.from_stats(stats, **_pick(self.options, _OF_SCORES))
        total = stats if self.stats is None else pairs.merge(self.stats, stats)
        return dataclasses.replace(self, stats=total, cases=(*self.cases, case))

    def merge(self, other: "Accumulator") -> "Accumulator":
        """Join the cases of two accumulators, those of `other` last.

        Raises:
            ValueError: the options differ.
        """
        if self.options != other.options:
            raise ValueError(f"accumulators must share their options, got {self.options} and {other.options}")
        known = [s for s in (self.stats, other.stats) if s is not None]
        total = functools.reduce(pairs.merge, known) if known else None
        return dataclasses.replace(self, stats=total, cases=self.cases + other.cases)

    def compute(self) -> Scores:
        """Scores of all voxels of all cases, with one matching.

        Raises:
            ValueError: there is no case yet.
        """
        if self.stats is None:
            raise ValueError("no case has been added yet; call update first")
        return scores.from_stats(self.stats, **_pick(self.options, _OF_SCORES))

    def by_case(self) -> Scores:
        """Scores of each case, `[cases, ...]` in every field: what the bootstrap over cases resamples.

        Raises:
            ValueError: there is no case yet.
        """
        if not self.cases:
            raise ValueError("no case has been added yet; call update first")
        return jax.tree.map(lambda *x: jnp.stack(x), *self.cases)


def start(**options: Any) -> Accumulator:
    """Accumulator without cases.

    Args:
        **options: of `pair_stats` (`kernel`, `eps`, `zeros`, `regions`, `labels`, `chunk`, ...) and of `from_stats`
            (`objective`, `method`, `background`, `empty`, ...). Label maps should say `regions`, because a case may
            lack the last region.

    Returns:
        Accumulator.

    Raises:
        ValueError: an option that neither knows.
    """
    unknown = sorted(set(options) - _OF_STATS - _OF_SCORES)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; choose from {', '.join(sorted(_OF_STATS | _OF_SCORES))}")
    return Accumulator(options)


def nnx_metric(regions: tuple[int, int], **options: Any) -> Any:
    """Metric of flax for training loops: sums of batches under `nnx.jit`, scores at the end.

    `update(reference=, prediction=)` takes a batch, `[batch, K, *spatial]` or labels `[batch, *spatial]`; `compute()`
    returns the `Scores` of all voxels seen since `reset()`, NaN-free and with the policy `empty` where there are none.

    Args:
        regions: (K, K').
        **options: as in `start`.

    Returns:
        `flax.nnx.Metric`.

    Raises:
        ValueError: an unknown option.
    """
    start(**options)
    return _metric_class()(regions, options)


@functools.cache
def _metric_class() -> type:
    """The class, made on first use: flax is slow to import."""
    from flax import nnx

    class MatchedScores(nnx.Metric):
        """Sums over batches as metric states, one for each leaf of `PairStats`."""

        def __init__(self, regions: tuple[int, int], options: dict[str, Any]) -> None:
            self.regions = regions
            self.settings = tuple(sorted(options.items()))
            for index, leaf in enumerate(jax.tree.leaves(self._empty())):
                setattr(self, f"sum_{index}", nnx.metrics.MetricState(leaf))

        def _case(self, reference: jax.Array, prediction: jax.Array) -> pairs.PairStats:
            options = _pick(dict(self.settings), _OF_STATS)
            return pairs.pair_stats(reference, prediction, **(options | {"regions": self.regions}))

        def _empty(self) -> pairs.PairStats:
            maps = (jax.ShapeDtypeStruct((k, 1), jnp.float32) for k in self.regions)
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(self._case, *maps))

        def _states(self) -> list[Any]:
            return [getattr(self, f"sum_{index}") for index in range(len(jax.tree.leaves(self._empty())))]

        def reset(self) -> None:
            """Forget all batches."""
            for state in self._states():
                state[...] = jnp.zeros_like(state[...])

        def update(self, **batch: Any) -> None:
            """Add a batch: `reference` and `prediction`; other keywords are for the other metrics of a MultiMetric."""
            sums = jax.vmap(self._case)(jnp.asarray(batch["reference"]), jnp.asarray(batch["prediction"]))
            for state, leaf in zip(self._states(), jax.tree.leaves(sums), strict=True):
                state[...] = state[...] + leaf.sum(0)

        def compute(self) -> Scores:
            """Scores of all batches since the last reset."""
            sums = [state[...] for state in self._states()]
            stats = jax.tree.unflatten(jax.tree.structure(self._empty()), sums)
            return scores.from_stats(stats, **_pick(dict(self.settings), _OF_SCORES))

    return MatchedScores


def _pick(options: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in known}
