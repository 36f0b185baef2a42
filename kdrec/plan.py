"""What is static of an online training, and the sums that its learners leave behind."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdrec import metrics
from kdrec.distill import Method
from kdrec.metrics import Sums
from kdrec.models import Spec
from kdrec.optimiser import Learner
from kdrec.stream import Batches


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
        columns: numbers of the categorical columns that the student sees; the teacher sees all.
        members: M, teachers whose logits are averaged into one label.
        passes: steps that a teacher takes on each batch.
    """

    student: Spec
    teacher: Spec
    method: Method
    segment: int
    segments: int
    request: int
    bins: int
    columns: tuple[int, ...]
    members: int = 1
    passes: int = 1


def axes_of(learner: Learner) -> tuple[int, ...]:
    """Leading axes of a learner, before those of its parameters: that of its optimiser's counter."""
    return learner.moments.count.shape


def tally(plan: Plan, *axes: int) -> Sums:
    """Sums of no event, with the leading axes of the learners."""
    sums = metrics.zeros(plan.student.tasks, plan.segments, plan.bins, plan.method.real)
    return jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), sums)


def add(plan: Plan, sums: Sums, logits: jax.Array, batch: Batches) -> Sums:
    """Add the logits `[..., B, K]` of learners to sums with the same leading axes."""
    segment = batch.ids[:, plan.segment] % plan.segments
    one = functools.partial(
        metrics.update, labels=batch.labels, weight=batch.valid, segment=segment, real=plan.method.real
    )
    for _ in range(logits.ndim - 2):
        one = jax.vmap(one)
    return one(sums, logits)
