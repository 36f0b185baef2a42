"""Held-out scoring on a synthetic collection whose figures are known by construction."""

import numpy as np
import pytest

from faultloc import accuracy, logistic, metrics, rankers, selection
from faultloc.corpus import Bug
from faultloc.experiment import Localization, State
from faultloc.io import InputError, Recording
from faultloc.options import Display, Formula, Statistics, Task
from faultloc.spectrum import pack


def bug(name, program, seed, lines=40):
    """The fault is the one line that the failing tests alone share; the others are run at random."""
    rng = np.random.default_rng(seed)
    failed = np.arange(10) < 3
    covered = rng.random((10, lines)) < 0.6
    faulty = int(rng.integers(lines))
    covered[:, faulty] = failed
    recording = Recording(
        pack(covered, failed), ("a.py",), np.zeros(lines, int), np.arange(1, lines + 1), tuple("abcdefghij")
    )
    return Bug(name, program, program, recording, np.array([faulty]), "changed", None)


@pytest.fixture
def bugs():
    return [bug(f"{program}_{i}", program, 10 * i + ord(program)) for program in "xyz" for i in range(3)]


class Listener:
    """Notes what it was given to learn from."""

    name, needs_tree, learns = "listener", False, True

    def __init__(self):
        self.seen = []

    def fit(self, bugs, key):  # noqa: ARG002
        self.seen.append({b.program for b in bugs})
        return rankers.Formula("ochiai")


def run(source, key):
    totals, rows = source.totals(), []
    for index in range(len(source)):
        totals, row = source.score(index, totals, key=key, place=lambda array: array)
        rows.append(row)
    return rows


def test_a_program_is_never_learned_from_when_it_is_ranked(bugs, key):
    ranker = Listener()
    source = accuracy.HeldOut(bugs, ranker, resamples=100, level=0.9)
    rows = run(source, key)
    assert [row["program"] for row in rows] == ["x", "y", "z"]
    assert ranker.seen == [{"y", "z"}, {"x", "z"}, {"x", "y"}]


def test_a_single_program_is_not_held_out_from_what_is_learned_of_it(bugs):
    learner = selection.Tflm([selection.Setting()], criterion="skipped", restarts=1, steps=1, rate=0.1, seed=0)
    for ranker in (rankers.Posterior(ridge=10.0, steps=1), learner, logistic.Logistic("logistic")):
        with pytest.raises(InputError, match="learns from the bugs of other programs, and there are bugs of 1; give"):
            accuracy.HeldOut(bugs[:3], ranker, resamples=100, level=0.9)
    for ranker in (rankers.Formula("ochiai"), rankers.Posterior(ridge=10.0, steps=1, held_out=False)):
        assert len(accuracy.HeldOut(bugs[:3], ranker, resamples=100, level=0.9)) == 1


def test_figures_are_means_over_bugs_and_a_formula_never_differs_from_itself(bugs, key):
    row = run(accuracy.HeldOut(bugs, rankers.Formula("ochiai"), resamples=100, level=0.9), key)[-1]
    scores = [rankers.Formula("ochiai").scores(b.recording, None) for b in bugs]
    found = [metrics.band(s, b.faulty) for s, b in zip(scores, bugs, strict=True)]
    for ties in metrics.TIES:
        assert row[f"fs/{ties}"] == pytest.approx(np.mean([metrics.fraction_skipped(f, ties) for f in found]))
        assert row[f"low/{ties}"] <= row[f"fs/{ties}"] + 1e-12 <= row[f"high/{ties}"] + 2e-12
        assert row[f"minus_ochiai/{ties}"] == 0
        assert row[f"minus_ochiai/{ties}/p"] == 1
    # The faulty line is a perfect suspect by construction, so it is in first place for every formula of the table.
    assert row["fs/best"] == pytest.approx(1 - 1 / 40)
    assert row["bugs"] == row["reachable"] == 9


def test_it_goes_on_from_any_interval_with_the_same_result(bugs, key, tmp_path):
    class Given:
        def source(self, ranker, statistics, display, task):  # noqa: ARG002
            return accuracy.HeldOut(bugs, ranker.ranker(), resamples=statistics.resamples, level=statistics.level)

    def experiment():
        return Localization(
            Given(), Formula(name="op2", inside_first=False), Statistics(resamples=100, level=0.9),
            Display(top=1, context=0, beside=()), Task(name="rank", clean=(), buggy=()),
        )  # fmt: skip

    whole = experiment()
    states, rows = zip(*[(State(s.step, s.key, s.totals._replace(bands=s.totals.bands.copy())), r)
                         for s, r in whole.run(whole.init(key), place=lambda array: array)], strict=True)  # fmt: skip
    again = experiment()
    (last,) = [row for _, row in again.run(states[1], place=lambda array: array)]
    assert last == rows[-1]
    again.report(list(rows), tmp_path)
    assert len((tmp_path / "bugs.csv").read_text().splitlines()) == 10
    assert "examined" in (tmp_path / "curve.json").read_text()


def test_reliability_is_that_worked_by_hand():
    p = np.array([0.7, 0.2, 0.05, 0.05])
    brier, bins = accuracy.reliability(p, np.array([0, 2]))
    assert brier == pytest.approx(0.2**2 + 0.2**2 + 0.45**2 + 0.05**2)
    # Above 0.4; above 0.1 up to 0.2; above 0.03 up to 0.1.
    assert bins[7].tolist() == pytest.approx([0.7, 0.5])
    assert bins[5].tolist() == pytest.approx([0.2, 0.0])
    assert bins[4].tolist() == pytest.approx([0.1, 0.5])
    assert bins.sum(0).tolist() == pytest.approx([1, 1])
