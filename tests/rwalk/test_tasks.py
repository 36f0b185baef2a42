"""The tasks beside segmenting: precompute and resume, open what is kept, follow a change of the graph."""

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from rwalk import cache, options, precompute
from rwalk.checks import InputError
from rwalk.eigen import reference
from tests.conftest import REPOSITORY
from tests.rwalk.test_smoke import files, inputs, run  # noqa: F401 - fixtures


@pytest.fixture(scope="module")
def kept(files, tmp_path_factory):  # noqa: F811
    """A folder in which the basis of the slice was precomputed, and the row of that run."""
    folder = tmp_path_factory.mktemp("kept")
    row = run(folder / "run", "task=precompute", *inputs(files)[:2])["metrics"]
    return folder, row


def inside(kept, *overrides):
    folder, _ = kept
    return [f"basis.folder={folder}/bases", *overrides]


def test_a_kept_basis_is_opened_and_no_eigensolver_runs(kept, files, tmp_path, monkeypatch):  # noqa: F811
    def refuse(*_, **__):
        raise AssertionError("the eigensolver ran")

    monkeypatch.setattr(options.Eigen, "basis", refuse)
    metrics = run(tmp_path / "run", *inputs(files), "problem=priors", *inside(kept))["metrics"]
    assert metrics["pairs/opened"] == 1
    assert metrics["pairs/sum"] == kept[1]["pairs/sum"]
    assert metrics["seconds/basis"] == kept[1]["seconds/basis"]
    assert metrics["agreement"] > 0.9
    with pytest.raises(AssertionError, match="eigensolver ran"):  # other settings are another basis
        run(tmp_path / "other", *inputs(files), "problem=priors", "weights.beta=50", *inside(kept))


def test_a_basis_of_another_image_or_eigenproblem_is_refused_in_one_line(kept, files, tmp_path):  # noqa: F811
    [path] = (kept[0] / "bases").iterdir()
    other = [*inputs(files)[:1], f"image.path={files}/seeds.nii.gz", *inputs(files)[2:]]
    with pytest.raises(InputError, match="belongs to another image, mask or weights; give") as caught:
        run(tmp_path / "run", *other, f"basis.path={path}")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"holds 6 pairs, eigen\.k=9; set eigen\.k=6 or less"):
        run(tmp_path / "more", *inputs(files), f"basis.path={path}", "eigen.k=9")
    with pytest.raises(InputError, match=r"computed with eigen\.normalised=true, this run has false; set"):
        run(tmp_path / "problem", *inputs(files), f"basis.path={path}", "eigen.normalised=false")
    with pytest.raises(InputError, match="no basis is kept here"):
        run(tmp_path / "none", *inputs(files), f"basis.path={tmp_path}")


def test_a_basis_is_restored_bit_by_bit_and_a_flipped_one_is_told(tmp_path, monkeypatch):
    keys = jax.random.split(jax.random.key(0), 2)
    basis = precompute.blank(50, 3, jax.numpy.float32)
    basis = basis._replace(vectors=jax.random.normal(keys[0], (50, 3)), mass=jax.random.normal(keys[1], (50,)))
    path = cache.path_of(tmp_path, "graph", {"k": 3})
    cache.save(path, basis, graph="graph", settings={"k": 3}, seconds=1.5)
    found = cache.load(path, "graph")
    assert found.seconds == 1.5
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(cache.load(Path(path.name), "graph").basis.mass, basis.mass)
    jax.tree.map(np.testing.assert_array_equal, found.basis, basis)
    cache.save(path, basis._replace(mass=2 * basis.mass), graph="graph", settings={"k": 3}, seconds=1.5)  # replaced
    np.testing.assert_array_equal(cache.load(path, "graph").basis.mass, 2 * basis.mass)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged .*; delete it and compute it again"):
        cache.load(path, "graph")


@pytest.mark.slow
def test_a_basis_is_computed_kept_and_opened_in_half_the_memory(files, tmp_path):  # noqa: F811
    half = [*inputs(files), "problem=priors", "problem.polish=0", "basis=keep", "basis.storage=bfloat16"]
    first, again = (run(tmp_path / name, *half, f"basis.folder={tmp_path}/bases")["metrics"] for name in "ab")
    [path] = (tmp_path / "bases").iterdir()
    assert cache.read_meta(path)["leaves"]["vectors"]["dtype"] == "bfloat16"
    assert (first["pairs/opened"], again["pairs/opened"]) == (0, 1)
    assert first["error/relative"] == pytest.approx(again["error/relative"], rel=1e-4)
    full = run(tmp_path / "full", *half[:-2], f"basis.folder={tmp_path}/none")["metrics"]
    assert first["error/relative"] <= full["error/relative"] + 3e-3
    assert first["error/relative"] <= first["error/bound"]
    updated = run(tmp_path / "update", "task=update", *half, f"basis.folder={tmp_path}/bases")["metrics"]
    assert updated["pairs/opened"] == 1
    assert updated["error/relative"] <= 1.5 * updated["error/recomputed"] + 1e-3


def experiment(files, folder, **changes):  # noqa: F811
    image = options.File(path=f"{files}/image.nii.gz", mask=None, truth=None, pool=1)
    weights = options.Weights(
        convention="gaussian", beta=100.0, scale="max", eps=1e-4, radius=0, diagonal=False
    )  # fmt: skip
    eigen = options.Eigen(
        method="lobpcg", k=6, normalised=True, tol=1e-12, residual=1e-8, maximum=80, guards=None
    )  # fmt: skip
    bases = options.Bases(folder=str(folder), write=True, path=None, steps=8, storage=None)
    return precompute.Precompute(image, weights, replace(eigen, **changes), bases)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": 900}, r"^eigen\.k=900 pairs of 840 coupled voxels; ask for 1 to 105$"),
        ({"k": 900, "method": "scipy"}, r"^eigen\.k=900 .* ask for 1 to 839$"),
        ({"method": "dense"}, r"^eigen\.method=dense: 840 coupled voxels, 500 are allowed; use lobpcg$"),
    ],
)
def test_pairs_that_the_eigensolver_does_not_find_are_one_line(changes, words, files, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(reference, "LARGEST_DENSE", 500)
    work = experiment(files, tmp_path / "bases", **changes)
    with pytest.raises(InputError, match=words):
        next(work.run(work.init(jax.random.key(0)), place=lambda array, _=0: array))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_intervals_that_are_taken_up_again_end_in_the_same_bits(files, tmp_path):  # noqa: F811
    def place(array, axis=0):  # noqa: ARG001
        return array

    def states(work, state):
        return [state for state, _ in work.run(state, place=place)]

    whole = experiment(files, tmp_path / "one")
    without = states(whole, whole.init(jax.random.key(0)))
    again = experiment(files, tmp_path / "two")
    [middle] = [state for state, _ in itertools.islice(again.run(again.init(jax.random.key(0)), place=place), 1)]
    assert not bool(middle.basis.converged)
    assert not (tmp_path / "two").exists()
    third = experiment(files, tmp_path / "two")
    resumed = states(third, middle)
    jax.tree.map(np.testing.assert_array_equal, resumed[-1].basis, without[-1].basis)
    assert bool(resumed[-1].basis.converged)
    assert len(list((tmp_path / "two").iterdir())) == 1
    short = experiment(files, tmp_path / "short", maximum=2)
    with pytest.raises(InputError, match=r"eigen\.maximum=2: the pairs did not converge .* not kept"):
        states(short, short.init(jax.random.key(0)))
    assert not (tmp_path / "short").exists()


@pytest.mark.slow
def test_a_precomputation_that_is_killed_resumes_and_leaves_no_half_of_a_basis(files, tmp_path):  # noqa: F811
    command = [
        sys.executable, "-m", "rwalk", "task=precompute", *inputs(files)[:2], "run.folder=out", "basis.folder=bases",
        "basis.steps=8", "checkpoint.every=1", "eigen.k=6", "eigen.residual=1e-8", "eigen.tol=1e-12",
        "eigen.maximum=80", "run.precision=float64",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    steps = tmp_path / "out" / "checkpoints"
    deadline = time.monotonic() + 200
    while not (steps.is_dir() and any(entry.name.isdigit() for entry in steps.iterdir())):
        assert running.poll() is None, running.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    for entry in (tmp_path / "bases").glob("*"):
        cache.read_meta(entry)  # whole, or not there
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "resumed at step" in done.stdout + done.stderr
    [path] = (tmp_path / "bases").iterdir()
    with jax.enable_x64(True):
        assert cache.load(path, cache.read_meta(path)["graph"]).basis.converged


def changed(change, mode, files, kept, folder):  # noqa: F811
    return run(
        folder, "task=update", f"change={change}", f"update.mode={mode}", *inputs(files), "problem=priors",
        "problem.polish=0", *inside(kept),
    )["metrics"]  # fmt: skip


HEAVY = pytest.mark.slow


@pytest.mark.parametrize(
    ("change", "mode"),
    [
        ("beta", "filtered"),
        pytest.param("edges", "woodbury", marks=HEAVY),
        pytest.param("beta", "first_order", marks=HEAVY),
        pytest.param("region", "filtered", marks=HEAVY),
        pytest.param("grow", "filtered", marks=HEAVY),
        pytest.param("edges", "ritz", marks=HEAVY),
    ],
)
def test_a_change_of_the_graph_is_followed(change, mode, files, kept, tmp_path):  # noqa: F811
    metrics = changed(change, mode, files, kept, tmp_path / "run")
    assert metrics["pairs/opened"] == (change != "grow")
    assert metrics["error/relative"] <= 1.5 * metrics["error/recomputed"] + 1e-3
    assert metrics["agreement"] > 0.9
    if mode not in ("woodbury", "first_order"):
        assert metrics["pairs/updated_sum"] >= metrics["pairs/recomputed_sum"] * (1 - 1e-3)


def test_changes_that_do_not_fit_are_one_line(files, kept, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="for change=edges only; choose filtered"):
        changed("beta", "woodbury", files, kept, tmp_path / "run")
