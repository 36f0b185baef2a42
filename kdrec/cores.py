"""Seeds in groups, each a program of its own, on the cores of one processor.

Seeds have nothing to tell each other. A program of small matrix products keeps about one core busy, and goes over all
its seeds at each step: what one seed keeps stays in a core's cache, what ten keep does not. So groups that fit there
are fast, as many of them at a time as there are cores. Legend: S seeds, M members of an ensemble.
"""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdrec import teach, train
from kdrec.metrics import Sums
from kdrec.optimiser import Learner
from kdrec.plan import Plan, axes_of
from kdrec.stream import Batches


def _parts(count: int, groups: int, batches: Batches) -> list[slice]:
    """Seeds of each group; one group alone where the events of a step are on several devices, which talk in turn."""
    if len(jnp.asarray(batches.ids).sharding.device_set) > 1:
        groups = 1
    edges = np.linspace(0, count, min(groups, count) + 1).round().astype(int).tolist()
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _cut(tree: Any, part: slice, axis: int, times: int = 1) -> Any:
    wide = slice(part.start * times, part.stop * times)
    return jax.tree.map(lambda x: x[(slice(None),) * axis + (wide,)], tree)


def _join(trees: Sequence[Any], axis: int) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis), *trees)


def _together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of the calls, as many at a time as there are cores."""

    def result(call: Callable[[], Any]) -> Any:
        return jax.block_until_ready(call())

    with ThreadPoolExecutor(min(len(calls), os.cpu_count() or 1)) as pool:
        return list(pool.map(result, calls))


def publish(
    groups: int, plan: Plan, knobs: teach.Knobs, teacher: teach.Teacher, batches: Batches, *span: jax.Array
) -> tuple[teach.Teacher, teach.Said, Sums]:
    """`teach.publish` with the seeds in so many groups; the same result but for rounding."""
    members = plan.members
    parts = _parts(axes_of(teacher.learner)[0] // members, groups, batches)
    if len(parts) == 1:
        return teach.publish(plan, knobs, teacher, batches, *span)
    own = [_cut(teacher, part, 0, members) for part in parts]
    found = _together([functools.partial(teach.publish, plan, knobs, one, batches, *span) for one in own])
    teachers, said, sums = zip(*found, strict=True)
    return _join(teachers, 0), _join(said, 1), _join(sums, 0)


def follow(
    groups: int,
    plan: Plan,
    dose: train.Dose,
    student: Learner,
    batches: Batches,
    said: teach.Said,
    present: jax.Array,
    *span: jax.Array,
) -> tuple[Learner, Sums]:
    """`train.follow` with the seeds in so many groups; the same result but for rounding."""
    parts = _parts(axes_of(student)[0], groups, batches)
    if len(parts) == 1:
        return train.follow(plan, dose, student, batches, said, present, *span)
    own = [(_cut(student, part, 0), batches, _cut(said, part, 1), _cut(present, part, 1)) for part in parts]
    found = _together([functools.partial(train.follow, plan, dose, *one, *span) for one in own])
    students, sums = zip(*found, strict=True)
    return _join(students, 0), _join(sums, 0)
