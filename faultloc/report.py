"""What a reader sees of a ranked program: the list on the terminal, the page, SARIF, CSV and JSON.

`suspects.csv` and `suspects.json` hold every line that a failing test ran; `ranking.csv` the same in the layout of
GZoltar's rankings; `faultloc.sarif` the first ones for a code host; `heat.html` is one offline file.
"""

import csv
import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from faultloc.cases import Suspect, place
from faultloc.io import source_lines
from faultloc.ranking import Ranking
from faultloc.sarif import sarif
from faultloc.writing import whole

SHADES = (196, 202, 208, 214, 220)  # of a terminal with 256 colours, from the most suspicious on
FILES = 40  # on the page


def heat(rank: np.ndarray | float, lines: int) -> Any:
    """Warmth of a line in 0..1: 1 - log(rank) / log(lines), so that the first ten differ as the next ninety do."""
    return 1 - np.log(rank) / math.log(max(lines, 2))


def write(found: Ranking, folder: Path, *, top: int, context: int) -> None:
    """Write every file of a report, each of them whole or not at all.

    Args:
        found: the ranking.
        folder: where to; it is made.
        top: suspects on the list of the page and in SARIF.
        context: lines of source around each.
    """
    rows = [suspect._asdict() | {"rank": (suspect.first + suspect.last) / 2} for suspect in found.suspects]
    with whole(folder / "suspects.csv") as file:
        writer = csv.DictWriter(file, ["rank", *Suspect._fields])
        writer.writeheader()
        writer.writerows(rows)
    with whole(folder / "ranking.csv") as file:
        file.write("name;suspiciousness_value\n")
        for suspect in found.suspects:
            file.write(f"{suspect.file}#{suspect.scope}:{suspect.line};{suspect.score}\n")
    _dump(folder / "suspects.json", _whole(found, rows))
    _dump(folder / "faultloc.sarif", sarif(found, top))
    with whole(folder / "heat.html") as file:
        file.write(_page(found, top, context))


def _dump(path: Path, content: dict[str, Any]) -> None:
    with whole(path) as file:
        json.dump(_finite(content), file, indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON knows no infinity: a perfect suspect of D* is the word instead."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _whole(found: Ranking, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "program": found.case.title,
        "ranker": found.ranker,
        "tests": found.case.outcomes,
        "lines": found.case.recording.spectrum.size,
        "failures": [{"test": name, "message": message} for name, message in found.case.failures],
        "notes": list(found.notes),
        "fault_sets": [{"lines": describe(places), "log_probability": score} for places, score in found.sets],
        "suspects": rows,
    }


def colourful() -> bool:
    """Whether the terminal shows colours and the user wants them."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def say(text: str) -> None:
    """Print; whoever reads may have seen enough and closed the pipe, as `head` does: the rest then goes nowhere."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(found: Ranking, *, top: int, context: int) -> None:
    """Print the first suspects with their source; arguments as in `write`."""
    say("\n".join(listing(found, top=top, context=context, colours=colourful())))


def listing(found: Ranking, *, top: int, context: int, colours: bool) -> list[str]:
    """Lines of the printed list; a tie band is headed once."""
    case, size = found.case, found.case.recording.spectrum.size
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(case.outcomes.items()))
    lines = [f"{case.title}: {told}; {size} lines, {len(found.suspects)} run by a failing test; by {found.ranker}"]
    lines += [f"  fails: {name}{': ' + message if message else ''}" for name, message in case.failures[:5]]
    if len(case.failures) > 5:
        lines.append(f"  and {len(case.failures) - 5} more")
    lines += [f"  note: {note}" for note in found.notes]
    return lines + suspects(found, top=top, context=context, colours=colours)


def suspects(found: Ranking, *, top: int, context: int, colours: bool) -> list[str]:
    """The first suspects, what is known of others, and the sets of faults where no single one explains the failures."""
    lines, given = [], found.case.recording
    for word, known in (("clean", found.clean), ("buggy", found.buggy)):
        if known:
            named = ", ".join("{}:{}".format(*place(given, index)) for index in known)
            lines.append(f"  known to be {word}: {named}")
    shown: set[tuple[str, int]] = set()
    for suspect in found.suspects[:top]:
        lines += ["", _head(suspect, colours)]
        lines += _context(suspect, found, context, shown, colours)
    if told := unlisted(found, top):
        lines += ["", told]
    if found.sets and len(found.sets[0][0]) > 1:
        lines += ["", "no single line explains every failing test; together do, best first:"]
        lines += [f"  {describe(places)}  probability {math.exp(score):.2g}" for places, score in found.sets]
    return lines


def unlisted(found: Ranking, top: int) -> str:
    """Why the first `top` suspects leave out places: lines that no failing test ran stand there; empty if none do."""
    last = found.suspects[:top][-1].last if found.suspects else 0
    never = (found.basis.counts.ef == 0) & (found.ranks < last)
    never[[*found.clean, *found.buggy]] = False
    lines = [place(found.case.recording, index) for index in np.flatnonzero(never)[np.argsort(found.ranks[never])]]
    if not lines:
        return ""
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    named = ", ".join(f"{file}:{line}" for file, line in lines[:3])
    return f"left out between these, since no failing test ran them: {named}{more}"


def describe(places: Iterable[tuple[str, int]]) -> str:
    """The places of a set of faults."""
    return " + ".join(f"{file}:{line}" for file, line in places)


def _head(suspect: Suspect, colours: bool) -> str:
    name = f"{suspect.file}:{suspect.line}"
    rank = f"#{suspect.first}" if suspect.first == suspect.last else f"#{suspect.first}-{suspect.last}"
    where = ", ".join(filter(None, [f"in {suspect.scope}" if suspect.scope else "", suspect.symbol]))
    bold = f"\x1b[1m{name}\x1b[0m" if colours else name
    return f"{rank:<8} {bold}  {'; '.join(filter(None, [worth(suspect), suspect.reason, where]))}"


def worth(suspect: Suspect) -> str:
    """Score or probability of a suspect, and how far its rank depends on the choice of tests, where that is known."""
    sure = suspect.probability is not None
    told = f"probability {suspect.probability:.2%}" if sure else f"score {suspect.score:.4g}"
    if suspect.low is None or suspect.high is None:
        return told
    return f"{told}, rank {round(suspect.low, 1):g} to {round(suspect.high, 1):g} when tests are redrawn"


def _context(suspect: Suspect, found: Ranking, context: int, shown: set[tuple[str, int]], colours: bool) -> list[str]:
    """The source around a suspect, leaving out what stands above it already."""
    text = source_lines(found.case.texts.get(suspect.file, ""))
    known = {(s.file, s.line): (s.first + s.last) / 2 for s in found.suspects}
    size = found.case.recording.spectrum.size
    lines = []
    for number in range(max(suspect.line - context, 1), min(suspect.line + context, len(text)) + 1):
        key = (suspect.file, number)
        if key in shown and number != suspect.line:
            continue
        shown.add(key)
        mark = ">" if number == suspect.line else " "
        body = f"{mark} {number:>5} | {text[number - 1]}"
        warmth = float(heat(known[key], size)) if key in known else 0.0
        lines.append("    " + (_paint(body, warmth) if colours and warmth > 0.5 else body))
    return lines


def _paint(text: str, warmth: float) -> str:
    shade = SHADES[min(int((1 - warmth) * 2 * len(SHADES)), len(SHADES) - 1)]
    return f"\x1b[38;5;{shade}m{text}\x1b[0m"


def _page(found: Ranking, top: int, context: int) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("heat.html").render(
        found=found,
        case=found.case,
        size=found.case.recording.spectrum.size,
        told=", ".join(f"{number} {outcome}" for outcome, number in sorted(found.case.outcomes.items())),
        top=[(suspect, _excerpt(suspect, found, context)) for suspect in found.suspects[:top]],
        files=_files(found),
        columns=[found.ranker, *found.beside],
        worth=worth,
        unlisted=unlisted(found, top),
        sets=[(describe(places), math.exp(score)) for places, score in found.sets],
        warmth=lambda rank: round(float(heat(rank, found.case.recording.spectrum.size)), 3),
    )


def _excerpt(suspect: Suspect, found: Ranking, context: int) -> list[tuple[int, str]]:
    text = source_lines(found.case.texts.get(suspect.file, ""))
    numbers = range(max(suspect.line - context, 1), min(suspect.line + context, len(text)) + 1)
    return [(number, text[number - 1]) for number in numbers]


def _files(found: Ranking) -> list[dict[str, Any]]:
    """Every file with a suspect, the warmest first: its lines, each with its rank by every ranker."""
    given = found.case.recording
    best: dict[str, int] = {}
    suspects = {(suspect.file, suspect.line): suspect for suspect in found.suspects}
    for suspect in found.suspects:
        best.setdefault(suspect.file, suspect.first)
    pages = []
    for file in sorted(best, key=lambda name: best[name])[:FILES]:
        index = given.files.index(file)
        column = {int(given.lines[i]): i for i in np.flatnonzero(given.file == index)}
        text = source_lines(found.case.texts.get(file, ""))
        numbers = range(1, len(text) + 1) if text else sorted(column)
        rows = []
        for number in numbers:
            i = column.get(number)
            ranks = [] if i is None else [float(found.ranks[i]), *(float(ranks[i]) for ranks in found.beside.values())]
            rows.append((number, text[number - 1] if text else "", ranks, suspects.get((file, number))))
        pages.append({"name": file, "best": best[file], "rows": rows})
    return pages
