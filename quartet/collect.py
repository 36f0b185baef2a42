"""From the finished cells of a sweep to a table: group, average over seeds, compare with what is published."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from quartet.faults import UserFault, flatten
from quartet.results import read_json
from quartet.tables import Cell, TableSpec


def collect(folder: Path, cells: list[Path] | None = None) -> TableSpec:
    """Make the table of a sweep from the results of its cells.

    Args:
        folder: holds one folder per cell, or is itself a single run.
        cells: those of them that count; None takes all.

    Returns:
        Cells grouped by the config keys that the table file names under `report.rows`; what they do not name, seeds
        above all, is averaged.

    Raises:
        UserFault: there is no finished run, or the runs say nothing about their table.
    """
    kept = ("status.json", "result.json")
    paths = sorted({path.parent for name in kept for path in (*folder.glob(name), *folder.glob(f"*/{name}"))})
    paths = [path for path in paths if cells is None or path in cells]
    results = [result for path in paths if (result := read_json(path / "result.json"))]
    if not results:
        message = f"{folder}: no finished run there; give the folder of a sweep, such as runs/evalmetrics/bsds500"
        raise UserFault(message)
    report = results[0]["config"].get("report") or _plain_report(results)
    keys, columns = _axes(report, results)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in results:
        values = dict(flatten(result["config"]))
        groups.setdefault(tuple(_label(values.get(key)) for key in keys), []).append(result)
    limit = results[0]["config"]["run"].get("limit")
    paper = {} if limit else report.get("paper") or {}  # part of the data compares with nothing published
    for members in groups.values():
        _refuse_mixture(folder, members, keys)
    rows = [
        (labels, tuple(_cell(members, column, _published(paper, keys, labels, column)) for column in columns))
        for labels, members in sorted(groups.items(), key=lambda item: [_order(label) for label in item[0]])
    ]
    if "digits" in report:
        rows = [(labels, tuple(replace(cell, digits=report["digits"]) for cell in cells)) for labels, cells in rows]
    rows = _mark_best(rows, columns, report.get("best") or {})
    failed = sum(len(result["failed"]) for result in results)
    notes = tuple(report.get("notes") or ())
    notes += (f"A trial run on at most {limit} cases.",) if limit else ()
    notes += (f"{failed} bad cases were left out.",) if failed else ()
    missing = len(paths) - len(results)
    notes += (f"{missing} runs without a result were left out.",) if missing else ()
    title = report.get("title") or folder.name
    return TableSpec(title, keys, columns, rows, paper.get("source"), notes, _provenance(results))


def _axes(report: dict[str, Any], results: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Row keys and metric columns of a table, each of which some run must have."""
    known = {
        "rows": {key for result in results for key in dict(flatten(result["config"]))},
        "columns": {name for result in results for name in result["metrics"]},
    }
    for axis, names in known.items():
        for name in report.get(axis) or [f"of {axis}"]:
            if name not in names:
                message = f"report.{axis}: no {name!r} in these runs; they have {', '.join(sorted(names))}"
                raise UserFault(message)
    return tuple(report["rows"]), tuple(report["columns"])


def _refuse_mixture(folder: Path, members: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    """Only runs that differ in nothing but their seed may be averaged, a trial run with a whole one least of all."""
    first, *others = (dict(flatten(result["config"])) for result in members)
    for other in others:
        differing = [k for k in {*first, *other} if first.get(k) != other.get(k) and k not in {*keys, "run.seed"}]
        if differing:
            key = min(differing)
            message = (
                f"{folder}: runs of one row differ in {key} ({first.get(key)} and {other.get(key)}); "
                "delete those that do not belong, or give the sweep its own hydra.sweep.dir"
            )
            raise UserFault(message)


def _plain_report(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What to show of a sweep without a table file: the config keys that vary, and every metric."""
    flat = [dict(flatten(result["config"])) for result in results]
    varying = [key for key in flat[0] if len({json.dumps(values.get(key)) for values in flat}) > 1]
    keys = [key for key in varying if key != "run.seed"] or ["run.seed"]
    columns = [name for name in results[0]["metrics"] if name != "step" and not name.endswith(("/low", "/high"))]
    return {"rows": keys, "columns": columns}


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _order(label: str) -> tuple[int, float, str]:
    try:
        return (0, float(label), "")
    except ValueError:
        return (1, 0.0, label)


def _published(paper: dict[str, Any], keys: tuple[str, ...], labels: tuple[str, ...], column: str) -> float | None:
    here = dict(zip(keys, labels, strict=True))
    for entry in paper.get("values", ()):
        if column in entry and all(_label(value) == here[key] for key, value in entry.items() if key in here):
            return entry[column]
    return None


def _cell(members: list[dict[str, Any]], column: str, paper: float | None) -> Cell:
    values = [v for result in members if (v := result["metrics"].get(column)) is not None]
    if not values:
        return Cell(None, None, 0, paper)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Cell(mean, None, 1, paper)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Cell(mean, math.sqrt(variance / len(values)), len(values), paper)


def _mark_best(rows: list, columns: Iterable[str], best: dict[str, str]) -> list:
    """Mark, in each column whose direction the table file gives (`max` or `min`), the cell that leads."""
    for index, column in enumerate(columns):
        direction = best.get(column)
        known = [cells[index].mean for _, cells in rows if cells[index].mean is not None]
        if direction is None or not known:
            continue
        top = max(known) if direction == "max" else min(known)
        for place, (labels, cells) in enumerate(rows):
            if cells[index].mean == top:
                marked = replace(cells[index], best=True)
                rows[place] = (labels, (*cells[:index], marked, *cells[index + 1 :]))
    return rows


def _provenance(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the newest run; where a table was filled in several goes, the command that asked for the most of it."""
    origins = [result["provenance"] for result in results]
    newest = max(origins, key=lambda origin: origin["date"])
    command = min((origin["command"] for origin in origins), key=lambda words: len(words.split()))
    return newest | {"command": command, "seconds": math.fsum(result["seconds"] for result in results)}
