"""The page of a segmentation: one offline file with every picture, figure and file."""

import re

import numpy as np

from rwalk import drawing, report
from rwalk.data import make_case
from rwalk.io import Volume


def case_of(shape):
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((1, *shape)).astype(np.float32), (1.0, 1.0, 2.0)[: len(shape)], None, "a <b>.npy")
    return make_case(volume, np.ones(shape, bool), "a <b>.npy")


def found_of(shape):
    x = np.random.default_rng(1).dirichlet([1, 1], shape).astype(np.float32)
    x = np.moveaxis(x, -1, 0)
    margin = np.abs(x[0] - x[1])
    return {"labels": x.argmax(0).astype(np.uint8) + 1, "probabilities": x, "entropy": margin, "margin": margin}


ROW = {
    "agreement": 0.99, "error/relative": 0.01, "error/bound": 0.02, "error/pointwise_bound": 0.1, "flips/share": 0.1,
    "error/largest": 0.05, "seconds/online": 0.001, "seconds/cold": 0.1, "pairs/used": 20.0, "exact/converged": 0.0,
}  # fmt: skip


def test_the_page_holds_everything_and_asks_for_nothing(tmp_path):
    shape = (10, 9, 8)
    seeds = np.full(shape, -1)
    seeds[4, 4, 3], seeds[2, 2, 2] = 0, 1
    files = report.write(found_of(shape), case_of(shape), seeds, ROW, tmp_path)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 6  # seeds, labels, uncertainty, flips, two probabilities
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "a &lt;b&gt;.npy" in page
    assert "a <b>.npy" not in page
    assert "the bound said 0.02" in page
    assert "did not reach its tolerance" in page
    share = float(np.mean(found_of(shape)["margin"] <= 0.2))
    assert f"{100 * share:.3g} % of the mask" in page


def test_a_slice_has_one_plane_and_seeds_have_no_bound(tmp_path):
    shape = (10, 9)
    seeds = np.full(shape, -1)
    seeds[4, 4], seeds[2, 2] = 0, 1
    row = {name: value for name, value in ROW.items() if "bound" not in name and name != "flips/share"}
    report.write(found_of(shape), case_of(shape), seeds, row, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "there is no bound for seeds" in page


def test_a_bound_that_settles_no_label_is_not_drawn(tmp_path):
    shape = (10, 9)
    row = {**ROW, "error/pointwise_bound": 2.4, "flips/share": 1.0}
    report.write(found_of(shape), case_of(shape), np.full(shape, -1), row, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "could flip" not in page


def test_pictures_have_their_true_proportions_and_stand_upright():
    panel = np.zeros((4, 8, 3))
    panel[0, 0] = 255
    drawn = drawing.enlarge(panel, (1.0, 1.0, 3.0), (slice(None), 2, slice(None)), edge=240)
    assert drawn.shape == (240, 40, 3)  # 4 mm to the right, 24 mm upwards
    assert drawn[-1, 0, 0] == 255
    assert drawn[0, 0, 0] == 0
    assert drawing.name_of((slice(None), 2, slice(None))) == "second axis, slice 2"
