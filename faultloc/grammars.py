"""Source files to syntax trees, by the ending of their names: Python by itself, C and Java by tree-sitter.

The grammars of C and Java are an extra: `pip install 'quartet[trees]'`.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from faultloc import preprocessor, tree

LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".java": "java"}

SCOPES = frozenset(
    {
        "function_definition", "method_declaration", "constructor_declaration", "class_declaration",
        "interface_declaration", "enum_declaration", "record_declaration",
    }
)  # fmt: skip


def language(path: str) -> str | None:
    """Language of a file by its name; None for one that is not known."""
    return LANGUAGES.get(PurePath(path).suffix)


def parse(texts: Mapping[str, str]) -> tuple[tree.Tree, dict[str, str]]:
    """Parse the files of a program.

    Args:
        texts: of each file by its path.

    Returns:
        The tree of the files that parse, and one line about each that does not, by path.
    """
    chosen: dict[str, dict[str, str]] = {}
    for path, text in texts.items():
        chosen.setdefault(language(path) or "", {})[path] = text
    trees, faults = [], {}
    if "python" in chosen or not chosen:
        found, wrong = tree.from_python(chosen.get("python", {}))
        trees.append(found)
        faults.update(wrong)
    for name in ("c", "java"):
        if name in chosen:
            parser = _parser(name)
            if parser is None:
                message = f"no syntax trees of {name}: install quartet[trees] for them"
                faults.update({next(iter(chosen[name])): message})
            else:
                trees.append(_grown(chosen[name], parser, name))
    return (joined(trees) if trees else tree.from_python({})[0]), faults


def _parser(name: str) -> Any:
    try:
        sitter, grammar = importlib.import_module("tree_sitter"), importlib.import_module(f"tree_sitter_{name}")
    except ModuleNotFoundError:
        return None
    return sitter.Parser(sitter.Language(grammar.language()))


def scopes(path: str, text: str) -> dict[int, str]:
    """Qualified name of the innermost function or class around each line of a file; nothing at its top level.

    Returns:
        Name by line number; empty where the file does not parse, or its language has no grammar here.
    """
    name = language(path)
    if name == "python":
        return tree.scopes(text)
    parser = None if name is None else _parser(name)
    if name is None or parser is None:
        return {}
    names: dict[int, str] = {}
    stack = [(_root(text, parser, name), "")]
    while stack:
        node, prefix = stack.pop()
        if node.type in SCOPES:
            prefix += _name(node)
            names.update(dict.fromkeys(range(node.start_point[0] + 1, node.end_point[0] + 2), prefix))
            prefix += "."
        stack.extend((child, prefix) for child in reversed(node.named_children))
    return names


def _name(node: Any) -> str:
    """What a function or class is called; C has the name inside of what the function returns."""
    while node is not None and node.type != "identifier":
        inner = node.child_by_field_name("name") or node.child_by_field_name("declarator")
        node = node.named_children[0] if inner is None and node.type == "parenthesized_declarator" else inner
    return "" if node is None else str(node.text.decode())


def _root(text: str, parser: Any, name: str) -> Any:
    return parser.parse((preprocessor.resolve(text) if name == "c" else text).encode()).root_node


def _grown(texts: Mapping[str, str], parser: Any, name: str) -> tree.Tree:
    types: dict[str, int] = {}
    nodes: list[tuple[int, int, int, int]] = []
    for number, text in enumerate(texts.values()):
        stack = [(_root(text, parser, name), 0)]
        while stack:
            node, depth = stack.pop()
            line = node.start_point[0] + 1 if depth else 0
            nodes.append((types.setdefault(node.type, len(types)), depth, line, number))
            stack.extend((child, depth + 1) for child in reversed(node.named_children) if child.type != "comment")
    symbol, depth, line, file = np.array(nodes, np.int32).reshape(-1, 4).T
    return tree.from_preorder(tuple(types), symbol, depth, line, file, tuple(texts))


def joined(trees: Sequence[tree.Tree]) -> tree.Tree:
    """One tree of several, each with symbols and files of its own."""
    names = tuple(dict.fromkeys(name for each in trees for name in each.names))
    number = {name: index for index, name in enumerate(names)}
    nodes, files = 0, 0
    symbols, parents, places = [], [], []
    for each in trees:
        symbols.append(np.array([number[name] for name in each.names], np.int32)[each.symbol])
        parents.append(np.where(each.parent < 0, -1, each.parent + nodes))
        places.append(each.file + files)
        nodes, files = nodes + len(each.symbol), files + len(each.files)
    return tree.Tree(
        names,
        np.concatenate(symbols),
        np.concatenate(parents).astype(np.int32),
        np.concatenate([each.line for each in trees]),
        np.concatenate(places).astype(np.int32),
        tuple(path for each in trees for path in each.files),
    )
