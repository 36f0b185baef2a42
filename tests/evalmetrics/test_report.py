import csv
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import nibabel
import numpy as np
import pytest

from evalmetrics import io, report, slices
from tests.evalmetrics.rows import make_row

SETTINGS = {"kernel": "abs", "eps": 0.01, "zeros": "clip", "objective": "macro", "background": None, "resamples": 200}
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Balance(HTMLParser):
    """Collects tags that are closed out of order, and rows per table body."""

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, _tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def page_of(rows, folder, **options):
    path = report.write(rows, folder, title="A title", settings=SETTINGS, **options)
    text = path.read_text()
    parser = Balance()
    parser.feed(text)
    assert not parser.faults
    assert not parser.open
    return text, parser


def volumes(folder):
    """A soft reference and a crisp prediction with a block of 4x4x4 voxels where they disagree."""
    labels = np.zeros((20, 24, 16), np.uint8)
    labels[4:16, 4:20, 4:12] = 1
    labels[8:12, 8:12, 6:10] = 2
    soft = np.stack([labels == k for k in range(3)], axis=-1).astype(np.float32)
    soft = 0.9 * soft + 0.1 / 3
    wrong = labels.copy()
    wrong[12:16, 14:18, 5:9] = 7
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    paths = folder / "reference.nii.gz", folder / "prediction.nii.gz"
    nibabel.save(nibabel.Nifti1Image(soft, affine), paths[0])
    nibabel.save(nibabel.Nifti1Image(wrong, affine), paths[1])
    return paths


def file_row(folder, case="one", **more):
    paths = volumes(folder)
    names = {
        "reference": ("background", "organ", "lesion"),
        "prediction": ("background", "label 1", "label 2", "label 7"),
    }
    more = {"spacing": [2.0, 1.0, 3.0], **more}
    return (
        make_row(case, **names, match=(0, 1, 2, 3)) | {"reference": str(paths[0]), "prediction": str(paths[1])} | more
    )


def test_the_page_needs_nothing_from_outside(tmp_path):
    sweep = {"eps": [0.1, 0.001, 0.01], "macro": [0.4, 0.5, 0.6], "kernel": "ait"}
    row = file_row(tmp_path, eps_sweep=sweep, thresholded={"crisp": 0.9, "abs": 0.8})
    text, parser = page_of([row], tmp_path / "out")
    assert parser.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in parser.addresses)
    assert not re.search(r"@import|url\(|https?://(?!arxiv)", text)
    assert text.count("data:image/png") == 9
    for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(chart)
    for wanted in (
        "A title",
        "organ",
        "label 7",
        "used: 0.01",
        "0.800",
        "axial",
        "kernel",
        "jax",
        "prefers-color-scheme",
    ):
        assert wanted in text


def test_names_and_lines_are_escaped(tmp_path):
    evil = "<script>alert('x')</script>&"
    rows = [make_row(evil, reference=(evil, "b", "c")), {"case": "bad", "error": f"{evil}: no such file"}]
    text, _ = page_of(rows, tmp_path)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_tables_and_json_hold_the_numbers(tmp_path):
    rows = [
        make_row("a"),
        make_row("b", match=(0, 1, 2), macro=math.nan),
        {"case": "c", "error": "c.nii: no such file"},
    ]
    page_of(rows, tmp_path)
    cases = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert [line["case"] for line in cases] == ["a", "b", "c"]
    assert float(cases[0]["macro"]) == rows[0]["macro"]
    assert cases[2]["error"] == "c.nii: no such file"
    lines = list(csv.DictReader((tmp_path / "regions.csv").open()))
    assert len(lines) == 6
    assert lines[0] == {
        "case": "a", "reference": "background", "prediction": "c", "score": "1.0", "reference_volume": "100.0",
        "prediction_volume": "150.0",
    }  # fmt: skip
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["settings"] == SETTINGS
    assert content["rows"][1]["macro"] is None
    assert content["summary"]["micro"] == {"mean": 0.75, "low": 0.75, "high": 0.75}
    assert content["versions"]["python"]


def test_rows_of_arrays_are_taken_as_they_come_from_the_scores(tmp_path):
    row = make_row()
    arrays = {key: np.asarray(row[key], np.float32) for key in ("region", "pairs", "macro", "micro", "crum")}
    text, _ = page_of([row | arrays | {"match": np.asarray(row["match"], np.int32)}], tmp_path)
    assert f"{row['macro']:.3f}" in text


def test_many_cases_get_a_table_and_at_most_three_pictures(tmp_path):
    paths = volumes(tmp_path)
    rng = np.random.default_rng(0)
    rows = [
        file_row(tmp_path, f"case {k:03d}", macro=float(score)) for k, score in enumerate(rng.uniform(0.2, 0.9, 60))
    ]
    asked = []

    def load(reference, prediction):
        asked.append((reference, prediction))
        return io.pair(reference, prediction)

    text, _ = page_of(rows, tmp_path / "out", load=load)
    assert asked == [(str(paths[0]), str(paths[1]))] * 3
    worst = min(rows, key=lambda row: row["macro"])["case"]
    assert re.search(rf"Worst case</span> <b>{worst}</b>", text)
    body = text[text.index("<h2>Cases</h2>") :]
    assert [f"case {k:03d}" in body for k in range(60)] == [True] * 60
    assert body.index(worst) < min(body.index(row["case"]) for row in rows if row["case"] != worst)


def test_a_run_without_a_single_score_is_still_a_page(tmp_path):
    text, _ = page_of(
        [{"case": "a", "error": "a.nii: no such file"}, {"case": "b", "error": "b.nii: truncated"}], tmp_path
    )
    assert "2 cases were not scored" in text
    assert "b.nii: truncated" in text


def test_no_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        report.write([], tmp_path, title="", settings={})


def test_a_file_that_has_gone_costs_its_picture_only(tmp_path):
    row = file_row(tmp_path)
    (tmp_path / "prediction.nii.gz").unlink()
    text, _ = page_of([row], tmp_path / "out")
    assert "No picture:" in text
    assert "data:image" not in text


def test_a_list_of_maps_is_read_again_as_a_list(tmp_path):
    for name, value in (("gm", 0.25), ("wm", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.full((6, 6, 6), value) + np.eye(6) * 0.1)
    names = ("rest", "gm", "wm")
    source = f"{tmp_path / 'gm.npy'} + {tmp_path / 'wm.npy'}"
    row = make_row(reference=names, prediction=names, match=(0, 1, 2)) | {"reference": source, "prediction": source}
    text, _ = page_of([row], tmp_path / "out")
    assert text.count("data:image/png") == 9


def test_the_worst_place_lies_in_the_planted_block(tmp_path):
    row = file_row(tmp_path)
    pair = io.pair(row["reference"], row["prediction"])
    slots = slices.slots_of(row, *pair, None, slices.palette(row["reference_names"]))
    place, share = slices.worst_place(*pair, slots)
    assert all(low <= at < high for at, low, high in zip(place, (12, 14, 5), (16, 18, 9), strict=True))
    soft, wrong = np.asarray(pair[0].data), np.asarray(pair[1].data)
    by_hand = 0.5 * np.abs(
        np.concatenate([soft, np.zeros((1, *wrong.shape))]) - np.eye(4)[wrong].transpose(3, 0, 1, 2)
    ).sum(0)
    np.testing.assert_allclose(slices.disagreement(*pair, slots, (slice(None),) * 3), by_hand, atol=1e-6)
    assert share == pytest.approx(by_hand.mean(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 50, 1 << 21])
def test_the_worst_place_does_not_depend_on_slabs(tmp_path, size, monkeypatch):
    row = file_row(tmp_path)
    pair = io.pair(row["reference"], row["prediction"])
    slots = slices.slots_of(row, *pair, None, {})
    whole = slices.worst_place(*pair, slots)
    monkeypatch.setattr(slices, "SLAB", size)
    place, share = slices.worst_place(*pair, slots)
    assert place == whole[0]
    assert share == pytest.approx(whole[1], rel=1e-5)


def test_regions_of_the_prediction_wear_the_colour_of_their_match():
    reference, prediction = (
        io.Volume(np.array(data), None, (1.0, 1.0), ("background", "x", "y"), (0, 1, 2), "")
        for data in ([[0, 1], [2, 2]], [[0, 2], [1, 1]])
    )
    # Background left out: regions x, y of the reference match the prediction's y, x.
    row = make_row(reference=("x", "y"), prediction=("x", "y"), match=(1, 0))
    slots = slices.slots_of(row, reference, prediction, 0, {"x": "#102030", "y": "#405060"})
    assert slots.reference.tolist() == [2, 0, 1]
    assert slots.prediction.tolist() == [2, 1, 0]
    assert slots.colours[:2].tolist() == [[16, 32, 48], [64, 80, 96]]
    assert not slices.disagreement(reference, prediction, slots, (slice(None),) * 2).any()


def test_pictures_stand_upright_in_space(tmp_path):
    """One bright voxel at the right, anterior, superior corner lands at the right and the top of every plane."""
    data = np.zeros((8, 9, 10), np.uint8)
    data[7, 8, 9] = 1
    turned = nibabel.Nifti1Image(data, np.eye(4)).as_reoriented(nibabel.orientations.axcodes2ornt(("P", "L", "I")))
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    nibabel.save(turned, tmp_path / "b.nii")
    for name in ("a.nii", "b.nii"):
        volume = slices._canonical(io.load(tmp_path / name))
        assert volume.data[7, 8, 9] == 1
    row = make_row(reference=("background", "x"), prediction=("background", "x"), match=(0, 1))
    empty = volume._replace(data=np.zeros_like(volume.data))
    found = slices.picture(row, volume, empty)
    assert [piece.plane for piece in found.slices] == ["axial", "coronal", "sagittal"]
    for piece in found.slices:
        assert piece.cross[0] > 0.85
        assert piece.cross[1] < 0.15
    assert found.slices[0].edges == ("L", "R", "A", "P")


def test_images_have_one_slice():
    labels = io.Volume(np.eye(7, dtype=np.uint8), None, (1.0, 1.0), ("background", "x"), (0, 1), "")
    row = make_row(reference=("background", "x"), prediction=("background", "x"), match=(0, 1))
    found = slices.picture(row, labels, labels._replace(data=labels.data.T))
    assert len(found.slices) == 1
    assert found.share == 0


def test_colours_differ():
    colours = slices.palette([f"region {k}" for k in range(18)])
    assert len(set(colours.values())) == 18
    assert "background" not in slices.palette(["background", "x"])


def test_importing_the_report_is_light():
    heavy = "('matplotlib', 'jinja2', 'nibabel', 'PIL', 'nrrd', 'tifffile')"
    code = f"import sys, evalmetrics.report; print(*(m for m in {heavy} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
