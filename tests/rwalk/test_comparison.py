import json
import os
import subprocess
import sys

import numpy as np
import pytest

from rwalk.eigen import pencil, reference
from tests.conftest import REPOSITORY
from tests.rwalk.test_eigen import lattice_of, noisy_box
from tests.rwalk.test_smoke import run


def test_scipy_with_pyamg_finds_the_values_of_the_dense_matrix():
    pytest.importorskip("pyamg")
    lattice = lattice_of(noisy_box((14, 15)))
    matrix = pencil.pencil_of(lattice)
    found = reference.lobpcg_pyamg(matrix, 6, tol=1e-6, extra=4)
    expected = reference.dense(matrix, 6)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-9)
    assert found.vectors.shape == (14 * 15, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stencil_512", "online_256", "pairs_64_cubed_k20"])
def test_a_benchmark_runs_at_a_small_size(name, tmp_path):
    pytest.importorskip("skimage")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "bench.py"), "rwalk", "--only", name, "--size", "14",
         "--repetitions", "1", "--json", str(tmp_path / "rows.json")],
        cwd=tmp_path, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows
    for row in rows:
        assert row["ours_s"] > 0
        assert row["error"] <= 0.1


def test_a_measurement_that_takes_too_long_is_a_row_without_figures(tmp_path):
    metrics = run(tmp_path / "run", "table=eigensolvers", "run=smoke", "lattice.seconds=0.01")["metrics"]
    assert metrics["finished"] == 0
    assert "error/sum" not in metrics
    assert not any(name.startswith("seconds/") for name in metrics)
