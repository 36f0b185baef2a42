"""Count the voxels that two label maps share: what every crisp measure, and every kernel on label maps, is made of.

Legend: K reference regions, K' predicted regions, N voxels.
"""

import jax
import jax.numpy as jnp
from jax import lax

from evalmetrics.chunks import sum_chunks

CHUNK = 2048  # voxels whose float32 weights are added one after the other; across blocks the sum is compensated


def count(
    reference: jax.Array, prediction: jax.Array, weights: jax.Array | None, regions: tuple[int, int]
) -> jax.Array:
    """Number, or weight, of the voxels with each pair of labels.

    Args:
        reference: `[N]` integers.
        prediction: `[N]` integers.
        weights: `[N]` floating, or a boolean mask, or None.
        regions: (K, K'), static.

    Returns:
        `[K + 1, K' + 1]` int32, or the dtype of floating weights; the last row and column are labels outside 0..K-1.
    """
    rows, columns = (_bounded(labels, limit) for labels, limit in zip((reference, prediction), regions, strict=True))
    if weights is not None and weights.dtype == bool:
        rows, weights = jnp.where(weights, rows, regions[0]), None
    shape = (regions[0] + 1, regions[1] + 1)
    cells, bins = rows * shape[1] + columns, shape[0] * shape[1]
    if weights is None:
        table = jnp.zeros(bins, jnp.int32).at[cells].add(1, mode="promise_in_bounds")
        # Inside a larger jit XLA would fuse the count into every measure that reads it and count several times.
        return lax.optimization_barrier(table).reshape(shape)

    def add(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.zeros(bins, weights.dtype).at[block[0]].add(block[1], mode="promise_in_bounds")

    return sum_chunks(add, (cells, weights), max(CHUNK, bins)).reshape(shape)


def _bounded(labels: jax.Array, limit: int) -> jax.Array:
    """Labels as int32, those outside 0..limit-1 as `limit`."""
    widest = jnp.iinfo(labels.dtype).max
    # Compared in the labels' own dtype (an unsigned -1 is a large label) and only then narrowed.
    known = labels >= 0 if limit > widest else (labels >= 0) & (labels < limit)
    return jnp.where(known, labels.astype(jnp.int32), limit)
