"""Predict, label, then train: against a plain loop with optax, and what is exact about it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdrec import cores, distill, metrics, models, stream, teach, train
from kdrec.losses import log_loss
from tests.kdrec.worlds import dose, knobs, plan, world

STEPS, BATCH = 6, 16


@pytest.fixture(scope="module")
def events():
    return world()


def batches(events, step=0, count=STEPS):
    return jax.tree.map(jnp.asarray, stream.batches(events, step, count, BATCH, len(events))[0])


class Run(NamedTuple):
    teacher: teach.Teacher
    student: teach.Learner
    heard: metrics.Sums
    served: metrics.Sums
    labels: jax.Array


def start(shape, seeds=2, weights=2):
    key = jax.random.key(3)
    return teach.init_teachers(key, shape, seeds), train.init_students(key, shape, seeds, weights)


def run(shape, turned, given, pair, found, first=0, last=STEPS, step=0, silent=0):
    """Teachers and students over part of an interval; the buffers given away are copies."""
    teacher, student = jax.tree.map(jnp.copy, pair)
    teacher, said, heard = teach.publish(teach.alone(shape), turned, teacher, found, jnp.int32(step), jnp.int32(last))
    told = (jnp.arange(STEPS) >= silent)[:, None, None]
    present = jnp.broadcast_to(told, said.logits.shape[:-1]).astype(jnp.float32)
    student, served = train.follow(shape, given, student, found, said, present, jnp.int32(first), jnp.int32(last))
    return Run(teacher, student, heard, served, said.logits)


def assert_same(a, b):
    for path, leaf in jax.tree_util.tree_leaves_with_path(a):
        other = dict(jax.tree_util.tree_leaves_with_path(b))[path]
        np.testing.assert_array_equal(leaf, other, err_msg=jax.tree_util.keystr(path))


def plain_loop(shape, turned, given, pair, found, seed, weight, refresh, begin):
    """One teacher and one student, step by step, with optax as anybody would write it."""
    teacher, student = (jax.tree.map(lambda x: x[seed], each.params) for each in (pair[0].learner, pair[1]))
    student = jax.tree.map(lambda x: x[weight], student)
    adam = optax.adam(0.01)

    @jax.jit
    def update(params, gradient, moments):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            updates, moments = adam.update(gradient, moments)
        return optax.apply_updates(params, updates), moments

    moments = [adam.init(teacher), adam.init(student)]
    snapshot, labels, served = teacher, [], []

    def student_loss(p, batch, said):
        output = models.apply(p["ranker"], shape.student, batch.ids, batch.numbers)
        labels = distill.Labels(
            batch.labels, said.logits, said.hidden[:, 0], batch.valid, batch.valid, batch.ids[:, shape.request]
        )
        return distill.loss(shape.method, p["extra"], output, labels, given.weights[weight]), output.logits

    def teacher_loss(p, batch):
        logits = models.apply(p, shape.teacher, batch.ids, batch.numbers).logits
        return log_loss(logits, batch.labels).sum() / BATCH

    student_gradient, teacher_gradient = jax.jit(jax.grad(student_loss, has_aux=True)), jax.jit(jax.grad(teacher_loss))
    label = jax.jit(teach.label, static_argnums=0)
    for t in range(STEPS):
        batch = stream.Batches(*(column[t] for column in found))
        if t < begin or (t - begin) % refresh == 0:
            snapshot = teacher
        said = label(shape, turned, snapshot, batch)
        labels.append(said.logits)
        if t >= begin:
            gradient, logits = student_gradient(student, batch, said)
            served.append(logits)
            student, moments[1] = update(student, gradient, moments[1])
        teacher, moments[0] = update(teacher, teacher_gradient(teacher, batch), moments[0])
    return teacher, student, jnp.stack(labels), jnp.stack(served)


def test_equals_a_plain_loop(events):
    shape, turned, given = plan(events), knobs(refresh=2, start=1, shift=0.3, slope=0.9), dose(0.0, 1.5)
    pair, found = start(shape), batches(events)
    teacher, student, labels, served = plain_loop(shape, turned, given, pair, found, 1, 1, 2, 1)
    after = run(shape, turned, given, pair, found, first=1)
    np.testing.assert_allclose(after.labels[:, 1], labels, rtol=2e-4, atol=2e-5)
    for ours, theirs in (
        (after.teacher.learner.params, teacher),
        (jax.tree.map(lambda x: x[:, 1], after.student.params), student),
    ):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a[1], b, rtol=2e-3, atol=1e-4)

    def total(logits, outcome):
        return (np.logaddexp(0, logits) - np.asarray(logits, np.float64) * outcome).sum((0, 1))

    outcome = np.asarray(found.labels, np.float64)
    np.testing.assert_allclose(after.served.loss[1, 1], total(served, outcome[1:]), rtol=1e-4)
    np.testing.assert_allclose(after.heard.loss[1], total(labels, outcome), rtol=1e-4)


@pytest.mark.parametrize("name", ["auxiliary", "direct"])
def test_weight_zero_equals_no_teacher_bit_for_bit(events, name):
    found = batches(events)
    shape, bare = plan(events, name), plan(events, "none")
    taught = run(shape, knobs(), dose(), start(shape), found)
    alone = run(bare, knobs(), dose(0.0, 0.0), start(bare), found)
    first = jax.tree.map(lambda x: x[:, 0], (taught.student.params["ranker"], taught.served))
    assert_same(first, jax.tree.map(lambda x: x[:, 0], (alone.student.params["ranker"], alone.served)))
    second = taught.student.params["ranker"]["heads"]["kernel"]
    assert np.any(second[:, 1] != second[:, 0])


def test_labels_and_predictions_do_not_depend_on_the_outcomes_of_their_events(events):
    shape, found = plan(events), batches(events)
    changed = found._replace(labels=found.labels.at[3, 5].set(1 - found.labels[3, 5]))
    before, after = (run(shape, knobs(), dose(), start(shape), each) for each in (found, changed))
    np.testing.assert_array_equal(before.labels[:4], after.labels[:4])  # its own step included
    assert np.any(np.asarray(before.labels[4] != after.labels[4]))  # later ones have learned from it
    changed = found._replace(labels=found.labels.at[5].set(1 - found.labels[5]))
    after = run(shape, knobs(), dose(), start(shape), changed)
    np.testing.assert_array_equal(before.served.predicted, after.served.predicted)


def test_students_of_all_methods_start_alike_and_teachers_do_not(events):
    first = start(plan(events, "none"))[1].params["ranker"]
    for name in distill.METHODS[1:]:
        assert_same(first, start(plan(events, name))[1].params["ranker"])
    heads = first["heads"]["kernel"]
    assert np.any(heads[0, 0] != heads[1, 0])  # seeds differ
    np.testing.assert_array_equal(heads[:, 0], heads[:, 1])  # weights do not
    shape = plan(events)
    teacher, student = start(shape._replace(teacher=shape.student))
    assert np.any(teacher.learner.params["heads"]["kernel"] != student.params["ranker"]["heads"]["kernel"][:, 0])


def test_an_interval_in_two_parts_is_the_whole_bit_for_bit(events):
    shape, turned, found = plan(events), knobs(refresh=3), batches(events)
    whole = run(shape, turned, dose(), start(shape), found)
    half = run(shape, turned, dose(), start(shape), batches(events, 0), 0, 4)
    rest = run(shape, turned, dose(), half[:2], batches(events, 4), 0, 2, 4)
    assert_same(whole[:2], rest[:2])
    np.testing.assert_array_equal(whole.labels, jnp.concatenate([half.labels[:4], rest.labels[:2]]))
    assert np.all(np.asarray(half.labels[4:]) == 0)
    merged = metrics.merge(half.served, rest.served)
    for a, b in zip(jax.tree.leaves(whole.served), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    ("refresh", "begin", "fresh"),
    [
        (1, 0, {0, 1, 2, 3, 4, 5}), (2, 0, {0, 2, 4}), (4, 0, {0, 4}), (teach.NEVER, 0, {0}),
        (teach.NEVER, 3, {0, 1, 2, 3}), (2, 3, {0, 1, 2, 3, 5}),
    ],
)  # fmt: skip
def test_the_snapshot_is_taken_when_it_is_due(events, refresh, begin, fresh):
    shape = plan(events)
    same = jax.tree.map(lambda column: jnp.repeat(column[:1], STEPS, axis=0), batches(events))  # one batch at all steps
    labels = run(shape, knobs(refresh=refresh, start=begin), dose(), start(shape), same).labels
    assert {0} | {t for t in range(1, STEPS) if np.any(labels[t] != labels[t - 1])} == fresh


def test_labels_that_are_missing_teach_nothing(events):
    shape = plan(events)
    ranker = run(shape, knobs(), dose(), start(shape), batches(events), silent=STEPS).student.params["ranker"]
    assert_same(jax.tree.map(lambda x: x[:, 0], ranker), jax.tree.map(lambda x: x[:, 1], ranker))


def test_fillers_teach_nothing_and_count_for_nothing(events):
    shape, found = plan(events), batches(events)
    valid = found.valid.at[:, 10:].set(0)
    other = found._replace(valid=valid, labels=found.labels.at[:, 10:].set(1), ids=found.ids.at[:, 10:].set(1))
    first, second = (run(shape, knobs(), dose(), start(shape), each) for each in (found._replace(valid=valid), other))
    assert float(first.served.events[0, 0]) == 10 * STEPS
    np.testing.assert_array_equal(first.served.loss, second.served.loss)
    for a, b in zip(jax.tree.leaves(first[:2]), jax.tree.leaves(second[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_other_values_run_in_the_same_program(events):
    shape, found = plan(events), batches(events)
    run(shape, knobs(), dose(), start(shape), found)
    compiled = teach.publish._cache_size(), train.follow._cache_size()
    turned = knobs(refresh=5, start=2, shift=1.0, rate=0.1)
    run(shape, turned, dose(0.0, 0.3, temperature=2.0), start(shape), found, 2, 4)
    assert (teach.publish._cache_size(), train.follow._cache_size()) == compiled


def test_more_seeds_do_not_change_the_first_ones(events):
    shape, found = plan(events), batches(events)
    two = start(shape, 2)
    both = run(shape, knobs(), dose(), two, found)
    alone = run(shape, knobs(), dose(), jax.tree.map(lambda x: x[:1], two), found)
    for a, b in zip(jax.tree.leaves(both.student.params), jax.tree.leaves(alone.student.params), strict=True):
        np.testing.assert_allclose(a[:1], b, rtol=1e-3, atol=1e-5)


def test_what_is_heard_is_counted_as_what_is_said(events):
    shape, found = plan(events), batches(events)
    after = run(shape, knobs(), dose(), start(shape), found)
    said, present = (
        teach.Said(after.labels, jnp.zeros((*after.labels.shape[:-1], 0))),
        jnp.ones(after.labels.shape[:-1]),
    )
    heard = teach.heard(shape, said, present, found)
    for a, b in zip(jax.tree.leaves(heard), jax.tree.leaves(after.heard), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    some = teach.heard(shape, said, present.at[:, 1].set(0), found)
    assert some.events.tolist() == [STEPS * BATCH, 0]


def test_seeds_in_groups_equal_those_in_one_but_for_rounding(events):
    shape, found = plan(events), batches(events)
    span, whole = (jnp.int32(0), jnp.int32(STEPS)), []
    for groups in (1, 2):
        one, two = start(shape)
        one, said, heard = cores.publish(groups, teach.alone(shape), knobs(), one, found, *span)
        present = jnp.ones(said.logits.shape[:-1])
        two, served = cores.follow(groups, shape, dose(), two, found, said, present, *span)
        whole.append((one, said, heard, two, served))
    for a, b in zip(*map(jax.tree.leaves, whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_every_seed_is_in_one_group_with_all_its_members(events):
    parts = cores._parts(5, 3, batches(events))
    assert [(part.start, part.stop) for part in parts] == [(0, 2), (2, 3), (3, 5)]
    members = [cores._cut(jnp.arange(10), part, 0, 2).tolist() for part in parts]
    assert members == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert len(cores._parts(2, 8, batches(events))) == 2
