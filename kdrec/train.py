"""Students: predict an event, and only then learn from its outcome and from what a teacher said of it.

Legend: T steps of an interval, B events of a step, K tasks, S seeds, W distillation weights. Students carry leading
axes `[S, W]`: all of them see the same batches in the same order as the teachers of `kdrec.teach`, whose labels come to
`follow` at once or through a store (`kdrec.labels`): the program is the same.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kdrec import distill, models
from kdrec.distill import Labels
from kdrec.metrics import Sums
from kdrec.models import Params
from kdrec.optimiser import Learner, fresh, learn
from kdrec.plan import Plan, add, axes_of, tally
from kdrec.stream import Batches
from kdrec.teach import Said


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


def seen(plan: Plan, ids: jax.Array) -> jax.Array:
    """`[B, F]` ids of the columns that the student sees."""
    return ids if len(plan.columns) == ids.shape[1] else ids[:, jnp.asarray(plan.columns)]


def _student_step(
    plan: Plan, learner: Learner, batch: Batches, labels: Labels, weight: jax.Array, rate: jax.Array
) -> tuple[Learner, jax.Array]:
    """One step on labels and teacher labels; also the served logits `[B, K]` from before it."""

    def loss(params: Params) -> tuple[jax.Array, jax.Array]:
        output = models.apply(params["ranker"], plan.student, seen(plan, batch.ids), batch.numbers)
        return distill.loss(plan.method, params["extra"], output, labels, weight), output.logits

    gradient, logits = jax.grad(loss, has_aux=True)(learner.params)
    return learn(learner, gradient, rate), logits


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
            soft=distill.softened(plan.method, said.logits, dose.temperature),
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
        return learner, add(plan, carry[1], logits, batch)

    return lax.fori_loop(first, last, body, (student, tally(plan, *axes_of(student))))
