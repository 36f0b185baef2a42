"""One pass over the voxels of two maps on one device.

Legend: K regions of the reference, K' of the prediction, n = max(K, K'), N voxels.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evalmetrics import arrays, chunks, contraction
from evalmetrics.contingency import count
from evalmetrics.contraction import Lift, Sums
from evalmetrics.kernels import Kernel
from evalmetrics.simplex import Zeros


class Moments(NamedTuple):
    """Second moments of the probabilities, additive over voxels.

    Attributes:
        cross: `[K, K']` sum of p_i q_j (of p_i q_i, `[K]`, when ordered).
        reference: `[K]` sum of p_i^2.
        prediction: `[K']` sum of q_j^2.
    """

    cross: jax.Array
    reference: jax.Array
    prediction: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "disagreement",
        "mass",
        "reference_alone",
        "prediction_alone",
        "reference_volume",
        "prediction_volume",
        "voxels",
        "moments",
    ],
    meta_fields=["kernel", "ordered"],
)
@dataclass(frozen=True)
class PairStats:
    """Additive statistics of a reference and a prediction: adding two of them is scoring the union of the voxels.

    When `ordered`, region i belongs to region i and the axes [K, K'] shrink to one, [n].

    Attributes:
        disagreement: `[K, K']` sum of the kernel's disagreement of every pair.
        mass: `[K, K']` sum of the kernel's mass; for a whole-map kernel the mass of the map, repeated.
        reference_alone: `[K]` disagreement, and mass, of each region with an empty one.
        prediction_alone: `[K']` the same for the prediction.
        reference_volume: `[K]` sum of probabilities, voxels.
        prediction_volume: `[K']` sum of probabilities, voxels.
        voxels: `[]` sum of weights.
        moments: second moments, or None.
        kernel: the kernel, static.
        ordered: whether regions correspond by index, static.
    """

    disagreement: jax.Array
    mass: jax.Array
    reference_alone: jax.Array
    prediction_alone: jax.Array
    reference_volume: jax.Array
    prediction_volume: jax.Array
    voxels: jax.Array
    moments: Moments | None
    kernel: Kernel
    ordered: bool


class Plan(NamedTuple):
    """What is static about one pass."""

    kernel: Kernel
    zeros: Zeros
    regions: tuple[int, int]
    ordered: bool
    moments: bool
    chunk: int


def stats_of_block(
    reference: jax.Array,
    prediction: jax.Array,
    weights: jax.Array | None,
    match: jax.Array | None,
    eps: Any,
    plan: Plan,
) -> PairStats:
    """Statistics of voxels that lie on one device; arguments as in `pair_stats`, checked and converted."""
    dtype = _dtype(reference, prediction)
    maps = [x.reshape(-1) if arrays.is_label_map(x) else x.reshape(x.shape[0], -1) for x in (reference, prediction)]
    flat = None if weights is None else weights.reshape(-1)
    if arrays.is_label_map(reference) and arrays.is_label_map(prediction):
        values = None if flat is None else flat.astype(dtype)
        table = count(maps[0], maps[1], values, plan.regions).astype(dtype)
        sums, rest = _stats_of_table(table, match, Lift(eps, plan.zeros), plan)
        return _finish(sums, rest, plan)

    # Only floating maps have a derivative; the others travel beside them.
    floating = [jnp.issubdtype(x.dtype, jnp.floating) for x in maps]
    varied = [x for x, is_floating in zip(maps, floating, strict=True) if is_floating]
    fixed = [x for x, is_floating in zip(maps, floating, strict=True) if not is_floating]

    def block(varied: list[jax.Array], rest: Any) -> tuple[Sums, Any]:
        (fixed, weights), (match, eps) = rest
        soft, crisp = iter(varied), iter(fixed)
        p, q = (next(soft if is_floating else crisp) for is_floating in floating)
        values = None if weights is None else weights.astype(dtype)
        return _stats_of_chunk(p, q, values, match, Lift(eps, plan.zeros), plan, dtype)

    sums, rest = chunks.differentiable_sum(block, varied, ((fixed, flat), (match, eps)), plan.chunk)
    return _finish(sums, rest, plan)


stats_jitted = jax.jit(stats_of_block, static_argnames="plan")


def _dtype(*inputs: jax.Array) -> Any:
    """Dtype of the sums: that of the inputs, at least float32."""
    if not any(jnp.issubdtype(x.dtype, jnp.floating) for x in inputs):
        return jnp.zeros(()).dtype
    return jnp.dtype(jnp.float64 if any(x.dtype == jnp.float64 for x in inputs) else jnp.float32)


def _stats_of_table(table: jax.Array, match: jax.Array | None, lift: Lift, plan: Plan) -> tuple[Sums, Any]:
    """Sums of two label maps from their contingency table."""
    left, right = table[:-1].sum(1), table[:, :-1].sum(0)
    if plan.kernel.mass == "joint" or match is not None:
        # A cell of the table is a voxel of as much weight: what serves soft maps serves here.
        p, q = (
            contraction.one_hot(axis.reshape(-1), count, table.dtype)
            for axis, count in zip(jnp.indices(table.shape), plan.regions, strict=True)
        )
        cells = table.reshape(-1)
        moments = _moments(p, q, cells, match, plan) if plan.moments else None
        return _compare(p, _rearrange(q, match), cells, lift, plan), (left, right, table.sum(), moments)
    sums = contraction.from_table(plan.kernel, table, lift)
    cross = table[:-1, :-1]
    if plan.ordered:
        sums, cross = _diagonal(sums), jnp.diagonal(cross)
    moments = Moments(cross, left, right) if plan.moments else None
    return sums, (left, right, table.sum(), moments)


def _diagonal(sums: Sums) -> Sums:
    mass = None if sums.mass is None else jnp.diagonal(sums.mass)
    return sums._replace(disagreement=jnp.diagonal(sums.disagreement), mass=mass)


def _stats_of_chunk(
    reference: jax.Array,
    prediction: jax.Array,
    weights: jax.Array | None,
    match: jax.Array | None,
    lift: Lift,
    plan: Plan,
    dtype: Any,
) -> tuple[Sums, Any]:
    """Sums of one chunk, of which at least one side is soft or the regions are matched."""
    crisp = [arrays.is_label_map(x) for x in (reference, prediction)]
    p, q = (
        contraction.one_hot(x, count, dtype) if is_crisp else x.astype(dtype)
        for x, count, is_crisp in zip((reference, prediction), plan.regions, crisp, strict=True)
    )
    volumes = tuple(contraction.weighted_sum(x, weights) for x in (p, q))
    voxels = jnp.asarray(p.shape[1], dtype) if weights is None else weights.sum()
    rest = (*volumes, voxels, _moments(p, q, weights, match, plan) if plan.moments else None)
    fast = any(crisp) and not plan.ordered and plan.kernel.mass != "joint"
    if not fast:
        return _compare(p, _rearrange(q, match), weights, lift, plan), rest
    if crisp[0]:
        return contraction.label_with_soft(plan.kernel, reference, q, weights, lift, plan.regions[0]), rest
    compare = plan.kernel.compare
    turned = plan.kernel._replace(compare=lambda f, g: compare(g, f))
    sums = contraction.label_with_soft(turned, prediction, p, weights, lift, plan.regions[1])
    return contraction.transpose(sums), rest


def _pad(x: jax.Array, size: int) -> jax.Array:
    """Append empty regions."""
    return jnp.pad(x, ((0, size - x.shape[0]), (0, 0)))


def _rearrange(q: jax.Array, match: jax.Array | None) -> jax.Array:
    """Regions in the order of the reference regions that they are matched to, empty where there is none."""
    return q if match is None else q.at[match].get(mode="fill", fill_value=0)


def _compare(p: jax.Array, q: jax.Array, weights: jax.Array | None, lift: Lift, plan: Plan) -> Sums:
    """Sums of two soft chunks, padded to the same number of regions where the kernel needs it."""
    if plan.ordered or plan.kernel.mass == "joint":
        size = max(plan.regions)
        p, q = _pad(p, size), _pad(q, size)
    contract = contraction.matched if plan.ordered else contraction.all_pairs
    return contract(plan.kernel, p, q, weights, lift)


def _moments(p: jax.Array, q: jax.Array, weights: jax.Array | None, match: jax.Array | None, plan: Plan) -> Moments:
    own = [contraction.weighted_sum(x**2, weights) for x in (p, q)]
    if not plan.ordered:
        return Moments(contraction.gram(p, q, weights), *own)
    size = max(plan.regions)
    products = _pad(p, size) * _pad(_rearrange(q, match), size)
    return Moments(contraction.weighted_sum(products, weights), *own)


def _finish(sums: Sums, rest: Any, plan: Plan) -> PairStats:
    """Fill in the mass that follows from other sums, and remove what rounding left below zero."""
    reference_volume, prediction_volume, voxels, moments = rest
    disagreement = jnp.maximum(sums.disagreement, 0)
    if plan.kernel.mass == "separable" and plan.ordered:
        mass = sums.reference_alone + sums.prediction_alone
    elif plan.kernel.mass == "separable":
        mass = sums.reference_alone[:, None] + sums.prediction_alone[None, :]
    elif plan.kernel.mass == "voxel":
        mass = jnp.broadcast_to(voxels, disagreement.shape)
    else:
        mass = jnp.broadcast_to(jnp.asarray(sums.mass), disagreement.shape)
    return PairStats(
        disagreement=disagreement,
        mass=mass,
        reference_alone=sums.reference_alone,
        prediction_alone=sums.prediction_alone,
        reference_volume=reference_volume,
        prediction_volume=prediction_volume,
        voxels=voxels,
        moments=moments,
        kernel=plan.kernel,
        ordered=plan.ordered,
    )
