"""Registration as a user runs it: files in, files out, as ITK reads them; what is wrong is told in one line."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from scipy import ndimage

from quartet import build
from quartet.collect import collect
from quartet.faults import explain
from quartet.launch import CONFIGS, execute
from quartet.results import RunFolder
from quartet.settings import SHELL_KEYS
from rwalk import data, io, landmarks, pairs, registration_report, resampling, warp
from rwalk.checks import InputError
from tests.rwalk.test_data import write_twins

PACKAGE = CONFIGS / "rwalk"
SHAPE = (24, 20, 16)
SPACING = (2.0, 2.0, 3.0)
# Turned about the third axis, mirrored along the first, with an offset: what a field in voxels is not in LPS.
COS, SIN = np.cos(0.3), np.sin(0.3)
AFFINE = np.array([[-2 * COS, -2 * SIN, 0, 9], [-2 * SIN, 2 * COS, 0, -12], [0, 0, 3, -7], [0, 0, 0, 1]])


def run(folder: Path, *overrides: str):
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        config = compose("config", overrides=["task=register", f"run.folder={folder}", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    return execute(config, RunFolder(folder))[0]


def save(path, array, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A blob of two labels and the same bent by a known field."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    i = np.indices(SHAPE) * np.array(SPACING).reshape(3, 1, 1, 1)
    distance = np.sqrt(((i - np.array([23, 19, 22]).reshape(3, 1, 1, 1)) ** 2).sum(0))
    labels = ((distance < 16).astype(np.int16) + (distance < 9)).astype(np.int16)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5)
    image = (labels + texture / texture.std()).astype(np.float32)
    v = pairs.smooth_field(SHAPE, SPACING, 2.0, 7.0, 1)
    moving = np.asarray(warp.sample(jnp.asarray(image)[None], jnp.asarray(v))[0])
    moved = np.asarray(warp.sample(jnp.asarray(labels, jnp.float32)[None], jnp.asarray(v), order=0)[0]).astype(np.int16)
    save(folder / "fixed.nii.gz", image)
    save(folder / "moving.nii.gz", moving)
    # Label values need not be 0, 1, 2, nor need the map of labels lie on the image's grid.
    save(folder / "fixed_labels.nii.gz", labels * 5)
    wide = np.pad(moved * 5, 2)
    shifted = AFFINE.copy()
    shifted[:3, 3] -= AFFINE[:3, :3] @ [2, 2, 2]
    save(folder / "moving_labels.nii.gz", wide, shifted)
    return folder


def given(files: Path) -> list[str]:
    return [
        "image=file", f"image.path={files}/fixed.nii.gz", "moving=file", f"moving.path={files}/moving.nii.gz",
        f"moving.labels={files}/moving_labels.nii.gz", f"moving.reference={files}/fixed_labels.nii.gz",
        "pyramid.levels=[[4,1,3],[2,1,3]]", "dissimilarity.alpha=30",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    return run(folder / "run", *given(files)), folder / "run"


def test_the_users_pair_is_registered_and_scored(done):
    result, folder = done
    metrics = result["metrics"]
    assert metrics["dice"] > max(0.85, metrics["dice_before"] + 0.05)
    assert metrics["folding"] == 0
    assert metrics["landmarks"] == 2
    assert metrics["tre"] < metrics["tre/before"]
    assert {"dice/label 5", "dice/label 10", "entropy", "deviation", "inverse/residual"} <= set(metrics)
    assert {path.name for path in folder.iterdir()} >= {
        "displacement.nii.gz", "warped.nii.gz", "labels.nii.gz", "jacobian.nii.gz", "deviation.nii.gz",
        "entropy.nii.gz", "preview.png", "report.html",
    }  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "moving.nii.gz onto fixed.nii.gz" in page
    assert page.count("data:image/png;base64,") == 3 * 7
    assert not re.search(r'(src|href)="(?!data:)', page)
    labels = np.asarray(nibabel.load(folder / "labels.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 5, 10}  # as the user's file calls them


def test_the_first_label_counts_where_no_map_has_a_background(files, tmp_path):
    labels = np.asarray(nibabel.load(files / "fixed_labels.nii.gz").dataobj) + 3
    path = str(save(tmp_path / "l.nii.gz", labels))
    case = data.from_file(str(files / "fixed.nii.gz"), None, 1)
    pair = pairs.from_files(case, str(files / "moving.nii.gz"), path, path)
    np.testing.assert_array_equal(pair.values[pair.labels], labels)
    assert pair.names[1:] == ("label 3", "label 8", "label 13")
    assert len(landmarks.centres(pair.labels, pair.moving_labels)[0]) == 3


def test_itk_applies_the_field_as_we_do(done, files):
    sitk = pytest.importorskip("SimpleITK")
    _, folder = done
    fixed = sitk.ReadImage(str(files / "fixed.nii.gz"))
    moving = sitk.ReadImage(str(files / "moving.nii.gz"))
    field = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    assert field.GetSize() == fixed.GetSize()
    np.testing.assert_allclose(field.GetDirection(), fixed.GetDirection(), atol=1e-6)
    transform = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)).transpose(2, 1, 0)
    ours = np.asarray(nibabel.load(folder / "warped.nii.gz").dataobj)
    inner = (slice(3, -3),) * 3  # at the border the two differ in what lies outside
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-4)
    assert np.abs(ours - np.asarray(nibabel.load(files / "moving.nii.gz").dataobj))[inner].max() > 0.5


def test_a_moving_image_on_another_grid_is_registered_where_it_lies(files, tmp_path):
    moving = nibabel.load(files / "moving.nii.gz")
    wide = np.pad(np.asarray(moving.dataobj), 3, mode="edge")[::-1]
    affine = AFFINE @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = AFFINE[:3, 3] + AFFINE[:3, :3] @ [SHAPE[0] + 2, -3, -3]
    save(tmp_path / "m.nii.gz", wide, affine)
    case = io.read(files / "fixed.nii.gz"), io.read(tmp_path / "m.nii.gz")
    np.testing.assert_allclose(resampling.resample(case[1], case[0], order=1), np.asarray(moving.dataobj), atol=1e-5)


def test_the_labels_of_a_users_truth_are_bent_under_their_numbers(files, tmp_path):
    truth = np.asarray(nibabel.load(files / "fixed_labels.nii.gz").dataobj) // 5
    case = data.from_file(str(files / "fixed.nii.gz"), None, 1, str(save(tmp_path / "t.nii.gz", truth)))
    pair = pairs.warped(case, amplitude=1.0, smoothness=8.0, noise=0.0, seed=0)
    np.testing.assert_array_equal(pair.labels, truth)
    assert set(np.unique(pair.moving_labels)) == {0, 1, 2}


def test_no_frame_appears_round_a_background_that_is_not_zero(noise):
    grey = noise.normal(200, 1, (9, 8)).astype(np.float32)
    grid = io.Volume(grey[None], (1.0, 1.0), None, "g")
    field = np.stack([np.full((9, 8), 2.0), np.zeros((9, 8))])
    moved = resampling.resample(grid, grid, field, order=1)
    np.testing.assert_array_equal(moved[:-2], grey[2:])
    np.testing.assert_array_equal(moved[-2:], grey[[-1, -1]])
    labels = grid._replace(data=np.ones((1, 9, 8), int))
    np.testing.assert_array_equal(resampling.resample(labels, grid, field, order=0)[:, 0], [1] * 7 + [0] * 2)


def test_the_pictures_of_a_pair_share_one_scale_of_grey(files):
    case = data.from_file(str(files / "fixed.nii.gz"), None, 1)
    pair = pairs.from_files(case, str(files / "moving.nii.gz"), None, None)
    still = {name: np.zeros(SHAPE) for name in ("jacobian", "deviation")}
    raw = np.asarray(nibabel.load(files / "moving.nii.gz").dataobj)
    raw = np.where(raw > np.quantile(raw, 0.3), raw, raw.max())  # other percentiles than the moving image's
    rows = {row.name: row.colours for row in registration_report.pictures(still | {"warped": raw}, pair)}
    same = raw == np.asarray(nibabel.load(files / "moving.nii.gz").dataobj)
    np.testing.assert_allclose(rows["Moved"][same], rows["Moving"][same], atol=0.01)
    low, high = np.percentile(pair.fixed, [0.5, 99.5])
    np.testing.assert_allclose(
        rows["Moving"][..., 0], 255 * np.clip((pair.moving - low) / (high - low), 0, 1), atol=0.01
    )


def test_a_picture_pair_gets_its_field_in_voxels(noise, tmp_path):
    image = ndimage.gaussian_filter(noise.normal(size=(32, 30)), 2).astype(np.float32)
    np.save(tmp_path / "f.npy", image)
    np.save(tmp_path / "m.npy", np.roll(image, 2, 0))
    run(
        tmp_path / "run", "image=file", f"image.path={tmp_path}/f.npy", "moving=file",
        f"moving.path={tmp_path}/m.npy", "pyramid.levels=[[2,2,2],[1,1,3]]", "pyramid.estimate=map",
    )  # fmt: skip
    field = np.load(tmp_path / "run" / "displacement.npy")
    np.testing.assert_allclose(np.median(field[0, 6:-6, 6:-6]), 2, atol=0.3)
    np.testing.assert_allclose(np.median(field[1, 6:-6, 6:-6]), 0, atol=0.3)


def test_a_known_warp_is_found_again_and_a_run_resumes_bitwise(files, tmp_path):
    overrides = [
        *given(files)[:2],
        "moving=warp",
        "moving.amplitude=1.5",
        "moving.smoothness=8",
        "moving.noise=0",
        *given(files)[6:],
    ]
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        config = compose("config", overrides=["task=register", f"run.folder={tmp_path}/x", *overrides])
    experiment = build.experiment(config, SHELL_KEYS, PACKAGE)
    state = experiment.init(jax.random.key(0))
    states, rows = zip(*experiment.run(state, place=lambda x: x), strict=True)
    assert rows[-1]["epe"] < 0.6 * rows[-1]["epe/before"]
    assert rows[1]["epe"] < rows[0]["epe"]
    again = next(iter(experiment.run(states[0], place=lambda x: x)))[0]
    np.testing.assert_array_equal(again.field, states[1].field)


@pytest.mark.slow
@pytest.mark.parametrize("option", sorted(path.stem for path in (PACKAGE / "dissimilarity").glob("*.yaml")))
def test_every_dissimilarity_with_the_brain_that_comes_along(option, tmp_path):
    metrics = run(tmp_path / "run", "run=smoke", f"dissimilarity={option}", "pyramid.levels=[[12,1,2]]")["metrics"]
    assert metrics["epe"] < metrics["epe/before"]
    assert metrics["folding"] == 0


@pytest.mark.slow
def test_the_table_in_seconds(tmp_path):
    table = yaml.safe_load((PACKAGE / "table" / "registration.yaml").read_text())
    for number, cell in enumerate((["dissimilarity=ssd"], ["dissimilarity=mind", "pyramid.estimate=map"])):
        run(tmp_path / "runs" / str(number), "table=registration", "run=smoke", *cell)
    shown = collect(tmp_path / "runs")
    assert list(shown.columns) == table["report"]["columns"]
    for _, cells in shown.rows:
        assert all(cell.mean is not None for cell in cells)


@pytest.mark.slow
def test_the_table_of_two_brains_on_their_twins(tmp_path, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(write_twins(tmp_path / "public")))
    small = ["image.halvings=null", "pyramid.levels=[[2,1,2]]"]
    metrics = run(tmp_path / "run", "table=registration_pair", "run=smoke", *small)["metrics"]
    assert metrics["dice_before"] == 1  # twins are one image twice
    assert metrics["dice"] > 0.95
    assert metrics["tre/before"] == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["image=file", "image.path={f}/fixed.nii.gz", "moving=file"], "moving.path: required"),
        (
            ["image=file", "image.path={f}/fixed.nii.gz", "moving=file", "moving.path={f}/moving.nii.gz",
             "moving.labels={f}/moving_labels.nii.gz"],
            "moving.reference: required with the other label map",
        ),
        (
            ["image=file", "image.path={f}/fixed.nii.gz", "moving=file", "moving.path={f}/moving.nii.gz",
             "moving.labels={f}/fixed.nii.gz", "moving.reference={f}/fixed_labels.nii.gz"],
            "fixed.nii.gz: the label map must hold whole numbers",
        ),
        (
            ["image=file", "image.path={f}/fixed.nii.gz", "moving=file", "moving.path={f}/far.nii.gz"],
            "does not overlap with",
        ),
        (
            ["image=file", "image.path={f}/fixed.nii.gz", "moving=file", "moving.path={f}/flat.npy"],
            "2 axes of space",
        ),
        (
            ["image=file", "image.path={f}/thin.npy", "moving=file", "moving.path={f}/thin.npy"],
            "thin.npy: shape (1, 24, 20) has an axis of length one; drop that axis",
        ),
        (["image=file", "image.path={f}/thin.npy"], "thin.npy: shape (1, 24, 20) has an axis of length one"),
        (["image.pool=6", "moving.amplitude=40"], "folds; lower moving.amplitude"),
        (["pyramid.levels=[[2,1,1],[4,1,1]]"], "pyramid.levels: "),
        (["pyramid.levels=[[inf,1,1]]"], "must be a finite number, got inf"),
        (["moving.noise=inf"], "moving.noise: must be a finite number, got inf"),
        (["dissimilarity.kind=mi"], "dissimilarity.kind: "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(overrides, words, files, tmp_path):
    far = AFFINE.copy()
    far[0, 3] += 1000
    save(files / "far.nii.gz", np.asarray(nibabel.load(files / "moving.nii.gz").dataobj), far)
    np.save(files / "flat.npy", np.random.default_rng(0).random((8, 8)))
    np.save(files / "thin.npy", np.random.default_rng(0).random((1, 24, 20)))
    overrides = [override.format(f=files) for override in overrides]
    with pytest.raises(Exception, match=r"\S") as caught:
        run(tmp_path / "run", *overrides)
    line = explain(caught.value, PACKAGE, overrides)
    assert line is not None
    assert words in line
    assert "\n" not in line
    assert not list((tmp_path / "run").glob("*.nii.gz"))
    if isinstance(caught.value, InputError):
        assert caught.value.is_input_fault


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("optimised")
def test_the_real_pair_gets_more_alike(public_data, tmp_path):
    pair = public_data / "rwalk" / "brain_pair"
    if not pair.is_dir():
        pytest.skip(f"no {pair}")
    name = "image_{}_160x192x144{}.nii.gz"
    metrics = run(
        tmp_path / "run", "image=file", f"image.path={pair}/{name.format('A', '')}", "moving=file",
        f"moving.path={pair}/{name.format('B', '')}", f"moving.labels={pair}/{name.format('B', '_seg')}",
        f"moving.reference={pair}/{name.format('A', '_seg')}", "pyramid.levels=[[8,2,2],[4,1,2]]",
    )["metrics"]  # fmt: skip
    assert metrics["dice_before"] == pytest.approx(0.640, abs=0.002)
    assert metrics["dice"] > 0.7
    assert metrics["folding"] < 1e-3
