"""Tables of numbers with published values beside them, rendered in five formats and on the terminal."""

import csv
import html
import io
import json
import sys
from dataclasses import dataclass, field
from typing import Any

from quartet.faults import UserFault

FORMATS = ("md", "latex", "csv", "html", "json")


@dataclass(frozen=True)
class Cell:
    """One number of a table: mean, standard error and count over what was averaged, and the published value."""

    mean: float | None
    error: float | None = None
    count: int = 1
    paper: float | None = None
    best: bool = False
    digits: int = 6

    def text(self) -> str:
        """The number as people read it, with its standard error where several runs were averaged."""
        if self.mean is None:
            return "-"
        shown = number(self.mean, self.digits)
        return f"{shown} ± {self.error:.2g}" if self.error is not None else shown


@dataclass(frozen=True)
class TableSpec:
    """A table: `rows` of (labels, cells), under the names of the row keys and of the metric columns."""

    title: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], tuple[Cell, ...]]]
    source: str | None = None
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def render(self, form: str) -> str:
        """Render as `md`, `latex`, `csv`, `html` or `json`.

        Raises:
            UserFault: there is no such format.
        """
        if form not in FORMATS:
            message = f"--format: no format {form!r}; there are {', '.join(FORMATS)}"
            raise UserFault(message)
        return getattr(self, f"_{form}")()

    def show(self) -> None:
        """Print the table on the terminal."""
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        header, grid = self._grid("[bold]{}[/]", escape)
        shown = Table(box=box.SIMPLE_HEAD)
        labels = self._labels(header)
        for index, name in enumerate(header):
            shown.add_column(name, justify="left" if index < labels else "right")
        for line in grid:
            shown.add_row(*line)
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
        console.print(f"[bold]{escape(self.title)}[/]", soft_wrap=True)
        if console.measure(shown).minimum > console.width:
            console.print(self.render("md"), soft_wrap=True, markup=False)
        else:
            console.print(shown)
        for note in self.notes:
            console.print(note, markup=False, soft_wrap=True)

    def _labels(self, header: list[str]) -> int:
        """How many of the columns are labels rather than numbers."""
        return 1 if header[0] == "metric" else len(self.keys)

    def _grid(self, bold: str, escape: Any) -> tuple[list[str], list[list[str]]]:
        """Header and rows as text. Where a value is published it stands beside ours, with the difference."""
        if len(self.rows) == 1 and len(self.columns) > 1:
            return self._upright(bold, escape)
        published = [any(cells[i].paper is not None for _, cells in self.rows) for i in range(len(self.columns))]
        header = [escape(key) for key in self.keys]
        for column, known in zip(self.columns, published, strict=True):
            header += [escape(column)] + ([escape(f"{column}, published"), "difference"] if known else [])
        grid = []
        for labels, cells in self.rows:
            line = [escape(label) for label in labels]
            for cell, known in zip(cells, published, strict=True):
                text = escape(cell.text())
                line.append(bold.format(text) if cell.best else text)
                if known:
                    line += ["-", "-"] if cell.paper is None else [number(cell.paper), _difference(cell)]
            grid.append(line)
        return header, grid

    def _upright(self, bold: str, escape: Any) -> tuple[list[str], list[list[str]]]:
        """A single row stands upright, one metric a line."""
        cells = self.rows[0][1]
        known = any(cell.paper is not None for cell in cells)
        grid = []
        for column, cell in zip(self.columns, cells, strict=True):
            text = escape(cell.text())
            line = [escape(column), bold.format(text) if cell.best else text]
            published = ["-", "-"] if cell.paper is None else [number(cell.paper), _difference(cell)]
            grid.append(line + (published if known else []))
        return ["metric", "value"] + (["published", "difference"] if known else []), grid

    def _md(self) -> str:
        from tabulate import tabulate

        header, grid = self._grid("**{}**", lambda text: text.replace("|", "\\|"))
        body = tabulate(grid, header, tablefmt="github", disable_numparse=True)
        return "\n\n".join([f"### {self.title}", body, *self._captions()]) + "\n"

    def _latex(self) -> str:
        header, grid = self._grid(r"\textbf{{{}}}", _latex_escape)
        labels = self._labels(header)
        columns = "l" * labels + "r" * (len(header) - labels)
        lines = [
            r"\begin{table}",
            rf"\caption{{{_latex_escape('. '.join([self.title, *self._captions()]))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(header) + r" \\",
            r"\hline",
            *(" & ".join(line) + r" \\" for line in grid),
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def _csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        fields = ("", "_standard_error", "_n", "_published")
        writer.writerow([*self.keys, *(f"{column}{suffix}" for column in self.columns for suffix in fields)])
        for labels, cells in self.rows:
            values = [(cell.mean, cell.error, cell.count, cell.paper) for cell in cells]
            writer.writerow([*labels, *("" if v is None else v for value in values for v in value)])
        return out.getvalue()

    def _html(self) -> str:
        header, grid = self._grid("<b>{}</b>", html.escape)
        head = "".join(f"<th>{text}</th>" for text in header)
        body = "\n".join("<tr>" + "".join(f"<td>{text}</td>" for text in line) + "</tr>" for line in grid)
        captions = "".join(f"<p>{html.escape(text)}</p>" for text in self._captions())
        title = html.escape(self.title)
        return f"<table>\n<caption>{title}</caption>\n<tr>{head}</tr>\n{body}\n</table>\n{captions}\n"

    def _json(self) -> str:
        rows = [
            dict(zip(self.keys, labels, strict=True))
            | {
                column: {"mean": cell.mean, "standard_error": cell.error, "n": cell.count, "published": cell.paper}
                for column, cell in zip(self.columns, cells, strict=True)
            }
            for labels, cells in self.rows
        ]
        whole = {"title": self.title, "source": self.source, "rows": rows, "provenance": self.provenance}
        return json.dumps(whole, indent=1) + "\n"

    def _captions(self) -> list[str]:
        published = f"Published: {self.source}." if self.source else "No published values are known for this table."
        return [published, *self.notes]


def number(value: float, digits: int = 6) -> str:
    """So many significant digits; whole numbers and those of full precision without a tail of zeros."""
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if digits >= 6 else f"{value:#.{digits}g}"


def _difference(cell: Cell) -> str:
    return "-" if cell.mean is None or cell.paper is None else f"{cell.mean - cell.paper:+.2g}"


def _latex_escape(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    return text.replace("±", r"$\pm$")
