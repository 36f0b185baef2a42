"""A program as a model sees it: its statements, which of them answer for lines, and what is measured on the lines."""

from typing import NamedTuple

import numpy as np

from faultloc import features
from faultloc.io import Recording
from faultloc.tree import Statements, Tree

# Node types that only one language has, the first that fits.
TELLING = {
    "python": ("Module",),
    "java": ("class_declaration", "class_body", "method_declaration"),
    "c": ("translation_unit", "function_definition", "preproc_include", "declaration"),
}


class Program(NamedTuple):
    """One program version with its coverage; S statements, L lines, F features.

    Attributes:
        language: python | c | java | unknown.
        symbols: `[S]` kind of each statement.
        parent: `[S]` index of the enclosing statement, smaller than its own; -1 at a root.
        owner: `[L]` statement that answers for each line, no two lines having the same.
        values: `[L, F]` in the order of `features.NAMES`.
    """

    language: str
    symbols: tuple[str, ...]
    parent: np.ndarray
    owner: np.ndarray
    values: np.ndarray

    @property
    def kinds(self) -> tuple[str, ...]:
        """`[L]` kind of the statement that answers for each line."""
        return tuple(self.symbols[owner] for owner in self.owner)


def program(recording: Recording, statements: Statements) -> Program:
    """Describe a program for learning or ranking.

    Args:
        recording: coverage and outcomes; some test must fail.
        statements: of the same lines.
    """
    lines = features.describe(recording, statements)
    return Program(
        language(statements.tree), statements.symbols, statements.parent, statements.owner, lines.values
    )  # fmt: skip


def language(tree: Tree) -> str:
    """The language a syntax tree was parsed from, by the names of its nodes."""
    names = set(tree.names)
    for found, telling in TELLING.items():
        if names.intersection(telling):
            return found
    return "unknown"
