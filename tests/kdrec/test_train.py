"""Predict, label, then train: against a plain loop with optax, and what is exact about it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdrec import distill, metrics, models, stream, train
from tests.kdrec.worlds import knobs, plan, world

STEPS, BATCH = 6, 16


@pytest.fixture(scope="module")
def events():
    return world()


def batches(events, step=0, count=STEPS):
    return jax.tree.map(jnp.asarray, stream.batches(events, step, count, BATCH, len(events)))


def run(shape, turned, pair, found, first=0, last=STEPS, step=0):
    """Lockstep over part of an interval; the buffers given away are copies."""
    pair = jax.tree.map(jnp.copy, pair)
    span = [jnp.int32(x) for x in (step, first, last)]
    return train.lockstep(shape, turned, pair, found, *span)


def start(shape, seeds=2, weights=2):
    return train.init(jax.random.key(3), shape, seeds, weights)


def assert_same(a, b):
    for path, leaf in jax.tree_util.tree_leaves_with_path(a):
        other = dict(jax.tree_util.tree_leaves_with_path(b))[path]
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))


def plain_loop(shape, turned, pair, found, seed, weight, refresh, begin):
    """One teacher and one student, step by step, with optax as anybody would write it."""
    teacher, student = (jax.tree.map(lambda x: x[seed], learner.params) for learner in (pair.teacher, pair.student))
    student = jax.tree.map(lambda x: x[weight], student)
    adam = optax.adam(0.01)
    update = jax.numpy_dtype_promotion("standard")(adam.update)  # optax mixes types
    moments = [adam.init(teacher), adam.init(student)]
    snapshot, labels, served = teacher, [], []

    def student_loss(p, batch, said):
        output = models.apply(p["ranker"], shape.student, batch.ids, batch.numbers)
        given = distill.Labels(
            batch.labels, said.logits, said.hidden[:, 0], batch.valid, batch.valid, batch.ids[:, shape.request]
        )
        return distill.loss(shape.method, p["extra"], output, given, turned.weights[weight]), output.logits

    def teacher_loss(p, batch):
        logits = models.apply(p, shape.teacher, batch.ids, batch.numbers).logits
        return metrics.log_loss(logits, batch.labels).sum() / BATCH

    student_gradient, teacher_gradient = jax.jit(jax.grad(student_loss, has_aux=True)), jax.jit(jax.grad(teacher_loss))
    label = jax.jit(train.label, static_argnums=0)
    for t in range(STEPS):
        batch = stream.Batches(*(column[t] for column in found))
        if t >= begin:
            if (t - begin) % refresh == 0:
                snapshot = teacher
            said = label(shape, turned, snapshot, batch)
            labels.append(said.logits)
            gradient, logits = student_gradient(student, batch, said)
            served.append(logits)
            updates, moments[1] = update(gradient, moments[1])
            student = optax.apply_updates(student, updates)
        updates, moments[0] = update(teacher_gradient(teacher, batch), moments[0])
        teacher = optax.apply_updates(teacher, updates)
    return teacher, student, jnp.stack(labels), jnp.stack(served)


def test_equals_a_plain_loop(events):
    shape, turned = plan(events), knobs((0.0, 1.5), refresh=2, start=1, shift=0.3, slope=0.9)
    pair, found = start(shape), batches(events)
    teacher, student, labels, served = plain_loop(shape, turned, pair, found, 1, 1, 2, 1)
    copied = jax.tree.map(jnp.copy, pair.teacher)
    trained, _ = train.teach(train.alone(shape), turned.teacher_rate, copied, found, jnp.int32(0), jnp.int32(1))
    after, sums, kept = run(shape, turned, pair._replace(teacher=trained), found, 1)
    np.testing.assert_allclose(kept[1:, 1], labels, rtol=2e-4, atol=2e-5)
    assert np.all(np.asarray(kept[0]) == 0)
    for ours, theirs in (
        (after.teacher.params, teacher),
        (jax.tree.map(lambda x: x[:, 1], after.student.params), student),
    ):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a[1], b, rtol=2e-3, atol=1e-4)
    outcome = np.asarray(found.labels[1:], np.float64)
    expected = np.logaddexp(0, served) - np.asarray(served, np.float64) * outcome
    np.testing.assert_allclose(sums.student.loss[1, 1], expected.sum((0, 1)), rtol=1e-4)


@pytest.mark.parametrize("name", ["auxiliary", "direct"])
def test_weight_zero_equals_no_teacher_bit_for_bit(events, name):
    found = batches(events)
    shape, bare = plan(events, name), plan(events, "none")
    taught, sums, _ = run(shape, knobs((0.0, 1.0)), start(shape), found)
    alone, lone, _ = run(bare, knobs((0.0, 0.0)), start(bare), found)
    first = jax.tree.map(lambda x: x[:, 0], (taught.student.params["ranker"], sums.student))
    assert_same(first, jax.tree.map(lambda x: x[:, 0], (alone.student.params["ranker"], lone.student)))
    second = taught.student.params["ranker"]["heads"]["kernel"]
    assert np.any(second[:, 1] != second[:, 0])


def test_a_label_does_not_depend_on_the_outcome_of_its_event(events):
    shape, found = plan(events), batches(events)
    changed = found._replace(labels=found.labels.at[3, 5].set(1 - found.labels[3, 5]))
    labels = [run(shape, knobs(), start(shape), each)[2] for each in (found, changed)]
    np.testing.assert_array_equal(labels[0][:4], labels[1][:4])  # its own step included
    assert np.any(np.asarray(labels[0][4] != labels[1][4]))  # later ones have learned from it


def test_a_prediction_does_not_depend_on_the_outcome_of_its_event(events):
    shape, found = plan(events), batches(events)
    changed = found._replace(labels=found.labels.at[5].set(1 - found.labels[5]))
    sums = [run(shape, knobs(), start(shape), each)[1] for each in (found, changed)]
    np.testing.assert_array_equal(sums[0].student.predicted, sums[1].student.predicted)


def test_students_of_all_methods_start_alike_and_teachers_do_not():
    events = world()
    first = start(plan(events, "none")).student.params["ranker"]
    for name in distill.METHODS[1:]:
        assert_same(first, start(plan(events, name)).student.params["ranker"])
    heads = first["heads"]["kernel"]
    assert np.any(heads[0, 0] != heads[1, 0])  # seeds differ
    np.testing.assert_array_equal(heads[:, 0], heads[:, 1])  # weights do not
    shape = plan(events)
    same = shape._replace(teacher=shape.student)
    pair = start(same)
    assert np.any(pair.teacher.params["heads"]["kernel"] != pair.student.params["ranker"]["heads"]["kernel"][:, 0])


def test_an_interval_in_two_parts_is_the_whole_bit_for_bit(events):
    shape, turned, found = plan(events), knobs(refresh=3), batches(events)
    whole, sums, labels = run(shape, turned, start(shape), found)
    half, first, early = run(shape, turned, start(shape), batches(events, 0), 0, 4)
    late = batches(events, 4)
    half, second, rest = run(shape, turned, half, late, 0, 2, 4)
    assert_same(whole, half)
    np.testing.assert_array_equal(labels, jnp.concatenate([early[:4], rest[:2]]))
    for a, b in zip(jax.tree.leaves(sums), jax.tree.leaves(metrics.merge(first, second)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("refresh", "fresh"), [(1, {0, 1, 2, 3, 4, 5}), (2, {0, 2, 4}), (4, {0, 4}), (train.NEVER, {0})]
)
def test_the_snapshot_is_taken_when_it_is_due(events, refresh, fresh):
    shape = plan(events)
    found = batches(events)
    same = jax.tree.map(lambda column: jnp.repeat(column[:1], STEPS, axis=0), found)  # the same batch at each step
    _, _, labels = run(shape, knobs(refresh=refresh), start(shape), same)
    changes = {0} | {t for t in range(1, STEPS) if np.any(labels[t] != labels[t - 1])}
    assert changes == fresh


def test_labels_before_their_publication_teach_nothing(events):
    shape, found = plan(events), batches(events)
    later, _, _ = run(shape, knobs(publish=STEPS), start(shape), found)
    ranker = later.student.params["ranker"]
    assert_same(jax.tree.map(lambda x: x[:, 0], ranker), jax.tree.map(lambda x: x[:, 1], ranker))


def test_fillers_teach_nothing_and_count_for_nothing(events):
    shape, turned = plan(events), knobs()
    found = batches(events)
    valid = found.valid.at[:, 10:].set(0)
    other = found._replace(valid=valid, labels=found.labels.at[:, 10:].set(1), ids=found.ids.at[:, 10:].set(1))
    first, sums, _ = run(shape, turned, start(shape), found._replace(valid=valid))
    second, same, _ = run(shape, turned, start(shape), other)
    assert float(sums.student.events[0, 0]) == 10 * STEPS
    np.testing.assert_array_equal(sums.student.loss, same.student.loss)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_other_values_run_in_the_same_program(events):
    shape, found = plan(events), batches(events)
    run(shape, knobs(), start(shape), found)
    compiled = train.lockstep._cache_size()
    run(shape, knobs((0.0, 0.3), refresh=5, start=2, shift=1.0, temperature=2.0, rate=0.1), start(shape), found, 2, 4)
    assert train.lockstep._cache_size() == compiled


def test_more_seeds_do_not_change_the_first_ones(events):
    shape, found = plan(events), batches(events)
    two = start(shape, 2)
    one = jax.tree.map(lambda x: x[:1], two)
    both, _, _ = run(shape, knobs(), two, found)
    alone, _, _ = run(shape, knobs(), one, found)
    for a, b in zip(jax.tree.leaves(both.student.params), jax.tree.leaves(alone.student.params), strict=True):
        np.testing.assert_allclose(a[:1], b, rtol=1e-3, atol=1e-5)
