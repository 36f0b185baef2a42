"""A small project with a planted bug, and what its four tests run, line by line."""

from pathlib import Path

import numpy as np

from faultloc import ranking
from faultloc.cases import Case
from faultloc.io import Recording
from faultloc.options import Formula, Statistics
from faultloc.spectrum import pack

SHOP = """\
RATES = {"book": 0.05}


def rate(kind):
    if kind in RATES:
        return RATES[kind]
    return 0.2


def price(kind, net, count=1):
    if count > 10:
        net = net * 9  # planted: should be 0.9
    return round(net * count * (1 + rate(kind)), 2)
"""
TESTS = """\
from shop import price


def test_book():
    assert price("book", 10) == 10.5


def test_other():
    assert price("pen", 10) == 12


def test_many():
    assert price("pen", 1, 20) == 21.6


def test_many_books():
    assert price("book", 1, 100) == 94.5
"""
PLANTED = 12
# The lines, and which of them each test runs; the last two tests fail, lines 1, 4 and 10 run at import time.
LINES = (1, 4, 5, 6, 7, 10, 11, 12, 13)
RUN = (
    (0, 0, 1, 1, 0, 0, 1, 0, 1),
    (0, 0, 1, 0, 1, 0, 1, 0, 1),
    (0, 0, 1, 0, 1, 0, 1, 1, 1),
    (0, 0, 1, 1, 0, 0, 1, 1, 1),
)


def make(folder):
    """Write the project."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_shop.py").write_text(TESTS)
    (folder / "conftest.py").write_text("")
    return folder


def case(root=Path("/shop")):
    """What a run of the tests finds, worked by hand."""
    recording = Recording(
        pack(np.array(RUN), np.array([False, False, True, True])), ("shop.py",),
        np.zeros(len(LINES), np.int32), np.array(LINES, np.int32),
        ("test_book", "test_other", "test_many", "test_many_books"),
    )  # fmt: skip
    failures = (("test_many", "assert 216.0 == 21.6"), ("test_many_books", "assert 945.0 == 94.5"))
    return Case("shop", root, recording, {"shop.py": SHOP}, {"passed": 2, "failed": 2}, failures)


def ranked(case, key, name="ochiai"):
    ranker = Formula(name=name, inside_first=False).ranker()
    return ranking.rank(case, ranker, ("tarantula", "op2"), key, Statistics(resamples=100, level=0.9))
