"""Teachers: label a batch from a snapshot, and only then learn from its outcomes.

Legend: T steps of an interval, B events of a step, K tasks, S seeds, M members of an ensemble; teachers carry a leading
axis `[S M]`, their labels `[S]`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kdrec import models
from kdrec.distill import Method
from kdrec.losses import loss as loss_of
from kdrec.metrics import Sums
from kdrec.models import Params
from kdrec.optimiser import Learner, fresh, learn
from kdrec.plan import Plan, add, axes_of, tally
from kdrec.stream import Batches

NEVER = 2**31 - 1  # steps between two snapshots of a teacher that is frozen


class Knobs(NamedTuple):
    """What is traced of the teacher's training: any value runs in the same program.

    Attributes:
        rate: `[]` or `[S M]` learning rate.
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
        Teachers `[S M]` and their snapshots.
    """

    def one(key: jax.Array) -> Learner:
        return fresh(models.init(key, plan.teacher))

    learner = jax.vmap(one)(jax.random.split(jax.random.fold_in(key, 0), seeds * plan.members))
    return Teacher(learner, jax.tree.map(jnp.copy, learner.params))


def _step(plan: Plan, learner: Learner, batch: Batches, rate: jax.Array) -> Learner:
    """Learn from the outcomes of a batch."""

    def loss(params: Params) -> jax.Array:
        logits = models.apply(params, plan.teacher, batch.ids, batch.numbers).logits
        each = loss_of(logits, batch.labels, plan.method.real) * batch.valid[:, None]
        return each.sum() / jnp.maximum(batch.valid.sum(), 1)

    for _ in range(plan.passes):
        learner = learn(learner, jax.grad(loss)(learner.params), rate)
    return learner


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


def alone(plan: Plan) -> Plan:
    """The plan as far as teachers depend on it: runs that differ in their students alone share one program."""
    name = "hidden" if plan.method.name == "hidden" else "none"
    method = Method(name, (1.0,) * plan.teacher.tasks, "", "", real=plan.method.real)
    return plan._replace(student=plan.teacher, method=method, request=0, columns=())


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
        teacher: `[S M]`; its buffers are given away.
        batches: `[T, B, ...]`; B is the batch axis to spread over devices.
        step: number in the stream of the interval's first step.
        last: the step of the interval after the last one.

    Returns:
        Teachers; what they said; the sums `[S]` of it.
    """
    (learners,) = axes_of(teacher.learner)
    seeds = learners // plan.members
    train = jax.vmap(functools.partial(_step, plan), (0, None, 0))
    ask = jax.vmap(functools.partial(label, plan, knobs), (0, None))
    rate = jnp.broadcast_to(knobs.rate, (learners,))

    def body(index: jax.Array, carry: tuple[Teacher, Said, Sums]) -> tuple[Teacher, Said, Sums]:
        (learner, snapshot), kept, sums = carry
        batch = Batches(*(column[index] for column in batches))
        since = step + index - knobs.start
        due = (since < 0) | (since % knobs.refresh == 0)
        snapshot = lax.cond(due, lambda old, new: new, lambda old, new: old, snapshot, learner.params)  # noqa: ARG005
        said = ask(snapshot, batch)
        logits = said.logits.reshape(seeds, plan.members, *said.logits.shape[1:]).mean(1)
        learner = train(learner, batch, rate)
        hidden = said.hidden.mean(2)[..., : kept.hidden.shape[-1]]
        kept = Said(kept.logits.at[index].set(logits), kept.hidden.at[index].set(hidden))
        return Teacher(learner, snapshot), kept, add(plan, sums, logits, batch)

    shape = (batches.ids.shape[0], seeds, batches.ids.shape[1])
    wide = models.width(plan.teacher) if plan.method.name == "hidden" else 0
    number = batches.labels.dtype
    kept = Said(jnp.zeros((*shape, plan.teacher.tasks), number), jnp.zeros((*shape, wide), number))
    return lax.fori_loop(0, last, body, (teacher, kept, tally(plan, seeds)))


@functools.partial(jax.jit, static_argnames="plan")
def heard(plan: Plan, said: Said, present: jax.Array, batches: Batches) -> Sums:
    """Sums `[S]` of teacher labels where there are any; the arguments are those of `follow`."""

    def body(sums: Sums, step: Any) -> tuple[Sums, None]:
        logits, present, batch = step
        each = jax.vmap(lambda s, f, m: add(plan, s, f, batch._replace(valid=batch.valid * m)))
        return each(sums, logits, present), None

    return lax.scan(body, tally(plan, present.shape[1]), (said.logits, present, batches))[0]
