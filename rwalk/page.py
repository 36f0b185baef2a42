"""The page of a finished run, `report.html`: one offline file with tiles, pictures, figures and settings."""

import datetime as dt
import importlib.metadata
import math
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rwalk import drawing, io

EDGE = 420  # pixels of the longer edge of a picture
PACKAGES = ("quartet", "jax", "numpy", "scipy", "nibabel")


class Tile(NamedTuple):
    """A headline figure.

    Attributes:
        label: what it is.
        figure: as it is shown.
        note: a line under it.
    """

    label: str
    figure: str
    note: str


class Row(NamedTuple):
    """One kind of picture in all planes.

    Attributes:
        name: caption.
        note: how to read it.
        colours: `[*shape, 3]` in 0 to 255.
        legend: pairs of a CSS colour and what it means.
        ends: what the two ends of the heat scale mean; empty where there is none.
    """

    name: str
    note: str
    colours: np.ndarray
    legend: tuple[tuple[str, str], ...] = ()
    ends: tuple[str, ...] = ()


def write(
    path: Path,
    *,
    title: str,
    kind: str,
    tiles: list[Tile],
    rows: list[Row],
    mask: np.ndarray,
    spacing: tuple[float, ...],
    figures: list[tuple[str, str, str]],
    files: list[tuple[str, str]],
    notes: list[str],
) -> Path:
    """Write the page.

    Args:
        path: of the page.
        title: heading.
        kind: what was done, a line above the heading.
        tiles: headline figures.
        rows: kinds of pictures.
        mask: `[*shape]`, which decides the slices.
        spacing: edge lengths of a voxel.
        figures: name, value and meaning of each measure.
        files: name of each file beside the page and what it holds.
        notes: remarks that a reader must know.

    Returns:
        The path.
    """
    import jinja2

    cuts = drawing.planes(mask)
    pictures = [
        {
            "name": row.name,
            "note": row.note,
            "legend": row.legend,
            "ends": row.ends,
            "uris": [drawing.uri(drawing.enlarge(row.colours[cut], spacing, cut, EDGE)) for cut in cuts],
        }
        for row in rows
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("report.html").render(
        title=title,
        kind=kind,
        date=f"{dt.datetime.now().astimezone():%-d %B %Y, %H:%M}",
        tiles=tiles,
        pictures=pictures,
        planes=[drawing.name_of(cut) for cut in cuts],
        figures=figures,
        files=files,
        notes=notes,
        versions=_versions(),
    )
    return io.write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def show(value: float | None, digits: int = 3) -> str:
    """A figure as text; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share as text: two decimals, more where it is small."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.3g} %"


def css(colour: np.ndarray) -> str:
    """A colour for a page."""
    return "rgb({}, {}, {})".format(*(int(part) for part in colour))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
