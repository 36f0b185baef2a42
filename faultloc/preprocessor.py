"""Resolve the conditionals of the C preprocessor without moving a line, so that what was compiled is what is parsed.

Directives and the branches that were not taken become empty lines; macros are not expanded. Names that the caller does
not define are undefined, and `#if` of what only a compiler could know takes its first branch.
"""

import re
from collections.abc import Iterator, Mapping

# A literal, kept; a comment; the start of a comment that goes on in the next line.
_TOKEN = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|//.*|/\*.*?\*/|(/\*).*""")
_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif|define|undef)\b(.*)", re.DOTALL)
_ALLOWED = re.compile(r"[\s\d()<>=!&|+*/%-]*")


def resolve(text: str, defined: Mapping[str, str] | None = None) -> str:
    """Leave the taken branches of a C file.

    Args:
        text: of the file.
        defined: values of the macros that the compiler was given, `{"DEBUG": "1"}`.

    Returns:
        As many lines as before.
    """
    macros = dict(defined or {})
    taken: list[tuple[bool, bool]] = []  # of each open conditional: whether this branch is taken, whether any was
    lines = []
    for rows, said in _logical(text):
        found = _DIRECTIVE.match(said)
        live = all(now for now, _ in taken)
        if found is None:
            lines += [row if live else _blank(row) for row in rows]
            continue
        word, rest = found[1], found[2].strip()
        if word in ("if", "ifdef", "ifndef"):
            yes = live and _holds(word, rest, macros)
            taken.append((yes, yes))
        elif word == "elif" and taken:
            done = taken[-1][1]
            yes = not done and all(now for now, _ in taken[:-1]) and _holds("if", rest, macros)
            taken[-1] = (yes, done or yes)
        elif word == "else" and taken:
            taken[-1] = (not taken[-1][1] and all(now for now, _ in taken[:-1]), True)
        elif word == "endif" and taken:
            taken.pop()
        elif live and word == "define" and (name := re.match(r"(\w+)(?!\()\b\s*(.*)", rest)):
            macros[name[1]] = name[2]
        elif live and word == "undef":
            macros.pop(rest, None)
        keep = live and word in ("define", "undef")
        lines += rows if keep else [_blank(row) for row in rows]
    return "".join(lines)


def _logical(text: str) -> Iterator[tuple[list[str], str]]:
    """The rows of each logical line and what it says without comments.

    A backslash at the end goes on with the next row, and so does an open comment, in which nothing is a directive.
    """
    rows: list[str] = []
    spliced = said = ""
    inside = False
    for row in text.splitlines(keepends=True):
        rows.append(row)
        body = row.rstrip("\r\n")
        spliced += body.removesuffix("\\")
        if body.endswith("\\"):
            continue
        bare, inside = _without_comments(spliced, inside=inside)
        said, spliced = said + bare, ""
        if not inside:
            yield rows, said
            rows, said = [], ""
    if rows:
        yield rows, said + _without_comments(spliced, inside=inside)[0]


def _without_comments(line: str, *, inside: bool) -> tuple[str, bool]:
    """A line with blanks for its comments, and whether one is open after it, given whether one was before."""
    if inside:
        _, closed, line = line.partition("*/")
        if not closed:
            return "", True
    bare = _TOKEN.sub(lambda token: token[1] or token[2] or " ", line)
    return bare.removesuffix("/*"), bare.endswith("/*")


def _blank(row: str) -> str:
    return row[len(row.rstrip("\r\n")) :]


def _holds(word: str, rest: str, macros: Mapping[str, str]) -> bool:
    if word != "if":
        return (rest.split()[0] in macros if rest else False) == (word == "ifdef")
    return _value(rest, macros)


def _value(expression: str, macros: Mapping[str, str]) -> bool:
    """Whether a condition holds; one that is no arithmetic on known names does."""
    found = re.sub(r"defined\s*\(?\s*(\w+)\s*\)?", lambda name: str(int(name[1] in macros)), expression)
    for _ in range(8):  # a macro may stand for another
        found = re.sub(r"\b[A-Za-z_]\w*\b", lambda name: macros.get(name[0], "0") or "0", found)
    found = re.sub(r"(?<=\d)[uUlL]+\b", "", found)
    if not _ALLOWED.fullmatch(found) or "**" in found or "<<" in found:  # no C, or a number without end
        return True
    python = found.replace("&&", " and ").replace("||", " or ")
    python = re.sub(r"!(?!=)", " not ", python).replace("/", "//")
    try:
        return bool(eval(python, {"__builtins__": {}}))
    except (SyntaxError, ArithmeticError, TypeError, ValueError):
        return True
