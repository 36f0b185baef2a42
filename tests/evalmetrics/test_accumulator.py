import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import accumulator, scores
from tests.evalmetrics import definitions


@pytest.fixture
def cases():
    rng = np.random.default_rng(0)
    return [[definitions.random_map(rng, k, (4, 5 + case)) for k in (3, 4)] for case in range(3)]


def test_pooled_scores_are_those_of_all_voxels_together(cases):
    total = accumulator.start(kernel="ait", objective="micro", eps=0.02)
    for p, q in cases:
        total = total.update(p, q)
    joined = [np.concatenate([case[side] for case in cases], axis=2) for side in (0, 1)]
    wanted = scores.score(*joined, kernel="ait", objective="micro", eps=0.02)
    for a, b in zip(total.compute(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_scores_by_case_are_kept_for_the_bootstrap(cases):
    total = accumulator.start(background=(0, 0))
    for p, q in cases:
        total = total.update(p, q, weights=np.ones(p.shape[1:], np.float32))
    by_case = total.by_case()
    assert by_case.region.shape == (3, 3)
    for index, (p, q) in enumerate(cases):
        np.testing.assert_allclose(by_case.macro[index], scores.score(p, q, background=(0, 0)).macro, rtol=1e-6)


def test_merging_two_accumulators_is_seeing_all_cases(cases):
    start = accumulator.start()
    left, right = start.update(*cases[0]), start.update(*cases[1]).update(*cases[2])
    merged, whole = left.merge(right), left.update(*cases[1]).update(*cases[2])
    np.testing.assert_allclose(merged.compute().pairs, whole.compute().pairs, rtol=1e-6)
    np.testing.assert_array_equal(merged.by_case().macro, whole.by_case().macro)
    assert start.merge(left).compute().macro == left.merge(start).compute().macro == left.compute().macro


def test_flax_metric_sums_batches_under_jit(cases):
    nnx = pytest.importorskip("flax.nnx")
    p, q = cases[0]
    batch = jnp.stack([p, p[::-1]]), jnp.stack([q, q[::-1]])
    metric = accumulator.nnx_metric((3, 4), kernel="ait", empty="zero")

    @nnx.jit
    def step(metric, p, q):
        metric.update(reference=p, prediction=q)

    step(metric, *batch)
    step(metric, batch[0][:1], batch[1][:1])
    wanted = accumulator.start(kernel="ait", empty="zero").update(p, q).update(p[::-1], q[::-1]).update(p, q).compute()
    for a, b in zip(metric.compute(), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    metric.reset()
    assert metric.compute().macro == 0


def test_flax_metric_takes_label_maps(cases):
    pytest.importorskip("flax.nnx")
    p, q = (x.argmax(0) for x in cases[0])
    metric = accumulator.nnx_metric((3, 4))
    metric.update(reference=p[None], prediction=q[None])
    np.testing.assert_allclose(metric.compute().macro, scores.score(p, q, regions=(3, 4)).macro, rtol=1e-6)


def test_flax_is_not_imported_with_the_module():
    code = "import sys, evalmetrics.accumulator; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_misuse_is_refused_with_the_remedy(cases):
    with pytest.raises(ValueError, match="unknown option 'kernal'; choose from background"):
        accumulator.start(kernal="abs")
    with pytest.raises(ValueError, match="call update first"):
        accumulator.start().compute()
    with pytest.raises(ValueError, match="call update first"):
        accumulator.start().by_case()
    with pytest.raises(ValueError, match="must share their options"):
        accumulator.start().merge(accumulator.start(eps=0.1))
    with pytest.raises(ValueError, match="same regions"):
        accumulator.start().update(*cases[0]).update(cases[1][0], cases[1][0])
