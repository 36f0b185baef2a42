"""How far down a ranking the fault is found, with ties against us, for us, or in random order.

Legend: L lines, Y the faulty ones, s* the best score of a faulty line. Lines with the score s* form the tie band.
"""

from collections.abc import Sequence
from math import comb
from typing import Literal, NamedTuple

import numpy as np

Ties = Literal["strict", "mid", "best"]
TIES: tuple[Ties, ...] = ("strict", "mid", "best")
DECIMALS = 4  # to which scores are rounded before they are compared, lest rounding errors break ties


class Band(NamedTuple):
    """Where the first faulty line stands.

    Attributes:
        above: lines with a better score than s*.
        tied: lines with the score s*, the faulty ones among them.
        faulty: faulty lines with the score s*.
        lines: L.
    """

    above: int
    tied: int
    faulty: int
    lines: int


def band(scores: np.ndarray, faulty: Sequence[int] | np.ndarray, decimals: int | None = DECIMALS) -> Band:
    """Locate the best faulty line in a ranking.

    Args:
        scores: `[L]`, higher is more suspicious; may be infinite.
        faulty: indices of the faulty lines.
        decimals: scores are rounded to so many before they are compared; None: not.

    Raises:
        ValueError: there is no faulty line, an index is out of range, or a score is NaN.
    """
    scores, faulty = _checked(scores, faulty, decimals)
    best = scores[faulty].max()
    return Band(
        int((scores > best).sum()), int((scores == best).sum()), int((scores[faulty] == best).sum()), len(scores)
    )


def _checked(
    scores: np.ndarray, faulty: Sequence[int] | np.ndarray, decimals: int | None
) -> tuple[np.ndarray, np.ndarray]:
    scores, indices = np.asarray(scores, np.float64), np.unique(np.asarray(faulty, np.int64))
    if not indices.size or indices[0] < 0 or indices[-1] >= len(scores):
        raise ValueError(f"faulty must name lines of 0..{len(scores) - 1}, got {list(map(int, faulty))}")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} scores are NaN; a formula must give every line a number")
    return (scores if decimals is None else np.round(scores, decimals)), indices


def fraction_skipped(found: Band, ties: Ties = "mid") -> float:
    """FS: share of the lines that need not be looked at before the fault is found; 1 - EXAM.

    strict: #{s < s*} / L;  mid: 1 - (#{s > s*} + (#{s = s*} + 1) / 2) / L;  best: 1 - (#{s > s*} + 1) / L.

    Raises:
        ValueError: unknown `ties`.
    """
    match ties:
        case "strict":
            return (found.lines - found.above - found.tied) / found.lines
        case "mid":
            return 1 - first_rank(found) / found.lines
        case "best":
            return 1 - (found.above + 1) / found.lines
    raise ValueError(f"ties must be one of {', '.join(TIES)}, got {ties!r}")


def first_rank(found: Band) -> float:
    """Mid rank of the first faulty line, from 1; its mean over bugs is MFR."""
    return found.above + (found.tied + 1) / 2


def top(found: Band, n: int) -> float:
    """Probability that a faulty line is among the first `n` when ties are put into random order.

    1 - C(tied - faulty, k) / C(tied, k) with k = n - above places left for the band.
    """
    places = min(max(n - found.above, 0), found.tied)
    return 1 - comb(found.tied - found.faulty, places) / comb(found.tied, places)


def wasted_effort(found: Band) -> float:
    """Expected number of sound lines looked at before the first faulty one, ties in random order.

    Source: the expected number of blanks before the first of `faulty` hits among `tied` draws.
    """
    return found.above + (found.tied - found.faulty) / (found.faulty + 1)


def average_precision(scores: np.ndarray, faulty: Sequence[int] | np.ndarray, decimals: int | None = DECIMALS) -> float:
    """Expected average precision of all faulty lines, ties in random order; its mean over bugs is MAP.

    In a band of t lines with r faulty ones, after a lines with R faulty ones, the line at place i is faulty with
    probability r/t and then has R + 1 + (i - 1)(r - 1)/(t - 1) faulty lines at or above it.

    Source: McSherry, Najork 2008.
    """
    scores, indices = _checked(scores, faulty, decimals)
    relevant = np.zeros(len(scores), bool)
    relevant[indices] = True
    total, above, found = 0.0, 0, 0
    for value in np.unique(scores[relevant])[::-1]:
        above = int((scores > value).sum())
        tied, hits = int((scores == value).sum()), int(relevant[scores == value].sum())
        place = np.arange(1, tied + 1)
        at_or_above = found + 1 + (place - 1) * (hits - 1) / max(tied - 1, 1)
        total += float((hits / tied * at_or_above / (above + place)).sum())
        found += hits
    return total / len(indices)


def average_rank(scores: np.ndarray, faulty: Sequence[int] | np.ndarray, decimals: int | None = DECIMALS) -> float:
    """Mean of the mid ranks of all faulty lines; its mean over bugs is MAR."""
    scores, indices = _checked(scores, faulty, decimals)
    return float(np.mean([first_rank(band(scores, [index], None)) for index in indices]))


def examination_curve(skipped: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """Share of the bugs that are found by looking at no more than each share `at` of their lines, `[len(at)]`."""
    exam = 1 - np.asarray(skipped, np.float64)
    return (exam[None, :] <= np.asarray(at, np.float64)[:, None] + 1e-12).mean(1)


def mid_ranks(scores: np.ndarray, decimals: int | None = DECIMALS) -> np.ndarray:
    """`[L]` rank of each score from 1, the best, ties at the mean of their places."""
    first, last = tie_bands(scores, decimals)
    return (first + last) / 2


def tie_bands(scores: np.ndarray, decimals: int | None = DECIMALS) -> tuple[np.ndarray, np.ndarray]:
    """`[L]` first and last place that each line can have, from 1, when lines with equal scores are put in any order."""
    scores = scores if decimals is None else np.round(scores, decimals)
    ascending = np.sort(scores)
    below = np.searchsorted(ascending, scores, side="left")
    upto = np.searchsorted(ascending, scores, side="right")
    return len(scores) - upto + 1, len(scores) - below
