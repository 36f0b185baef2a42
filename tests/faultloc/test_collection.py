"""Bugs of the user's own: Java programs with GZoltar's files, learned from, ranked by what was learned, refused."""

import numpy as np
import pytest

from faultloc import collection, corpus, models
from faultloc.io import InputError
from faultloc.options import Statistics
from faultloc.programs import program
from faultloc.rankers import Posterior
from tests.faultloc import shop
from tests.faultloc.test_smoke import run

JAVA = """\
package shop;
class Cart {
  int total(int n) {
    int sum = 0;
    if (n > 10) {
      sum = n * 9;
    }
    return sum + n;
  }
  int twice(int n) {
    return n + n;
  }
}
"""
LINES = (4, 5, 6, 8, 11)
# Which of LINES each test runs; the second fails, through line 6.
RUN = ("1 1 0 1 0 +", "1 1 1 1 0 -", "0 0 0 0 1 +")


def gzoltar(folder, rows=RUN):
    """What GZoltar leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"shop$Cart#{'twice' if line == 11 else 'total'}(int):{line}" for line in LINES]
    (folder / "spectra.csv").write_text("\n".join(["name", *names]) + "\n")
    words = {"+": "PASS", "-": "FAIL"}
    tests = [f"shop.CartTest#t{i},{words[row[-1]]},1," for i, row in enumerate(rows)]
    (folder / "tests.csv").write_text("\n".join(["name,outcome,runtime,stacktrace", *tests]) + "\n")
    (folder / "matrix.txt").write_text("\n".join(rows) + "\n")
    return folder


def bug(folder, faulty="shop/Cart.java:6\n"):
    gzoltar(folder)
    (folder / "sources/shop").mkdir(parents=True)
    (folder / "sources/shop/Cart.java").write_text(JAVA)
    (folder / "faulty.txt").write_text(faulty)
    return folder


@pytest.fixture
def own(tmp_path):
    pytest.importorskip("tree_sitter_java")
    for name in ("one", "three", "two"):
        bug(tmp_path / "own" / name / "1")
    return tmp_path / "own"


def test_bugs_are_read_with_their_trees(own):
    bugs = corpus.load("own", own, limit=2)
    assert [(each.name, each.program) for each in bugs] == [("one_1", "one"), ("three_1", "three")]
    first = bugs[0]
    assert first.recording.lines[first.faulty].tolist() == [6]
    assert first.reachable
    described = program(first.recording, first.statements())
    assert described.language == "java"
    assert described.kinds[1].startswith("if_statement")


def test_a_java_model_is_learned_from_gzoltar_and_ranks_what_gzoltar_recorded(own, tmp_path, monkeypatch, capsys, key):
    shell = ["corpus=training", "corpus.name=own", f"corpus.path={own}", "ranker=tflm", "ranker.steps=5"]
    run([*shell, "ranker.restarts=1"], tmp_path / "learned", tmp_path, monkeypatch)
    file = tmp_path / "learned" / "model.npz"
    model = models.load(file)
    assert (model.language, model.learner) == ("java", "posterior")
    given = ["corpus=spectrum", f"corpus.path={own / 'two' / '1'}", f"corpus.root={own / 'two' / '1' / 'sources'}"]
    run([*given, f"ranker.model={file}"], tmp_path / "ranked", tmp_path, monkeypatch)
    first = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("#1 "))
    assert "shop/Cart.java:6 " in first
    assert "probability" in first
    assert "in Cart.total, " in first
    assert "shop/Cart.java#Cart.total:6;" in (tmp_path / "ranked" / "ranking.csv").read_text()
    posterior = Posterior(ridge=10.0, steps=5, model=str(file))
    with pytest.raises(InputError, match="learned from java programs, the program is in python"):
        shop.ranking.rank(shop.case(), posterior, (), key, Statistics(resamples=100, level=0.9))


def test_a_ranker_is_scored_on_them(own, tmp_path, monkeypatch):
    metrics = run(["corpus=own", f"corpus.path={own}", "ranker=ochiai"], tmp_path / "out", tmp_path, monkeypatch)
    assert metrics["metrics"]["fs/strict"] == pytest.approx(0.8)  # line 6 leads the five


def test_what_is_missing_is_said(own, tmp_path):
    with pytest.raises(InputError, match=r"no PROGRAM/BUG/faulty.txt below it"):
        collection.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"corpus.path: required"):
        corpus.load("own")
    for name, text, line in (
        ("faulty.txt", "", "names no line"),
        ("faulty.txt", "shop/Käse.java:7", "faulty.txt: is not text in UTF-8"),
        ("faulty.txt", "shop/Cart.java:7", "holds no instruction; the nearest line of shop/Cart.java that does is 6"),
        ("matrix.txt", "1 1 0 1 0 +\n" * 3, "no failing test"),
    ):
        folder = bug(tmp_path / f"{name}{len(line)}" / "p" / "1")
        (folder / name).write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=line):
            collection.load(folder.parent.parent)
    (own / "one/1/sources/shop/Cart.java").unlink()
    with pytest.raises(InputError, match=r"sources: holds none of the files of the spectrum, such as shop/Cart.java"):
        collection.load(own)
    assert np.isin("own", corpus.NAMES)
