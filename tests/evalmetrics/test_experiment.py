"""Scoring as users do it: one pair, folders, bad input, several devices, volumes on disk."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import nibabel
import numpy as np
import pytest

from evalmetrics import score
from evalmetrics.experiment import Evaluation
from evalmetrics.io import InputError
from evalmetrics.options import Kernel, Match, Pairs, Regions, Statistics, Zeros
from evalmetrics.scoring import full_match
from tests.conftest import REPOSITORY

PAIRS = {
    "pattern": "*",
    "kind": "auto",
    "names": None,
    "sums": "strict",
    "tolerance": 0.01,
    "stream": 1 << 28,
    "limit": None,
}


def evaluation(folder=None, *, kernel="abs", method="hungarian", regions=None, eps_sweep=(), **pairs):
    where = {"reference": str(folder / "truth"), "prediction": str(folder / "guess")} if folder else {}
    return Evaluation(
        pairs=Pairs(**{**PAIRS, **where, **pairs}),
        kernel=Kernel(name=kernel),
        zeros=Zeros(method="clip", eps=0.01),
        match=Match(method=method, objective="macro"),
        regions=Regions(**{"background": None, "empty": "one", **(regions or {})}),
        statistics=Statistics(resamples=200, level=0.95, eps_sweep=eps_sweep, surface=False, surface_tolerance=1.0),
    )


def whole(array, axis=0):  # noqa: ARG001 - the placement of a single device
    return array


def rows(experiment, place=whole):
    return [row for _, row in experiment.run(experiment.init(jax.random.key(0)), place=place)]


@pytest.fixture
def folders(tmp_path):
    """Three cases of soft maps as npy, regions shuffled."""
    rng = np.random.default_rng(1)
    for side in ("truth", "guess"):
        (tmp_path / side).mkdir()
    for case in "abc":
        soft = rng.dirichlet(np.ones(4), (9, 10, 11)).astype(np.float32).transpose(3, 0, 1, 2)
        np.save(tmp_path / "truth" / f"{case}.npy", soft)
        mixed = 0.7 * soft[[2, 0, 3, 1]] + 0.3 * np.float32(0.25)
        np.save(tmp_path / "guess" / f"{case}.npy", mixed)
    return tmp_path


@pytest.mark.parametrize("kernel", ["abs", "ait", "simplex_tv", "simplex_ait"])
def test_a_row_holds_what_score_computes(folders, kernel):
    for row in rows(evaluation(folders, kernel=kernel)):
        maps = [np.load(folders / side / f"{row['case']}.npy") for side in ("truth", "guess")]
        direct = score(*maps, kernel=kernel, eps=0.01)
        np.testing.assert_array_equal(row["match"], [1, 3, 0, 2])
        np.testing.assert_allclose(row["macro"], direct.macro, rtol=1e-5)
        np.testing.assert_allclose(row["region"], direct.region, rtol=1e-5)


def test_the_last_row_holds_the_means_with_their_intervals(folders):
    *_, last = found = rows(evaluation(folders))
    summary = last["summary"]
    assert summary["cases"] == 3
    assert summary["macro"] == pytest.approx(np.mean([row["macro"] for row in found]), rel=1e-6)
    assert summary["macro/low"] <= summary["macro"] <= summary["macro/high"]


def test_a_limit_takes_the_first_cases(folders):
    assert [row["case"] for row in rows(evaluation(folders, limit=2))] == ["a", "b"]


def test_a_bad_case_is_one_line_and_the_others_go_on(folders):
    broken = np.load(folders / "guess" / "b.npy")
    broken[0, 0, 0, 0] = np.nan
    np.save(folders / "guess" / "b.npy", broken)
    found = {row["case"]: row for row in rows(evaluation(folders))}
    assert "b.npy: NaN at index (0, 0, 0, 0)" in found["b"]["error"]
    assert "\n" not in found["b"]["error"]
    assert found["a"]["macro"] > 0
    assert found["c"]["summary"]["cases"] == 2


def test_a_bad_case_makes_the_command_end_with_2(folders):
    np.save(folders / "guess" / "b.npy", np.zeros((4, 3, 3, 3), np.float32) + np.float32(0.25))
    np.save(folders / "truth" / "alone.npy", np.zeros((2, 2), np.int32))
    done = subprocess.run(
        [sys.executable, "-m", "evalmetrics", "pairs.reference=truth", "pairs.prediction=guess", "run.folder=out"],
        cwd=folders,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "npy" in line or "alone" in line]
    assert len(lines) == 2
    assert any("axis 0 (x)" in line for line in lines)
    assert any("alone" in line for line in lines)
    result = json.loads((folders / "out" / "result.json").read_text())
    assert result["metrics"]["cases"] == 2
    assert len(result["failed"]) == 2
    assert json.loads((folders / "out" / "status.json").read_text())["state"] == "partial"
    page = (folders / "out" / "report.html").read_text()
    assert "alone" in page


def test_labels_are_taken_by_value_when_ordered(tmp_path):
    truth = np.zeros((4, 4, 4), np.int16)
    truth[1:3], truth[3] = 17, 1000
    guess = np.zeros_like(truth)
    guess[1:4] = 17
    np.save(tmp_path / "t.npy", truth)
    np.save(tmp_path / "g.npy", guess)
    files = {"reference": str(tmp_path / "t.npy"), "prediction": str(tmp_path / "g.npy")}
    (row,) = rows(evaluation(method="ordered", **files))
    np.testing.assert_allclose(row["region"], [1, 0.8, 0])  # by hand: 2*32/(32+48), and nothing of 1000
    assert row["reference_names"][1:] == ["label 17", "label 1000"]
    (left_out,) = rows(evaluation(method="ordered", regions={"background": 0}, **files))
    np.testing.assert_allclose(left_out["region"], [0.8, 0])
    assert left_out["reference_names"] == ["label 17", "label 1000"]


def test_a_background_that_is_not_there_is_named(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(8).reshape(2, 2, 2))
    files = {"reference": str(tmp_path / "t.npy"), "prediction": str(tmp_path / "t.npy")}
    with pytest.raises(InputError, match=r"no region 99 to leave out; it has .*set regions\.background"):
        rows(evaluation(regions={"background": 99}, **files))


def test_an_unknown_kernel_lists_those_there_are(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(8).reshape(2, 2, 2))
    files = {"reference": str(tmp_path / "t.npy"), "prediction": str(tmp_path / "t.npy")}
    with pytest.raises(InputError, match=r"unknown kernel 'dice'; choose one of abs, ait"):
        evaluation(kernel="dice", **files).length()


def test_several_devices_equal_one(folders):
    from quartet.devices import placement
    from quartet.settings import Devices

    place = placement(Devices(layout="data"))
    for one, two in zip(rows(evaluation(folders)), rows(evaluation(folders), place), strict=True):
        np.testing.assert_allclose(one["pairs"], two["pairs"], rtol=1e-6)


def test_blocks_from_a_mapped_file_equal_the_whole(folders):
    for suffix, kernel in (("a", "abs"), ("b", "simplex_ait")):
        files = {side: str(folders / name / f"{suffix}.npy") for side, name in
                 (("reference", "truth"), ("prediction", "guess"))}  # fmt: skip
        (at_once,) = rows(evaluation(kernel=kernel, **files))
        (streamed,) = rows(evaluation(kernel=kernel, stream=1, **files))
        np.testing.assert_allclose(at_once["region"], streamed["region"], rtol=1e-6)


def test_the_eps_sweep_and_the_thresholded_score_are_there(folders):
    row = rows(evaluation(folders, eps_sweep=(0.1, 0.001)))[0]
    assert row["eps_sweep"]["kernel"] == "ait"
    maps = [np.load(folders / side / "a.npy") for side in ("truth", "guess")]
    expected = [float(score(*maps, kernel="ait", eps=eps).macro) for eps in (0.1, 0.001)]
    np.testing.assert_allclose(row["eps_sweep"]["macro"], expected, rtol=1e-5)
    crisp = score(*(each.argmax(0) for each in maps), regions=(4, 4)).macro
    np.testing.assert_allclose(row["thresholded"]["crisp"], crisp, rtol=1e-5)


def test_calibration_and_surfaces_follow_the_matching(tmp_path):
    """Labels against their own soft map with channels in another order: as good as can be, whatever the order."""
    truth = np.zeros((12, 12, 12), np.int16)
    truth[2:6], truth[6:10] = 1, 2
    soft = np.stack([truth == 2, truth == 0, truth == 1]).astype(np.float32)
    np.save(tmp_path / "t.npy", truth)
    np.save(tmp_path / "g.npy", 0.9 * soft + np.float32(0.1 / 3))
    files = {"reference": str(tmp_path / "t.npy"), "prediction": str(tmp_path / "g.npy")}
    experiment = evaluation(**files)
    experiment = dataclasses.replace(experiment, statistics=dataclasses.replace(experiment.statistics, surface=True))
    (row,) = rows(experiment)
    # By hand: the right class gets .9333 and the two others .0333, everywhere.
    assert row["calibration"]["brier"] == pytest.approx((1 - 0.93333) ** 2 + 2 * 0.03333**2, rel=1e-3)
    assert row["calibration"]["ece"] == pytest.approx(1 - 0.93333, rel=1e-3)
    assert row["surface"]["surface_dice"] == [1, 1, 1]
    assert row["surface"]["hausdorff95"] == [0, 0, 0]


def test_a_left_out_background_is_put_back_into_the_matching():
    """Worked by hand: regions 0, 2 of the reference meet 2, 0 of the prediction once both lose region 1."""
    np.testing.assert_array_equal(full_match(np.array([1, 0]), (1, 1), 3), [2, 1, 0])
    np.testing.assert_array_equal(full_match(np.array([2, 0]), (0, 0), 3), [0, 3, 1])  # 2 of 2 means unmatched
    np.testing.assert_array_equal(full_match(np.array([1, 0]), None, 2), [1, 0])


def test_nifti_affines_beyond_the_tolerance_are_refused(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    shifted = np.eye(4)
    shifted[0, 3] = 0.5
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "t.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, shifted), tmp_path / "g.nii.gz")
    files = {"reference": str(tmp_path / "t.nii.gz"), "prediction": str(tmp_path / "g.nii.gz")}
    with pytest.raises(InputError, match=r"g\.nii\.gz: lies 0\.5 mm away from .*axis 0"):
        rows(evaluation(**files))
    (row,) = rows(evaluation(tolerance=0.6, **files))
    assert row["macro"] == pytest.approx(1)


PEAK = """
import sys
from quartet.launch import launch
try:
    launch("evalmetrics")
finally:
    print("peak", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.usefixtures("optimised")
@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("suffix", ["npy", "nii"])
def test_memory_does_not_grow_with_a_mapped_volume(tmp_path, suffix):
    """Four times the voxels, the same peak, pages of the mapped files included."""
    peaks = []
    for layers in (150, 600):
        shape = (layers, 1000, 1000)  # 0.15 and 0.6 GB of labels a file; they are sparse but for a layer in sixty
        for name in ("truth", "guess"):
            path = tmp_path / f"{name}.{suffix}"
            if suffix == "npy":
                labels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            else:
                header = nibabel.Nifti1Header()
                header.set_data_shape(shape[::-1])
                header.set_data_dtype(np.uint8)
                header["vox_offset"], header["magic"] = 352, b"n+1"
                path.write_bytes(header.binaryblock + bytes(4))
                labels = np.memmap(path, np.uint8, "r+", offset=352, shape=shape)
            labels[::60] = np.random.default_rng(0).integers(0, 4, shape[1:], dtype=np.uint8)
            labels.flush()
            del labels
        arguments = [f"pairs.reference=truth.{suffix}", f"pairs.prediction=guess.{suffix}", "statistics.eps_sweep=[]"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments, f"run.folder=out{layers}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split("peak ")[1]) / 1024)
    assert peaks[1] < peaks[0] + 150, peaks  # MB
    assert peaks[1] < 1200, peaks
