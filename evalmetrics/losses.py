"""Losses for training on segmentations whose labels may be in any order.

Legend: K regions of the reference, K' of the prediction, n = max(K, K'), N voxels.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from evalmetrics import arrays, averages, chunks, contraction, kernels, matching, pairs
from evalmetrics.kernels import EPS, Kernel
from evalmetrics.simplex import Zeros

Match = Literal["hungarian", "sinkhorn", "ordered"]
MATCHES = ("hungarian", "sinkhorn", "ordered")


class Setting(NamedTuple):
    """What is static about a loss."""

    kernel: Kernel
    zeros: Zeros
    regions: tuple[int, int]
    match: Match
    chunk: int


def matched_dice(
    reference: Any,
    prediction: Any,
    *,
    kernel: str | Kernel = "abs",
    eps: float = EPS,
    zeros: Zeros = "clip",
    weights: Any = None,
    match: Match = "hungarian",
    temperature: float = 0.05,
    regions: tuple[int, int] | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """One minus the mean score of matched regions, with a derivative in closed form.

    For a region with score D and mass S, dD/dq = -(delta' - (1 - D) nu') / S at each voxel, with delta' and nu' the
    slopes of disagreement and mass; for `abs` that is (2 [q < p] - D) / S, half a step at ties. The best matching is
    piecewise constant, so that to differentiate at a fixed matching is exact almost everywhere. `sinkhorn` averages
    over all pairs with a soft matching and differentiates that too.

    Args:
        reference: soft map `[K, *spatial]` or label map `[*spatial]`.
        prediction: soft map `[K', *spatial]`; probabilities, not logits.
        kernel: per-region kernel, `abs`, `ait` or a registered one.
        eps: zero replacement of the Aitchison kernel.
        zeros: method of zero replacement.
        weights: `[*spatial]`, non-negative or a mask; not differentiated.
        match: `hungarian`, `sinkhorn`, or `ordered` for region i with region i.
        temperature: of the soft matching, in units of the score.
        regions: (K, K'), needed for label maps inside a transformation.
        chunk: voxels per step.

    Returns:
        `[]` in [0, 1]; use `jax.vmap` for a batch.

    Raises:
        ValueError: maps or options that do not fit, or a kernel of the whole map.
        TypeError: an input that is not an array of real numbers.

    Source: arXiv 1509.07244 for the score, reconstruction from the abstract; derivative derived here.
    """
    inputs = arrays.to_jax(reference, "reference"), arrays.to_jax(prediction, "prediction")
    given = None if weights is None else arrays.to_jax(weights, "weights")
    arrays.check_layout(*inputs, given)
    counts = arrays.count_regions(*inputs, regions)
    found = kernels.get(kernel)
    if found.whole_map:
        raise ValueError(f"kernel {found.name!r} scores whole maps; matched_dice needs one per region: abs or ait")
    if match not in MATCHES:
        raise ValueError(f"unknown match {match!r}; choose one of {', '.join(MATCHES)}")
    if match == "ordered" and counts[0] != counts[1]:
        raise ValueError(f"ordered labels need equal numbers of regions, got {counts[0]} and {counts[1]}")
    setting = Setting(found, zeros, counts, match, chunk or pairs.default_chunk(found, counts))
    if match == "sinkhorn":
        return _soft_loss(*inputs, given, eps, temperature, setting)
    maps = [x.reshape(-1) if arrays.is_label_map(x) else x.reshape(x.shape[0], -1) for x in inputs]
    return _hard_loss(*maps, None if given is None else given.reshape(-1), eps, setting)


def _stats(reference: Any, prediction: Any, weights: Any, eps: Any, setting: Setting) -> pairs.PairStats:
    return pairs.pair_stats(
        reference,
        prediction,
        kernel=setting.kernel,
        eps=eps,
        zeros=setting.zeros,
        weights=weights,
        regions=setting.regions,
        labels="ordered" if setting.match == "ordered" else "unordered",
        chunk=setting.chunk,
    )


@functools.partial(jax.jit, static_argnames="setting")
def _soft_loss(
    reference: jax.Array, prediction: jax.Array, weights: Any, eps: Any, temperature: Any, setting: Setting
) -> jax.Array:
    tables = averages.pad_tables(_stats(reference, prediction, weights, eps, setting))
    scores = averages.ratio(*tables, "one")
    plan = matching.sinkhorn(scores, temperature=temperature)
    return 1 - (plan * scores).sum() / plan.sum()


class Matched(NamedTuple):
    """What the derivative needs: prediction region, score and mass of each reference slot, each `[n]`."""

    match: jax.Array
    score: jax.Array
    mass: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
@functools.partial(jax.jit, static_argnames="setting")
def _hard_loss(reference: jax.Array, prediction: jax.Array, weights: Any, eps: Any, setting: Setting) -> jax.Array:
    return 1 - _match(reference, prediction, weights, eps, setting).score.mean()


def _match(reference: jax.Array, prediction: jax.Array, weights: Any, eps: Any, setting: Setting) -> Matched:
    stats = _stats(reference, prediction, weights, eps, setting)
    if stats.ordered:
        order = jnp.arange(stats.mass.shape[0], dtype=jnp.int32)
        return Matched(order, averages.ratio(stats.disagreement, stats.mass, "one"), stats.mass)
    disagreement, mass = averages.pad_tables(stats)
    scores = averages.ratio(disagreement, mass, "one")
    match = matching.match(scores, checked=False)
    return Matched(match, *(jnp.take_along_axis(x, match[:, None], 1)[:, 0] for x in (scores, mass)))


@functools.partial(jax.jit, static_argnames="setting")
def _value(
    reference: jax.Array, prediction: jax.Array, weights: Any, eps: Any, setting: Setting
) -> tuple[jax.Array, Matched]:
    matched = _match(reference, prediction, weights, eps, setting)
    return 1 - matched.score.mean(), matched


def _forward(reference: Any, prediction: Any, weights: Any, eps: Any, setting: Setting) -> tuple[jax.Array, Any]:
    maps = reference.value, prediction.value
    weights, eps = jax.tree.map(lambda x: x.value, (weights, eps), is_leaf=lambda x: hasattr(x, "perturbed"))
    value, matched = _value(*maps, weights, eps, setting)
    # A side that nobody differentiates costs nothing; whether it is wanted must travel as structure, not as a value.
    wanted = tuple(() if x.perturbed else None for x in (reference, prediction))
    return value, (*maps, weights, eps, matched, wanted)


def _backward(setting: Setting, kept: Any, cotangent: Any) -> tuple[Any, Any, None, None]:
    reference, prediction, weights, eps, matched, wanted = kept
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    inverse = jnp.argsort(matched.match)
    at_prediction = jax.tree.map(lambda x: x[inverse], matched)._replace(match=inverse)
    sides = ((reference, prediction, matched, 0), (prediction, reference, at_prediction, 1))
    slopes = [
        None if want is None else _slopes(own, other, weights, eps, partner, cotangent, setting, side)
        for want, (own, other, partner, side) in zip(wanted, sides, strict=True)
    ]
    return slopes[0], slopes[1], None, None


_hard_loss.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.jit, static_argnames=("setting", "side"))
def _slopes(
    own: jax.Array,
    other: jax.Array,
    weights: Any,
    eps: Any,
    matched: Matched,
    cotangent: jax.Array,
    setting: Setting,
    side: int,
) -> jax.Array:
    """Derivative of the loss in one map, `[K, N]`; `matched` is in the order of its regions."""
    count, partners = own.shape[0], setting.regions[1 - side]
    dtype = matched.score.dtype
    empty = matched.mass <= 0
    scale = jnp.where(empty, 0, cotangent / jnp.where(empty, 1, matched.mass) / matched.score.shape[0])[:count, None]
    loss = 1 - matched.score[:count, None]

    def block(inputs: tuple[jax.Array, jax.Array, Any]) -> jax.Array:
        x, y, w = inputs
        y = contraction.one_hot(y, partners, dtype) if arrays.is_label_map(y) else y.astype(dtype)
        y = y.at[matched.match[:count]].get(mode="fill", fill_value=0)
        delta, nu = _derivative(setting.kernel, x.astype(dtype), y, contraction.Lift(eps, setting.zeros), side)
        slope = scale * (delta - loss * nu)
        return (slope if w is None else slope * w.astype(dtype)[None, :]).astype(own.dtype)

    return chunks.map_chunks(block, (own, other, weights), setting.chunk)


def _derivative(
    kernel: Kernel, x: jax.Array, y: jax.Array, lift: contraction.Lift, side: int
) -> tuple[jax.Array, jax.Array]:
    """Slopes of disagreement and mass in `x`, the map of the given side; a kernel is elementwise, so one jvp is all."""
    fixed = kernel.features(lax.stop_gradient(y), *lift)

    def compare(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        varied = kernel.features(x, *lift)
        return kernel.compare(varied, fixed) if side == 0 else kernel.compare(fixed, varied)

    return jax.jvp(compare, (x,), (jnp.ones_like(x),))[1]
