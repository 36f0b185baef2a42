"""The page of a finished run: `report.html` in one offline file, and its pictures beside it.

A row is one interval: `events` so far, `window` as of `kdrec.summary.window`, and on the last one the gains.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdrec.io import write_bytes

GREY, ORANGE, BLUES = "0.45", "tab:orange", ("tab:blue", "tab:green", "tab:purple", "tab:red", "tab:brown")
EXPLAINED = {
    "change": "loss against the student without a teacher, %",
    "change_error": "its standard error over seeds",
    "log_loss": "log loss, nats",
    "ne": "normalised entropy; 1 is as good as the base rate, of values as the mean",
    "ne_recalibrated": "the same after the best shift of the logits",
    "auc": "area under the ROC curve",
    "group_auc": "the same inside each segment, averaged with their events",
    "huber": "Huber loss of values, in units of the task",
    "mae": "mean absolute error of values",
    "xauc": "share of pairs of events whose values are predicted in the right order",
    "calibration": "mean probability over mean label",
    "identity": "calibration of a calibrated optimum of this method",
    "leak": "calibration minus that of the student without a teacher",
    "segment_leak": "the largest leak of a segment",
    "transfer": "gain of the student over that of the teacher",
    "teacher/change": "loss of the labels against the student without a teacher, %",
    "teacher/calibration": "calibration of the labels",
}


def write(
    rows: Sequence[Mapping[str, Any]],
    folder: str | Path,
    *,
    title: str,
    tasks: Sequence[str],
    settings: Mapping[str, str],
) -> Path:
    """Write the page and the pictures of a finished run.

    Args:
        rows: one an interval.
        folder: where they go; it is made.
        title: heading.
        tasks: names of the tasks, in the order of the metrics.
        settings: name to value, shown as they are.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("no rows were given; a report needs at least one interval")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    curves = {"ne": "normalised entropy", "calibration": "mean probability / mean label"}
    pictures = [_over_time(rows, folder / f"{name}.png", name, label, tasks) for name, label in curves.items()]
    pictures.append(_by_segment(rows, folder / "segments.png", tasks))
    if rows[-1]["window"].get("labels"):
        pictures.append(_labels(rows, folder / "labels.png"))
    return write_bytes(folder / "report.html", _page(title, rows[-1], tasks, settings, pictures).encode())


def _figure(tasks: Sequence[str]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(tasks), 3.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, len(tasks), squeeze=False)[0]


def _names(row: Mapping[str, Any]) -> list[str]:
    """What the learners of a row are called, the student without a teacher first."""
    count = len(row["window"]["students"])
    with_teacher = ["student with teacher"] if count == 2 else [f"student, weight no. {i}" for i in range(1, count)]
    return ["student without teacher", *with_teacher]


def _series(rows: Sequence[Mapping[str, Any]], name: str, task: int, student: int | None) -> np.ndarray:
    found = [row["window"]["teacher"] if student is None else row["window"]["students"][student] for row in rows]
    values = [np.nan if entry[name][task] is None else entry[name][task] for entry in found]
    return np.asarray(values, float)


def _over_time(rows: Sequence[Mapping[str, Any]], path: Path, name: str, label: str, tasks: Sequence[str]) -> Path:
    figure, axes = _figure(tasks)
    events = np.asarray([row["events"] for row in rows]) / 1000
    # A point stands at the end of its window, so counting began at the point before the first window that counts.
    counted = next((events[max(i - 1, 0)] for i, row in enumerate(rows) if "log_loss" in row), None)
    marker = "o" if len(rows) < 8 else None
    for task, axis in enumerate(axes):
        axis.axhline(1, color="0.8", linewidth=1, zorder=0)
        axis.plot(events, _series(rows, name, task, None), color=ORANGE, marker=marker, label="teacher's labels")
        for student, who in enumerate(_names(rows[-1])):
            colour = GREY if student == 0 else BLUES[(student - 1) % len(BLUES)]
            axis.plot(events, _series(rows, name, task, student), color=colour, marker=marker, label=who)
        if counted is not None:
            axis.axvline(counted, color="0.8", linestyle=":", zorder=0)
        axis.set(title=tasks[task], xlabel="thousand events", ylabel=label)
        axis.set_ylim(*_limits([line.get_ydata() for line in axis.lines[1 : 2 + len(_names(rows[-1]))]]))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path)
    return path


def _limits(series: Sequence[Any]) -> tuple[float, float]:
    """Limits that show what the curves settle at: the first windows of a learner are far off and would flatten them."""
    settled = [np.asarray(values)[np.isfinite(values)] for values in series]
    settled = [values[max(1, len(values) // 10) :] if len(values) > 1 else values for values in settled]
    values = np.concatenate([*settled, [1.0]])
    low, high = float(values.min()), float(values.max())
    room = 0.08 * max(high - low, 0.02)
    return low - room, high + room


def _by_segment(rows: Sequence[Mapping[str, Any]], path: Path, tasks: Sequence[str]) -> Path:
    """Calibration of each segment over the last windows, the teacher's labels beside the students."""
    figure, axes = _figure(tasks)
    last = [row for row in rows if "log_loss" in row]
    names = _names(rows[-1])
    for task, axis in enumerate(axes):
        learners: list[tuple[str, str, int | None]] = [("teacher's labels", ORANGE, None)]
        learners += [(who, GREY if i == 0 else BLUES[(i - 1) % len(BLUES)], i) for i, who in enumerate(names)]
        for number, (who, colour, student) in enumerate(learners):
            found = [
                row["window"]["teacher"] if student is None else row["window"]["students"][student] for row in last
            ]
            each = np.asarray(
                [[np.nan if s[task] is None else s[task] for s in entry["by_segment"]] for entry in found], float
            )
            seen = np.isfinite(each)
            mean = np.where(seen, each, 0).sum(0) / np.maximum(seen.sum(0), 1)
            place = np.arange(len(mean)) + (number - (len(learners) - 1) / 2) * 0.8 / len(learners)
            axis.bar(place, np.where(seen.any(0), mean - 1, 0), 0.8 / len(learners), color=colour, label=who)
        axis.axhline(0, color="0.3", linewidth=1)
        axis.set(title=tasks[task], xlabel="segment", ylabel="calibration - 1", xticks=np.arange(len(mean)))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path)
    return path


def _labels(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Share of the events with a label when students came to them, and the age of those labels."""
    figure, axes = _figure(("coverage", "lag"))
    events = np.asarray([row["events"] for row in rows]) / 1000
    found = [row["window"]["labels"] for row in rows]
    lag = np.asarray([np.nan if each["lag"] is None else each["lag"] / 3600 for each in found], float)
    marker = "o" if len(rows) < 8 else None
    axes[0].plot(events, [each["coverage"] for each in found], color=ORANGE, marker=marker)
    axes[0].set(title="labels", xlabel="thousand events", ylabel="share of events with a label", ylim=(-0.03, 1.03))
    axes[1].plot(events, lag, color=ORANGE, marker=marker)
    axes[1].set(title="lag", xlabel="thousand events", ylabel="hours from event to label")
    axes[1].set_ylim(bottom=0)
    figure.savefig(path)
    return path


def _page(
    title: str, row: Mapping[str, Any], tasks: Sequence[str], settings: Mapping[str, str], pictures: Sequence[Path]
) -> str:
    head = "".join(f"<th>{html.escape(task)}</th>" for task in tasks)
    lines = []
    for name, meaning in EXPLAINED.items():
        values = [row.get(f"{name}/{number + 1}") for number in range(len(tasks))]
        if any(value is not None for value in values):
            cells = "".join(f"<td>{'–' if value is None else f'{value:.5g}'}</td>" for value in values)
            lines.append(f"<tr><th>{html.escape(name)}</th>{cells}<td class=why>{html.escape(meaning)}</td></tr>")
    costs = [(name, value) for name, value in row.items() if name.startswith(("ltv_proxy", "cost/", "labels/"))]
    facts = [*settings.items(), *((name, f"{value:,.4g}") for name, value in costs)]
    listed = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts
    )
    shown = "".join(
        f'<img alt="{path.stem}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        for path in pictures
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
img {{ max-width: 100%; display: block; margin: 1.5rem 0 }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }}
th:first-child, .why, .facts td {{ text-align: left }} th {{ font-weight: 600 }} .why {{ color: #666 }}
</style>
<h1>{html.escape(title)}</h1>
<p>Every prediction was made before its label was seen; learners saw each event once, in the order of time. Figures are
means over seeds, counted from the dotted line of the pictures on.</p>
<table><tr><th></th>{head}<th class=why></th></tr>{"".join(lines)}</table>
{shown}
<table class=facts>{listed}</table>
</html>
"""
