"""Every option of every config group, and every table, in seconds: that they compose, validate and run."""

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from quartet.collect import collect
from quartet.launch import CONFIGS, execute
from quartet.results import RunFolder
from rwalk.checks import InputError
from tests.conftest import REPOSITORY
from tests.rwalk.test_data import write_twins

PACKAGE = CONFIGS / "rwalk"
GROUPS = [  # tasks and changes: test_tasks.py
    (folder.name, option.stem)
    for root in (PACKAGE, CONFIGS / "shared")
    for folder in sorted(root.iterdir())
    if folder.is_dir() and folder.name not in ("table", "hydra", "task", "change", "moving", "dissimilarity")
    for option in sorted(folder.glob("*.yaml"))
]
OWN_TESTS = {"registration", "registration_pair"}  # of another task: test_registration.py
TABLES = sorted({path.stem for path in (PACKAGE / "table").glob("*.yaml")} - OWN_TESTS)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def run(folder: Path, *overrides: str):
    with initialize_config_dir(str(PACKAGE), version_base="1.3"):
        given = [f"run.folder={folder}", f"basis.folder={folder.parent}/bases", "eigen.k=6", *overrides]
        config = compose("config", overrides=given)
    folder.mkdir(parents=True, exist_ok=True)
    return execute(config, RunFolder(folder))[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A slice with a bright square, and seeds in it and around it."""
    folder = tmp_path_factory.mktemp("files")
    image = np.random.default_rng(0).normal(0, 0.1, (28, 30, 1)).astype(np.float32)
    image[8:20, 8:20] += 1
    seeds = np.zeros((28, 30, 1), np.uint8)
    seeds[2, 2], seeds[25, 27], seeds[14, 14], seeds[10, 17] = 1, 1, 2, 2
    truth = np.ones((28, 30, 1), np.uint8)
    truth[8:20, 8:20] = 2
    for name, array in {"image": image, "seeds": seeds, "truth": truth}.items():
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"{name}.nii.gz")
    return folder


def inputs(files: Path) -> list[str]:
    return ["image=file", f"image.path={files}/image.nii.gz", "seeds=file", f"seeds.path={files}/seeds.nii.gz"]


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Folders laid out like the public data sets."""
    return write_twins(tmp_path_factory.mktemp("public"))


SLOW = {
    ("image", "pair"),
    ("image", "labels46"),
    ("basis", "keep"),
    ("eigen", "dense"),
    ("weights", "grady"),
    ("problem", "priors"),
    ("run", "debug"),
    ("devices", "data"),
    ("image", "mni"),
    ("eigen", "chebyshev"),
}  # what compiles most


@pytest.mark.parametrize(
    ("group", "option"), [pytest.param(*each, marks=[pytest.mark.slow] if each in SLOW else []) for each in GROUPS]
)
def test_option(group, option, files, public, tmp_path, monkeypatch):
    if option == "multihost":
        pytest.skip("needs several processes: tests/quartet/test_devices.py")
    monkeypatch.setenv("QUARTET_DATA", str(public))
    if group == "image" and option == "mni":
        chosen = ["run=smoke"]
    elif group == "image" and option != "file":
        chosen = [
            f"image={option}",
            "image.pool=1",
            "seeds=truth",
            "seeds.every=8",
            "weights.scale=var",
            "weights.beta=10",
        ]
    elif (group, option) == ("seeds", "truth"):
        chosen = [*inputs(files)[:2], f"image.truth={files}/truth.nii.gz", "seeds=truth", "seeds.every=16"]
    else:
        chosen = [choice for choice in inputs(files) if not choice.startswith(f"{group}.") or option == "file"]
        chosen = [f"{group}={option}", *(choice for choice in chosen if choice != f"{group}=file")]
        chosen += ["seeds.classes=2", "seeds.every=12"] if option == "automatic" else []
    result = run(tmp_path / "run", *chosen)
    metrics = result["metrics"]
    assert result["failed"] == []
    assert metrics["agreement"] > 0.9
    assert metrics["pairs/converged"] == metrics["exact/converged"] == 1
    if "dice" in metrics:  # labels and probabilities are scored against the truth, by evalmetrics
        assert metrics["overlap"] == pytest.approx(metrics["overlap_exact"], abs=0.05)
        assert 0 < metrics["calibration"] < 0.3
        if option != "mni":  # of which some ten voxels across leave nothing beside grey and white matter
            assert metrics["dice"] > 0.7
            assert 0 < metrics["brier"] < 0.3
    assert {path.name for path in (tmp_path / "run").glob("*.nii.gz")} == {
        f"{name}.nii.gz" for name in ("labels", "probabilities", "entropy", "margin")
    }


def test_files_lie_on_the_grid_of_the_image_and_agree_with_each_other(files, tmp_path):
    result = run(tmp_path / "run", *inputs(files), "problem=seeds")
    written = {p.name.split(".")[0]: nibabel.load(p) for p in (tmp_path / "run").glob("*.nii.gz")}
    for image in written.values():
        np.testing.assert_array_equal(image.affine, AFFINE)
        assert image.shape[:3] == (28, 30, 1)
    probabilities = np.asarray(written["probabilities"].dataobj)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    labels = np.asarray(written["labels"].dataobj)
    np.testing.assert_array_equal(labels, probabilities.argmax(-1) + 1)
    assert (labels[8:20, 8:20] == 2).mean() > 0.97
    assert (labels == 2).sum() < 1.1 * 144
    margin = np.asarray(written["margin"].dataobj)
    np.testing.assert_allclose(margin, np.abs(probabilities[..., 0] - probabilities[..., 1]), atol=1e-6)
    assert result["metrics"]["agreement"] > 0.97
    assert (tmp_path / "run" / "preview.png").stat().st_size > 1000


def test_answers_to_priors_carry_bounds_that_hold(files, tmp_path):
    metrics = run(tmp_path / "run", *inputs(files), "problem=priors", "problem.polish=3")["metrics"]
    assert metrics["error/relative"] <= 1.05 * metrics["error/bound"]
    assert metrics["error/achieved"] <= metrics["error/bound"]
    assert metrics["error/largest"] <= 1.05 * metrics["error/pointwise_bound"]


def sweeps(table: str) -> list[list[str]]:
    """First two cells of a table: its sweep parameters, first value each, then the last."""
    params = yaml.safe_load((PACKAGE / "table" / f"{table}.yaml").read_text())["hydra"]["sweeper"]["params"]
    axes = {key: str(values).split(",") for key, values in params.items()}
    return [[f"{key}={values[place]}" for key, values in axes.items()] for place in (0, -1)]


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_table(table, tmp_path, public, monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", str(public))
    small = ["image.pool=1", "image.halvings=null", "seeds.every=8"] if table == "accuracy_brains" else []
    small += ["lattice.seconds=1000"] if table in ("eigensolvers", "speed") else []  # a busy machine leaves figures
    for number, cell in enumerate(sweeps(table)):
        assert run(tmp_path / "runs" / str(number), f"table={table}", "run=smoke", *cell, *small)["failed"] == []
    shown = collect(tmp_path / "runs")
    report = yaml.safe_load((PACKAGE / "table" / f"{table}.yaml").read_text())["report"]
    assert list(shown.columns) == report["columns"]
    assert "paper" in report
    for _, cells in shown.rows:
        assert all(cell.mean is not None for cell in cells)


def save(path: Path, array: np.ndarray) -> str:
    nibabel.save(nibabel.Nifti1Image(array[..., None], AFFINE), path)
    return str(path)


@pytest.fixture
def three(tmp_path, noise):
    """The image and mask of scikit-image issue 1875: 3 x 3, all left out but a corner pair and one enclosed seed."""
    seeds = np.zeros((3, 3), np.uint8)
    seeds[0, 1], seeds[2, 2] = 1, 2
    mask = np.zeros((3, 3), np.uint8)
    mask[0, :2] = mask[2, 2] = 1
    image = save(tmp_path / "i.nii", noise.random((3, 3)).astype(np.float32))
    return [
        "image=file", f"image.path={image}", f"image.mask={save(tmp_path / 'm.nii', mask)}",
        "seeds=file", f"seeds.path={save(tmp_path / 's.nii', seeds)}", "problem=seeds", "eigen.k=1",
    ]  # fmt: skip


def test_skimage_1875_a_seed_enclosed_by_the_mask_keeps_its_label(three, tmp_path):
    run(tmp_path / "run", *three)
    labels = np.asarray(nibabel.load(tmp_path / "run" / "labels.nii.gz").dataobj)[..., 0]
    np.testing.assert_array_equal(labels, [[1, 1, 0], [0, 0, 0], [0, 0, 2]])


def test_skimage_2783_pieces_without_seeds_are_named_or_left_unlabelled(files, tmp_path):
    mask = np.ones((28, 30), np.uint8)
    mask[:, 22] = 0
    seeds = np.zeros((28, 30), np.uint8)
    seeds[2, 2], seeds[14, 14] = 1, 2
    given = [
        *inputs(files)[:2], f"image.mask={save(tmp_path / 'm.nii', mask)}",
        "seeds=file", f"seeds.path={save(tmp_path / 's.nii', seeds)}", "problem=seeds",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"1 of 2 separate pieces .* \(196 voxels at \(0, 23\)\); seed them"):
        run(tmp_path / "refused", *given)
    run(tmp_path / "run", *given, "seeds.pieces=ignore")
    labels = np.asarray(nibabel.load(tmp_path / "run" / "labels.nii.gz").dataobj)[..., 0]
    assert not labels[:, 22:].any()
    assert labels[:, :22].all()


def test_skimage_6561_no_seeds_is_one_line_with_exit_code_2_and_nothing_written(files, tmp_path):
    empty = save(tmp_path / "s.nii", np.zeros((28, 30), np.uint8))
    done = subprocess.run(
        [sys.executable, "-m", "rwalk", *inputs(files)[:2], "seeds=file", f"seeds.path={empty}", "run.folder=out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1]
        == f"{empty}: no seeds; mark voxels with 1, 2, ... for the labels, 0 is unmarked"
    )
    assert "Traceback" not in done.stderr
    assert not {path.suffix for path in (tmp_path / "out").glob("*")} & {".gz", ".png"}


def test_an_option_that_does_not_fit_is_one_line(tmp_path):
    from quartet.faults import explain

    with pytest.raises(Exception, match="gamma") as caught:
        run(tmp_path / "run", "run=smoke", "problem=priors", "problem.gamma=null")
    assert "gamma is needed where kind=priors" in explain(caught.value, PACKAGE, [])


@pytest.mark.parametrize(
    "given",
    [
        ["weights.beta=inf"],
        ["problem.gamma=inf"],
        ["exact.tol=nan"],
        ["task=update", "change=beta", "change.factor=inf"],
    ],
)
def test_numbers_that_are_not_finite_are_refused(given, tmp_path):
    from quartet.faults import explain

    with pytest.raises(Exception, match="finite") as caught:
        run(tmp_path / "run", "run=smoke", *given)
    key, _, value = given[-1].partition("=")
    assert explain(caught.value, PACKAGE, given) == f"{key}: must be a finite number, got {value}"


def test_seeds_of_a_label_that_the_priors_lack_are_refused(files, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.full((28, 30, 1, 2), 0.5, np.float32), AFFINE), tmp_path / "p.nii")
    seeds = np.zeros((28, 30), np.uint8)
    seeds[2, 2], seeds[14, 14] = 1, 5
    given = [*inputs(files)[:3], f"seeds.path={save(tmp_path / 's.nii', seeds)}", f"problem.path={tmp_path}/p.nii"]
    with pytest.raises(InputError, match=r"s\.nii: seeds of label 5, the priors .*p\.nii have labels 1 to 2; give"):
        run(tmp_path / "run", *given, "problem=both")


def test_more_than_255_labels_keep_their_numbers(tmp_path, noise):
    seeds = np.arange(1, 261).reshape(13, 20)
    image = save(tmp_path / "i.nii", noise.random((13, 20)).astype(np.float32))
    given = ["image=file", f"image.path={image}", f"seeds.path={save(tmp_path / 's.nii', seeds.astype(np.uint16))}"]
    run(tmp_path / "run", *given, "seeds=file", "problem=seeds")
    labels = np.asarray(nibabel.load(tmp_path / "run" / "labels.nii.gz").dataobj)
    np.testing.assert_array_equal(labels[..., 0], seeds)
