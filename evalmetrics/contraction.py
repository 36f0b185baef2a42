"""From a chunk of voxels to additive sums over it, one way for each pair of layouts.

Legend: K regions of the reference, K' of the prediction, C voxels of the chunk. All ways give the same numbers: a crisp
region takes the values 0 and 1, so its sums follow from the kernel at 0 and 1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evalmetrics import simplex
from evalmetrics.kernels import Features, Kernel

TILE = 32  # regions a side worked on together; larger blocks fall out of the cache


class Lift(NamedTuple):
    """How zeros are lifted: `eps` (number) and `zeros` (method)."""

    eps: Any
    zeros: simplex.Zeros


class Sums(NamedTuple):
    """Additive sums over voxels. Ordered: one axis of matched regions in place of [K, K'].

    Attributes:
        disagreement: `[K, K']`.
        mass: `[K, K']`; None where it follows from the other fields; `[]` for a joint kernel of matched regions.
        reference_alone: `[K]` disagreement with an empty region.
        prediction_alone: `[K']` disagreement with an empty region.
    """

    disagreement: jax.Array
    mass: jax.Array | None
    reference_alone: jax.Array
    prediction_alone: jax.Array


def one_hot(labels: jax.Array, regions: int, dtype: Any) -> jax.Array:
    """Crisp soft map `[regions, C]` of labels `[C]`; a label outside the range belongs to no region."""
    return (labels[None, :] == jnp.arange(regions, dtype=labels.dtype)[:, None]).astype(dtype)


def weighted_sum(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Sum over the last axis, weighted by `[C]` if weights are given."""
    return values.sum(-1) if weights is None else (values * jnp.expand_dims(weights, range(values.ndim - 1))).sum(-1)


def _constant(kernel: Kernel, value: float, dtype: Any, lift: Lift) -> Features:
    """Features of a region that is `value` everywhere, `[1, 1]`."""
    return kernel.features(jnp.full((1, 1), value, dtype), *lift)


def _alone(kernel: Kernel, features: Features, weights: jax.Array | None, lift: Lift) -> jax.Array:
    if kernel.alone is not None:
        return weighted_sum(kernel.alone(features), weights)
    empty = _constant(kernel, 0, features[0].dtype, lift)
    return weighted_sum(kernel.compare(features, empty)[0], weights)


def all_pairs(kernel: Kernel, p: jax.Array, q: jax.Array, weights: jax.Array | None, lift: Lift) -> Sums:
    """Sums of every pair of regions of two soft maps.

    Args:
        kernel: kernel.
        p: `[K, C]`.
        q: `[K', C]`, same dtype.
        weights: `[C]`, same dtype, or None.
        lift: zero replacement.

    Returns:
        Sums `[K, K']`.
    """
    if kernel.mass == "joint":
        return _squared_distances(kernel, p, q, weights, lift)
    f, g = kernel.features(p, *lift), kernel.features(q, *lift)
    left, right = _alone(kernel, f, weights, lift), _alone(kernel, g, weights, lift)
    if kernel.overlap is None or kernel.from_overlap is None:
        sums = _tiled(kernel.compare, f, g, weights)
    else:
        if weights is not None:  # weighing the regions spares a product for each pair
            f, g = (_weigh(kernel, x, weights) for x in (f, g))
        sums = kernel.from_overlap(_tiled(kernel.overlap, f, g, None), left[:, None], right[None, :])
    return Sums(sums[0], sums[1] if kernel.mass == "pair" else None, left, right)


def _weigh(kernel: Kernel, features: Features, weights: jax.Array) -> Features:
    return tuple(x * weights[None, :] if k in kernel.extensive else x for k, x in enumerate(features))


def _tiled(terms: Callable[..., Features], f: Features, g: Features, weights: jax.Array | None) -> Features:
    """Sums over voxels of the terms of every pair of rows, each `[K, K']`."""
    rows = []
    for i in range(0, f[0].shape[0], TILE):
        above = tuple(x[i : i + TILE, None] for x in f)
        row = []
        for j in range(0, g[0].shape[0], TILE):
            row.append([weighted_sum(x, weights) for x in terms(above, tuple(x[None, j : j + TILE] for x in g))])
        rows.append([jnp.concatenate(blocks, axis=1) for blocks in zip(*row, strict=True)])
    return tuple(jnp.concatenate(blocks, axis=0) for blocks in zip(*rows, strict=True))


def gram(x: jax.Array, y: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Weighted inner products over voxels of the rows of `x [K, C]` and `y [K', C]`: `[K, K']`."""
    scaled = x if weights is None else x * weights[None, :]
    return jnp.einsum("kc,lc->kl", scaled, y, precision="highest")


def _squared_distances(kernel: Kernel, p: jax.Array, q: jax.Array, weights: jax.Array | None, lift: Lift) -> Sums:
    """Squared differences of the one feature of every pair, as one matrix product: a + b - 2 a.b."""
    (f,), (g,) = kernel.features(p, *lift), kernel.features(q, *lift)
    own = weighted_sum(f**2, weights)[:, None] + weighted_sum(g**2, weights)[None, :]
    nothing = jnp.zeros(own.shape[0], own.dtype), jnp.zeros(own.shape[1], own.dtype)
    return Sums(own - 2 * gram(f, g, weights), 2 * own, *nothing)


def matched(kernel: Kernel, p: jax.Array, q: jax.Array, weights: jax.Array | None, lift: Lift) -> Sums:
    """Sums of region i of one soft map with region i of another.

    Args:
        kernel: kernel.
        p: `[K, C]`.
        q: `[K, C]`, same dtype.
        weights: `[C]`, same dtype, or None.
        lift: zero replacement.

    Returns:
        Sums `[K]`.
    """
    f, g = kernel.features(p, *lift), kernel.features(q, *lift)
    if kernel.joint is not None:
        share, mass = kernel.joint(f, g)
        nothing = jnp.zeros(share.shape[0], share.dtype)
        return Sums(weighted_sum(share, weights), weighted_sum(mass, weights), nothing, nothing)
    disagreement, mass = kernel.compare(f, g)
    return Sums(
        weighted_sum(disagreement, weights),
        weighted_sum(mass, weights) if kernel.mass == "pair" else None,
        _alone(kernel, f, weights, lift),
        _alone(kernel, g, weights, lift),
    )


def label_with_soft(
    kernel: Kernel, labels: jax.Array, q: jax.Array, weights: jax.Array | None, lift: Lift, regions: int
) -> Sums:
    """Sums of every region of a label map with every region of a soft map.

    A crisp region is 1 inside and 0 outside, so the sum is that of the kernel at 0 over all voxels and of the
    difference of the kernel at 1 and at 0 over the region: one matrix product for all pairs.

    Args:
        kernel: elementwise kernel.
        labels: `[C]` integers.
        q: `[K', C]`.
        weights: `[C]`, dtype of q, or None.
        lift: zero replacement.
        regions: K.

    Returns:
        Sums `[K, K']`.
    """
    g = kernel.features(q, *lift)
    inside = kernel.compare(_constant(kernel, 1, q.dtype, lift), g)
    outside = kernel.compare(_constant(kernel, 0, q.dtype, lift), g)
    members = one_hot(labels, regions, q.dtype)
    sums = [
        gram(members, at_one - at_zero, weights) + weighted_sum(at_zero, weights)[None, :]
        for at_one, at_zero in zip(inside, outside, strict=True)
    ]
    certain = kernel.compare(_constant(kernel, 1, q.dtype, lift), _constant(kernel, 0, q.dtype, lift))[0][0]
    return Sums(
        sums[0],
        sums[1] if kernel.mass == "pair" else None,
        weighted_sum(members, weights) * certain,
        weighted_sum(outside[0], weights),
    )


def transpose(sums: Sums) -> Sums:
    """The same sums with reference and prediction exchanged."""
    return Sums(
        sums.disagreement.T,
        None if sums.mass is None else sums.mass.T,
        sums.prediction_alone,
        sums.reference_alone,
    )


def from_table(kernel: Kernel, table: jax.Array, lift: Lift) -> Sums:
    """Sums of every pair of regions of two label maps, from their contingency table.

    Args:
        kernel: elementwise kernel.
        table: `[K + 1, K' + 1]` weight of voxels with each pair of labels; the last row and column are the voxels
            outside every region of that side.
        lift: zero replacement.

    Returns:
        Sums `[K, K']`.
    """
    both = table[:-1, :-1]
    left, right = table[:-1].sum(1), table[:, :-1].sum(0)
    only_left, only_right = left[:, None] - both, right[None, :] - both
    neither = table.sum() - (left[:, None] + only_right)
    one, zero = (_constant(kernel, value, table.dtype, lift) for value in (1, 0))
    at = {pair: kernel.compare(*pair_of) for pair, pair_of in _corners(one, zero).items()}
    sums = [
        both * at["11"][k] + only_left * at["10"][k] + only_right * at["01"][k] + neither * at["00"][k] for k in (0, 1)
    ]
    return Sums(
        sums[0],
        sums[1] if kernel.mass == "pair" else None,
        left * at["10"][0][0],
        right * at["01"][0][0],
    )


def _corners(one: Features, zero: Features) -> dict[str, tuple[Features, Features]]:
    return {"11": (one, one), "10": (one, zero), "01": (zero, one), "00": (zero, zero)}
