"""What a run of benchmarks leaves behind: a table on the screen and a JSON file."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
from harness.runner import Measured

from quartet import results

COLUMNS = ("ours ms", "peer ms", "ratio", "of best", "bar", "met", "error", "peer's error", "x floor", "extra MB")


def show(measured: list[Measured], title: str) -> None:
    """Print the table and what the benchmarks are about."""
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD)
    table.add_column("name")
    table.add_column("peer", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=column != "peer ms")

    def number(value: float | None, form: str = ".3g", scale: float = 1.0) -> str:
        return "" if value is None else format(value * scale, form)

    for row, detail in measured:
        away = row.ours_s / detail.floor_s if row.ours_s and detail.floor_s else None
        table.add_row(
            row.name,
            row.peer,
            number(row.ours_s, ".4g", 1e3),
            number(row.peer_s, ".4g", 1e3) if detail.status == "measured" else detail.status,
            number(row.ratio),
            number(detail.timing and detail.timing.peer_least / detail.timing.ours_least),
            number(row.bar, "g"),
            {True: "yes", False: "NO", None: ""}[row.met],
            number(row.error, ".1e"),
            number(detail.peer_error, ".1e"),
            number(away),
            number(detail.extra_mb),
        )
    # A file or a pipe has no width of its own: give the table room instead of folding it to 80 columns.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print("ratio = peer / ours, of medians and of the best times, which differ on a busy machine")
    console.print("x floor = ours / one read of the inputs; error against a float64 reference")


def write(file: Path, header: dict[str, Any], measured: list[Measured]) -> None:
    """Write the provenance, the rows and their details as one JSON file, all of it or nothing."""
    details = [
        {"name": row.name, "peer": row.peer, **vars(detail), "timing": detail.timing and detail.timing._asdict()}
        for row, detail in measured
    ]
    content = {"provenance": header, "rows": [dataclasses.asdict(row) for row, _ in measured], "details": details}
    results.write_json(file, content)
