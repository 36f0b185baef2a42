"""Agreement of two label maps, every measure a function of their contingency table.

Legend: K reference regions, K' predicted regions, N voxels; a table is `[K, K']`, `table[i, j]` counts the voxels of
reference region i that are predicted as j. Empty rows and columns change no measure of the whole map, so tables may be
padded to a common shape and mapped over with `jax.vmap`.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from evalmetrics import arrays
from evalmetrics.contingency import count

Empty = Literal["one", "zero", "nan"]
EMPTY = {"one": 1.0, "zero": 0.0, "nan": float("nan")}


def contingency(
    reference: ArrayLike,
    prediction: ArrayLike,
    regions: tuple[int, int] | None = None,
    *,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Count, or weigh, the voxels that two label maps share, for every pair of regions.

    table[i, j] = sum_x w(x) [reference(x) = i] [prediction(x) = j]

    Args:
        reference: `[*spatial]` integers in 0..K-1; a voxel whose label is outside that range (-1, say) is left out.
        prediction: `[*spatial]` integers in 0..K'-1, same shape, same rule.
        regions: (K, K'). Static; needed under `jax.jit`, counted on the host where it is not given.
        weights: `[*spatial]` floating weights or a boolean mask.

    Returns:
        `[K, K']` int32 counts, or sums in the dtype of floating `weights`.

    Raises:
        TypeError: a map does not hold integers, or weights are neither floating nor boolean.
        ValueError: shapes differ, or `regions` is missing under a trace or not positive.
    """
    reference, prediction = arrays.to_jax(reference, "reference"), arrays.to_jax(prediction, "prediction")
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"{name} must hold integer labels, got {labels.dtype}; take an argmax of a soft map first")
    if reference.shape != prediction.shape:
        raise ValueError(f"reference and prediction must share a shape, got {reference.shape} and {prediction.shape}")
    if weights is not None:
        weights = arrays.to_jax(weights, "weights")
        if weights.shape != reference.shape:
            raise ValueError(f"weights must have the shape of the maps, {reference.shape}, got {weights.shape}")
        if weights.dtype != bool and not jnp.issubdtype(weights.dtype, jnp.floating):
            raise TypeError(f"weights must be floating or boolean, got {weights.dtype}; cast counts to a float dtype")
    if regions is None:
        if any(isinstance(labels, jax.core.Tracer) for labels in (reference, prediction)):
            raise ValueError("regions=(K, K') is needed under jit: the number of regions is a static shape")
        regions = tuple(max(int(np.max(labels, initial=0)) + 1, 1) for labels in (reference, prediction))
    if min(regions) < 1:
        raise ValueError(f"regions must be two positive numbers (K, K'), got {regions}")
    return _count(reference.ravel(), prediction.ravel(), None if weights is None else weights.ravel(), tuple(regions))


@functools.partial(jax.jit, static_argnames="regions")
def _count(
    reference: jax.Array, prediction: jax.Array, weights: jax.Array | None, regions: tuple[int, int]
) -> jax.Array:
    return count(reference, prediction, weights, regions)[:-1, :-1]


def _shares(table: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Floating table and its two margins, `[K, K']`, `[K, 1]`, `[1, K']`."""
    table = jnp.asarray(table)
    if table.ndim != 2:
        raise ValueError(f"a contingency table is [K, K'], got shape {table.shape}; map over a batch with jax.vmap")
    if not jnp.issubdtype(table.dtype, jnp.floating):
        table = table.astype(float)
    return table, table.sum(1, keepdims=True), table.sum(0, keepdims=True)


def _ratio(numerator: jax.Array, denominator: jax.Array, empty: Empty, pairs: bool) -> jax.Array:
    if empty not in EMPTY:
        raise ValueError(f"empty must be one of {', '.join(EMPTY)}, got {empty!r}")
    if not pairs:
        if numerator.shape[0] != numerator.shape[1]:
            raise ValueError(
                f"a score per region needs the same regions on both sides, got a table {numerator.shape}; "
                "pass pairs=True for every pair, or match the regions first"
            )
        numerator, denominator = jnp.diagonal(numerator), jnp.diagonal(denominator)
    void = denominator == 0
    return jnp.where(void, EMPTY[empty], numerator / jnp.where(void, 1, denominator))


@functools.partial(jax.jit, static_argnames=("pairs", "empty"))
def dice(table: ArrayLike, *, pairs: bool = False, empty: Empty = "one") -> jax.Array:
    """Dice coefficient of each region: 2 |A and B| / (|A| + |B|).

    Args:
        table: `[K, K']` contingency.
        pairs: score every pair of regions instead of region i against region i.
        empty: what 0/0 is, a region without voxels on either side: "one", "zero" or "nan".

    Returns:
        `[K]`, or `[K, K']` with `pairs`.

    Raises:
        ValueError: K differs from K' without `pairs`; unknown `empty`.

    Source: Dice 1945; Sorensen 1948.
    """
    shared, rows, columns = _shares(table)
    return _ratio(2 * shared, rows + columns, empty, pairs)


@functools.partial(jax.jit, static_argnames=("pairs", "empty"))
def iou(table: ArrayLike, *, pairs: bool = False, empty: Empty = "one") -> jax.Array:
    """Intersection over union of each region: |A and B| / |A or B|.

    Args, Returns, Raises: as `dice`.

    Source: Jaccard 1912.
    """
    shared, rows, columns = _shares(table)
    return _ratio(shared, rows + columns - shared, empty, pairs)


@functools.partial(jax.jit, static_argnames=("pairs", "empty"))
def precision(table: ArrayLike, *, pairs: bool = False, empty: Empty = "one") -> jax.Array:
    """Share of each predicted region that is right: |A and B| / |B|.

    Args, Returns, Raises: as `dice`; here 0/0 is a region that was not predicted.
    """
    shared, _, columns = _shares(table)
    return _ratio(shared, jnp.broadcast_to(columns, shared.shape), empty, pairs)


@functools.partial(jax.jit, static_argnames=("pairs", "empty"))
def recall(table: ArrayLike, *, pairs: bool = False, empty: Empty = "one") -> jax.Array:
    """Share of each reference region that was found: |A and B| / |A|.

    Args, Returns, Raises: as `dice`; here 0/0 is a region that is not in the reference.
    """
    shared, rows, _ = _shares(table)
    return _ratio(shared, jnp.broadcast_to(rows, shared.shape), empty, pairs)


@jax.jit
def rand(table: ArrayLike) -> jax.Array:
    """Rand index: share of the voxel pairs that both maps join or both maps separate.

    RI = 1 - (sum_i a_i^2 / 2 + sum_j b_j^2 / 2 - sum_ij n_ij^2) / (N (N - 1) / 2)

    Args:
        table: `[K, K']` contingency of voxel counts.

    Returns:
        `[]` in [0, 1]; 1 for maps of at most one voxel.

    Source: Rand 1971; averaged over annotators it is the probabilistic Rand index of Unnikrishnan et al. 2007.
    """
    table, rows, columns = _shares(table)
    total = table.sum()
    inverse = 1 / jnp.where(total > 0, total, 1)
    # a^2 - sum n^2 = sum n (a - n): differences before products, so equal maps disagree in exactly nothing.
    apart = (table * inverse * ((rows - table) + (columns - table))).sum()
    return 1 - apart / jnp.where(total > 1, total - 1, 1)


def _pair_shares(table: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Chance that two different voxels share a cell, a row, a column, each times (N - 1) / N, and that factor."""
    # Shares of N instead of counts: squares of voxel counts leave the range of int32 and the precision of float32.
    table, rows, columns = _shares(table)
    total = table.sum()
    inverse = 1 / jnp.where(total > 0, total, 1)
    cell, row, column = (((x * inverse) ** 2).sum() - inverse for x in (table, rows, columns))
    return cell, row, column, 1 - inverse


@jax.jit
def adjusted_rand(table: ArrayLike) -> jax.Array:
    """Rand index corrected for chance: (RI - E[RI]) / (max RI - E[RI]) under fixed region sizes.

    Args:
        table: `[K, K']` contingency of voxel counts.

    Returns:
        `[]` at most 1; 1 where both maps are one region, or both put every voxel into a region of its own.

    Source: Hubert & Arabie 1985.
    """
    cell, row, column, scale = _pair_shares(table)
    expected = row * column / jnp.where(scale > 0, scale, 1)
    spread = (row + column) / 2 - expected
    void = (scale <= 0) | (jnp.abs(spread) <= jnp.finfo(spread.dtype).eps)
    return jnp.where(void, 1, (cell - expected) / jnp.where(void, 1, spread))


@jax.jit
def variation_of_information(table: ArrayLike) -> jax.Array:
    """Information that two maps do not share, in bits: H(A | B) + H(B | A).

    Args:
        table: `[K, K']` contingency.

    Returns:
        `[]` bits, 0 if and only if the maps agree up to the names of their regions.

    Source: Meila 2007.
    """
    table, rows, columns = _shares(table)
    total = table.sum()
    shared = table / jnp.where(total > 0, total, 1)
    # Each term is n_ij log(n_ij^2 / (a_i b_j)): nothing cancels, so equal maps are at exactly zero.
    found = table > 0
    share_of_row = jnp.where(found, table / jnp.where(rows > 0, rows, 1), 1)
    share_of_column = jnp.where(found, table / jnp.where(columns > 0, columns, 1), 1)
    return -(shared * (jnp.log2(share_of_row) + jnp.log2(share_of_column))).sum()


@jax.jit
def covering(table: ArrayLike) -> jax.Array:
    """Covering of the reference by the prediction: mean over reference voxels of the best overlap of their region.

    C = sum_i |A_i| max_j IoU(A_i, B_j) / sum_i |A_i|

    Args:
        table: `[K, K']` contingency.

    Returns:
        `[]` in [0, 1].

    Source: Arbelaez et al. 2011, section 2.3.2.
    """
    _, rows, _ = _shares(table)
    best = iou(table, pairs=True, empty="zero").max(1)
    total = rows.sum()
    return (rows[:, 0] * best).sum() / jnp.where(total > 0, total, 1)
