"""Metrics against scikit-learn, and against their definition in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdrec import losses, metrics


def stretch(seed, n=3000, tasks=2):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.3, 1.5, (n, tasks)).astype(np.float32)
    labels = (rng.random((n, tasks)) < 1 / (1 + np.exp(-0.7 * logits + 0.4))).astype(np.float32)
    return logits, labels, np.ones(n, np.float32), rng.integers(0, 3, n).astype(np.int32)


def sums_of(*parts, bins=4096):
    return metrics.update(metrics.zeros(parts[0].shape[1], 3, bins), *map(jnp.asarray, parts))


def test_log_loss_auc_and_calibration_equal_scikit_learn():
    peer = pytest.importorskip("sklearn.metrics")
    logits, labels, weight, segment = stretch(0)
    found = metrics.metrics(sums_of(logits, labels, weight, segment))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for task in range(2):
        assert found.log_loss[task] == pytest.approx(peer.log_loss(labels[:, task], p[:, task]), rel=1e-5)
        exact = peer.roc_auc_score(labels[:, task], logits[:, task])
        assert metrics.auc(logits[:, task], labels[:, task]) == pytest.approx(exact, abs=1e-12)
        assert found.auc[task] == pytest.approx(exact, abs=2e-4)
    np.testing.assert_allclose(found.calibration, p.mean(0) / labels.mean(0), rtol=1e-5)
    for g in range(3):
        here = segment == g
        np.testing.assert_allclose(found.by_segment[g], p[here].mean(0) / labels[here].mean(0), rtol=1e-5)


@pytest.mark.parametrize("bins", [4, 64, 1024])
def test_auc_of_any_number_of_bins_encloses_the_exact_one(bins):
    logits, labels, weight, segment = stretch(1)
    low, high = metrics.auc_bounds(sums_of(logits, labels, weight, segment, bins=bins).bins.sum(0))
    exact = np.array([metrics.auc(logits[:, task], labels[:, task]) for task in range(2)])
    assert np.all(low <= exact + 1e-9)
    assert np.all(exact <= high + 1e-9)
    rounded = np.clip((logits / metrics.RANGE + 1) * (bins / 2), 0, bins - 1).astype(int)
    of_rounded = [metrics.auc(rounded[:, task], labels[:, task]) for task in range(2)]
    np.testing.assert_allclose((low + high) / 2, of_rounded, atol=1e-6)


def test_ties_count_one_half():
    # By hand: pairs (1, 0) are 2 > 1, 2 = 2, 1 = 1, 1 < 2 of scores [1, 2 | 2, 1]: one right, two ties, one wrong.
    assert metrics.auc(np.array([1, 2, 2, 1]), np.array([0, 0, 1, 1])) == 0.5
    assert metrics.auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75


def test_sums_of_two_parts_are_the_sums_of_the_whole():
    whole, cut = stretch(2), 1111
    parts = [tuple(x[s] for x in whole) for s in (slice(cut), slice(cut, None))]
    merged = metrics.merge(sums_of(*parts[0]), sums_of(*parts[1]))
    for a, b in zip(jax.tree.leaves(merged), jax.tree.leaves(sums_of(*whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_always_predicting_the_base_rate_has_ne_one_and_calibration_one():
    _, labels, weight, segment = stretch(3)
    rate = labels.mean(0)
    logits = np.broadcast_to(np.log(rate / (1 - rate)), labels.shape).astype(np.float32)
    found = metrics.metrics(sums_of(logits, labels, weight, segment))
    np.testing.assert_allclose(found.ne, 1, rtol=1e-5)
    np.testing.assert_allclose(found.calibration, 1, rtol=1e-5)


def test_recalibration_undoes_a_shift_of_the_logits():
    logits, labels, weight, segment = stretch(4)
    straight = metrics.metrics(sums_of(logits, labels, weight, segment))
    shifted = metrics.metrics(sums_of(logits + np.float32(0.8), labels, weight, segment))
    assert np.all(shifted.ne > straight.ne + 0.02)
    np.testing.assert_allclose(shifted.ne_recalibrated, straight.ne_recalibrated, rtol=1e-3)
    assert np.all(straight.ne_recalibrated <= straight.ne + 1e-5)


def test_fillers_count_for_nothing():
    logits, labels, weight, segment = stretch(5)
    weight[100:] = 0
    some = sums_of(logits, labels, weight, segment)
    same = sums_of(logits[:100], labels[:100], weight[:100], segment[:100])
    for a, b in zip(jax.tree.leaves(some), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_log_loss_is_finite_and_exact_far_out():
    logits = jnp.array([-200.0, 200.0, -200.0, 0.0])
    found = losses.log_loss(logits, jnp.array([0.0, 1.0, 1.0, 0.5]))
    np.testing.assert_allclose(found, [0, 0, 200, np.log(2)], rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: losses.log_loss(x, jnp.zeros(4)).sum())(logits)))


def test_group_auc_equals_a_loop_over_groups():
    peer = pytest.importorskip("sklearn.metrics")
    logits, labels, _, _ = stretch(6, 400, 1)
    groups = np.random.default_rng(7).integers(0, 60, 400)
    total = weight = 0
    for group in range(60):
        here = groups == group
        if len(set(labels[here, 0])) == 2:
            total += here.sum() * peer.roc_auc_score(labels[here, 0], logits[here, 0])
            weight += here.sum()
    assert metrics.group_auc(logits[:, 0], labels[:, 0], groups) == pytest.approx(total / weight, abs=1e-12)
    assert np.isnan(metrics.group_auc(np.ones(3), np.ones(3), np.arange(3)))


def values(seed=8, n=600):
    rng = np.random.default_rng(seed)
    came = rng.exponential(1.5, n)
    told = 0.6 * came + rng.exponential(0.5, n)
    both = [np.stack([rng.normal(size=n), x], axis=1).astype(np.float32) for x in (told, came)]
    both[1][:, 0] = both[1][:, 0] > 0
    return both, rng.integers(0, 3, n).astype(np.int32)


def test_metrics_of_a_real_task_equal_their_definitions():
    (told, came), segment = values()
    real, n = (False, True), len(came)

    def sums(part):
        empty = metrics.zeros(2, 3, 256, real)
        return metrics.update(empty, told[part], came[part], np.ones(len(told[part]), np.float32), segment[part], real)

    whole = metrics.merge(sums(slice(200)), sums(slice(200, None)))
    found = metrics.metrics(whole, real)
    f, y = told[:, 1].astype(float), came[:, 1].astype(float)
    size = np.abs(f - y)
    huber = np.where(size <= 1, size**2 / 2, size - 0.5)
    assert found.log_loss[1] == pytest.approx(huber.mean(), rel=1e-5)
    assert found.mae[1] == pytest.approx(size.mean(), rel=1e-5)
    assert found.calibration[1] == pytest.approx(f.mean() / y.mean(), rel=1e-5)
    right, pairs = 0.0, 0
    for i in range(n):
        for j in range(n):
            if y[i] > y[j]:
                right += 1.0 if f[i] > f[j] else 0.5 if f[i] == f[j] else 0.0
                pairs += 1
    assert found.xauc[1] == pytest.approx(right / pairs, abs=4e-3)
    off = np.abs(y.mean() - y)
    mean = np.where(off <= 1, off**2 / 2, off - 0.5).mean()
    assert found.ne[1] == pytest.approx(huber.mean() / mean, rel=5e-3)
    alone = metrics.metrics(sums_of(told[:, :1], came[:, :1], np.ones(n, np.float32), segment, bins=256))
    for name in ("log_loss", "ne", "auc", "group_auc", "calibration"):  # the binary task beside it is what it was
        np.testing.assert_allclose(getattr(found, name)[0], getattr(alone, name)[0], rtol=1e-5)
        assert np.isnan(getattr(found, name)[1]) == name.endswith("auc")
    assert np.isnan(found.xauc[0])


def test_pairs_by_hand():
    # Values 0, 1, 2 come with predictions in the order 0, 2, 1: of three pairs one is wrong; a tie counts one half.
    joint = np.zeros((3, 3))
    joint[0, 0] = joint[2, 1] = joint[1, 2] = 1
    assert metrics.concordance(joint) == pytest.approx(2 / 3)
    joint = np.zeros((3, 3))
    joint[0, 0] = joint[1, 1] = joint[1, 2] = 1
    assert metrics.concordance(joint) == pytest.approx(2.5 / 3)
    assert np.isnan(metrics.concordance(np.eye(3)[:1].T @ np.eye(3)[:1]))


def test_auc_by_segment_is_the_average_of_the_segments():
    logits, labels, weight, segment = stretch(9)
    labels[segment == 2, 0] = 1  # one label alone: left out
    found = metrics.metrics(sums_of(logits, labels, weight, segment))
    exact = metrics.group_auc(logits[:, 0], labels[:, 0], segment)
    assert found.group_auc[0] == pytest.approx(exact, abs=3e-4)


def test_metrics_of_several_learners_are_those_of_each():
    both = [sums_of(*stretch(seed)) for seed in (10, 11)]
    together = metrics.metrics(jax.tree.map(lambda *parts: np.stack(parts), *both))
    for number, one in enumerate(both):
        for a, b in zip(together, metrics.metrics(one), strict=True):
            np.testing.assert_allclose(a[number], b)
