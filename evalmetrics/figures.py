"""Charts of the report as inline SVG; colours are classes of the page's style, so that they follow light and dark."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from evalmetrics.summary import Matrix, Measure

GOLDEN = 0.6180339887498949


def show(value: float | None, digits: int = 3) -> str:
    """A score for the eye: three decimals, a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def shorten(text: str, length: int = 24) -> str:
    """Text of at most this many characters; the middle goes, for names differ at their ends."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head - length + 1 :]}"


def _svg(width: float, height: float, label: str, body: Sequence[str], *, kind: str = "chart") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(label)}">{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _dot(x: float, y: float, radius: float, kind: str, title: str = "") -> str:
    note = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}">{note}</circle>'


def range_of(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Ends and ticks of an axis that shows scores: [0, 1] unless all of them lie in a narrow part of it."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 5), 0.2)
    first, last = math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step
    first, last = max(first, 0.0) if low >= 0 else first, min(last, 1.0) if high <= 1 else last
    if last - first < 2 * step:
        first = max(first - step, 0.0)
    return first, last, [round(first + i * step, 10) for i in range(round((last - first) / step) + 1)]


def strips(measures: Sequence[Measure], cases: Sequence[str]) -> str:
    """One row per measure: a dot per case, the mean and its interval."""
    left, right, row, width = 150, 190, 52, 1040
    low, high, ticks = range_of([value for measure in measures for value in measure.values])
    height = row * len(measures) + 34

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    body = []
    for tick in ticks:
        body.append(_line(x(tick), 6, x(tick), height - 28, "grid"))
        body.append(_text(x(tick), height - 10, f"{tick:.2f}", "tick", "middle"))
    radius = 3.2 if len(cases) <= 40 else 2.4
    for index, measure in enumerate(measures):
        middle = 6 + row * (index + 0.5)
        body.append(_text(left - 16, middle + 4, measure.name, "name", "end"))
        for number, (case, value) in enumerate(zip(cases, measure.values, strict=True)):
            if math.isfinite(value):
                # Golden-ratio steps scatter neighbours without chance and without overlap.
                offset = ((number * GOLDEN) % 1 - 0.5) * row * 0.62
                body.append(_dot(x(value), middle + offset, radius, "case", f"{case}: {show(value)}"))
        if measure.low is not None and measure.high is not None:
            body.append(_line(x(measure.low), middle, x(measure.high), middle, "interval"))
        if math.isfinite(measure.mean):
            body.append(_dot(x(measure.mean), middle, 5.5, "mean"))
        body.append(_text(width - right + 26, middle + 4, show(measure.mean), "value"))
        if measure.low is not None:
            ends = f"{show(measure.low)} – {show(measure.high)}"
            body.append(_text(width - right + 76, middle + 4, ends, "tick"))
    return _svg(width, height, "Scores of the cases, their means and intervals", body)


def spark(values: Sequence[float]) -> str:
    """Small chart of one region on [0, 1]: a bar for one case, a box with whiskers for several."""
    finite = np.array([value for value in values if math.isfinite(value)])
    width, height = 160.0, 18.0

    def x(value: float) -> float:
        return 1 + min(max(float(value), 0.0), 1.0) * (width - 2)

    body = [f'<rect x="1" y="{height / 2 - 3}" width="{width - 2}" height="6" rx="3" class="track"/>']
    if len(finite) == 1:
        body.append(f'<rect x="1" y="{height / 2 - 3}" width="{x(finite[0]) - 1:.1f}" height="6" rx="3" class="bar"/>')
    elif len(finite) > 1:
        low, q1, middle, q3, high = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
        body.append(_line(x(low), height / 2, x(high), height / 2, "whisker"))
        extent = max(x(q3) - x(q1), 1.5)
        body.append(f'<rect x="{x(q1):.1f}" y="{height / 2 - 5}" width="{extent:.1f}" height="10" rx="2" class="box"/>')
        body.append(_line(x(middle), height / 2 - 7, x(middle), height / 2 + 7, "median"))
    return _svg(width, height, "Spread of the score", body, kind="spark")


def heat(matrix: Matrix) -> str:
    """Scores of all pairs of regions; the matched pairs carry a frame."""
    rows, columns = matrix.values.shape
    cell = min(46.0, max(11.0, (640 if columns <= 24 else 780) / max(rows, columns)))
    numbers = cell >= 30
    longest = 30 if cell < 30 else 24
    size = 12 if cell >= 15 else 10
    names = [shorten(name, longest) for name in matrix.rows]
    heads = [shorten(name, longest) for name in matrix.columns]
    left = 14 + max(len(name) for name in names) * size * 0.56
    top = 14 + max(len(name) for name in heads) * size * 0.56 * 0.82
    spill = max(60.0, len(heads[-1]) * size * 0.56 * 0.62)
    body = []
    for j, head in enumerate(heads):
        x = left + cell * (j + 0.5) + 3
        body.append(
            f'<text transform="translate({x:.1f} {top - 8:.1f}) rotate(-55)" class="tick" font-size="{size}">'
            f"<title>{escape(matrix.columns[j])}</title>{escape(head)}</text>"
        )
    for i, name in enumerate(names):
        middle = top + cell * (i + 0.5)
        place = f'x="{left - 8:.1f}" y="{middle + size * 0.35:.1f}" text-anchor="end"'
        body.append(
            f'<text {place} class="tick" font-size="{size}">'
            f"<title>{escape(matrix.rows[i])}</title>{escape(name)}</text>"
        )
        body += [_cell(matrix, i, j, left + cell * j, top + cell * i, cell, numbers) for j in range(columns)]
    for i, j in matrix.cells:
        inset = 1 if cell > 20 else 0
        body.append(
            f'<rect x="{left + cell * j + inset:.1f}" y="{top + cell * i + inset:.1f}" width="{cell - 2 * inset:.1f}" '
            f'height="{cell - 2 * inset:.1f}" rx="{2 if cell > 20 else 0}" class="matched"/>'
        )
    return _svg(
        left + cell * columns + spill, top + cell * rows + 6, "Scores of all pairs of regions", body, kind="heat"
    )


def _cell(matrix: Matrix, i: int, j: int, x: float, y: float, cell: float, numbers: bool) -> str:
    value = float(matrix.values[i, j])
    known = math.isfinite(value)
    title = f"{matrix.rows[i]} · {matrix.columns[j]}: {show(value)}"
    strength = 0.04 + 0.96 * min(max(value, 0.0), 1.0) if known else 0
    gap = 1 if cell > 20 else 0.25
    edge = cell - 2 * gap
    box = (
        f'<rect x="{x + gap:.2f}" y="{y + gap:.2f}" width="{edge:.2f}" height="{edge:.2f}" class="cell" '
        f'fill-opacity="{strength:.3f}"><title>{escape(title)}</title></rect>'
    )
    if not numbers or not known:
        return box
    tone = "strong" if strength > 0.55 else "weak"
    return box + _text(x + cell / 2, y + cell / 2 + 4, f"{value:.2f}".removeprefix("0"), f"number {tone}", "middle")


def sweep(eps: Sequence[float], scores: np.ndarray, used: float | None) -> str:
    """Macro score against eps on a logarithmic axis: a line per case, their mean, the eps that was used."""
    left, right, top, bottom, width, height = 54, 22, 22, 46, 490, 340
    low, high, ticks = range_of(scores.ravel().tolist())
    ends = math.log10(eps[0]), math.log10(eps[-1])
    span = ends[1] - ends[0] or 1.0

    def x(value: float) -> float:
        return left + (math.log10(value) - ends[0]) / span * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    body = []
    for tick in ticks:
        body.append(_line(left, y(tick), width - right, y(tick), "grid"))
        body.append(_text(left - 10, y(tick) + 4, f"{tick:.2f}", "tick", "end"))
    last = -math.inf
    for value in eps:
        body.append(_line(x(value), height - bottom, x(value), height - bottom + 4, "axis"))
        if x(value) - last > 40:
            body.append(_text(x(value), height - bottom + 19, f"{value:g}", "tick", "middle"))
            last = x(value)
    body.append(_text((left + width - right) / 2, height - 8, "eps (logarithmic)", "tick", "middle"))
    if used is not None and eps[0] <= used <= eps[-1]:
        body.append(_line(x(used), top - 4, x(used), height - bottom, "used"))
        side = "end" if x(used) > width * 0.7 else "start"
        body.append(_text(x(used) + (-6 if side == "end" else 6), top + 4, f"used: {used:g}", "usedtext", side))
    counts = np.isfinite(scores).sum(0)
    mean = np.where(counts > 0, np.nansum(scores, axis=0) / np.maximum(counts, 1), np.nan)
    curves = [(curve, "caseline") for curve in scores if len(scores) > 1] + [(mean, "meanline")]
    for curve, kind in curves:
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(eps, curve, strict=True) if math.isfinite(b))
        body.append(f'<polyline points="{points}" class="{kind}"/>')
    body += [_dot(x(a), y(b), 3.4, "mean") for a, b in zip(eps, mean, strict=True) if math.isfinite(b)]
    return _svg(width, height, "Macro score against eps", body)


def agreement(points: Sequence[tuple[str, float, float]]) -> str:
    """Score of the probabilities against the score of the thresholded maps: two bars for one case, else a scatter."""
    if len(points) == 1:
        return _bars([("thresholded", points[0][1], "second"), ("probabilistic", points[0][2], "first")])
    left, right, top, bottom, width, height = 60, 20, 14, 46, 380, 350
    low, high, ticks = range_of([value for point in points for value in point[1:]])

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    body = []
    for tick in ticks:
        body.append(_line(left, y(tick), width - right, y(tick), "grid"))
        body.append(_line(x(tick), top, x(tick), height - bottom, "grid"))
        body.append(_text(left - 8, y(tick) + 4, f"{tick:.2f}", "tick", "end"))
        body.append(_text(x(tick), height - bottom + 17, f"{tick:.2f}", "tick", "middle"))
    body.append(_line(x(low), y(low), x(high), y(high), "diagonal"))
    body.append(_text((left + width - right) / 2, height - 6, "thresholded", "tick", "middle"))
    middle = (top + height - bottom) / 2
    body.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle" class="tick">probabilistic</text>'
    )
    for case, crisp, soft in points:
        if math.isfinite(crisp) and math.isfinite(soft):
            body.append(
                _dot(x(crisp), y(soft), 3.6, "case", f"{case}: {show(crisp)} thresholded, {show(soft)} probabilistic")
            )
    return _svg(width, height, "Probabilistic against thresholded score", body)


def _bars(bars: Sequence[tuple[str, float, str]]) -> str:
    left, width, row = 116, 460, 40
    body = []
    for index, (name, value, kind) in enumerate(bars):
        y = 12 + row * index
        full = width - left - 60
        body.append(_text(left - 12, y + 15, name, "name", "end"))
        body.append(f'<rect x="{left}" y="{y + 2}" width="{full}" height="16" rx="3" class="track"/>')
        if math.isfinite(value):
            length = max(0.0, min(value, 1.0)) * full
            body.append(f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="16" rx="3" class="bar {kind}"/>')
        body.append(_text(left + full + 12, y + 15, show(value), "value"))
    return _svg(width, 12 + row * len(bars), "Thresholded and probabilistic score", body)
