"""Syntax trees as arrays, and the statements that answer for the lines of a program.

Legend: N nodes in preorder, S statement nodes, L executable lines.
"""

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

PYTHON_STATEMENTS = frozenset(
    name
    for name, kind in vars(ast).items()
    if isinstance(kind, type) and issubclass(kind, ast.stmt | ast.ExceptHandler | ast.Module)
)
C_STATEMENTS = frozenset(
    {
        "declaration", "function_definition", "else_clause", "preproc_if", "preproc_ifdef", "preproc_else", "ERROR",
        "translation_unit",
    }
)  # fmt: skip
JAVA_STATEMENTS = frozenset(
    {
        "program", "class_declaration", "method_declaration", "constructor_declaration",
        "local_variable_declaration", "explicit_constructor_invocation", "catch_clause",
    }
)  # fmt: skip
STATEMENTS = PYTHON_STATEMENTS | C_STATEMENTS | JAVA_STATEMENTS
FUNCTIONS = frozenset(
    {
        "FunctionDef", "AsyncFunctionDef", "function_definition", "method_declaration", "constructor_declaration",
    }
)  # fmt: skip
# A first child of these kinds says nothing about what a statement does.
PLAIN = frozenset(
    {
        "arguments", "Name", "alias", "identifier", "type_identifier", "primitive_type", "compound_statement",
        "parenthesized_expression", "modifiers", "integral_type", "void_type", "formal_parameters", "block",
    }
)  # fmt: skip
Level = Literal["statement", "typed", "full"]


class Tree(NamedTuple):
    """The syntax trees of all files of a program, one after the other.

    Attributes:
        names: node type of each symbol number.
        symbol: `[N]`.
        parent: `[N]`, always smaller than the node itself; -1 at the root of a file.
        line: `[N]` on which the node starts, from 1; 0 for a root.
        file: `[N]` index into `files`.
        files: paths.
    """

    names: tuple[str, ...]
    symbol: np.ndarray
    parent: np.ndarray
    line: np.ndarray
    file: np.ndarray
    files: tuple[str, ...]


class Statements(NamedTuple):
    """The statements of a tree, each with the lines it answers for.

    A line without a statement of its own, such as the second of a long call, becomes a statement `Cont@type` under the
    nearest one before it.

    Attributes:
        tree: they were taken from.
        symbols: `[S]` type of the statement, with that of its first informative child after a slash.
        parent: `[S]` index of the enclosing statement, smaller than its own; -1 at a root.
        node: `[S]` the statement's node in the tree; that of the statement continued for a continuation.
        owner: `[L]` statement that answers for each line.
        function: `[L]` number of the innermost function that runs the line; the top level of each file has its own.
        inside: `[L]` whether that is a function at all.
    """

    tree: Tree
    symbols: tuple[str, ...]
    parent: np.ndarray
    node: np.ndarray
    owner: np.ndarray
    function: np.ndarray
    inside: np.ndarray


def from_preorder(
    names: Sequence[str],
    symbol: np.ndarray,
    depth: np.ndarray,
    line: np.ndarray,
    file: np.ndarray | None = None,
    files: Sequence[str] = ("",),
) -> Tree:
    """Build a tree from its nodes in preorder.

    Args:
        names: node type of each symbol number.
        symbol: `[N]`.
        depth: `[N]`, 0 at a root.
        line: `[N]`.
        file: `[N]`; None puts all into the first file.
        files: their paths.

    Raises:
        ValueError: a node is more than one level below the one before it.
    """
    depth = np.asarray(depth, np.int64)
    if len(depth) and (depth[0] != 0 or (np.diff(depth) > 1).any()):
        raise ValueError("depth must start at 0 and grow by at most 1 from node to node; the nodes are not in preorder")
    parent = np.full(len(depth), -1, np.int32)
    for level in range(1, int(depth.max(initial=0)) + 1):
        above, here = np.flatnonzero(depth == level - 1), np.flatnonzero(depth == level)
        parent[here] = above[np.searchsorted(above, here) - 1]
    file = np.zeros(len(depth), np.int32) if file is None else np.asarray(file, np.int32)
    return Tree(tuple(names), np.asarray(symbol, np.int32), parent, np.asarray(line, np.int32), file, tuple(files))


def from_python(sources: Mapping[str, str]) -> tuple[Tree, dict[str, str]]:
    """Parse Python files.

    Args:
        sources: text of each file by its path.

    Returns:
        The tree of the files that parse, and one line about each that does not, by path.
    """
    types: dict[str, int] = {}
    nodes: list[tuple[int, int, int, int]] = []
    files: list[str] = []
    faults: dict[str, str] = {}
    for path, text in sources.items():
        try:
            with warnings.catch_warnings(action="ignore"):  # what is odd in the program is for its own Python to tell
                root = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            faults[path] = f"{path}: left out, {error.args[0]} (line {getattr(error, 'lineno', None) or 1})"
            continue
        _walk(root, len(files), types, nodes)
        files.append(path)
    symbol, depth, line, file = np.array(nodes, np.int32).reshape(-1, 4).T
    return from_preorder(tuple(types), symbol, depth, line, file, files), faults


def _walk(root: ast.AST, file: int, types: dict[str, int], nodes: list[tuple[int, int, int, int]]) -> None:
    """Append the nodes of a file in preorder; a node without a line has that of its parent."""
    stack = [(root, 0, 0)]
    while stack:
        node, depth, line = stack.pop()
        line = getattr(node, "lineno", line)
        name = type(node).__name__
        nodes.append((types.setdefault(name, len(types)), depth, line, file))
        children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]
        stack.extend((child, depth + 1, line) for child in reversed(children))


def is_statement(name: str) -> bool:
    """Whether a node type is a statement of Python, C or Java."""
    return name in STATEMENTS or (name.endswith("_statement") and name != "compound_statement")


def statements(tree: Tree, files: np.ndarray, lines: np.ndarray, level: Level = "typed") -> Statements:
    """Reduce a tree to its statements and give each executable line to one.

    Subtrees without an executable line are left out; in a circuit they send the message one, so this changes nothing.

    Args:
        tree: of the whole program.
        files: `[L]` index into `tree.files`.
        lines: `[L]` numbers, ascending within a file; a file's lines stand together.
        level: what is kept: "statement" keeps statements by their type, "typed" adds the type of the first
            informative child to it, "full" keeps every node that leads to a line.

    Raises:
        ValueError: a file has lines but no tree.
    """
    chosen = np.array([level == "full" or is_statement(name) for name in tree.names], bool)[tree.symbol]
    chosen[tree.parent < 0] = True
    enclosing = _nearest(tree.parent, chosen)
    owner, continued = _owners(tree, chosen, files, lines)
    functional = np.array([name in FUNCTIONS for name in tree.names], bool)[tree.symbol]
    # A line that starts a function is run where the function is made, by what encloses it.
    runs_in = np.where(functional[owner] & ~continued, enclosing[owner], owner)
    function = np.where(functional, np.arange(len(functional)), _nearest(tree.parent, functional))[runs_in]
    inside = function >= 0
    needed = _with_ancestors(np.unique(owner), enclosing)
    number = np.full(len(tree.symbol), -1, np.int64)
    number[needed] = np.arange(len(needed))
    symbols = _symbols(tree, needed) if level == "typed" else [tree.names[n] for n in tree.symbol[needed]]
    parents = np.where(enclosing[needed] < 0, -1, number[enclosing[needed]])
    leaves = np.flatnonzero(continued)
    owners = number[owner]
    owners[leaves] = len(needed) + np.arange(len(leaves))
    leaf_symbols = tuple(f"Cont@{tree.names[tree.symbol[node]]}" for node in owner[leaves])
    return Statements(
        tree,
        (*symbols, *leaf_symbols),
        np.concatenate([parents, number[owner[leaves]]]).astype(np.int32),
        np.concatenate([needed, owner[leaves]]).astype(np.int32),
        owners.astype(np.int32),
        np.where(inside, function, -1 - np.asarray(files)).astype(np.int32),
        inside,
    )


def _nearest(parent: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The nearest chosen proper ancestor of each node, -1 without one."""
    up = parent.astype(np.int64)
    while True:
        walking = (up >= 0) & ~chosen[up]
        if not walking.any():
            return up
        up[walking] = parent[up[walking]]


def _owners(tree: Tree, chosen: np.ndarray, files: np.ndarray, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The statement of each line and whether the line only continues it."""
    owner, continued = np.empty(len(lines), np.int64), np.empty(len(lines), bool)
    for file in np.unique(files):
        nodes = np.flatnonzero(chosen & (tree.file == file))
        if not len(nodes):
            raise ValueError(f"file {file} has executable lines but no tree; parse it or leave its lines out")
        starts = tree.line[nodes]
        order = np.argsort(starts, kind="stable")  # the outermost of those that start on a line comes first
        distinct, first = np.unique(starts[order], return_index=True)
        here = files == file
        place = np.maximum(np.searchsorted(distinct, lines[here], side="right") - 1, 0)
        owner[here] = nodes[order][first][place]
        continued[here] = distinct[place] != lines[here]
    return owner, continued


def _with_ancestors(nodes: np.ndarray, enclosing: np.ndarray) -> np.ndarray:
    needed = np.zeros(len(enclosing), bool)
    while len(nodes):
        needed[nodes] = True
        above = np.unique(enclosing[nodes])
        nodes = above[(above >= 0) & ~needed[above]]
    return np.flatnonzero(needed)


def _symbols(tree: Tree, nodes: np.ndarray) -> list[str]:
    plain = np.array([name in PLAIN for name in tree.names], bool)[tree.symbol]
    telling = np.flatnonzero(~plain & (tree.parent >= 0))
    first = np.full(len(tree.symbol), -1, np.int64)
    first[tree.parent[telling][::-1]] = telling[::-1]
    names = tree.names
    return [
        names[tree.symbol[node]] + (f"/{names[tree.symbol[first[node]]]}" if first[node] >= 0 else "") for node in nodes
    ]


def scopes(text: str) -> dict[int, str]:
    """Qualified name of the innermost function or class around each line of a Python file; nothing at its top level.

    Returns:
        Name by line number; empty where the file does not parse.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            root = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    names: dict[int, str] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}{child.name}"
                names.update(dict.fromkeys(range(child.lineno, (child.end_lineno or child.lineno) + 1), inner))
                inner += "."
            visit(child, inner)

    visit(root, "")
    return names


def executable(text: str, path: str) -> list[int]:
    """Numbers of the lines of a Python file that hold an instruction.

    Raises:
        SyntaxError: it does not parse.
        ValueError: likewise, for null bytes.
    """
    lines: set[int] = set()
    with warnings.catch_warnings(action="ignore"):
        stack = [compile(text, path, "exec", dont_inherit=True)]
    while stack:
        code = stack.pop()
        lines.update(line for _, _, line in code.co_lines() if line)
        stack.extend(constant for constant in code.co_consts if isinstance(constant, type(code)))
    return sorted(lines)
