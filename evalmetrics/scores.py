"""From the statistics of pairs of regions to scores.

Legend: K regions of the reference, K' of the prediction, n = max(K, K').
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evalmetrics import arrays, averages, matching
from evalmetrics.averages import EMPTY, Empty, Scores
from evalmetrics.kernels import EPS, Kernel
from evalmetrics.matching import Method
from evalmetrics.pairs import Labels, PairStats, pair_stats
from evalmetrics.simplex import Zeros

__all__ = ["Scores", "from_stats", "score", "without"]

Objective = Literal["macro", "micro"]
OBJECTIVES = ("macro", "micro")


def score(
    reference: Any,
    prediction: Any,
    *,
    kernel: str | Kernel = "abs",
    eps: float = EPS,
    zeros: Zeros = "clip",
    objective: Objective = "macro",
    method: Method = "hungarian",
    labels: Labels = "unordered",
    background: tuple[int, int] | None = None,
    empty: Empty = "one",
    weights: Any = None,
    regions: tuple[int, int] | None = None,
    temperature: float = 0.05,
    chunk: int | None = None,
    checked: bool = True,
) -> Scores:
    """Score a probabilistic multi-region segmentation whose labels may be in any order.

    D(i, j) = 1 - sum_x disagreement / sum_x mass for every pair of regions, then the matching that is best by
    `objective`, then the means. With K != K' the missing regions are empty ones, which score 0 against any mass.

    Args:
        reference: soft map `[K, *spatial]` or label map `[*spatial]`; NumPy, JAX or DLPack array.
        prediction: soft map `[K', *spatial]` or label map `[*spatial]`.
        kernel: `abs`, `ait`, `simplex_tv`, `simplex_ait`, or a registered one.
        eps: zero replacement of the Aitchison kernels; part of the score, report it.
        zeros: method of zero replacement, see `simplex.replace_zeros`.
        objective: `macro` maximises the sum of region scores, `micro` minimises the total disagreement.
        method: `hungarian` (inside jit), `scipy` (host) or `sinkhorn` (soft matching: region scores are averages).
        labels: `ordered` takes region i for region i.
        background: (i, j), the region to leave out on each side.
        empty: score of two empty regions: `one`, `zero`, `nan` (means become NaN) or `skip` (means leave it out).
        weights: `[*spatial]`, non-negative or a mask.
        regions: (K, K'), needed for label maps inside a transformation.
        temperature: of the soft matching, in units of the objective.
        chunk: voxels per step.
        checked: refuse sums that are not finite, where the values are at hand.

    Returns:
        Scores.

    Raises:
        ValueError: maps, options or values that do not fit, with what to do.
        TypeError: an input that is not an array of real numbers.

    Source: Andrews and Hamarneh, arXiv 1509.07244; reconstruction from the abstract.
    """
    maps = arrays.keep_host(reference, "reference"), arrays.keep_host(prediction, "prediction")
    counts = arrays.count_regions(*maps, regions)
    one_pass = functools.partial(
        pair_stats, *maps, kernel=kernel, eps=eps, zeros=zeros, weights=weights, regions=counts, chunk=chunk
    )
    finish = functools.partial(
        from_stats, background=background, empty=empty, objective=objective, method=method,
        temperature=temperature, checked=checked,
    )  # fmt: skip
    stats = one_pass(labels=labels)
    if stats.kernel.mass != "joint" or stats.ordered:
        return finish(stats)
    match = _match_compositions(stats, method, checked)
    pairs = averages.ratio(stats.disagreement, stats.mass, "one")[: counts[0], : counts[1]]
    return finish(one_pass(match=match))._replace(match=match, pairs=pairs)


def _match_compositions(stats: PairStats, method: Method, checked: bool) -> jax.Array:
    """Matching of least total cost for a kernel whose score then takes a second pass."""
    if method == "sinkhorn":
        raise ValueError(f"kernel {stats.kernel.name!r} needs one matching; use method='hungarian' or 'scipy'")
    if checked:
        _require_finite(stats)
    return matching.match(-stats.disagreement, method=method, checked=False)


def from_stats(
    stats: PairStats,
    *,
    objective: Objective = "macro",
    method: Method = "hungarian",
    background: tuple[int, int] | None = None,
    empty: Empty = "one",
    temperature: float = 0.05,
    checked: bool = True,
) -> Scores:
    """Scores from statistics, without another look at the voxels.

    Args:
        stats: from `pair_stats`, merged or not.
        objective: see `score`.
        method: see `score`.
        background: see `score`.
        empty: see `score`.
        temperature: see `score`.
        checked: see `score`.

    Returns:
        Scores.

    Raises:
        ValueError: unknown option, sums that are not finite, or all pairs of a joint kernel, whose score needs a
            second pass over the matched regions.
    """
    _check_options(stats, objective, method, empty, background)
    if checked:
        _require_finite(stats)
    options = Options(objective, method, background, empty)
    match = None
    if method == "scipy" and not stats.ordered:
        match = matching.match(_gain_jitted(stats, options)[0], method="scipy", checked=False)
    return _finish(stats, match, temperature, options)


class Options(NamedTuple):
    """What is static about the way from statistics to scores."""

    objective: Objective
    method: Method
    background: tuple[int, int] | None
    empty: Empty


def _gain(stats: PairStats, options: Options) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What matching maximises, then score, disagreement and mass of every pair, each `[n, n]`."""
    if options.background is not None:
        stats = without(stats, options.background)
    disagreement, mass = averages.pad_tables(stats)
    # Two empty regions belong together also where their score is left out.
    guide = averages.ratio(disagreement, mass, "zero" if options.empty == "zero" else "one")
    by_score = options.objective == "macro" and not stats.kernel.whole_map
    return guide if by_score else -disagreement, averages.ratio(disagreement, mass, options.empty), disagreement, mass


_gain_jitted = jax.jit(_gain, static_argnames="options")


@functools.partial(jax.jit, static_argnames="options")
def _finish(stats: PairStats, match: jax.Array | None, temperature: Any, options: Options) -> Scores:
    kept = stats if options.background is None else without(stats, options.background)
    if stats.ordered:
        return averages.assemble_ordered(kept, options.empty)
    gain, *tables = _gain(stats, options)
    if options.method == "sinkhorn":
        by_score = options.objective == "macro" and not stats.kernel.whole_map
        scale = 1 if by_score else jnp.maximum(tables[2].max(), jnp.finfo(gain.dtype).tiny)
        plan = matching.sinkhorn(gain / scale, temperature=temperature)
        match = matching.round_plan(plan)
        matched = [(plan * x).sum(1) for x in tables]
    else:
        found = matching.match(gain, method="hungarian", checked=False) if match is None else match
        matched, match = [jnp.take_along_axis(x, found[:, None], 1)[:, 0] for x in tables], found
    rows, columns = kept.disagreement.shape
    return averages.assemble(kept, matched, match, tables[0][:rows, :columns], options.empty)


def without(stats: PairStats, background: tuple[int, int]) -> PairStats:
    """Statistics that leave out one region on each side.

    Args:
        stats: from `pair_stats`, of a per-region kernel.
        background: (i, j), the region to leave out of the reference and of the prediction.

    Returns:
        PairStats of K - 1 and K' - 1 regions.

    Raises:
        ValueError: no such region, nothing would be left, or the kernel is of the whole map.
    """
    sizes = stats.reference_volume.shape[0], stats.prediction_volume.shape[0]
    if stats.kernel.whole_map:
        raise ValueError(
            f"kernel {stats.kernel.name!r} compares whole compositions and has no background; drop the channel, close "
            "the maps again, or mask voxels with weights"
        )
    if len(background) != 2 or not all(0 <= b < k and k > 1 for b, k in zip(background, sizes, strict=True)):
        raise ValueError(
            f"background must be a region index on each side of {sizes[0]} and {sizes[1]}, got {background}"
        )
    if stats.ordered and background[0] != background[1]:
        raise ValueError(f"ordered labels exclude one index on both sides, got {background}")
    kept = [np.delete(np.arange(k), b) for b, k in zip(background, sizes, strict=True)]
    table = (lambda x: x[kept[0]]) if stats.ordered else (lambda x: x[kept[0]][:, kept[1]])
    return dataclasses.replace(
        stats,
        disagreement=table(stats.disagreement),
        mass=table(stats.mass),
        reference_alone=stats.reference_alone[kept[0]],
        prediction_alone=stats.prediction_alone[kept[1]],
        reference_volume=stats.reference_volume[kept[0]],
        prediction_volume=stats.prediction_volume[kept[1]],
        moments=None,
    )


def _check_options(
    stats: PairStats, objective: str, method: str, empty: str, background: tuple[int, int] | None
) -> None:
    for name, value, allowed in (
        ("objective", objective, OBJECTIVES),
        ("empty", empty, EMPTY),
        ("method", method, matching.METHODS),
    ):
        if value not in allowed:
            raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(allowed)}")
    if stats.kernel.mass == "joint" and not stats.ordered:
        raise ValueError(
            f"kernel {stats.kernel.name!r} needs a second pass over the matched regions: use score, or pair_stats with "
            "match= or labels='ordered'"
        )
    if background is not None and stats.kernel.whole_map:
        without(stats, background)  # raises with the remedy


def _require_finite(stats: PairStats) -> None:
    if not isinstance(stats.disagreement, jax.core.Tracer):
        matching.require_finite(np.asarray(stats.disagreement), "the disagreement of regions")
