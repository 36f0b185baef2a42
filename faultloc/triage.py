"""Go through the suspects with a person: told that a line is sound or faulty, the others are ranked again at once.

c 2             the second line of the list is clean; also c shop.py:12
b shop.py:12    that line is buggy, look for one more fault
u               undo the last answer
l 20            list twenty lines
q               quit; so does the end of the input
"""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from faultloc import ranking, report
from faultloc.cases import locate
from faultloc.io import InputError, write_npz
from faultloc.options import Display, Task
from faultloc.ranking import Ranking

HELP = "c N or FILE:LINE clean, b N or FILE:LINE buggy, u undo, l N list, q quit"


def start(found: Ranking, clean: Iterable[str], buggy: Iterable[str]) -> Ranking:
    """Rank with what is known before the first question.

    Raises:
        InputError: a name is not a line of the program, or the ranker cannot be told.
    """
    lines = found.case.recording
    known = [[locate(lines, name) for name in names] for names in (clean, buggy)]
    return ranking.rerank(found, *known) if any(known) else found


def finish(found: Ranking, folder: Path, display: Display, task: Task) -> Ranking:
    """Print the list, go through it if that is the task, and write the pages and the spectrum."""
    if task.name == "triage":
        report.show(found, top=display.top, context=display.context)
        found = session(found, sys.stdin, report.say, top=display.top, context=display.context)
    report.write(found, folder, top=display.top, context=display.context)
    write_npz(folder / "spectrum.npz", found.case.recording)
    if task.name != "triage":  # last, as the reader of a pipe may stop there
        report.show(found, top=display.top, context=display.context)
    return found


def session(found: Ranking, answers: Iterable[str], show: Callable[[str], None], *, top: int, context: int) -> Ranking:
    """Take answers until they end.

    Args:
        found: the ranking to start from.
        answers: one a line, see above.
        show: prints.
        top: lines listed after each answer.
        context: lines of source around each.

    Returns:
        The last ranking.
    """
    past: list[Ranking] = []
    show(HELP)
    for answer in answers:
        verb, _, rest = answer.strip().partition(" ")
        if verb == "q":
            break
        try:
            if verb in ("c", "b"):
                began = time.perf_counter()
                after = _told(found, verb, rest.strip())
                took = 1000 * (time.perf_counter() - began)
                past.append(found)
                found = after
                show(f"ranked again in {took:.1f} ms; {len(found.clean)} clean, {len(found.buggy)} buggy")
            elif verb == "u" and past:
                found = past.pop()
            elif verb == "l" and (not rest or rest.isdigit()):
                top = int(rest or top)
            else:
                show(HELP if verb != "u" else "nothing to undo")
                continue
        except InputError as error:
            show(str(error))
            continue
        show("\n".join(report.suspects(found, top=top, context=context, colours=report.colourful())))
    return found


def _told(found: Ranking, verb: str, name: str) -> Ranking:
    if name.isdigit():
        number = int(name)
        if not 1 <= number <= len(found.suspects):
            raise InputError(f"{number}: there are {len(found.suspects)} suspects; give 1 to that, or FILE:LINE")
        suspect = found.suspects[number - 1]
        name = f"{suspect.file}:{suspect.line}"
    line = locate(found.case.recording, name)
    clean, buggy = ({*found.clean}, {*found.buggy})
    for known in (clean, buggy):
        known.discard(line)
    (clean if verb == "c" else buggy).add(line)
    return ranking.rerank(found, clean, buggy)
