import json

import numpy as np
import pytest

from evalmetrics import io


def test_folders_are_paired_by_name(tmp_path):
    for folder, names in (("a", ["x.nii.gz", "y.npy", "only.nii"]), ("b", ["x.nrrd", "y.nii.gz", "other.npz"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    (tmp_path / "b" / "notes.md").touch()
    found = io.find_pairs(tmp_path / "a", tmp_path / "b")
    assert [case.name for case in found.cases] == ["x", "y"]
    assert found.cases[0].prediction == tmp_path / "b" / "x.nrrd"
    assert [row["case"] for row in found.faults] == ["only", "other"]


def test_a_pattern_says_where_the_case_is_in_the_name(tmp_path):
    for folder, ending in (("a", "_gt.nii.gz"), ("b", "_pred.nii.gz")):
        (tmp_path / folder).mkdir()
        for case in ("1", "2"):
            (tmp_path / folder / f"sub-{case}{ending}").touch()
    found = io.find_pairs(tmp_path / "a", tmp_path / "b", ("sub-*_gt.nii.gz", "sub-*_pred.nii.gz"))
    assert [case.name for case in found.cases] == ["1", "2"]
    assert found.faults == []


def test_files_and_lists_are_one_case(tmp_path):
    a, b = (tmp_path / f"{name}.npy" for name in "ab")
    for path in (a, b):
        np.save(path, np.eye(2, dtype=int))
    assert io.find_pairs(a, b).cases == [("b", a, b)]
    assert io.find_pairs(a, [b, b]).cases == [("a", a, [b, b])]
    (tmp_path / "maps").mkdir()
    assert io.find_pairs(tmp_path / "maps", b).cases[0].reference == tmp_path / "maps"


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = io.write_json(tmp_path / "new" / "scores.json", {"a": np.float32(0.5), "b": [np.nan, np.int64(3)], 4: None})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": [None, 3], "4": None}

    def fails(file):
        file.write("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        io.write_text(path, fails)
    assert json.loads(path.read_text())["a"] == 0.5
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.json"]


def test_csv_quotes_and_leaves_gaps(tmp_path):
    path = io.write_csv(
        tmp_path / "cases.csv", [{"case": 'a, "b"', "macro": 0.5, "more": 1}, {"case": "c"}], ["case", "macro"]
    )
    assert path.read_text() == 'case,macro\n"a, ""b""",0.5\nc,\n'
