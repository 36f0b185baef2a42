"""Online training in one pass: predict an event, label it, and only then learn from it.

Legend: T steps of an interval, B events of a step, F and M columns, K tasks, S seeds, W distillation weights.
Teachers carry a leading axis `[S]`, students `[S, W]`: all of them see the same batches in the same order.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from kdrec import distill, metrics, models
from kdrec.distill import Labels, Method
from kdrec.metrics import Sums
from kdrec.models import Params, Spec
from kdrec.stream import Batches

NEVER = 2**31 - 1  # steps between two snapshots of a teacher that is frozen
ADAM = optax.scale_by_adam()  # the learning rate is traced, so it stays outside


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
    """What is traced: any value runs in the same program.

    Attributes:
        student_rate: `[]` learning rate.
        teacher_rate: `[]` learning rate.
        refresh: `[]` int32, steps between two snapshots of the teacher; 1 is a continuous one.
        start: `[]` int32, step at which the students start; the first snapshot is taken then.
        publish: `[]` int32, step from which there are labels.
        weights: `[W]` of the teacher's term; 0 is a student without a teacher.
        temperature: `[]` that teacher logits are divided by.
        slope: `[]` that teacher logits are multiplied by, as a fault put in on purpose; 1 is none.
        shift: `[G]` added to the teacher logits of each segment, likewise; 0 is none.
    """

    student_rate: jax.Array
    teacher_rate: jax.Array
    refresh: jax.Array
    start: jax.Array
    publish: jax.Array
    weights: jax.Array
    temperature: jax.Array
    slope: jax.Array
    shift: jax.Array


class Learner(NamedTuple):
    """Parameters and the state of their optimiser."""

    params: Params
    moments: Any


class Pair(NamedTuple):
    """Teacher, the snapshot of it that labels, and students."""

    teacher: Learner
    snapshot: Params
    student: Learner


class Tally(NamedTuple):
    """Progressive sums of an interval.

    Attributes:
        labels: `[S]` of the labels that the teacher publishes; before the students start, of its own predictions.
        student: `[S, W]`.
    """

    labels: Sums
    student: Sums


def init(key: jax.Array, plan: Plan, seeds: int, weights: int) -> Pair:
    """Fresh teachers and students.

    A student's ranker is the same for each method and weight, and another for each seed: that makes differences paired.
    Teachers draw from other keys than students.

    Args:
        key: of the run.
        plan: shapes.
        seeds: S.
        weights: W.

    Returns:
        Teachers, their snapshot, students.
    """
    teacher, student, extra = (jax.random.split(jax.random.fold_in(key, purpose), seeds) for purpose in range(3))

    def one(ranker: jax.Array, beside: jax.Array) -> Learner:
        params = {
            "ranker": models.init(ranker, plan.student),
            "extra": distill.init(beside, plan.method, plan.student, plan.teacher),
        }
        return Learner(params, ADAM.init(params))

    def single(ranker: jax.Array) -> Learner:
        params = models.init(ranker, plan.teacher)
        return Learner(params, ADAM.init(params))

    teachers = jax.vmap(single)(teacher)
    students = jax.vmap(one)(student, extra)
    students = jax.tree.map(lambda x: jnp.repeat(x[:, None], weights, axis=1), students)
    return Pair(teachers, jax.tree.map(jnp.copy, teachers.params), students)


def _learn(learner: Learner, gradient: Params, rate: jax.Array) -> Learner:
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        updates, moments = ADAM.update(gradient, learner.moments)
    return Learner(jax.tree.map(lambda p, u: p - rate * u, learner.params, updates), moments)


def _teacher_step(spec: Spec, learner: Learner, batch: Batches, rate: jax.Array) -> tuple[Learner, jax.Array]:
    """One step on the labels; also the logits `[B, K]` from before it."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        logits = models.apply(params, spec, batch.ids, batch.numbers).logits
        each = metrics.log_loss(logits, batch.labels) * batch.valid[:, None]
        return each.sum() / jnp.maximum(batch.valid.sum(), 1), logits

    gradient, logits = jax.grad(loss, has_aux=True)(learner.params)
    return _learn(learner, gradient, rate), logits


def _student_step(
    plan: Plan, learner: Learner, batch: Batches, labels: Labels, weight: jax.Array, rate: jax.Array
) -> tuple[Learner, jax.Array]:
    """One step on labels and teacher labels; also the served logits `[B, K]` from before it."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        output = models.apply(params["ranker"], plan.student, batch.ids, batch.numbers)
        return distill.loss(plan.method, params["extra"], output, labels, weight), output.logits

    gradient, logits = jax.grad(loss, has_aux=True)(learner.params)
    return _learn(learner, gradient, rate), logits


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


def tally(plan: Plan, seeds: int, weights: int) -> Tally:
    """Sums of no event, for S seeds and W weights."""
    return Tally(_empty(plan, seeds), _empty(plan, seeds, weights))


def alone(plan: Plan) -> Plan:
    """The plan as far as teachers alone depend on it: runs that differ in their students share one program."""
    return plan._replace(student=plan.teacher, method=Method("none", (True,) * plan.teacher.tasks, "", ""), request=0)


def _empty(plan: Plan, *axes: int) -> Sums:
    sums = metrics.zeros(plan.student.tasks, plan.segments, plan.bins)
    return jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), sums)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="teacher")
def teach(
    plan: Plan, rate: jax.Array, teacher: Learner, batches: Batches, first: jax.Array, last: jax.Array
) -> tuple[Learner, Sums]:
    """Train teachers alone over steps `first` to `last` of an interval.

    Args:
        plan: static; give `alone(plan)`, so that other students do not compile it anew.
        rate: `[]` learning rate.
        teacher: `[S]`; its buffers are given away.
        batches: `[T, B, ...]`; B is the batch axis to spread over devices.
        first: step of the interval.
        last: the one after the last step.

    Returns:
        Teachers, and the sums `[S]` of what they predicted before each step.
    """
    seeds = axes_of(teacher)[0]
    step = jax.vmap(functools.partial(_teacher_step, plan.teacher), (0, None, None))

    def body(index: jax.Array, carry: tuple[Learner, Sums]) -> tuple[Learner, Sums]:
        batch = Batches(*(column[index] for column in batches))
        learner, logits = step(carry[0], batch, rate)
        return learner, _add(plan, carry[1], logits, batch)

    return lax.fori_loop(first, last, body, (teacher, _empty(plan, seeds)))


def axes_of(learner: Learner) -> tuple[int, ...]:
    """Leading axes of a learner, before those of its parameters: that of its optimiser's counter."""
    return learner.moments.count.shape


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="pair")
def lockstep(
    plan: Plan, knobs: Knobs, pair: Pair, batches: Batches, step: jax.Array, first: jax.Array, last: jax.Array
) -> tuple[Pair, Tally, jax.Array]:
    """Train teachers and students together over steps `first` to `last` of an interval.

    At each step: the snapshot is taken if it is due, it labels the batch, the students predict and learn, the teachers
    learn. So a label never depends on the outcome of its own event.

    Args:
        plan: static.
        knobs: traced.
        pair: teachers, snapshot, students; their buffers are given away.
        batches: `[T, B, ...]`; B is the batch axis to spread over devices.
        step: number in the stream of the interval's first step.
        first: step of the interval.
        last: the one after the last step.

    Returns:
        Teachers, snapshot and students; sums of the interval; `[T, S, B, K]` teacher labels, 0 where there was no step.
    """
    seeds, weights = axes_of(pair.student)
    teacher_step = jax.vmap(functools.partial(_teacher_step, plan.teacher), (0, None, None))

    def body(index: jax.Array, carry: tuple[Pair, Tally, jax.Array]) -> tuple[Pair, Tally, jax.Array]:
        (teacher, snapshot, student), sums, kept = carry
        batch = Batches(*(column[index] for column in batches))
        due = (step + index - knobs.start) % knobs.refresh == 0
        snapshot = lax.cond(due, lambda old, new: new, lambda old, new: old, snapshot, teacher.params)  # noqa: ARG005
        said = jax.vmap(functools.partial(label, plan, knobs), (0, None))(snapshot, batch)
        student, logits = _students(plan, knobs, student, batch, said, step + index >= knobs.publish)
        teacher, _ = teacher_step(teacher, batch, knobs.teacher_rate)
        sums = Tally(_add(plan, sums.labels, said.logits, batch), _add(plan, sums.student, logits, batch))
        return Pair(teacher, snapshot, student), sums, kept.at[index].set(said.logits)

    kept = jnp.zeros((batches.ids.shape[0], seeds, batches.ids.shape[1], plan.student.tasks), batches.labels.dtype)
    return lax.fori_loop(first, last, body, (pair, tally(plan, seeds, weights), kept))


def _students(
    plan: Plan, knobs: Knobs, student: Learner, batch: Batches, said: models.Output, published: jax.Array
) -> tuple[Learner, jax.Array]:
    """One step of all students; also their logits `[S, W, B, K]` from before it."""

    def one(learner: Learner, weight: jax.Array, said: models.Output) -> tuple[Learner, jax.Array]:
        labels = Labels(
            hard=batch.labels,
            soft=said.logits / knobs.temperature,
            hidden=said.hidden.mean(1),
            published=jnp.broadcast_to(published.astype(batch.valid.dtype), batch.valid.shape),
            valid=batch.valid,
            request=batch.ids[:, plan.request],
        )
        return _student_step(plan, learner, batch, labels, weight, knobs.student_rate)

    over_weights = jax.vmap(one, (0, 0, None))
    return jax.vmap(over_weights, (0, None, 0))(student, knobs.weights, said)
