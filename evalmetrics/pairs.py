"""Statistics of all pairs of regions of two maps, from which every score follows without another look at the voxels.

Legend: K regions of the reference, K' of the prediction, n = max(K, K').
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from evalmetrics import arrays, kernels, sharded
from evalmetrics.kernels import EPS, Kernel
from evalmetrics.onepass import Moments, PairStats, Plan, stats_jitted, stats_of_block
from evalmetrics.simplex import Zeros

__all__ = ["Labels", "Moments", "PairStats", "default_chunk", "merge", "pair_stats", "update"]

STREAMED_BYTES = 1 << 26  # NumPy maps above this are not copied as a whole

Labels = Literal["unordered", "ordered"]


def pair_stats(
    reference: Any,
    prediction: Any,
    *,
    kernel: str | Kernel = "abs",
    eps: float = EPS,
    zeros: Zeros = "clip",
    weights: Any = None,
    regions: tuple[int, int] | None = None,
    labels: Labels = "unordered",
    match: Any = None,
    moments: bool = False,
    chunk: int | None = None,
) -> PairStats:
    """Statistics of all pairs of regions of two maps, in one pass over the voxels.

    Label maps are counted, a label map with a soft map is one matrix product, two soft maps are compared pair by pair,
    with the same result. Maps that lie on several devices along their voxel axes are summed there, see `sharded`.
    Two NumPy arrays of more than 64 MB, mapped from files or not, are read block by block, see `streaming`.

    Args:
        reference: soft map `[K, *spatial]` or label map `[*spatial]`; NumPy, JAX or DLPack array.
        prediction: soft map `[K', *spatial]` or label map `[*spatial]`.
        kernel: name of a registered kernel, or a `kernels.Kernel`.
        eps: zero replacement; part of every Aitchison score.
        zeros: method of zero replacement, see `simplex.replace_zeros`.
        weights: `[*spatial]`, non-negative or a mask; None counts every voxel once.
        regions: (K, K'), needed for label maps inside a transformation.
        labels: `unordered` for all pairs; `ordered` for region i with region i.
        match: `[n]` prediction region for each reference region, K' and above for none; implies `ordered`.
        moments: also sum the products of probabilities.
        chunk: voxels per step; None chooses by kernel, number of regions and platform.

    Returns:
        PairStats; sums are float32, or float64 if an input is.

    Raises:
        ValueError: grids, regions or options that do not fit together.
        TypeError: an input that is not an array of real numbers.

    Source: arXiv 1509.07244 for the scores; the additive statistics are ours.
    """
    inputs = arrays.keep_host(reference, "reference"), arrays.keep_host(prediction, "prediction")
    given = None if weights is None else arrays.keep_host(weights, "weights")
    arrays.check_layout(*inputs, given)
    counts = arrays.count_regions(*inputs, regions)
    found, order = kernels.get(kernel), None if match is None else jnp.asarray(match)
    _check_labels(labels, counts, order)
    ordered = labels == "ordered" or match is not None
    plan = Plan(found, zeros, counts, ordered, moments, chunk or default_chunk(found, counts))
    if all(isinstance(x, np.ndarray) for x in inputs) and sum(x.nbytes for x in inputs) > STREAMED_BYTES:
        from evalmetrics import streaming  # it calls this function for each block

        options: dict[str, Any] = {"kernel": found, "eps": eps, "zeros": zeros, "labels": labels, "match": match}
        return streaming.pair_stats_streamed(
            *inputs, weights=given, regions=counts, moments=moments, chunk=chunk, **options
        )
    placed = arrays.to_jax(inputs[0], "reference"), arrays.to_jax(inputs[1], "prediction")
    grid = None if given is None else arrays.to_jax(given, "weights")
    layout = sharded.voxel_sharding(*placed)
    if layout is not None:
        return sharded.sum_over_devices(stats_of_block, layout, *placed, grid, order, eps, plan)
    return stats_jitted(*placed, grid, order, eps, plan)


def _check_labels(labels: str, counts: tuple[int, int], match: jax.Array | None) -> None:
    if labels not in ("unordered", "ordered"):
        raise ValueError(f"labels must be 'unordered' or 'ordered', got {labels!r}")
    if labels == "ordered" and match is None and counts[0] != counts[1]:
        raise ValueError(
            f"ordered labels need equal numbers of regions, got {counts[0]} and {counts[1]}; use labels='unordered'"
        )
    if match is not None and match.shape != (max(counts),):
        raise ValueError(f"match must have one entry for each of {max(counts)} regions, got shape {match.shape}")


def default_chunk(kernel: Kernel, regions: tuple[int, int]) -> int:
    """Voxels per step: on a CPU what stays in the cache yet occupies its threads, elsewhere the whole map."""
    if jax.default_backend() != "cpu":
        return 1 << 22
    return max(min(kernel.chunk, 4096), kernel.chunk * 8 // max(8, *regions))


def merge(first: PairStats, second: PairStats) -> PairStats:
    """Statistics of the union of two sets of voxels: the sum.

    Args:
        first: statistics.
        second: statistics of the same kernel and regions.

    Returns:
        PairStats.

    Raises:
        ValueError: the kernels, numbers of regions or order of labels differ.
    """
    kinds = [(s.kernel.name, s.ordered, s.moments is not None) for s in (first, second)]
    if (first.kernel, *kinds[0]) != (second.kernel, *kinds[1]):
        told = [f"kernel {name!r}, ordered={ordered}, moments={moments}" for name, ordered, moments in kinds]
        raise ValueError(f"statistics of one kind can be merged, got {told[0]} and {told[1]}; recompute one of them")
    if first.disagreement.shape != second.disagreement.shape:
        raise ValueError(
            f"statistics must cover the same regions, got {first.disagreement.shape} and {second.disagreement.shape}; "
            "pass regions=(K, K')"
        )
    return jax.tree.map(jnp.add, first, second)


def update(stats: PairStats, reference: Any, prediction: Any, **options: Any) -> PairStats:
    """Add more voxels: `merge(stats, pair_stats(reference, prediction, **options))`.

    Args:
        stats: statistics so far.
        reference: as in `pair_stats`.
        prediction: as in `pair_stats`.
        **options: as in `pair_stats`, the same as those of `stats`; kernel and order of labels are taken from it.

    Returns:
        PairStats.
    """
    labels = "ordered" if stats.ordered else "unordered"
    settings: dict[str, Any] = {
        "kernel": stats.kernel,
        "labels": labels,
        "moments": stats.moments is not None,
        "regions": (stats.reference_volume.shape[0], stats.prediction_volume.shape[0]),
    }
    return merge(stats, pair_stats(reference, prediction, **(settings | options)))
