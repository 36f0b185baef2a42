"""Tables of a finished scoring run: headline means, regions over cases, the matrix of matches.

Legend: a row is one case as `evalmetrics.report` documents it; K regions of the reference, K' of the prediction,
n = max(K, K') slots.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]
Interval = Callable[[np.ndarray], tuple[float, float]]
MEASURES = {
    "macro": ("Macro", "mean over regions, matched or not"),
    "micro": ("Micro", "one minus total disagreement over total mass"),
    "volume_weighted": ("Volume-weighted", "mean over reference regions, by volume"),
    "crum": ("Crum", "regions weighted by the inverse of their volume"),
    "macro_reference": ("Macro, reference", "mean over the regions of the reference only"),
}


class Measure(NamedTuple):
    """One measure over the cases; `low` and `high` are None where one case gives no interval."""

    key: str
    name: str
    meaning: str
    mean: float
    low: float | None
    high: float | None
    values: list[float]


class Region(NamedTuple):
    """One region of the reference over the cases (`name`), or a superfluous one of the prediction (`extra`)."""

    name: str
    matched: str
    agreeing: int
    cases: int
    mean: float
    low: float | None
    high: float | None
    values: list[float]
    reference_volume: float
    prediction_volume: float
    extra: bool


class Matrix(NamedTuple):
    """Scores of pairs of regions, columns ordered by the matching; `cells` are the matched pairs (row, column)."""

    values: np.ndarray
    rows: list[str]
    columns: list[str]
    cells: list[tuple[int, int]]
    note: str


def number(value: Any) -> float:
    """A score as a float; a missing one (None) as NaN."""
    return math.nan if value is None else float(value)


def good(rows: Sequence[Row]) -> list[Row]:
    """Rows that were scored."""
    return [row for row in rows if "error" not in row]


def by_rank(rows: Sequence[Row]) -> list[Row]:
    """Scored rows from the worst macro score to the best; rows without one come last."""
    return sorted(good(rows), key=lambda row: (math.isnan(number(row["macro"])), number(row["macro"])))


def _spread(values: Sequence[float], interval: Interval) -> tuple[float, float | None, float | None]:
    finite = np.array([value for value in values if math.isfinite(value)])
    if len(finite) == 0:
        return math.nan, None, None
    low, high = interval(finite) if len(finite) > 1 else (None, None)
    return float(finite.mean()), low, high


def measures(rows: Sequence[Row], interval: Interval) -> list[Measure]:
    """Mean, interval and values of every measure the rows have.

    Args:
        rows: scored rows.
        interval: `[cases]` values to the ends of a confidence interval of their mean.

    Returns:
        One entry per measure, in the order of `MEASURES`.
    """
    found = []
    for key, (name, meaning) in MEASURES.items():
        values = [number(row[key]) for row in rows if key in row]
        if values:
            found.append(Measure(key, name, meaning, *_spread(values, interval), values))
    return found


def slots(row: Row) -> list[tuple[str | None, str | None, float]]:
    """Names of the reference and prediction region of each slot (None where one is missing) and its score."""
    reference, prediction = row["reference_names"], row["prediction_names"]
    return [
        (
            reference[slot] if slot < len(reference) else None,
            prediction[match] if match < len(prediction) else None,
            number(score),
        )
        for slot, (match, score) in enumerate(zip(row["match"], row["region"], strict=True))
    ]


def _volumes(row: Row, side: str) -> dict[str, float]:
    volumes = row.get(f"{side}_volume", [math.nan] * len(row[f"{side}_names"]))
    return dict(zip(row[f"{side}_names"], map(number, volumes), strict=True))


def regions(rows: Sequence[Row], interval: Interval) -> list[Region]:
    """Every region over the cases, the reference's in order of appearance, then the prediction's superfluous ones.

    Args:
        rows: scored rows.
        interval: see `measures`.

    Returns:
        One entry per name; volumes are means over the cases that have the region, voxels.
    """
    seen: dict[tuple[str, bool], list[tuple[str | None, float, tuple[float, float]]]] = {}
    for row in rows:
        volumes = _volumes(row, "reference"), _volumes(row, "prediction")
        for name, matched, score in slots(row):
            if name is None and matched is None:
                continue
            key = (name, False) if name is not None else (str(matched), True)
            there = math.nan if name is None else volumes[0][name]
            here = math.nan if matched is None else volumes[1][matched]
            seen.setdefault(key, []).append((matched, score, (there, here)))
    table = []
    for (name, extra), entries in sorted(seen.items(), key=lambda item: item[0][1]):
        values = [entry[1] for entry in entries]
        # A match is told by name; the most frequent one stands in the table with how often it occurs.
        partner, count = Counter(entry[0] for entry in entries).most_common(1)[0]
        reference, prediction = (_mean([entry[2][side] for entry in entries]) for side in (0, 1))
        mean, low, high = _spread(values, interval)
        named = "" if extra or partner is None else partner
        table.append(Region(name, named, count, len(entries), mean, low, high, values, reference, prediction, extra))
    return table


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def unmatched(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """Regions left without a partner: (side, name, number of cases), most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for reference, prediction, _ in slots(row):
            if prediction is None and reference is not None:
                counts["reference", reference] += 1
            elif reference is None and prediction is not None:
                counts["prediction", prediction] += 1
    return [(side, name, count) for (side, name), count in counts.most_common()]


def _pairs(row: Row) -> np.ndarray:
    """Scores of pairs `[K, K']` with columns ordered by the matching, unmatched regions last."""
    values = np.array([[number(score) for score in line] for line in row["pairs"]], np.float64)
    return values.reshape(len(row["reference_names"]), len(row["prediction_names"]))[:, _order(row)]


def _order(row: Row) -> list[int]:
    parts = len(row["prediction_names"])
    order = [match for match in row["match"] if match < parts]
    return order + [index for index in range(parts) if index not in order]


def _diagonal(row: Row) -> bool:
    """Whether the ordered columns put every match on the diagonal: no reference region but the last ones lacks one."""
    has = [match < len(row["prediction_names"]) for match in row["match"][: len(row["reference_names"])]]
    return has == sorted(has, reverse=True)


def matrix(rows: Sequence[Row]) -> Matrix | None:
    """Scores of all pairs: the mean over the cases whose regions correspond, or the median case where most do not.

    Args:
        rows: scored rows.

    Returns:
        The matrix, None where no row has pairs.
    """
    rows = [row for row in rows if row.get("pairs") is not None]
    if not rows:
        return None
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault((tuple(row["reference_names"]), len(row["prediction_names"]), _diagonal(row)), []).append(row)
    alike = max(groups.values(), key=len)
    ranked = by_rank(rows)
    if len(alike) < len(rows) / 2 or not _diagonal(alike[0]):
        alike = [ranked[len(ranked) // 2]]
    first = alike[0]
    same = all(_named(row) == _named(first) for row in alike)
    columns = _named(first) if same else [f"matched {index + 1}" for index in range(len(_named(first)))]
    if len(alike) > 1:
        which = f"{len(alike)} cases" if len(alike) == len(rows) else f"the {len(alike)} cases that have these regions"
        note = f"Mean over {which}" + ("" if same else ", columns ordered by each case's own matching")
    else:
        note = "" if len(rows) == 1 else f"The median case, {first['case']}: the cases have different regions"
    stack = np.stack([_pairs(row) for row in alike])
    counts = np.isfinite(stack).sum(0)
    values = np.where(counts > 0, np.nansum(stack, axis=0) / np.maximum(counts, 1), np.nan)
    order = _order(first)
    matches = first["match"][: len(first["reference_names"])]
    cells = [(index, order.index(match)) for index, match in enumerate(matches) if match < len(order)]
    return Matrix(values, list(first["reference_names"]), columns, cells, note)


def _named(row: Row) -> list[str]:
    return [row["prediction_names"][index] for index in _order(row)]


def eps_curves(rows: Sequence[Row]) -> tuple[list[float], np.ndarray] | None:
    """Macro score under each eps: the values of eps and `[cases, eps]` scores of the cases that share them."""
    swept = [row["eps_sweep"] for row in rows if row.get("eps_sweep")]
    alike = [entry for entry in swept if entry["eps"] == swept[0]["eps"]]
    if not alike:
        return None
    order = np.argsort(alike[0]["eps"])
    scores = np.array([[number(score) for score in entry["macro"]] for entry in alike])
    return [float(alike[0]["eps"][index]) for index in order], scores[:, order]


def thresholded(rows: Sequence[Row]) -> list[tuple[str, float, float]]:
    """Case, score of the thresholded maps and score of the probabilities, of the rows that have both."""
    return [
        (row["case"], number(row["thresholded"]["crisp"]), number(row["thresholded"]["abs"]))
        for row in rows
        if row.get("thresholded")
    ]


SURFACES = ("hausdorff95", "average_distance", "surface_dice")


def surfaces(rows: Sequence[Row]) -> list[tuple[str, list[float]]]:
    """Mean surface measures of every reference region over the cases that have a distance, in the order of `SURFACES`.

    A region that only one side has is infinitely far away and counts in none of the means of distances.
    """
    seen: dict[str, list[list[float]]] = {}
    for row in rows:
        if "surface" not in row:
            continue
        for slot, name in enumerate(row["reference_names"]):
            values = seen.setdefault(name, [[] for _ in SURFACES])
            for kept, measure in zip(values, SURFACES, strict=True):
                kept.append(number(row["surface"][measure][slot]))
    return [(name, [_mean(values) for values in measures]) for name, measures in seen.items()]


def calibration(rows: Sequence[Row]) -> dict[str, float]:
    """Mean `brier` and `ece` over the cases that have them; empty where none has."""
    found = [row["calibration"] for row in rows if row.get("calibration")]
    return {key: _mean([number(each[key]) for each in found]) for key in ("brier", "ece")} if found else {}
