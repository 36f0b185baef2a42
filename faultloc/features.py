"""What a line looks like to a learner: 19 numbers from its coverage, its function, its place in the tree, its tokens.

Line numbers enter nowhere but as names: distances between them would betray where a seeded fault was cut out.
"""

from typing import NamedTuple

import numpy as np

from faultloc import formulas, spectrum
from faultloc.io import Recording
from faultloc.metrics import mid_ranks
from faultloc.tree import Statements

RANKED = ("ochiai", "op2", "tarantula")
DEEPEST = 12
# Kinds of nodes that are counted where they start on the line, by their names in Python and in C.
COUNTED = {
    "calls": {"Call", "call_expression", "method_invocation", "object_creation_expression"},
    "names": {"Name", "Attribute", "identifier", "field_identifier", "field_expression", "field_access"},
    "constants": {
        "Constant", "Num", "NameConstant", "number_literal", "char_literal", "true", "false", "null",
        "decimal_integer_literal",
    },
    "operators": {
        "Compare", "BoolOp", "BinOp", "UnaryOp", "IfExp", "binary_expression", "unary_expression",
        "conditional_expression", "ternary_expression",
    },
    "assignments": {
        "Assign", "AugAssign", "AnnAssign", "NamedExpr", "assignment_expression", "update_expression",
        "init_declarator", "variable_declarator",
    },
    "strings": {"Str", "JoinedStr", "FormattedValue", "string_literal", "concatenated_string"},
    "subscripts": {"Subscript", "subscript_expression", "pointer_expression", "array_access"},
}  # fmt: skip
NAMES = (
    *(f"log rank by {name}" for name in RANKED),
    "highest Ochiai in function", "mean Ochiai in function", "rank of function", "share of function run by failures",
    "depth", "size", "leaf", "siblings",
    *COUNTED, "nodes",
)  # fmt: skip

GROUPS = {"formulas": NAMES[:3], "function": NAMES[3:7], "shape": NAMES[7:11], "tokens": NAMES[11:]}


class Lines(NamedTuple):
    """The lines of a program as a learner sees them.

    Attributes:
        values: `[L, 19]`, in the order of `NAMES`.
        symbols: `[L]` kind of statement that answers for each line.
    """

    values: np.ndarray
    symbols: tuple[str, ...]


def describe(recording: Recording, statements: Statements) -> Lines:
    """Describe every line of a program.

    Args:
        recording: coverage and outcomes; some test must fail.
        statements: of the same lines.
    """
    counts = spectrum.counts(recording.spectrum)
    columns = [
        *_log_ranks(counts),
        *_functions(counts, statements.function),
        *_shape(statements),
        *_tokens(recording, statements),
    ]
    return Lines(np.stack(columns, axis=1), tuple(statements.symbols[owner] for owner in statements.owner))


def _log_ranks(counts: spectrum.Counts) -> list[np.ndarray]:
    """0 for the first line, -1 for the last; logarithmic, as a reader's patience is."""
    lines = max(len(counts.ef), 2)
    return [-np.log(mid_ranks(np.asarray(formulas.get(name)(counts)))) / np.log(lines) for name in RANKED]


def _functions(counts: spectrum.Counts, function: np.ndarray) -> list[np.ndarray]:
    _, member = np.unique(function, return_inverse=True)
    sizes = np.bincount(member)
    score = formulas.ochiai(counts)
    highest = np.zeros(len(sizes))
    np.maximum.at(highest, member, score)
    mean, run = np.bincount(member, score) / sizes, np.bincount(member, counts.ef > 0) / sizes
    place = 1 - (mid_ranks(highest[member]) - 0.5) / len(member)
    return [highest[member], mean[member], place, run[member]]


def _shape(statements: Statements) -> list[np.ndarray]:
    parent, owner = statements.parent, statements.owner
    depth, children = np.zeros(len(parent)), np.bincount(np.maximum(parent, 0), parent >= 0, len(parent))
    for node in range(len(parent)):  # parents come first
        depth[node] = 0 if parent[node] < 0 else depth[parent[node]] + 1
    above = statements.tree.parent
    size = np.ones(len(above))
    for node in range(len(above) - 1, 0, -1):
        if above[node] >= 0:
            size[above[node]] += size[node]
    continued = np.array([symbol.startswith("Cont@") for symbol in statements.symbols], bool)
    own_size = np.where(continued, 1, size[statements.node])
    siblings = np.where(parent >= 0, children[np.maximum(parent, 0)], 1)
    shape = [np.minimum(depth, DEEPEST), np.log(own_size), (children == 0).astype(float), np.log(siblings)]
    return [column[owner] for column in shape]


def _tokens(recording: Recording, statements: Statements) -> list[np.ndarray]:
    tree = statements.tree
    number = {path: index for index, path in enumerate(tree.files)}
    files = np.array([number[path] for path in recording.files], np.int64)[recording.file]
    # One number for a place in the program; lines ascend within a file, files need not.
    stride = int(max(tree.line.max(initial=0), recording.lines.max(initial=0))) + 1
    places, nodes = files * stride + recording.lines, tree.file.astype(np.int64) * stride + tree.line
    order = np.argsort(places)
    found = np.minimum(np.searchsorted(places[order], nodes), len(places) - 1)
    line = np.where(places[order][found] == nodes, order[found], -1)
    columns = []
    for kinds in (*COUNTED.values(), set(tree.names)):
        chosen = np.array([name in kinds for name in tree.names], bool)[tree.symbol] & (line >= 0)
        columns.append(np.log1p(np.bincount(line[chosen], minlength=len(places))))
    return columns
