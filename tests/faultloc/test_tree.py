import ast
import warnings

import numpy as np
import pytest

from faultloc import tree

SOURCE = """\
import os


def outer(x,
          y):
    def inner():
        return [
            x,
            y,
        ]

    if x:
        y = inner()
    return y


class Box:
    size = 3

    def grow(self):
        self.size += 1
"""


def test_nodes_are_those_of_ast_in_preorder():
    found, faults = tree.from_python({"a.py": SOURCE, "b.py": "x = 1\n"})
    assert not faults
    root = ast.parse(SOURCE)
    expected = [type(node).__name__ for node in ast.walk(root) if not isinstance(node, ast.expr_context)]
    names = [found.names[s] for s, f in zip(found.symbol, found.file, strict=True) if f == 0]
    assert sorted(names) == sorted(expected)
    assert (found.parent < np.arange(len(found.parent))).all()
    assert (found.parent == -1).sum() == 2
    for node, parent in enumerate(found.parent):
        assert parent == -1 or found.file[node] == found.file[parent]
        assert parent == -1 or found.line[node] >= found.line[parent]


def test_depths_give_the_tree_back():
    found, _ = tree.from_python({"a.py": SOURCE})
    depth = np.zeros(len(found.parent), int)
    for node, parent in enumerate(found.parent):
        depth[node] = 0 if parent < 0 else depth[parent] + 1
    again = tree.from_preorder(found.names, found.symbol, depth, found.line)
    np.testing.assert_array_equal(again.parent, found.parent)


def test_every_line_has_its_statement_and_its_function():
    found, _ = tree.from_python({"a.py": SOURCE})
    lines = np.array(tree.executable(SOURCE, "a.py"))
    reduced = tree.statements(found, np.zeros(len(lines), int), lines)
    symbol = {int(line): reduced.symbols[owner] for line, owner in zip(lines, reduced.owner, strict=True)}
    inside = dict(zip(lines.tolist(), reduced.inside.tolist(), strict=True))
    assert symbol[1] == "Import"
    assert symbol[7] == "Return/List"
    assert symbol[8] == symbol[9] == "Cont@Return"
    assert symbol[12] == "If/Assign"
    assert symbol[21] == "AugAssign/Attribute"
    # `def` and `class` lines run where the function or class is made.
    assert [line for line in lines.tolist() if not inside[line]] == [1, 4, 17, 18, 20]
    functions = dict(zip(lines.tolist(), reduced.function.tolist(), strict=True))
    assert functions[6] == functions[12] == functions[13] == functions[14]
    assert functions[7] == functions[8] != functions[12]
    assert functions[1] == functions[4] == functions[18] < 0


def test_statements_form_a_tree_in_which_parents_come_first():
    found, _ = tree.from_python({"a.py": SOURCE})
    lines = np.array(tree.executable(SOURCE, "a.py"))
    reduced = tree.statements(found, np.zeros(len(lines), int), lines)
    assert reduced.parent[0] == -1
    assert (reduced.parent[1:] >= 0).all()
    assert (reduced.parent < np.arange(len(reduced.parent))).all()
    assert len(reduced.symbols) == len(reduced.parent) == len(reduced.node)
    # Every leaf answers for a line: all else was left out.
    leaves = set(range(len(reduced.parent))) - set(reduced.parent.tolist())
    assert leaves <= set(reduced.owner.tolist())


def test_a_file_that_does_not_parse_is_left_out_and_named():
    found, faults = tree.from_python({"bad.py": "def (:\n", "good.py": "x = 1\n"})
    assert found.files == ("good.py",)
    assert list(faults) == ["bad.py"]
    assert faults["bad.py"].startswith("bad.py: left out, invalid syntax (line 1)")


def test_scopes_are_qualified_names():
    scopes = tree.scopes(SOURCE)
    assert scopes[8] == "outer.inner"
    assert scopes[13] == "outer"
    assert scopes[21] == "Box.grow"
    assert 1 not in scopes


def test_nodes_out_of_preorder_are_refused():
    with pytest.raises(ValueError, match="not in preorder"):
        tree.from_preorder(["a"], np.zeros(2, int), np.array([0, 2]), np.zeros(2, int))
    found, _ = tree.from_python({"a.py": "x = 1\n"})
    with pytest.raises(ValueError, match="file 1 has executable lines but no tree"):
        tree.statements(found, np.array([1]), np.array([1]))


def test_what_python_warns_of_in_a_program_is_not_our_business():
    odd = 'x = "\\d"\n'
    with warnings.catch_warnings(action="error"):
        with pytest.raises(SyntaxError, match="invalid escape"):
            compile(odd, "odd.py", "exec")
        assert tree.executable(odd, "odd.py") == [1]
        assert tree.from_python({"odd.py": odd})[0].files == ("odd.py",)
        assert tree.scopes(odd) == {}
