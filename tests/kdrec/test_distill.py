"""Losses against float64 definitions, and what is exact about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from kdrec import distill, models
from kdrec.distill import Labels
from kdrec.models import Output
from tests.kdrec.worlds import method, spec, world

N, K = 12, 2


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    f, q, hidden, taught = (rng.normal(size=s).astype(np.float32) for s in ((N, K), (N, K), (N, 1, 8), (N, 16)))
    y = rng.integers(0, 2, (N, K)).astype(np.float32)
    published, valid = np.ones(N, np.float32), np.ones(N, np.float32)
    published[[2, 5]] = 0
    valid[-2:] = 0
    request = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 0], np.int32)
    output = Output(jnp.asarray(f), jnp.asarray(hidden))
    return output, Labels(*map(jnp.asarray, (y, q, taught, published, valid, request)))


def extra_of(name, key):
    student = spec(world())
    return distill.init(key, method(name), student, student.scaled(2))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def entropy(f, y):
    return -y * np.log(sigmoid(f)) - (1 - y) * np.log(sigmoid(-f))


def reference(name, extra, output, labels, w, space="probability"):
    """Float64, event by event and pair by pair."""
    f, hidden = np.asarray(output.logits, float), np.asarray(output.hidden, float)[:, 0]
    y, q, taught, published, valid, request = (np.asarray(x, float) for x in labels)
    extra = jax.tree.map(lambda x: np.asarray(x, float), extra)

    def d(a, b):
        return entropy(a, sigmoid(b)) if space == "probability" else (a - b) ** 2 / 2

    total = 0.0
    for i in np.flatnonzero(valid):
        peers = [j for j in np.flatnonzero(valid * published) if request[j] == request[i]]
        for k in range(K):
            hard = entropy(f[i, k], y[i, k])
            if not published[i]:
                total += hard
            elif name == "direct":
                total += (1 - w) * hard + w * d(f[i, k], q[i, k])
            elif name == "affine":
                total += (1 - w) * hard + w * d(extra["slope"][k] * f[i, k] + extra["shift"][k], q[i, k])
            elif name == "auxiliary":
                g = hidden[i] @ extra["heads"]["kernel"][k] + extra["heads"]["bias"][k]
                total += hard + w * d(g, q[i, k])
            elif name == "pairwise":
                others = [j for j in peers if j != i]
                pairs = [entropy(f[i, k] - f[j, k], sigmoid(q[i, k] - q[j, k])) for j in others]
                total += hard + w * (np.mean(pairs) if pairs else 0)
            elif name == "listwise":
                share = [sigmoid(x[i, k]) / sum(sigmoid(x[j, k]) for j in peers) for x in (q, f)]
                total += hard + (-w * share[0] * np.log(share[1]) if len(peers) > 1 else 0)
            else:
                total += hard
        if name == "hidden" and published[i]:
            total += w * np.mean((hidden[i] @ extra["projection"] - taught[i]) ** 2)
    return total / valid.sum()


@pytest.mark.parametrize("name", distill.METHODS)
def test_a_loss_equals_its_definition(name, batch, key):
    output, labels = batch
    extra = jax.tree.map(lambda x: x + 0.3, extra_of(name, key))
    found = jax.jit(distill.loss, static_argnums=0)(method(name), extra, output, labels, jnp.float32(0.7))
    assert found == pytest.approx(reference(name, extra, output, labels, 0.7), rel=1e-5)


@pytest.mark.parametrize("name", ["direct", "affine", "auxiliary"])
def test_the_logit_space_is_a_squared_error(name, batch, key):
    output, labels = batch
    extra = extra_of(name, key)
    found = distill.loss(method(name, space="logit"), extra, output, labels, jnp.float32(0.7))
    assert found == pytest.approx(reference(name, extra, output, labels, 0.7, "logit"), rel=1e-5)


@pytest.mark.parametrize("name", distill.METHODS[1:])
def test_weight_zero_is_no_teacher(name, batch, key):
    output, labels = batch

    def value(method_name, extra):
        def of(f):
            changed = output._replace(logits=f)
            return distill.loss(method(method_name), extra, changed, labels, jnp.float32(0))

        return jax.value_and_grad(of)(output.logits)

    for a, b in zip(value(name, extra_of(name, key)), value("none", {}), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", distill.METHODS[1:])
def test_a_label_that_is_missing_is_never_read(name, batch, key):
    output, labels = batch
    extra = extra_of(name, key)
    hidden = np.array(labels.hidden)
    soft = np.array(labels.soft)
    soft[[2, 5]], hidden[[2, 5]] = 7.0, 7.0
    other = labels._replace(soft=jnp.asarray(soft), hidden=jnp.asarray(hidden))
    weight = jnp.float32(0.7)
    np.testing.assert_array_equal(
        distill.loss(method(name), extra, output, labels, weight),
        distill.loss(method(name), extra, output, other, weight),
    )


@pytest.mark.parametrize("name", ["direct", "affine", "auxiliary", "pairwise", "listwise"])
def test_tasks_that_are_not_distilled_do_not_see_the_teacher(name, batch, key):
    output, labels = batch
    chosen = method(name, tasks=(1.0, 0.0))
    other = labels._replace(soft=labels.soft.at[:, 1].add(3.0))
    extra, weight = extra_of(name, key), jnp.float32(0.7)
    np.testing.assert_array_equal(
        distill.loss(chosen, extra, output, labels, weight), distill.loss(chosen, extra, output, other, weight)
    )


def test_the_bias_identity_holds_at_the_optimum_of_direct():
    """One logit for all events: its optimum predicts (1 - a) mean y + a mean s(q), whatever the shift of q."""
    rng = np.random.default_rng(1)
    y = (rng.random((500, 1)) < 0.3).astype(np.float32)
    q = rng.normal(-0.8, 1, (500, 1)).astype(np.float32) + np.float32(0.9)
    ones, one = jnp.ones(500), method("direct", tasks=(1.0,))
    labels = Labels(jnp.asarray(y), jnp.asarray(q), jnp.zeros((500, 1)), ones, ones, jnp.zeros(500, jnp.int32))

    loss = jax.jit(distill.loss, static_argnums=0)

    def best(chosen, weight):
        def of(x):
            f = jnp.full((500, 1), x, jnp.float32)
            extra = {"heads": {"kernel": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}} if chosen.name == "auxiliary" else {}
            return float(loss(chosen, extra, Output(f, jnp.zeros((500, 1, 1))), labels, jnp.float32(weight)))

        return sigmoid(minimize_scalar(of, bounds=(-4, 4), method="bounded", options={"xatol": 1e-6}).x)

    mean_y, mean_q = y.mean(), sigmoid(q.astype(float)).mean()
    for alpha in (0.0, 0.3, 0.5, 1.0):
        assert best(one, alpha) == pytest.approx((1 - alpha) * mean_y + alpha * mean_q, abs=1e-3)
        error = best(one, alpha) / mean_y - 1
        assert error == pytest.approx(alpha * (mean_q - mean_y) / mean_y, abs=3e-3)
        assert best(method("auxiliary", tasks=(1.0,)), alpha) == pytest.approx(mean_y, abs=1e-3)


def test_lists_of_sigmoids_keep_probabilities_and_softmax_does_not(batch):
    """At f = q the sigmoid form is at its optimum; so is the softmax form, but at f = q + c as well."""
    _, labels = batch
    f = labels.soft
    mask, weight = jnp.ones((N, K)), labels.request

    def gap(lists, shift):
        here, there = (distill.listwise(x, labels.soft, mask, weight, lists).sum() for x in (f, f + shift))
        return float(there - here)

    assert gap("softmax", 1.0) == pytest.approx(0, abs=1e-5)
    assert gap("sigmoid", 1.0) > 1e-3


def test_misuse_says_what_is_allowed(key):
    student = spec(world())
    with pytest.raises(ValueError, match="method must be one of none, direct, affine"):
        distill.init(key, method("magic"), student, student)
    with pytest.raises(ValueError, match="a weight for each of 2"):
        distill.init(key, method(tasks=(1.0,)), student, student)
    with pytest.raises(ValueError, match="space must be probability or logit, got 'log'"):
        distill.distance("log", jnp.zeros(1), jnp.zeros(1))
    with pytest.raises(ValueError, match="lists must be sigmoid or softmax"):
        distill.listwise(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.zeros(2, jnp.int32), "relu")


def test_what_a_method_learns_beside_the_ranker_fits_it(key):
    for trunk in models.TRUNKS:
        student = spec(world(), trunk)
        heads = distill.init(key, method("auxiliary"), student, student.scaled(2))["heads"]
        assert heads["kernel"].shape == (2, models.width(student))


def huber(e):
    return np.where(abs(e) <= 1, e**2 / 2, abs(e) - 0.5)


def test_a_real_task_learns_by_huber_in_each_method_that_takes_values(batch, key):
    output, labels = batch
    rng, w = np.random.default_rng(3), 0.7
    y, q = (np.array(x) for x in (labels.hard, labels.soft))
    y[:, 1], q[:, 1] = rng.exponential(2, N), rng.exponential(2, N)
    labels = labels._replace(hard=jnp.asarray(y), soft=jnp.asarray(q))
    f, hidden = np.asarray(output.logits, float), np.asarray(output.hidden, float)[:, 0]
    seen = np.asarray(labels.published * labels.valid, float)
    valid = np.asarray(labels.valid, float)
    for name in ("none", "direct", "affine", "auxiliary", "pairwise", "hidden"):
        extra = jax.tree.map(lambda x: x + 0.3, extra_of(name, key))
        values, binary = (
            method(name, real=(False, True), tasks=(0.0, 2.0)), method(name, tasks=(0.0, 0.0)),
        )  # fmt: skip
        found = distill.loss(values, extra, output, labels, jnp.float32(w))
        first = distill.loss(binary, extra, output, labels, jnp.float32(w)) - (entropy(f, y)[:, 1] * valid).sum() / 10
        hard, part = huber(f[:, 1] - y[:, 1]), 2 * w * seen
        if name == "direct":
            second = (1 - part) * hard + part * huber(f[:, 1] - q[:, 1])
        elif name == "affine":
            a, b = (float(extra[x][1]) for x in ("slope", "shift"))
            second = (1 - part) * hard + part * huber(a * f[:, 1] + b - q[:, 1])
        elif name == "auxiliary":
            g = hidden @ np.asarray(extra["heads"]["kernel"][1], float) + float(extra["heads"]["bias"][1])
            second = hard + part * huber(g - q[:, 1])
        elif name == "pairwise":
            mask = jnp.asarray(seen, jnp.float32)[:, None] * jnp.ones((1, K))
            pairs = distill.pairwise(output.logits, labels.soft, mask, labels.request)[1]
            second = hard + 2 * w * float(pairs) * np.eye(N)[0]
        else:
            second = hard
        assert found - first == pytest.approx((second * valid).sum() / 10, rel=1e-4), name


def test_an_added_term_leaves_the_outcome_its_whole_weight(batch, key):
    output, labels = batch
    weight = jnp.float32(0.7)
    for name in ("direct", "affine"):
        extra = extra_of(name, key)
        added, mixed = (
            distill.loss(method(name, form=form), extra, output, labels, weight) for form in ("added", "mixed")
        )
        hard = entropy(np.asarray(output.logits, float), np.asarray(labels.hard, float)).sum(1)
        taught = np.asarray(labels.published * labels.valid, float)
        assert added - mixed == pytest.approx(0.7 * (hard * taught).sum() / 10, rel=1e-4)


def test_a_task_has_a_weight_of_its_own(batch, key):
    output, labels = batch
    for name in ("direct", "auxiliary", "pairwise", "listwise"):
        extra = extra_of(name, key)

        def of(first, second, weight, name=name, extra=extra):
            return float(distill.loss(method(name, tasks=(first, second)), extra, output, labels, jnp.float32(weight)))

        assert of(1.0, 0.5, 0.4) == pytest.approx(of(1.0, 0.0, 0.4) + of(0.0, 1.0, 0.2) - of(0.0, 0.0, 0.0), rel=1e-5)


def test_the_temperature_divides_logits_and_leaves_values():
    soft = distill.softened(method(real=(False, True)), jnp.array([[2.0, 2.0]]), jnp.float32(4))
    assert soft.tolist() == [[0.5, 2.0]]
    with pytest.raises(ValueError, match="listwise takes lists of probabilities"):
        distill.init(jax.random.key(0), method("listwise", real=(False, True)), spec(world()), spec(world()))
