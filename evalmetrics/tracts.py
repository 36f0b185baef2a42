"""Recovery of names by matching: which regions of one atlas find the regions of the same name in another.

Legend: K soft maps with names, K' crisp labels with names, N voxels.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from evalmetrics.pairs import pair_stats
from evalmetrics.scores import Objective, Scores, from_stats


class Recovery(NamedTuple):
    """Outcome of `tract_recovery`."""

    recovered: np.ndarray
    """[K] bool, the map was matched to a label of its own name."""
    match: np.ndarray
    """[K] int32, label matched to each map; K' and above stand for none."""
    scores: Scores


def tract_recovery(
    maps: ArrayLike,
    labels: ArrayLike,
    partners: Sequence[Collection[int]],
    *,
    objective: Objective = "macro",
    **options: Any,
) -> Recovery:
    """Match soft maps with labels by overlap alone and count the matches that the names confirm.

    Args:
        maps: `[K, *spatial]` floating probabilities.
        labels: `[*spatial]` integers in 0..K'-1, -1 where no label is.
        partners: for each map, the labels that carry its name.
        objective: of the matching, see `score`.
        **options: of `pair_stats`, such as its kernel.

    Returns:
        Recovery.

    Raises:
        ValueError: `partners` does not list one collection per map, or the grids differ.
    """
    maps, labels = np.asarray(maps), np.asarray(labels)
    if len(partners) != len(maps):
        raise ValueError(f"partners must hold one collection of labels per map, {len(maps)}, got {len(partners)}")
    regions = len(maps), max(int(labels.max(initial=0)), *(max(own, default=0) for own in partners)) + 1
    stats = pair_stats(maps, labels, regions=regions, **options)
    scores = from_stats(stats, objective=objective)
    match = np.asarray(scores.match)[: len(maps)]
    recovered = np.array([int(j) in own for j, own in zip(match, partners, strict=True)])
    return Recovery(recovered, match, scores)
