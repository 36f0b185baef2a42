"""The baseline figures on real bugs, where the data are at hand, and a synthetic twin of either layout."""

import json

import numpy as np
import pytest

from faultloc import accuracy, corpus, logistic, metrics, rankers
from faultloc.io import InputError

# Fraction skipped strict, mid, best; expected top 10; MFR. Worked out before this code by another implementation, over
# 39 and 92 bugs. `None`: not given to that precision.
BASELINES = {
    "bugsinpy": {
        "tarantula": (0.7812, 0.8672, 0.9532, 0.550, 181),
        "ochiai": (0.7667, 0.8493, 0.9318, 0.500, 229),
        "dstar": (0.7654, 0.8480, 0.9306, 0.500, 231),
        "op2": (0.7747, 0.8352, 0.8958, 0.475, 226),
    },
    "sir": {
        "tarantula": (0.8086, 0.8435, 0.8784, 0.131, 599),
        "ochiai": (0.8995, 0.9211, 0.9428, 0.291, 300),
        "dstar": (0.9002, 0.9218, 0.9434, 0.301, 297),
        "op2": (0.9074, 0.9225, 0.9375, 0.274, 293),
    },
}


@pytest.fixture(scope="module")
def real(public_data):
    folder = public_data / "faultloc"
    if not folder.is_dir():
        pytest.skip(f"no spectra at {folder}")
    return {name: corpus.load(name, folder / f"{name}_spectra") for name in (*BASELINES, "quixbugs")}


def figures(bugs, ranker):
    found = [
        metrics.band(ranker.scores(bug.recording, bug.statements() if ranker.needs_tree else None), bug.faulty)
        for bug in bugs
    ]
    skipped = [np.mean([metrics.fraction_skipped(entry, ties) for entry in found]) for ties in metrics.TIES]
    return [*skipped, np.mean([metrics.top(e, 10) for e in found]), np.mean([metrics.first_rank(e) for e in found])]


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_those_of_an_earlier_implementation(real, name):
    assert len(real[name]) == {"bugsinpy": 39, "sir": 92}[name]
    for formula, expected in BASELINES[name].items():
        found = figures(real[name], rankers.Formula(formula))
        np.testing.assert_allclose(found[:3], expected[:3], atol=1.0001e-4)
        assert found[3] == pytest.approx(expected[3], abs=5.1e-4)
        assert found[4] == pytest.approx(expected[4], abs=0.51)


@pytest.mark.parametrize(
    ("name", "expected", "near"),
    [
        ("bugsinpy", (0.8246, 0.8778, 0.9310, 0.546, 169), 2e-4),
        pytest.param("sir", (0.9044, 0.9194, 0.9343, 0.280, 303), 7e-4, marks=pytest.mark.slow),
    ],
)
def test_logistic_regression_is_that_of_an_earlier_implementation(real, name, expected, near, key):
    # That one stopped a little short of the minimum, where this one ends.
    held = accuracy.HeldOut(real[name], logistic.Logistic("logistic"), resamples=100, level=0.9)
    totals, row = held.totals(), {}
    for index in range(len(held)):
        totals, row = held.score(index, totals, key=key, place=None)
    np.testing.assert_allclose([row[f"fs/{ties}"] for ties in metrics.TIES], expected[:3], atol=near)
    assert row["top/10"] == pytest.approx(expected[3], abs=0.012)
    assert row["mfr"] == pytest.approx(expected[4], abs=0.51)


def test_functions_first_explains_most_of_what_structure_gives_on_python(real):
    expected = {"tarantula": (0.849, 0.908, 0.967, 123), "ochiai": (0.852, 0.908, 0.964, 126)}
    for formula, (strict, mid, best, mean_rank) in expected.items():
        found = figures(real["bugsinpy"], rankers.Formula(formula, inside_first=True))
        np.testing.assert_allclose(found[:3], (strict, mid, best), atol=1e-3)
        assert found[4] == pytest.approx(mean_rank, abs=0.51)


def test_the_small_programs_have_the_mean_ranks_of_an_earlier_implementation(real):
    assert figures(real["quixbugs"], rankers.Formula("tarantula"))[4] == pytest.approx(3.5, abs=0.05)
    assert figures(real["quixbugs"], rankers.Formula("ochiai"))[4] == pytest.approx(3.3, abs=0.05)


def test_programs_clusters_and_reachable_bugs_are_those_the_data_describe(real):
    assert len({bug.program for bug in real["bugsinpy"]}) == 14
    assert {bug.program for bug in real["sir"]} == {"flex", "grep", "gzip"}
    assert len({bug.cluster for bug in real["sir"]}) == 13
    assert [sum(bug.reachable for bug in real[name]) for name in ("bugsinpy", "sir")] == [36, 88]


COVERED = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 0, 1]], bool)


def spectrum_file(path, **changes):
    arrays = {
        "M": np.packbits(COVERED, axis=1),
        "shape": np.array(COVERED.shape),
        "fail": np.array([1, 0, 0], np.uint8),
        "lines": np.array([1, 2, 4, 7], np.int32),
        "bug": np.array([1], np.int32),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


TREE = {
    "ast_type": np.array([0, 1, 2, 1, 1], np.uint8),
    "ast_depth": np.array([0, 1, 1, 2, 2], np.uint8),
    "ast_line": np.array([0, 1, 2, 4, 7], np.int32),
}


@pytest.fixture
def twin(tmp_path):
    """A collection in each of the two layouts, small enough to be ranked by hand."""
    python, c = tmp_path / "bugsinpy", tmp_path / "sir"
    for folder, names in ((python, ["Module", "Expr", "FunctionDef"]), (c, ["translation_unit", "declaration", "x"])):
        folder.mkdir()
        (folder / "symbols.json").write_text(json.dumps(names))
    extra = {"ast_file": np.zeros(5, np.int16), "ast_files": np.array(["a.py"]), "files": np.array(["a.py"] * 4)}
    for name in ("one_1", "one_2", "two-x_1"):
        spectrum_file(python / f"{name}.npz", bug_kind=np.array("changed"), **extra, **TREE)
    empty = np.zeros(0, np.int32)
    spectrum_file(python / "one_3.npz", bug=empty, bug_kind=np.array("uncovered"), **extra, **TREE)
    spectrum_file(c / "flex_v1_F_A.npz", bug=np.array([2, 3]), sites=np.array([2]), **TREE)
    spectrum_file(c / "flex_v2_F_B.npz", bug=empty, sites=np.array([6]), **TREE)
    return tmp_path


def test_twin_bugs_without_a_faulty_line_are_left_out_and_programs_are_grouped(twin):
    bugs = corpus.load("bugsinpy", twin / "bugsinpy")
    assert [(bug.name, bug.program, bug.kind) for bug in bugs] == [
        ("one_1", "one", "changed"), ("one_2", "one", "changed"), ("two-x_1", "two-x", "changed"),
    ]  # fmt: skip
    assert [bug.program for bug in corpus.load("bugsinpy", twin / "bugsinpy", limit=1)] == ["one", "one"]


def test_twin_of_sir_moves_faulty_lines_to_the_nearest_executable_one_before(twin):
    changed, omitted = corpus.load("sir", twin / "sir")
    assert changed.faulty.tolist() == [1]  # line 3 is not executable, line 2 before it is
    assert (omitted.faulty.tolist(), omitted.kind) == ([2], "omission")
    assert (changed.cluster, omitted.cluster) == ("flex_v1", "flex_v2")
    assert changed.reachable
    assert not omitted.reachable


def test_twin_ranks_as_worked_by_hand(twin):
    bug = corpus.load("bugsinpy", twin / "bugsinpy")[0]
    # ef, ep of the four lines: (1, 2), (1, 1), (0, 1), (1, 2); Ochiai 1/sqrt(3), 1/sqrt(2), 0, 1/sqrt(3).
    assert figures([bug], rankers.Formula("ochiai")) == [0.75, 0.75, 0.75, 1, 1]
    # Only lines 4 and 7 lie in the function, so the faulty line 2 comes third: the function's `def` runs at import.
    assert bug.statements().inside.tolist() == [False, False, True, True]
    assert figures([bug], rankers.Formula("ochiai", inside_first=True)) == [0.25, 0.25, 0.25, 1, 3]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"M": None}, "no array 'M'"),
        ({"bug": None}, "no array 'bug'"),
        ({"shape": np.array([3, 40])}, "shape says 3 tests and 40 lines"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, changes, line):
    spectrum_file(tmp_path / "flex_v1_F_A.npz", **changes)
    with pytest.raises(InputError, match=line):
        corpus.load("sir", tmp_path)


def test_an_absent_collection_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.delenv("QUARTET_DATA", raising=False)
    with pytest.raises(InputError, match=r"corpus\.path: required"):
        corpus.load("sir")
    with pytest.raises(InputError, match=r"no spectrum \*\.npz"):
        corpus.load("sir", tmp_path)
