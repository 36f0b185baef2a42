"""The page of a finished scoring run, `report.html`, one offline file; beside it the same numbers as CSV and JSON.

A row is one case, plain Python or NumPy values:

    case: name
    reference, prediction: path ("a.nii + b.nii" for a list of maps); without both there are no pictures
    reference_names [K], prediction_names [K']: regions as they were scored, without a background that was left out
    region [n], match [n], pairs [K][K']: as in `evalmetrics.Scores`
    macro, macro_reference, micro, volume_weighted, crum: likewise
    reference_volume [K], prediction_volume [K']: voxels
    spacing: edge lengths of a voxel, mm                             (optional: volumes are then in ml)
    eps_sweep: {"eps": [...], "macro": [...], "kernel": name}        (optional)
    thresholded: {"crisp": score, "abs": score}                      (optional)
    surface: {"hausdorff95": [n], "average_distance": [n], "surface_dice": [n]}, mm and [0, 1]   (optional)
    calibration: {"brier": score, "ece": score}                      (optional)

A case that could not be scored is {"case": name, "error": line}. Other keys go to `scores.json` as they are.
"""

import datetime as dt
import importlib.metadata
import itertools
import math
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evalmetrics import figures, io, slices, summary
from evalmetrics.summary import Row

CASE_COLUMNS = (
    "case", "macro", "macro_reference", "micro", "volume_weighted", "crum", "regions", "unmatched",
    "thresholded", "probabilistic", "reference", "prediction", "error",
)  # fmt: skip
REGION_COLUMNS = ("case", "reference", "prediction", "score", "reference_volume", "prediction_volume")
PACKAGES = ("quartet", "jax", "numpy", "scipy", "nibabel")
PICTURED = 3
Load = Callable[[Any, Any], tuple[io.Volume, io.Volume]]


def write(
    rows: Sequence[Row], folder: str | Path, *, title: str, settings: dict[str, Any], load: Load | None = None
) -> Path:
    """Write the report of a finished run.

    Args:
        rows: one dictionary per case, see the head of this module.
        folder: where the four files go; it is made.
        title: heading of the page.
        settings: what was used, name to value, shown as it is; `eps` marks the sweep, `background` (label value, part
            or name) is left out of the pictures, `level` and `resamples` are those of the intervals.
        load: reads reference and prediction of a row again for the pictures of at most three cases; `io.pair` if None.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: there is no row at all.
    """
    if not rows:
        raise ValueError("no rows were given; a report needs at least one case, scored or failed")
    folder = Path(folder)
    context = _context(rows, title, settings, load or io.pair)
    io.write_csv(folder / "cases.csv", [_case_line(row) for row in rows], CASE_COLUMNS)
    io.write_csv(folder / "regions.csv", _region_lines(summary.good(rows)), REGION_COLUMNS)
    headline = {
        measure.key: {"mean": measure.mean, "low": measure.low, "high": measure.high} for measure in context["measures"]
    }
    content = {"title": title, "settings": settings, "versions": versions(), "summary": headline, "rows": list(rows)}
    io.write_json(folder / "scores.json", content)
    page = _template().render(context)
    return io.write_text(folder / "report.html", lambda file: file.write(page))


def save_slice(
    row: Row, reference: io.Volume, prediction: io.Volume, file: str | Path, place: tuple[int, ...] | None = None
) -> Path:
    """Write one PNG: reference, prediction and disagreement side by side, in the first plane of `slices.picture`.

    Args:
        row: scored row of the case.
        reference: its volume.
        prediction: of the same grid.
        file: to write.
        place: see `slices.picture`.

    Returns:
        The file.
    """
    import base64
    import io as streams

    from PIL import Image

    plane = slices.picture(row, reference, prediction, place=place).slices[0]
    uris = plane.reference, plane.prediction, plane.disagreement
    images = [Image.open(streams.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]
    Image.fromarray(np.hstack([np.asarray(image) for image in images])).save(file)
    return Path(file)


def versions() -> dict[str, str]:
    """Versions of the interpreter and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": figures.show, "shorten": figures.shorten, "size": _size, "change": _change}
    return environment.get_template("report.html")


def _interval(settings: dict[str, Any]) -> summary.Interval:
    import jax

    from evalmetrics.stats import bootstrap_ci

    named = {"level": "confidence", "resamples": "samples"}
    chosen = {argument: settings[name] for name, argument in named.items() if name in settings}

    def interval(values: np.ndarray) -> tuple[float, float]:
        found = bootstrap_ci(values.astype(np.float32), jax.random.key(0), **chosen)
        return float(found.low), float(found.high)

    return interval


def _context(rows: Sequence[Row], title: str, settings: dict[str, Any], load: Load) -> dict[str, Any]:
    """Everything the template shows."""
    import markupsafe

    def draw(svg: str) -> markupsafe.Markup:
        return markupsafe.Markup(svg)  # built by `figures`, which escapes every name

    scored = summary.good(rows)
    interval = _interval(settings)
    measures = summary.measures(scored, interval)
    regions = summary.regions(scored, interval)
    colours = slices.palette([region.name for region in regions if not region.extra])
    matrix = summary.matrix(scored)
    sweep, points = summary.eps_curves(scored), summary.thresholded(scored)
    pictures, missing = _pictures(scored, settings.get("background"), colours, load)
    unit, factor = _unit(scored)
    return {
        "title": title,
        "date": f"{dt.datetime.now().astimezone():%-d %B %Y, %H:%M}",
        "scored": scored,
        "failed": [row for row in rows if "error" in row],
        "measures": measures,
        "level": settings.get("level", 0.95),
        "strips": draw(figures.strips(measures, [row["case"] for row in scored])) if len(scored) > 1 else "",
        "cases": [_case_line(row) | {"worst": _worst_region(row)} for row in summary.by_rank(scored)],
        "regions": [(region, draw(figures.spark(region.values)), colours.get(region.name)) for region in regions],
        "unit": unit,
        "factor": factor,
        "matrix": matrix,
        "heat": draw(figures.heat(matrix)) if matrix is not None and matrix.values.size else "",
        "unmatched": summary.unmatched(scored),
        "surfaces": summary.surfaces(scored),
        "calibration": summary.calibration(scored),
        "sweep": draw(figures.sweep(*sweep, settings.get("eps"))) if sweep else "",
        "sweep_kernel": next((row["eps_sweep"].get("kernel") for row in scored if row.get("eps_sweep")), None),
        "agreement": draw(figures.agreement(points)) if points else "",
        "gain": float(np.mean([soft - crisp for _, crisp, soft in points])) if points else math.nan,
        "pictures": pictures,
        "ramp": slices.RAMP,
        "pictures_missing": missing,
        "settings": {name: _setting(value) for name, value in settings.items()},
        "versions": versions(),
    }


def _setting(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _unit(rows: Sequence[Row]) -> tuple[str, float]:
    """Unit of the volumes and its number of voxels: millilitres where voxels are not unit cubes."""
    spacings = {tuple(row.get("spacing", (1.0,))) for row in rows}
    if len(spacings) != 1 or all(edge == 1 for edge in next(iter(spacings))):
        return "voxels", 1.0
    spacing = next(iter(spacings))
    return ("ml", math.prod(spacing) / 1000) if len(spacing) == 3 else ("mm²", math.prod(spacing))


def _size(value: float, factor: float) -> str:
    size = value * factor
    if not math.isfinite(size):
        return "–"
    return f"{size:,.0f}" if size >= 100 else f"{size:,.1f}" if size >= 10 else f"{size:.3g}"


def _change(region: summary.Region) -> str:
    if (
        not math.isfinite(region.reference_volume)
        or not math.isfinite(region.prediction_volume)
        or region.reference_volume == 0
    ):
        return "–"
    percent = 100 * (region.prediction_volume / region.reference_volume - 1)
    return f"{percent:+,.0f} %".replace("-", "−") if abs(percent) >= 0.5 else "0 %"


def _worst_region(row: Row) -> str:
    known = [(score, name) for name, _, score in summary.slots(row) if name is not None and math.isfinite(score)]
    return "" if not known else "{1} {0:.3f}".format(*min(known))


def _case_line(row: Row) -> dict[str, Any]:
    if "error" in row:
        return {"case": row["case"], "error": row["error"]}
    both = row.get("thresholded") or {}
    slots = summary.slots(row)
    return {
        **{key: row[key] for key in ("case", *summary.MEASURES, "reference", "prediction") if key in row},
        "regions": len(row["reference_names"]),
        "unmatched": sum((name is None) != (matched is None) for name, matched, _ in slots),
        "thresholded": both.get("crisp"),
        "probabilistic": both.get("abs"),
    }


def _region_lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        volumes = [
            dict(zip(row[f"{s}_names"], row.get(f"{s}_volume", ()), strict=False)) for s in ("reference", "prediction")
        ]
        lines += [
            {
                "case": row["case"],
                "reference": name,
                "prediction": matched,
                "score": score,
                "reference_volume": volumes[0].get(name),
                "prediction_volume": volumes[1].get(matched),
            }
            for name, matched, score in summary.slots(row)
        ]
    return lines


def _source(path: str) -> str | list[str]:
    """The path of a row as `io.load` wants it: a list of maps is written with plus signs."""
    return path if " + " not in path or Path(path).exists() else path.split(" + ")


def _pictures(
    rows: Sequence[Row], background: Any, colours: dict[str, str], load: Load
) -> tuple[list[slices.Picture], list[str]]:
    """Slices of the worst, the median and the best case, and why a case has none."""
    ranked = [row for row in summary.by_rank(rows) if row.get("reference") and row.get("prediction")]
    chosen = {0: "worst", len(ranked) // 2: "median", len(ranked) - 1: "best"} if len(ranked) >= PICTURED else {}
    if len(ranked) < PICTURED:
        chosen = dict(zip(range(len(ranked)), ("",) if len(ranked) == 1 else ("worse", "better"), strict=False))
    pictures, missing = [], []
    for index, rank in itertools.islice(sorted(chosen.items()), PICTURED):
        row = ranked[index]
        try:
            pair = load(_source(row["reference"]), _source(row["prediction"]))
        except io.InputError as fault:
            missing.append(str(fault))
            continue
        pictures.append(slices.picture(row, *pair, rank=rank, background=background, colours=colours))
    return pictures, missing
