"""From options to what a training takes: where in the stream things happen, what is static, what is traced."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kdrec import teach
from kdrec.io import InputError
from kdrec.options import Distill, Model, Teacher, Training
from kdrec.plan import Plan
from kdrec.stream import Stream, steps


class Scope(NamedTuple):
    """Where in the stream things happen.

    Attributes:
        events: that are used.
        steps: that they fill.
        intervals: that those fill.
        start: step at which the students start.
        publish: step from which there are labels.
        scored: interval from which predictions count.
    """

    events: int
    steps: int
    intervals: int
    start: int
    publish: int
    scored: int


def scope(events: int, train: Training, warmup: float) -> Scope:
    """Where in a stream of so many events things happen."""
    if train.limit is not None:
        events = min(events, train.limit * train.interval * train.batch)
    count = steps(events, train.batch)
    intervals = -(-count // train.interval)
    start = int(train.start * count)
    scored = (start + train.skip * (count - start)) / train.interval
    return Scope(events, count, intervals, start, int(warmup * count), min(round(scored), intervals - 1))


def column(data: Any, stream: Stream, role: str) -> int:
    """Number of the column that plays a role.

    Raises:
        InputError: the stream has no such column.
    """
    name = getattr(data, role)
    if name not in stream.features:
        raise InputError(f"data.{role}: no column {name!r}; the stream has {', '.join(stream.features)}")
    return stream.features.index(name)


def plan(data: Any, stream: Stream, model: Model, teacher: Teacher, distill: Distill, train: Training) -> Plan:
    """What is static of a training.

    Raises:
        InputError: the stream has no such column or task, or what is asked for does not go together.
    """
    columns = model.columns(stream.features)
    student = model.spec(stream)
    method = distill.static(stream.tasks, stream.real)
    if distill.method == "hidden" and teacher.members > 1:
        raise InputError("teacher.members: the trunks of several teachers have no mean; with distill=hidden give 1")
    whole = student._replace(features=len(stream.features)).scaled(teacher.scale)
    return Plan(
        student=student,
        teacher=whole if teacher.layers is None else whole._replace(layers=teacher.layers),
        method=method,
        segment=column(data, stream, "segment"),
        segments=train.segments,
        request=column(data, stream, "group"),
        bins=train.bins,
        columns=columns,
        members=teacher.members,
        passes=teacher.passes,
    )


def knobs(teacher: Teacher, segments: int, start: int) -> teach.Knobs:
    """What is traced of the teacher's training; `start` is the step at which students start."""
    number = jnp.zeros(()).dtype
    signs = 1.0 - 2.0 * (np.arange(segments) % 2)
    return teach.Knobs(
        rate=jnp.asarray(teacher.rate, number),
        refresh=jnp.asarray(teach.NEVER if teacher.refresh == "never" else teacher.refresh, jnp.int32),
        start=jnp.asarray(start, jnp.int32),
        slope=jnp.asarray(teacher.slope, number),
        shift=jnp.asarray(teacher.shift + teacher.segment_shift * signs, number),
    )
