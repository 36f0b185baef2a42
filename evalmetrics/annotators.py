"""How far several annotators of an image agree with each other, and with the levels of a hierarchy.

Legend: T thresholds. Regions have no common names, so each pair of segmentations is matched first. On the host: one
side may have ten regions and the other a thousand, which a rectangular assignment uses and one padded shape would not.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from evalmetrics import hierarchy

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)


class Agreement(NamedTuple):
    """Sums over pairs of segmentations; additive, so that images may be counted in any grouping."""

    pairs: np.ndarray
    """[...] number of pairs."""
    macro: np.ndarray
    """[...] sum of macro scores."""
    micro: np.ndarray
    """[...] sum of micro scores."""


def add(a: Agreement, b: Agreement) -> Agreement:
    """Agreement over both sets of pairs."""
    return Agreement(*(x + y for x, y in zip(a, b, strict=True)))


def empty(shape: tuple[int, ...] = ()) -> Agreement:
    """Agreement over no pair, the zero of `add`.

    Args:
        shape: `()` for annotators among themselves, `(T,)` for a hierarchy.
    """
    return Agreement(*(np.zeros(shape) for _ in Agreement._fields))


def mean(agreement: Agreement) -> tuple[np.ndarray, np.ndarray]:
    """Macro and micro score averaged over the pairs, each `[...]`.

    Raises:
        ValueError: no pair was counted.
    """
    if not np.all(agreement.pairs > 0):
        raise ValueError("no pair of segmentations was counted; an image needs two annotators at least")
    return agreement.macro / agreement.pairs, agreement.micro / agreement.pairs


def annotator_agreement(annotations: Sequence[np.ndarray]) -> Agreement:
    """Score every pair of annotators of one image against each other.

    Args:
        annotations: label maps `[height, width]`, integers >= 0, one per annotator.

    Returns:
        Agreement of fields `[]`. Both scores are symmetric, so each pair counts once.

    Raises:
        ValueError: the maps do not share a shape.
    """
    return _total([matched_dice(_table(a, b)) for a, b in itertools.combinations(annotations, 2)])


def hierarchy_agreement(
    ucm2: np.ndarray, annotations: Sequence[np.ndarray], thresholds: Sequence[float] = THRESHOLDS
) -> Agreement:
    """Score the levels of one image's hierarchy against each of its annotators.

    Args:
        ucm2: `[2 height + 1, 2 width + 1]` merge heights, as for `hierarchy.tally`.
        annotations: label maps `[height, width]`, integers >= 0.
        thresholds: `[T]` levels.

    Returns:
        Agreement of fields `[T]`.

    Raises:
        ValueError: the maps do not share a shape, or a pixel lies above a threshold.
    """
    levels = [hierarchy.segment(ucm2, threshold) for threshold in thresholds]
    totals = [_total([matched_dice(_table(labels, level)) for labels in annotations]) for level in levels]
    return Agreement(*(np.stack(field) for field in zip(*totals, strict=True)))


def matched_dice(table: np.ndarray) -> tuple[float, float]:
    """Macro and micro Dice of two crisp segmentations, each under the matching that is best for it.

    macro = max over matchings of sum_i 2 n_ij / (a_i + b_j) / max(K, K'); micro = max of sum_i n_ij / N. The same as
    `score` of the two maps with objective "macro" and "micro".

    Args:
        table: `[K, K']` contingency without empty rows and columns.

    Returns:
        (macro, micro).

    Source: Andrews and Hamarneh, arXiv 1509.07244; reconstruction from the abstract.
    """
    dice = 2 * table / (table.sum(1, keepdims=True) + table.sum(0, keepdims=True))
    macro, micro = (gain[linear_sum_assignment(gain, maximize=True)].sum() for gain in (dice, table))
    return float(macro) / max(table.shape), float(micro / table.sum())


def _total(scores: list[tuple[float, float]]) -> Agreement:
    macro, micro = np.array(scores, float).reshape(-1, 2).sum(0)
    return Agreement(np.asarray(float(len(scores))), macro, micro)


def _table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        raise ValueError(f"segmentations of one image must share a shape, got {a.shape} and {b.shape}")
    columns = int(b.max()) + 1
    cells = a.ravel().astype(np.int64) * columns + b.ravel()
    table = np.bincount(cells, minlength=(int(a.max()) + 1) * columns).reshape(-1, columns)
    return table[table.any(1)][:, table.any(0)]
