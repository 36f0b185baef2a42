"""One pass over a stream as an experiment: a teacher, its students with and without it, and what they gain."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdrec import summary
from kdrec import train as online
from kdrec.distill import served
from kdrec.io import InputError
from kdrec.options import Distill, Model, Teacher, Training
from kdrec.stream import Batches, Stream, batches, steps


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    `run` gives the buffers of `pair` away to the next interval: keep a state only until the next one is asked for.
    """

    step: np.ndarray
    key: jax.Array
    pair: online.Pair
    totals: online.Tally


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


@dataclass(frozen=True)
class Ranking:
    """A teacher and its students in lock-step over one stream; see `quartet.drive`.

    The batch axis that `place` spreads is that of the events of a step.
    """

    data: Any
    model: Model
    teacher: Teacher
    distill: Distill
    train: Training

    @cached_property
    def stream(self) -> Stream:
        """The events."""
        return self.data.stream()

    @cached_property
    def scope(self) -> Scope:
        """Where in the stream things happen."""
        options, events = self.train, len(self.stream)
        if options.limit is not None:
            events = min(events, options.limit * options.interval * options.batch)
        count = steps(events, options.batch)
        intervals = -(-count // options.interval)
        start = int(options.start * count)
        scored = (start + options.skip * (count - start)) / options.interval
        return Scope(
            events, count, intervals, start, int(self.teacher.warmup * count), min(round(scored), intervals - 1)
        )

    @cached_property
    def plan(self) -> online.Plan:
        """What is static of the training."""
        student = self.model.spec(self.stream)
        return online.Plan(
            student=student,
            teacher=student.scaled(self.teacher.scale),
            method=self.distill.static(self.stream.tasks),
            segment=self._column("segment"),
            segments=self.train.segments,
            request=self._column("group"),
            bins=self.train.bins,
        )

    def _column(self, role: str) -> int:
        name = getattr(self.data, role)
        if name not in self.stream.features:
            raise InputError(f"data.{role}: no column {name!r}; the stream has {', '.join(self.stream.features)}")
        return self.stream.features.index(name)

    @cached_property
    def knobs(self) -> online.Knobs:
        """What is traced of the training."""
        teacher, number = self.teacher, jnp.zeros(()).dtype
        signs = 1.0 - 2.0 * (np.arange(self.train.segments) % 2)
        return online.Knobs(
            student_rate=jnp.asarray(self.train.rate, number),
            teacher_rate=jnp.asarray(teacher.rate, number),
            refresh=jnp.asarray(online.NEVER if teacher.refresh == "never" else teacher.refresh, jnp.int32),
            start=jnp.asarray(self.scope.start, jnp.int32),
            publish=jnp.asarray(self.scope.publish, jnp.int32),
            weights=jnp.asarray(self.distill.weights(), number),
            temperature=jnp.asarray(self.distill.temperature, number),
            slope=jnp.asarray(teacher.slope, number),
            shift=jnp.asarray(teacher.shift + teacher.segment_shift * signs, number),
        )

    @cached_property
    def _finished(self) -> dict[str, Any]:
        """What the last interval leaves for `report`, which is given rows alone."""
        return {}

    def length(self) -> int:
        """Number of intervals."""
        return self.scope.intervals

    def init(self, key: jax.Array) -> State:
        """State before the first event."""
        seeds, weights = self.train.seeds, len(self.distill.weights())
        totals = online.tally(self.plan, seeds, weights)
        totals = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), totals)
        return State(np.zeros((), np.int64), key, online.init(key, self.plan, seeds, weights), totals)

    def run(self, state: State, *, place: Any = lambda x, axis=0: x) -> Iterator[tuple[State, dict[str, Any]]]:  # noqa: ARG005
        """Train interval after interval from `state.step` on."""
        for index in range(int(state.step), self.length()):
            pair, window = self._interval(index, state.pair, self._batches(index, place))
            window = jax.tree.map(lambda x: np.asarray(x, np.float64), window)
            totals = state.totals
            if index >= self.scope.scored:
                totals = jax.tree.map(np.add, totals, window)
            state = State(np.asarray(index + 1), state.key, pair, totals)
            if self.train.export and index == self.length() - 1:
                self._finished["student"] = served(jax.tree.map(lambda x: x[0, -1], pair.student.params))
            yield state, self._row(index, window, totals)

    def _batches(self, index: int, place: Any) -> Batches:
        options, number = self.train, jnp.zeros(()).dtype
        found = batches(self.stream, index * options.interval, options.interval, options.batch, self.scope.events)
        columns = (found.ids, *(column.astype(number) for column in found[1:]))
        return Batches(*(place(column, axis=1) for column in columns))

    def _interval(self, index: int, pair: online.Pair, found: Batches) -> tuple[online.Pair, online.Tally]:
        """Teachers alone up to the students' start, then all in lock-step."""
        base = index * self.train.interval
        last = min(self.train.interval, self.scope.steps - base)
        middle = min(max(self.scope.start - base, 0), last)
        window = online.tally(self.plan, self.train.seeds, len(self.distill.weights()))
        span = [jnp.asarray(step, jnp.int32) for step in (base, 0, middle, last)]
        if middle > 0:
            plan = online.alone(self.plan)
            teacher, labels = online.teach(plan, self.knobs.teacher_rate, pair.teacher, found, *span[1:3])
            pair, window = pair._replace(teacher=teacher), window._replace(labels=labels)
        if middle < last:
            pair, window, _ = online.lockstep(self.plan, self.knobs, pair, found, span[0], *span[2:])
        return pair, window

    def _row(self, index: int, window: online.Tally, totals: online.Tally) -> dict[str, Any]:
        events = min((index + 1) * self.train.interval * self.train.batch, self.scope.events)
        row: dict[str, Any] = {}
        if index >= self.scope.scored:
            row = summary.gains(totals, self.distill.method, self.distill.weights())
        if index == self.length() - 1:
            row |= summary.costs(self.plan, self.scope.steps - self.scope.start, self.train.batch)
        return {**row, "events": events, "window": summary.window(window)}

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write the page and the pictures of a finished run, and the student of the first seed and last weight."""
        from kdrec import export, io, report

        if student := self._finished.get("student"):
            io.write_bytes(folder / "student.stablehlo", export.serialise(student, self.plan.student))

        title = f"{type(self.data).__name__.lower()} stream, {self.distill.method} distillation"
        if name := getattr(self.data, "name", None):
            title = f"{name}, {self.distill.method} distillation"
        settings = {
            "events": f"{self.scope.events:,}",
            "columns": ", ".join((*self.stream.features, *self.stream.numeric)),
            "rows of the embedding table": f"{self.stream.vocabulary:,}",
            "student": f"{self.model.trunk}, embedding {self.model.embedding}, layers {list(self.model.layers)}",
            "teacher": f"{self.teacher.scale:g} times as wide, labels refreshed: {self.teacher.refresh}",
            "weights": ", ".join(f"{weight:g}" for weight in self.distill.weights()),
            "students start": f"at event {self.scope.start * self.train.batch:,}",
            "counted": f"from event {self.scope.scored * self.train.interval * self.train.batch:,}",
            "seeds": str(self.train.seeds),
        }
        report.write(rows, folder, title=title, tasks=self.stream.tasks, settings=settings)
