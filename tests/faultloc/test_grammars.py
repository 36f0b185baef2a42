"""Trees of C and Java, and the conditionals of the preprocessor, by hand and against the preprocessor itself."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from faultloc import grammars, preprocessor, ranking, tree
from faultloc.options import Spectrum, Statistics
from faultloc.rankers import Formula

JAVA = """\
package shop;

class Cart {
    int total(int[] prices) {
        int sum = 0;
        for (int price : prices)
            sum += price;
        return sum - 1; // planted
    }

    Cart() {
        super();
    }
}
"""
C = """\
#define LEVEL 2
#if LEVEL > 1 && !defined(QUIET)
int a;
#elif LEVEL == 1
int b;
#else
int c;
#endif
#ifdef QUIET
int d;
#ifndef LEVEL
int e;
#endif
#endif
#if defined(LEVEL) \\
  || 0
int f;
#undef LEVEL
#endif
#ifdef LEVEL
int g;
#else
int h;
#endif
#if 1L << 2 == LEVEL(3)
int i;
#endif
"""


@pytest.mark.parametrize(
    ("defined", "kept"), [({}, "afhi"), ({"QUIET": ""}, "cdfhi"), ({"LEVEL": "1"}, "afhi")]
)  # fmt: skip
def test_the_branches_that_are_taken_stay_on_their_lines(defined, kept):
    resolved = preprocessor.resolve(C, defined)
    assert "".join(re.findall(r"int (\w);", resolved)) == kept
    assert len(resolved.splitlines()) == len(C.splitlines())
    for old, new in zip(C.splitlines(), resolved.splitlines(), strict=True):
        assert new in (old, "")


@pytest.mark.skipif(shutil.which("cpp") is None, reason="cpp comes with gcc")
@pytest.mark.parametrize("defined", [{}, {"QUIET": ""}, {"QUIET": "1"}])
def test_the_c_preprocessor_keeps_the_same(defined):
    text = C[: C.index("#if 1L")]
    flags = [f"-D{name}={value}" for name, value in defined.items()]
    done = subprocess.run(["cpp", "-P", *flags], input=text, capture_output=True, text=True, check=True)
    assert re.findall(r"int \w;", preprocessor.resolve(text, defined)) == re.findall(r"int \w;", done.stdout)


COMMENTED = """\
/*
#if 0
*/
int a;
/*
#endif // */
int b; /* *//* int
#undef B */
#define B "/*" /* a "
 */
#ifdef B // /*
int c;
char d = '"'; int e; /* "
#else
*/ #if 0
int f;
#else
int g;
/* */ #if 0 /* of
two lines */
int h;
/*
#endif
#endif
*/
#endif
#endif
int i; // \\
#if 0
int j; /\\
* int k; */
"""


@pytest.mark.skipif(shutil.which("cpp") is None, reason="cpp comes with gcc")
def test_what_a_comment_says_is_no_directive_and_what_a_literal_says_no_comment():
    resolved = preprocessor.resolve(COMMENTED)
    rows = COMMENTED.splitlines()
    assert [new for new, old in zip(resolved.splitlines(), rows, strict=True) if new != old] == [""] * 12
    done = subprocess.run(["cpp", "-P"], input=resolved, capture_output=True, text=True, check=True)
    kept = subprocess.run(["cpp", "-P"], input=COMMENTED, capture_output=True, text=True, check=True)
    assert done.stdout.split() == kept.stdout.split()
    assert "".join(re.findall(r"(?:int|char) (\w)\b", kept.stdout)) == "abcdefij"


def test_no_condition_makes_it_compute_without_end():
    assert "int a;" in preprocessor.resolve("#if 9**9**9**9\nint a;\n#endif\n#else\n#endif\n")


def test_a_java_file_has_statements_by_kind_and_functions():
    pytest.importorskip("tree_sitter_java")
    parsed, faults = grammars.parse({"shop/Cart.java": JAVA})
    assert faults == {}
    lines = np.array([4, 5, 6, 7, 8, 12])
    found = tree.statements(parsed, np.zeros(6, int), lines)
    kinds = [found.symbols[owner] for owner in found.owner]
    assert kinds == [
        "method_declaration", "local_variable_declaration/variable_declarator",
        "enhanced_for_statement/expression_statement", "expression_statement/assignment_expression",
        "return_statement/binary_expression", "explicit_constructor_invocation/super",
    ]  # fmt: skip
    assert found.inside.tolist() == [False, True, True, True, True, True]
    assert len(set(found.function[1:5].tolist())) == 1
    assert found.function[5] != found.function[1]


def test_levels_of_pruning_keep_the_owners_and_change_the_names():
    text = "def f(x):\n    if x > 1:\n        return g(x,\n                 2)\n    y = [\n        x]\n"
    parsed, _ = tree.from_python({"m.py": text})
    lines = np.array([1, 2, 3, 5, 6])
    kinds = {}
    for level in ("statement", "typed", "full"):
        found = tree.statements(parsed, np.zeros(5, int), lines, level)
        kinds[level] = [found.symbols[owner] for owner in found.owner]
        assert (found.parent < np.arange(len(found.parent))).all()
    assert kinds["statement"] == ["FunctionDef", "If", "Return", "Assign", "Cont@Assign"]
    assert kinds["typed"] == ["FunctionDef/If", "If/Compare", "Return/Call", "Assign/List", "Cont@Assign"]
    assert kinds["full"] == ["FunctionDef", "If", "Return", "Assign", "Name"]


def test_a_spectrum_of_gzoltar_is_ranked_with_the_source_and_its_trees(tmp_path, key):
    pytest.importorskip("tree_sitter_java")
    from faultloc import localize

    (tmp_path / "src" / "shop").mkdir(parents=True)
    (tmp_path / "src" / "shop" / "Cart.java").write_text(JAVA)
    names = [f"shop$Cart#total(int[]):{n}" for n in (5, 6, 7, 8)] + ["shop$Cart#Cart():12"]
    (tmp_path / "spectra.csv").write_text("\n".join(["name", *names]) + "\n")
    (tmp_path / "tests.csv").write_text("name,outcome,runtime,stacktrace\nnew,PASS,1,\nadds,FAIL,2,\nnone,FAIL,1,\n")
    (tmp_path / "matrix.txt").write_text("0 0 0 0 1 +\n1 1 1 1 1 -\n1 1 0 1 1 -\n")
    case = localize.from_spectrum(Spectrum(path=str(tmp_path), outcomes=None, root=str(tmp_path / "src")))
    found = ranking.rank(case, Formula("ochiai"), (), key, Statistics(resamples=100, level=0.9))
    assert [s.line for s in found.suspects[:3]] == [5, 6, 8]
    assert found.suspects[2].symbol == "return_statement/binary_expression"
    assert found.suspects[2].text == "        return sum - 1; // planted"


def test_without_the_extra_the_note_says_what_to_install(monkeypatch):
    monkeypatch.setattr(grammars, "_parser", lambda _: None)
    parsed, faults = grammars.parse({"a.c": "int a;", "b.py": "x = 1\n"})
    assert parsed.files == ("b.py",)
    assert faults == {"a.c": "no syntax trees of c: install quartet[trees] for them"}


def test_functions_of_c_and_java_are_named_as_those_of_python_are():
    pytest.importorskip("tree_sitter_java")
    c = "int a;\n#if 0\nint gone(void) {\n#endif\nstatic char *f(int x)\n{\n  return 0;\n}\nint (*g(void))(int) { }\n"
    assert grammars.scopes("a.c", c) == {5: "f", 6: "f", 7: "f", 8: "f", 9: "g"}
    java = "class A {\n  A() { }\n  enum B {\n    X;\n    int m(int n) {\n      return n;\n    }\n  }\n}\n"
    inner = {2: "A.A", 3: "A.B", 4: "A.B", 5: "A.B.m", 6: "A.B.m", 7: "A.B.m", 8: "A.B"}
    assert grammars.scopes("A.java", java) == {1: "A", **inner, 9: "A"}
    assert grammars.scopes("a.py", "class A:\n    def f(self):\n        pass\n") == {1: "A", 2: "A.f", 3: "A.f"}
    assert grammars.scopes("a.cpp", c) == {}
