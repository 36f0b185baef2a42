"""Online training in one pass: predict an event, label it, and only then learn from it.

Legend: T steps of an interval, B events of a step, F and M columns, K tasks, S seeds, W distillation weights.
Teachers carry a leading axis `[S]`, students `[S, W]`: all of them see the same batches in the same order. Teacher
labels go from `publish` to `follow` at once, or through a store (`kdrec.labels`): the programs are the same.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kdrec import distill, metrics, models
from kdrec.distill import Labels, Method
from kdrec.metrics import Sums
from kdrec.models import Params, Spec
from kdrec.optimiser import Learner, fresh, learn
from kdrec.stream import Batches

NEVER = 2**31 - 1  # steps between two snapshots of a teacher that is frozen


class Plan(NamedTuple):
    """What is static: each other plan is another program.

    Attributes:
        student: shape of the student.
        teacher: shape of the teacher.
        method: how the student learns from labels.
        segment: column whose ids, modulo `segments`, are the segments of the metrics.
        segments: G.
        request: column whose equal ids in a batch are one request.
        bins: R of the metrics.
    """

    student: Spec
    teacher: Spec
    method: Method
    segment: int
    segments: int
    request: int
    bins: int


class Knobs(NamedTuple):
    """What is traced of the teacher's training: any value runs in the same program.

    Attributes:
        rate: `[]` or `[S]` learning rate.
        refresh: `[]` int32, steps between two snapshots that label; 1 is a continuous teacher.
        start: `[]` int32, step at which the students start: up to there the teacher labels as it is, then from
            snapshots of which the first is taken at this step.
        slope: `[]` that its logits are multiplied by, as a fault put in on purpose; 1 is none.
        shift: `[G]` added to its logits in each segment, likewise; 0 is none.
    """

    rate: jax.Array
    refresh: jax.Array
    start: jax.Array
    slope: jax.Array
    shift: jax.Array


class Dose(NamedTuple):
    """What is traced of the students' training.

    Attributes:
        rate: `[]` learning rate.
        weights: `[W]` of the teacher's term; 0 is a student without a teacher.
        temperature: `[]` that teacher logits are divided by.
    """

    rate: jax.Array
    weights: jax.Array
    temperature: jax.Array


class Teacher(NamedTuple):
    """A teacher, and the snapshot of it that labels."""

    learner: Learner
    snapshot: Params


class Said(NamedTuple):
    """Teacher labels of an interval; 0 at steps that were not run.

    Attributes:
        logits: `[T, S, B, K]`.
        hidden: `[T, S, B, J]` the trunk's output, J = 0 where the method does not learn from it.
    """

    logits: jax.Array
    hidden: jax.Array


def init_teachers(key: jax.Array, plan: Plan, seeds: int) -> Teacher:
    """Fresh teachers, from other keys than students.

    Args:
        key: of the run.
        plan: shapes.
        seeds: S.

    Returns:
        Teachers `[S]` and their snapshots.
    """

    def one(key: jax.Array) -> Learner:
        return fresh(models.init(key, plan.teacher))

    learner = jax.vmap(one)(jax.random.split(jax.random.fold_in(key, 0), seeds))
    return Teacher(learner, jax.tree.map(jnp.copy, learner.params))


def init_students(key: jax.Array, plan: Plan, seeds: int, weights: int) -> Learner:
    """Fresh students; a ranker is the same for each method and weight, and another for each seed: runs are paired.

    Args:
        key: of the run.
        plan: shapes.
        seeds: S.
        weights: W.

    Returns:
        Students `[S, W]`.
    """
    ranker, extra = (jax.random.split(jax.random.fold_in(key, purpose), seeds) for purpose in (1, 2))

    def one(ranker: jax.Array, beside: jax.Array) -> Learner:
        extra = distill.init(beside, plan.method, plan.student, plan.teacher)
        return fresh({"ranker": models.init(ranker, plan.student), "extra": extra})

    return jax.tree.map(lambda x: jnp.repeat(x[:, None], weights, axis=1), jax.vmap(one)(ranker, extra))


def _teacher_step(spec: Spec, learner: Learner, batch: Batches, rate: jax.Array) -> tuple[Learner, jax.Array]:
    """One step on the labels; also the logits `[B, K]` from before it."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        logits = models.apply(params, spec, batch.ids, batch.numbers).logits
        each = metrics.log_loss(logits, batch.labels) * batch.valid[:, None]
        return each.sum() / jnp.maximum(batch.valid.sum(), 1), logits

    gradient, logits = jax.grad(loss, has_aux=True)(learner.params)
    return learn(learner, gradient, rate), logits


def _student_step(
    plan: Plan, learner: Learner, batch: Batches, labels: Labels, weight: jax.Array, rate: jax.Array
) -> tuple[Learner, jax.Array]:
    """One step on labels and teacher labels; also the served logits `[B, K]` from before it."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        output = models.apply(params["ranker"], plan.student, batch.ids, batch.numbers)
        return distill.loss(plan.method, params["extra"], output, labels, weight), output.logits

    gradient, logits = jax.grad(loss, has_aux=True)(learner.params)
    return learn(learner, gradient, rate), logits


def label(plan: Plan, knobs: Knobs, snapshot: Params, batch: Batches) -> models.Output:
    """What one teacher says of a batch, with the faults that were put in on purpose.

    Args:
        plan: shapes.
        knobs: slope and shift.
        snapshot: parameters of the teacher, without a leading axis.
        batch: of one step; its labels are not read.

    Returns:
        Logits `[B, K]`, and the trunk's output.
    """
    output = models.apply(snapshot, plan.teacher, batch.ids, batch.numbers)
    segment = batch.ids[:, plan.segment] % plan.segments
    return output._replace(logits=knobs.slope * output.logits + knobs.shift[segment][:, None])


def _add(plan: Plan, sums: Sums, logits: jax.Array, batch: Batches) -> Sums:
    """Add the logits `[..., B, K]` of learners to sums with the same leading axes."""
    segment = batch.ids[:, plan.segment] % plan.segments
    add = functools.partial(metrics.update, labels=batch.labels, weight=batch.valid, segment=segment)
    for _ in range(logits.ndim - 2):
        add = jax.vmap(add)
    return add(sums, logits)


def tally(plan: Plan, *axes: int) -> Sums:
    """Sums of no event, with the leading axes of the learners."""
    sums = metrics.zeros(plan.student.tasks, plan.segments, plan.bins)
    return jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), sums)


def alone(plan: Plan) -> Plan:
    """The plan as far as teachers depend on it: runs that differ in their students alone share one program."""
    name = "hidden" if plan.method.name == "hidden" else "none"
    method = Method(name, (True,) * plan.teacher.tasks, "", "")
    return plan._replace(student=plan.teacher, method=method, request=0)


def axes_of(learner: Learner) -> tuple[int, ...]:
    """Leading axes of a learner, before those of its parameters: that of its optimiser's counter."""
    return learner.moments.count.shape


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="teacher")
def publish(
    plan: Plan, knobs: Knobs, teacher: Teacher, batches: Batches, step: jax.Array, last: jax.Array
) -> tuple[Teacher, Said, Sums]:
    """Let teachers label an interval and learn from it.

    At each step: the snapshot is taken if it is due, it labels the batch, and only then the teacher learns. So a label
    never depends on the outcome of its own event.

    Args:
        plan: static; give `alone(plan)`, so that other students do not compile it anew.
        knobs: traced.
        teacher: `[S]`; its buffers are given away.
        batches: `[T, B, ...]`; B is the batch axis to spread over devices.
        step: number in the stream of the interval's first step.
        last: the step of the interval after the last one.

    Returns:
        Teachers; what they said; the sums `[S]` of it.
    """
    (seeds,) = axes_of(teacher.learner)
    train = jax.vmap(functools.partial(_teacher_step, plan.teacher), (0, None, 0))
    ask = jax.vmap(functools.partial(label, plan, knobs), (0, None))
    rate = jnp.broadcast_to(knobs.rate, (seeds,))

    def body(index: jax.Array, carry: tuple[Teacher, Said, Sums]) -> tuple[Teacher, Said, Sums]:
        (learner, snapshot), kept, sums = carry
        batch = Batches(*(column[index] for column in batches))
        since = step + index - knobs.start
        due = (since < 0) | (since % knobs.refresh == 0)
        snapshot = lax.cond(due, lambda old, new: new, lambda old, new: old, snapshot, learner.params)  # noqa: ARG005
        said = ask(snapshot, batch)
        learner, _ = train(learner, batch, rate)
        hidden = said.hidden.mean(2)[..., : kept.hidden.shape[-1]]
        kept = Said(kept.logits.at[index].set(said.logits), kept.hidden.at[index].set(hidden))
        return Teacher(learner, snapshot), kept, _add(plan, sums, said.logits, batch)

    shape = (batches.ids.shape[0], seeds, batches.ids.shape[1])
    wide = models.width(plan.teacher) if plan.method.name == "hidden" else 0
    number = batches.labels.dtype
    kept = Said(jnp.zeros((*shape, plan.teacher.tasks), number), jnp.zeros((*shape, wide), number))
    return lax.fori_loop(0, last, body, (teacher, kept, tally(plan, seeds)))


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="student")
def follow(
    plan: Plan,
    dose: Dose,
    student: Learner,
    batches: Batches,
    said: Said,
    present: jax.Array,
    first: jax.Array,
    last: jax.Array,
) -> tuple[Learner, Sums]:
    """Let students predict steps `first` to `last` of an interval and learn from outcomes and teacher labels.

    Args:
        plan: static.
        dose: traced.
        student: `[S, W]`; its buffers are given away.
        batches: `[T, B, ...]`; B is the batch axis to spread over devices.
        said: teacher labels of the interval.
        present: `[T, S, B]` 1 where there is a teacher label; elsewhere the event teaches by its outcome alone.
        first: step of the interval.
        last: the one after the last step.

    Returns:
        Students, and the sums `[S, W]` of what they predicted before each step.
    """

    def one(learner: Learner, weight: jax.Array, batch: Batches, said: Said, present: jax.Array) -> Any:
        labels = Labels(
            hard=batch.labels,
            soft=said.logits / dose.temperature,
            hidden=said.hidden,
            published=present,
            valid=batch.valid,
            request=batch.ids[:, plan.request],
        )
        return _student_step(plan, learner, batch, labels, weight, dose.rate)

    every = jax.vmap(jax.vmap(one, (0, 0, None, None, None)), (0, None, None, 0, 0))

    def body(index: jax.Array, carry: tuple[Learner, Sums]) -> tuple[Learner, Sums]:
        batch = Batches(*(column[index] for column in batches))
        labels = Said(said.logits[index], said.hidden[index])
        learner, logits = every(carry[0], dose.weights, batch, labels, present[index])
        return learner, _add(plan, carry[1], logits, batch)

    return lax.fori_loop(first, last, body, (student, tally(plan, *axes_of(student))))


@functools.partial(jax.jit, static_argnames="plan")
def heard(plan: Plan, said: Said, present: jax.Array, batches: Batches) -> Sums:
    """Sums `[S]` of teacher labels where there are any; the arguments are those of `follow`."""

    def body(sums: Sums, step: Any) -> tuple[Sums, None]:
        logits, present, batch = step
        add = jax.vmap(lambda s, f, m: _add(plan, s, f, batch._replace(valid=batch.valid * m)))
        return add(sums, logits, present), None

    return lax.scan(body, tally(plan, present.shape[1]), (said.logits, present, batches))[0]
