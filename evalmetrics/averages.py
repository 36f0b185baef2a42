"""From matched regions to scores: empty regions, padding, and the five means.

Legend: K regions of the reference, K' of the prediction, n = max(K, K').
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from evalmetrics.onepass import PairStats

Empty = Literal["one", "zero", "nan", "skip"]
EMPTY = ("one", "zero", "nan", "skip")


class Scores(NamedTuple):
    """Scores of a prediction; every field is traced, so that batches come from `jax.vmap`.

    With a whole-map kernel (`simplex_tv`, `simplex_ait`) there is one score: 1 - `region` is what each region takes
    away from it, and the five means are all equal to it.

    Attributes:
        region: `[n]` score of each reference region with its match, in reference order; slots from K on are unmatched
            regions of the prediction.
        match: `[n]` int32, prediction region of each slot; K' and above stand for none. After exclusion of a
            background, regions are counted without it, here as in every field.
        pairs: `[K, K']` score of every pair; NaN off the diagonal when labels are ordered, where it is not computed.
        macro: `[]` mean of `region` over n.
        macro_reference: `[]` mean over the K regions of the reference, blind to superfluous regions.
        micro: `[]` one minus the total disagreement over the total mass.
        volume_weighted: `[]` mean over the K regions weighted by reference volume.
        crum: `[]` one minus disagreement over mass, both weighted by one over reference volume.
        reference_volume: `[K]` sum of probabilities, voxels.
        prediction_volume: `[K']` sum of probabilities, voxels.
    """

    region: jax.Array
    match: jax.Array
    pairs: jax.Array
    macro: jax.Array
    macro_reference: jax.Array
    micro: jax.Array
    volume_weighted: jax.Array
    crum: jax.Array
    reference_volume: jax.Array
    prediction_volume: jax.Array


def pad_tables(stats: PairStats) -> tuple[jax.Array, jax.Array]:
    """Disagreement and mass `[n, n]`, where a region without a partner meets an empty one."""
    rows, columns = stats.disagreement.shape
    out = []
    for table, left, right in (
        (stats.disagreement, stats.reference_alone, stats.prediction_alone),
        (stats.mass, _alone_mass(stats, 0), _alone_mass(stats, 1)),
    ):
        if columns < rows:
            table = jnp.concatenate([table, jnp.broadcast_to(left[:, None], (rows, rows - columns))], 1)
        else:
            table = jnp.concatenate([table, jnp.broadcast_to(right[None, :], (columns - rows, columns))], 0)
        out.append(table)
    return out[0], out[1]


def _alone_mass(stats: PairStats, side: int) -> jax.Array:
    alone = (stats.reference_alone, stats.prediction_alone)[side]
    return jnp.broadcast_to(stats.mass[:1, :1].reshape(1), alone.shape) if stats.kernel.whole_map else alone


def ratio(disagreement: jax.Array, mass: jax.Array, empty: Empty) -> jax.Array:
    """One minus disagreement over mass; the policy where both are nothing."""
    some = mass > 0
    ratio = jnp.clip(1 - disagreement / jnp.where(some, mass, 1), 0, 1)
    return jnp.where(some, ratio, {"one": 1.0, "zero": 0.0}.get(empty, jnp.nan))


def assemble_ordered(stats: PairStats, empty: Empty) -> Scores:
    """Scores of regions that correspond by index."""
    region = ratio(stats.disagreement, stats.mass, empty)
    size = region.shape[0]
    sizes = stats.reference_volume.shape[0], stats.prediction_volume.shape[0]
    pairs = jnp.where(jnp.eye(size, dtype=bool), region[:, None], jnp.nan)[: sizes[0], : sizes[1]]
    match = jnp.arange(size, dtype=jnp.int32)
    return assemble(stats, [region, stats.disagreement, stats.mass], match, pairs, empty)


def assemble(stats: PairStats, matched: list[jax.Array], match: jax.Array, pairs: jax.Array, empty: Empty) -> Scores:
    """Means of the matched regions. `matched`: score, disagreement and mass, each `[n]`."""
    region, disagreement, mass = matched
    volume = stats.reference_volume
    count = volume.shape[0]
    if stats.kernel.whole_map:
        whole = ratio(disagreement.sum(), mass[0], empty)
        means = (whole, whole, whole, whole, whole)
    else:
        inverse = jnp.where(volume > 0, 1 / jnp.where(volume > 0, volume, 1), 0)
        means = (
            _mean(region, jnp.ones_like(region), empty),
            _mean(region[:count], jnp.ones_like(volume), empty),
            ratio(disagreement.sum(), mass.sum(), empty),
            _mean(region[:count], volume, empty),
            ratio((disagreement[:count] * inverse).sum(), (mass[:count] * inverse).sum(), empty),
        )
    return Scores(region, match, pairs, *means, volume, stats.prediction_volume)


def _mean(region: jax.Array, weights: jax.Array, empty: Empty) -> jax.Array:
    """Weighted mean of region scores; the policy where nothing is left to average."""
    if empty == "skip":
        weights = jnp.where(jnp.isnan(region), 0, weights)
        region = jnp.where(jnp.isnan(region), 0, region)
    total = weights.sum()
    some = total > 0
    mean = (region * weights).sum() / jnp.where(some, total, 1)
    return jnp.where(some, mean, {"one": 1.0, "zero": 0.0}.get(empty, jnp.nan))
