"""Small faults put into Python code, one at a time, without moving a line: bugs whose place is known.

A mutant is text, not a tree: one expression or statement that stands on a single line of a function is replaced, and
what stands around it keeps its place. Which line is mutated is drawn first and what is done to it second, so that lines
full of operators are not preferred.

Synthetic faults are easier than real ones and of other kinds; nothing measured on them holds for real bugs.
"""

import ast
import random
from collections.abc import Iterator, Mapping
from typing import NamedTuple

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Mutant(NamedTuple):
    """A program with one fault.

    Attributes:
        path: of the file that has it.
        line: where.
        operator: comparison | arithmetic | boolean | negation | constant | name | argument | return | loop |
            assignment.
        before: the piece of source that was replaced.
        after: what stands there instead.
        text: of the whole file.
    """

    path: str
    line: int
    operator: str
    before: str
    after: str
    text: str


class _Place(NamedTuple):
    """A node that may be replaced: itself, what is above it, the local names it can see."""

    node: ast.AST
    parent: ast.AST
    names: tuple[str, ...]


def mutants(sources: Mapping[str, str], lines: Mapping[str, set[int]], seed: int) -> Iterator[Mutant]:
    """All mutants of a program, in an order drawn from `seed`: one of each line, then a second of each, and so on.

    Args:
        sources: text of each file by its path.
        lines: that may get a fault, by path; an expression counts to the line it starts on.
        seed: of the order.

    Raises:
        SyntaxError: a file does not parse.
    """
    draw = random.Random(seed)
    waiting: dict[tuple[str, int], list[tuple[str, _Place, ast.AST]]] = {}
    for path in sorted(sources):
        for place in _places(ast.parse(sources[path])):
            number = place.node.lineno  # type: ignore[attr-defined]
            if number in lines.get(path, ()):
                found = [(operator, place, new) for operator, new in _variants(place)]
                waiting.setdefault((path, number), []).extend(found)
    while waiting:
        order = [key for key in sorted(waiting) if waiting[key]]
        waiting = {key: waiting[key] for key in order}
        draw.shuffle(order)
        for path, number in order:
            left = waiting[path, number]
            operator = draw.choice(sorted({entry[0] for entry in left}))
            chosen = draw.choice([entry for entry in left if entry[0] == operator])
            left.remove(chosen)
            mutant = _apply(path, sources[path], *chosen)
            if mutant is not None:
                yield mutant


def _places(root: ast.Module) -> Iterator[_Place]:
    """Every node of a function's body that stands on one line."""
    # A string's parts have no places of their own before Python 3.12, patterns and annotations compute nothing.
    closed = (ast.JoinedStr, ast.pattern)

    def visit(node: ast.AST, names: tuple[str, ...], inside: bool) -> Iterator[_Place]:
        if isinstance(node, FUNCTIONS):
            names, inside = (*names, *_locals(node)), True
            parts = node.body if isinstance(node.body, list) else [node.body]
        else:
            skipped = node.annotation if isinstance(node, ast.AnnAssign) else None
            parts = [part for part in ast.iter_child_nodes(node) if part is not skipped]
        for part in parts:
            if isinstance(part, closed) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)):
                continue
            if inside and getattr(part, "lineno", 0) == getattr(part, "end_lineno", None):  # type: ignore[attr-defined]
                yield _Place(part, node, names)
            yield from visit(part, names, inside)

    yield from visit(root, (), inside=False)


def _locals(function: ast.AST) -> list[str]:
    arguments = function.args  # type: ignore[attr-defined]
    found = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    found += [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return list(dict.fromkeys(found))


def _variants(place: _Place) -> Iterator[tuple[str, ast.AST]]:
    """What may stand instead of a node, each with the name of the operator."""
    node, parent = place.node, place.parent
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            yield "comparison", ast.Compare(node.left, [COMPARISONS[type(op)]()], node.comparators)
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(op)](), node.right)
        case ast.BoolOp(op=op):
            yield "boolean", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield "negation", node.operand
        case ast.Constant(value=bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield "constant", ast.Constant(value + 1)
            yield "constant", ast.UnaryOp(ast.USub(), ast.Constant(1)) if value == 0 else ast.Constant(value - 1)
        case ast.Constant(value=str() as text):
            yield "constant", ast.Constant(f"{text}?" if not text else "")
        case ast.Name(ctx=ast.Load()) if node.id in place.names:
            for other in place.names:
                if other != node.id:
                    yield "name", ast.Name(other, ast.Load())
        case ast.Call() if node.args and not any(isinstance(a, ast.Starred) for a in node.args):
            yield "argument", ast.Call(node.func, node.args[:-1], node.keywords)
            if len(node.args) > 1:
                yield "argument", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return", ast.Return(ast.Constant(None))
        case ast.Break():
            yield "loop", ast.Continue()
        case ast.Continue():
            yield "loop", ast.Break()
        case ast.AugAssign():
            # No statement is taken out: what would stand there instead is a kind of its own, and betrays the place.
            yield "assignment", ast.Assign([node.target], node.value)
        case ast.Assign(targets=[ast.Name()], value=value) if not _is_none(value):
            yield "assignment", ast.Assign(node.targets, ast.Constant(None))
    if isinstance(parent, ast.If | ast.While | ast.IfExp) and node is parent.test and not isinstance(node, ast.UnaryOp):
        yield "negation", ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _apply(path: str, text: str, operator: str, place: _Place, new: ast.AST) -> Mutant | None:
    """Put the new piece in; None where it is the old one or Python refuses the result."""
    node = place.node
    if ast.dump(new) == ast.dump(node):
        return None
    after = ast.unparse(ast.fix_missing_locations(new))
    # A parenthesis keeps the piece together where an operator stands beside it.
    if isinstance(new, ast.expr) and not isinstance(new, ast.Name | ast.Constant | ast.Call):
        after = after if isinstance(place.parent, ast.stmt) else f"({after})"
    lines = text.split("\n")  # a form feed ends no line
    number = node.lineno  # type: ignore[attr-defined]
    row = lines[number - 1].encode()  # columns count bytes
    start, end = node.col_offset, node.end_col_offset  # type: ignore[attr-defined]
    lines[number - 1] = (row[:start] + after.encode() + row[end:]).decode()
    mutated = "\n".join(lines)
    try:
        compile(mutated, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return Mutant(path, number, operator, row[start:end].decode(), after, mutated)
