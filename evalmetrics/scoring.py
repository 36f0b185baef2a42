"""Score the files that a user names, one case after the other: read, check, score, put into one row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalmetrics import io, kernels, matching, pairs, scores
from evalmetrics.checks import checked
from evalmetrics.io import InputError, Volume
from evalmetrics.options import Pairs, Scoring
from evalmetrics.voxels import Voxels

MEANS = ("macro", "macro_reference", "micro", "volume_weighted", "crum")


class Totals(NamedTuple):
    """Means of the cases scored so far, `[cases]` each; NaN for those to come and for the bad ones."""

    macro: np.ndarray
    macro_reference: np.ndarray
    micro: np.ndarray
    volume_weighted: np.ndarray
    crum: np.ndarray


class Files:
    """Cases of the user.

    Args:
        files: where they are and how to read them.
        scoring: how to score them.

    Raises:
        InputError: nothing was given, or nothing is there.
    """

    def __init__(self, files: Pairs, scoring: Scoring) -> None:
        for side in ("reference", "prediction"):
            if not getattr(files, side):
                raise InputError(
                    f"pairs.{side}: required; give pairs.{side}=FILE_OR_FOLDER, or a benchmark by data=NAME"
                )
        try:
            kernels.get(scoring.kernel.name)
        except ValueError as fault:
            raise InputError(f"kernel.name: {fault}") from fault
        found = io.find_pairs(files.reference or "", files.prediction or "", files.pattern)
        self._files, self._scoring, self._faults = files, scoring, found.faults
        self._cases = found.cases[: files.limit]

    def __len__(self) -> int:
        return len(self._cases) + len(self._faults)

    def inputs(self) -> dict[str, list[int]]:
        """Absolute path of every file, with its size in bytes and its time of change in ns."""
        files = [path for case in self._cases for side in case[1:] for path in io.files_behind(side)]
        return {str(path.absolute()): [path.stat().st_size, path.stat().st_mtime_ns] for path in files}

    def totals(self) -> Totals:
        """Nothing scored yet."""
        return Totals(*(np.full(len(self), np.nan) for _ in MEANS))

    def score(
        self, index: int, totals: Totals, *, key: Any, place: Callable[..., Any]
    ) -> tuple[Totals, dict[str, Any]]:
        """Score one case.

        Args:
            index: which.
            totals: so far.
            key: for the bootstrap of the last row.
            place: puts the voxel axis of an array onto the devices.

        Returns:
            Totals with this case, and its row: what `report` documents, or `case` and `error` of a bad one.
        """
        if index < len(self._faults):
            row: dict[str, Any] = dict(self._faults[index])
        else:
            case = self._cases[index - len(self._faults)]
            try:
                row = score_case(case, self._files, self._scoring, place=place)
            except InputError as fault:
                if len(self) == 1:
                    raise
                row = {"case": case.name, "error": f"{case.name}: {fault}"}
        if "error" not in row:
            for name, values in zip(MEANS, totals, strict=True):
                values[index] = row[name]
        if index == len(self) - 1 and index:
            row["summary"] = summary(totals, self._scoring, key)
        return totals, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write the page, the CSV and the JSON of a finished run."""
        from evalmetrics import report

        names = [Path(io.describe(side or "")).name for side in (self._files.prediction, self._files.reference)]
        title = " against ".join(names)
        report.write(rows, folder, title=title, settings=describe(self._scoring), load=self._load)

    def _load(self, reference: Any, prediction: Any) -> tuple[Volume, Volume]:
        return read_case(io.Case("", reference, prediction), self._files, self._scoring)


def describe(scoring: Scoring) -> dict[str, Any]:
    """What a reader of a report must know to compute the same scores."""
    return {
        "kernel": scoring.kernel.name,
        "eps": scoring.zeros.eps,
        "zeros": scoring.zeros.method,
        "match": scoring.match.method,
        "objective": scoring.match.objective,
        "empty": scoring.regions.empty,
        "background": scoring.regions.background,
        "surface_tolerance": scoring.statistics.surface_tolerance,
        "level": scoring.statistics.level,
        "resamples": scoring.statistics.resamples,
    }


def summary(totals: Totals, scoring: Scoring, key: Any) -> dict[str, float]:
    """Mean of every mean over the sound cases, and its bootstrap interval.

    Args:
        totals: of all cases.
        scoring: number of resamples and level.
        key: of the resamples.

    Returns:
        `cases`, and for every mean `<name>`, `<name>/low`, `<name>/high`; no interval for a single sound case.
    """
    from evalmetrics import stats

    sound = np.isfinite(totals.macro)
    kept = np.stack(totals, axis=1)[sound].astype(np.float32)
    figures: dict[str, float] = {"cases": len(kept)}
    if not len(kept):
        return figures
    figures |= {name: float(value) for name, value in zip(MEANS, kept.mean(0), strict=True)}
    if len(kept) > 1:
        options = scoring.statistics
        interval = stats.bootstrap_ci(kept, key, confidence=options.level, samples=options.resamples)
        for name, low, high in zip(MEANS, interval.low, interval.high, strict=True):
            figures[f"{name}/low"], figures[f"{name}/high"] = float(low), float(high)
    return figures


def score_case(case: io.Case, files: Pairs, scoring: Scoring, *, place: Callable[..., Any]) -> dict[str, Any]:
    """Read, check and score one case.

    Args:
        case: its name and its two sources.
        files: how to read them.
        scoring: how to score them.
        place: puts the voxel axis of an array onto the devices.

    Returns:
        The row that `report` documents.

    Raises:
        InputError: the case cannot be scored; the line says why.
    """
    reference, prediction = read_case(case, files, scoring)
    voxels = Voxels(reference, prediction, files.stream, place)
    main = score_voxels(voxels, scoring, scoring.kernel.name, scoring.zeros.eps)
    background = _background(reference, prediction, scoring.regions.background)
    names = [_without(side.names, background and background[i]) for i, side in enumerate((reference, prediction))]
    row = {
        "case": case.name,
        "reference": reference.path,
        "prediction": prediction.path,
        "reference_names": names[0],
        "prediction_names": names[1],
        "spacing": list(reference.spacing),
        **{name: np.asarray(value) for name, value in main._asdict().items()},
    }
    if sweep := scoring.statistics.eps_sweep:
        kernel = scoring.kernel.name if "ait" in scoring.kernel.name else "ait"
        swept = [score_voxels(voxels, scoring, kernel, eps) for eps in sweep]
        row["eps_sweep"] = {"kernel": kernel, "eps": list(sweep), "macro": [float(each.macro) for each in swept]}
    from evalmetrics import secondary

    match = full_match(np.asarray(main.match), background, len(prediction.names))
    if reference.soft or prediction.soft:
        eps = scoring.zeros.eps
        both = {name: score_voxels(voxels, scoring, "abs", eps, crisp=name == "crisp") for name in ("abs", "crisp")}
        row["thresholded"] = {name: float(each.macro) for name, each in both.items()}
    if prediction.soft and not reference.soft:
        row["calibration"] = secondary.calibration(voxels.blocks(), match)
    if scoring.statistics.surface:
        spacing, tolerance = reference.spacing, scoring.statistics.surface_tolerance
        found = secondary.surface(reference, prediction, match, spacing, tolerance, scoring.regions.empty)
        kept = [i for i in range(len(match)) if background is None or i != background[0]]
        row["surface"] = {name: [values[i] for i in kept] for name, values in found.items()}
    return row


def read_case(case: io.Case, files: Pairs, scoring: Scoring) -> tuple[Volume, Volume]:
    """Read and check the two volumes of a case; arguments and errors as in `score_case`."""
    labels: pairs.Labels = "ordered" if scoring.match.method == "ordered" else "unordered"
    volumes = io.pair(case.reference, case.prediction, kind=files.kind, labels=labels, names=files.names)
    return checked(*volumes, labels=labels, affine_tolerance=files.tolerance, sums=files.sums)


def _without(names: tuple[str, ...], index: int | None) -> list[str]:
    return [name for i, name in enumerate(names) if i != index]


def _background(reference: Volume, prediction: Volume, background: Any) -> tuple[int, int] | None:
    if background is None:
        return None
    found = []
    for side in (reference, prediction):
        index = side.index_of(background)
        if index is None:
            raise InputError(
                f"{side.path}: no region {background!r} to leave out; it has {', '.join(side.names)}: "
                "set regions.background to one of them, or to null"
            )
        found.append(index)
    return found[0], found[1]


def full_match(match: np.ndarray, background: tuple[int, int] | None, predicted: int) -> np.ndarray:
    """Undo the renumbering of regions where a background was left out: `[n]`, with the backgrounds matched."""
    if background is None:
        return np.asarray(match)
    i, j = background
    shifted = np.where(match >= j, match + 1, match)
    shifted = np.where(match >= predicted - 1, predicted, shifted)
    return np.insert(shifted, i, j)


def score_voxels(voxels: Voxels, scoring: Scoring, kernel: str, eps: float, *, crisp: bool = False) -> scores.Scores:
    """Score the voxels of a case.

    Args:
        voxels: of reference and prediction.
        scoring: everything but kernel and eps.
        kernel: name of a registered kernel.
        eps: see `scores.score`.
        crisp: compare the most probable labels instead of the probabilities.

    Returns:
        Scores; kernels of the whole composition take a second pass over the matched regions.

    Raises:
        InputError: the options do not go together.
    """
    ordered = scoring.match.method == "ordered"
    options: dict[str, Any] = {
        "kernel": kernel,
        "eps": eps,
        "zeros": scoring.zeros.method,
        "labels": "ordered" if ordered else "unordered",
        "crisp": crisp,
    }
    finish: dict[str, Any] = {
        "objective": scoring.match.objective,
        "empty": scoring.regions.empty,
        "background": _background(voxels.reference, voxels.prediction, scoring.regions.background),
    }
    if not ordered:
        finish["method"] = scoring.match.method
    if scoring.match.temperature is not None:
        finish["temperature"] = scoring.match.temperature
    total = voxels.stats(**options)
    if ordered or kernels.get(kernel).mass != "joint":
        return scores.from_stats(total, **finish)
    if scoring.match.method == "sinkhorn":
        raise InputError(f"match.method: kernel {kernel} needs one matching; use match=hungarian or match=ordered")
    match = matching.match(-total.disagreement)
    return scores.from_stats(voxels.stats(**options, match=match), **finish)._replace(match=match)
