"""One pass over a stream as an experiment: a teacher, its students with and without it, and what they gain."""

import hashlib
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdrec import cores, layout, models, summary, teach
from kdrec import train as online
from kdrec.channel import Channel, Heard
from kdrec.distill import served
from kdrec.io import InputError
from kdrec.layout import Scope
from kdrec.metrics import Sums
from kdrec.optimiser import Learner
from kdrec.options import Distill, Labels, Lockstep, Model, Teacher, Training
from kdrec.plan import Plan, axes_of, tally
from kdrec.stream import Batches, Stream, batches
from kdrec.summary import Tally


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    `run` gives the buffers of learners away to the next interval: keep a state only until the next one is asked for.

    Attributes:
        step: intervals done.
        key: of the run.
        teacher: None where labels of another run are read.
        student: all of them.
        totals: sums of the stretch that counts, float64.
        offset: batches appended to the label store; versions of its two tables that are pinned, -1 where none is;
            labels that would have counted, and how many of them came in time.
        spent: s of teachers, of students, of writing and of reading labels, and bytes of labels that were read: the
            one leaf that a resumed run does not repeat to the bit.
    """

    step: np.ndarray
    key: jax.Array
    teacher: teach.Teacher | None
    student: Learner
    totals: Tally
    offset: np.ndarray
    spent: np.ndarray


class Taught(NamedTuple):
    """What an interval's labels are and cost; `kdrec.teach` and `State` name the parts."""

    teacher: teach.Teacher | None
    said: teach.Said
    present: jax.Array
    sums: Sums
    offset: np.ndarray
    note: dict[str, Any]
    spent: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """A teacher and its students in lock-step over one stream; see `quartet.drive`.

    The batch axis that `place` spreads is that of the events of a step.
    """

    data: Any
    model: Model
    teacher: Teacher
    distill: Distill
    labels: Any  # Lockstep or Labels, or another object with the members of Labels
    train: Training

    @cached_property
    def stream(self) -> Stream:
        """The events."""
        return self.data.stream()

    @cached_property
    def scope(self) -> Scope:
        """Where in the stream things happen."""
        return layout.scope(len(self.stream), self.train, self.teacher.warmup)

    @cached_property
    def plan(self) -> Plan:
        """What is static of the training."""
        return layout.plan(self.data, self.stream, self.model, self.teacher, self.distill, self.train)

    @cached_property
    def knobs(self) -> teach.Knobs:
        """What is traced of the teacher's training."""
        return layout.knobs(self.teacher, self.train.segments, self.scope.start)

    @cached_property
    def dose(self) -> online.Dose:
        """What is traced of the students' training."""
        values = (self.train.rate, self.distill.weights(), self.distill.temperature)
        return online.Dose(*(jnp.asarray(value, jnp.zeros(()).dtype) for value in values))

    @property
    def stored(self) -> bool:
        """Whether students read the labels of another run and no teacher learns here."""
        return isinstance(self.labels, Labels) and self.labels.source == "stored"

    @cached_property
    def _finished(self) -> dict[str, Any]:
        """What the last interval leaves for `report`, which is given rows alone; the folder of the run."""
        return {}

    def keep_in(self, folder: Path) -> None:
        """Keep labels in the folder of the run, unless `labels.path` names another."""
        self._finished["labels"] = folder / "labels"

    def length(self) -> int:
        """Number of intervals."""
        return self.scope.intervals

    def init(self, key: jax.Array) -> State:
        """State before the first event."""
        self._check()
        seeds, weights = self.train.seeds, len(self.distill.weights())
        totals = Tally(tally(self.plan, seeds), tally(self.plan, seeds, weights))
        teacher = None if self.stored else teach.init_teachers(key, self.plan, seeds)
        student = online.init_students(key, self.plan, seeds, weights)
        totals = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), totals)
        return State(np.zeros((), np.int64), key, teacher, student, totals, np.array([0, -1, -1, 0, 0]), np.zeros(5))

    def _check(self) -> None:
        """Refuse what does not go together.

        Raises:
            InputError: with what to change.
        """
        if unknown := set(self.train.value or ()) - set(self.stream.tasks):
            names = ", ".join(self.stream.tasks)
            raise InputError(f"train.value: no task {min(unknown)!r}; the stream has {names}")
        if isinstance(self.labels, Lockstep):
            return
        if self.distill.method == "hidden":
            raise InputError(
                "distill=hidden: learns from the teacher's trunk, of which a store keeps the logits alone; give "
                "labels=lockstep"
            )
        if jax.process_count() > 1:
            raise InputError("labels: one process writes to a store; with devices=multihost give labels=lockstep")
        if isinstance(self.labels, Labels) and self.labels.source != "teacher" and self.labels.kind == "memory":
            raise InputError("labels.source: labels in memory end with their run; give labels=delta labels.path=FOLDER")

    def run(self, state: State, *, place: Any = lambda x, axis=0: x) -> Iterator[tuple[State, dict[str, Any]]]:  # noqa: ARG005
        """Train interval after interval from `state.step` on."""
        channel = self._channel(state)
        if self.model.shard:
            teacher, student = (models.by_rows(tree, place) for tree in (state.teacher, state.student))
            state = state._replace(teacher=teacher, student=student)
        for index in range(int(state.step), self.length()):
            found, time = self._batches(index, place)
            base = index * self.train.interval
            last = min(self.train.interval, self.scope.steps - base)
            first = min(max(self.scope.start - base, 0), last)
            taught = self._taught(index, state, channel, found, time, last)
            begin = clock.perf_counter()
            student, sums = state.student, tally(self.plan, *axes_of(state.student))
            if first < last:
                span = (jnp.asarray(first, jnp.int32), jnp.asarray(last, jnp.int32))
                given = (self.plan, self.dose, student, found, taught.said, taught.present, *span)
                student, sums = cores.follow(self.train.groups, *given)
            window = jax.tree.map(lambda x: np.asarray(x, np.float64), Tally(taught.sums, sums))
            spent = state.spent + taught.spent
            spent[1] += clock.perf_counter() - begin
            totals, offset = state.totals, taught.offset
            if index >= self.scope.scored:
                totals = jax.tree.map(np.add, totals, window)
                offset = offset + np.array([0, 0, 0, len(time) * self.train.seeds, int(taught.present.sum())])
            state = State(np.asarray(index + 1), state.key, taught.teacher, student, totals, offset, spent)
            row = self._row(index, window, totals, taught.note)
            if index == self.length() - 1:
                row |= self._end(state, channel)
            yield state, row

    def _batches(self, index: int, place: Any) -> tuple[Batches, np.ndarray]:
        options, number = self.train, jnp.zeros(()).dtype
        start = index * options.interval
        found, time = batches(self.stream, start, options.interval, options.batch, self.scope.events)
        columns = (found.ids, *(column.astype(number) for column in found[1:]))
        return Batches(*(place(column, axis=1) for column in columns)), time

    def _channel(self, state: State) -> Channel | None:
        """Open the store, and see that it is the one that the state knows."""
        if isinstance(self.labels, Lockstep):
            return None
        words = (self.data, self.model, self.teacher, self.train, jax.random.key_data(state.key).tolist())
        run = hashlib.sha256(repr(words).encode()).hexdigest()[:12]
        channel = self.labels.channel(self.stream, self.train.seeds, run, self._finished.get("labels"))
        if not self.stored:
            channel.check(int(state.offset[0]), durable=self.labels.kind != "memory")
        if self.labels.fault == "killed":
            third = (self.length() - self.scope.scored) // 3
            begin, back = self.scope.scored + third, self.scope.scored + 2 * third
            event = min(back * self.train.interval * self.train.batch, self.scope.events - 1)
            channel.outage = (begin, back, int(self.stream.read(event, event + 1).time[0]))
        return channel

    def _taught(
        self, index: int, state: State, channel: Channel | None, found: Batches, time: np.ndarray, last: int
    ) -> Taught:
        """Labels of an interval: from the teacher at once, through the store, or those of another run."""
        base, offset = index * self.train.interval, state.offset
        silent = min(max(self.scope.publish - base, 0), self.train.interval)  # steps before labels are published
        if state.teacher is None:
            assert channel is not None
            pin = channel.pinned(self.labels.first, self.labels.last, self.labels.table, *offset[1:3].tolist())
            heard = channel.recall(base * self.train.batch, found.labels.shape, time, pin)
            said, present = _heard(heard, found)
            sums, offset = teach.heard(self.plan, said, present, found), np.array([0, pin.table, pin.log, *offset[3:]])
            return Taught(None, said, present, sums, offset, heard.note, np.array([0, 0, *heard.spent]))
        begin = clock.perf_counter()
        span = (jnp.asarray(base, jnp.int32), jnp.asarray(last, jnp.int32))
        given = (teach.alone(self.plan), self.knobs, state.teacher, found, *span)
        teacher, said, sums = cores.publish(self.train.groups, *given)
        jax.block_until_ready(sums)
        seconds = clock.perf_counter() - begin
        if channel is None:
            told = (jnp.arange(self.train.interval) >= silent)[:, None, None]
            present = jnp.broadcast_to(told, said.logits.shape[:-1]).astype(found.valid.dtype)
            return Taught(teacher, said, present, sums, offset, {}, np.array([seconds, 0, 0, 0, 0]))
        heard = channel.exchange(index, base, silent, said.logits, found.labels, time, int(offset[0]))
        said, present = _heard(heard, found)
        offset = np.array([heard.offset, *offset[1:]])
        return Taught(teacher, said, present, sums, offset, heard.note, np.array([seconds, 0, *heard.spent]))

    def _end(self, state: State, channel: Channel | None) -> dict[str, float]:
        """What is said and done once, after the last interval."""
        row = summary.costs(self.plan, self.scope.steps - self.scope.start, self.scope.steps, self.train.batch)
        names = ("teacher", "student", "labels_written", "labels_read")
        row |= {f"cost/seconds/{name}": float(value) for name, value in zip(names, state.spent, strict=False)}
        if self.train.export:
            self._finished["student"] = served(jax.tree.map(lambda x: x[0, -1], state.student.params))
        if channel is None:
            return row
        if state.teacher is not None:
            channel.store.tidy(self.labels.retention)
        row["labels/seen"] = float(state.offset[4] / max(state.offset[3], 1))
        row["cost/labels/bytes_read"] = float(state.spent[4])
        return row | channel.ledger(self.scope.events - min(self.scope.publish * self.train.batch, self.scope.events))

    def _row(self, index: int, window: Tally, totals: Tally, note: dict[str, Any]) -> dict[str, Any]:
        events = min((index + 1) * self.train.interval * self.train.batch, self.scope.events)
        row: dict[str, Any] = {}
        if index >= self.scope.scored:
            row = summary.gains(totals, self.plan.method, self.distill.weights(), self._value)
        return {**row, "events": events, "window": {**summary.window(window, self.plan.method.real), "labels": note}}

    @property
    def _value(self) -> tuple[float, ...]:
        value = self.train.value
        return tuple(1.0 if value is None else value.get(task, 0.0) for task in self.stream.tasks)

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write the page and the pictures of a finished run, and the student of the first seed and last weight."""
        from kdrec import export, io, report, serving

        title = f"{type(self.data).__name__.lower()} stream, {self.distill.method} distillation"
        if name := getattr(self.data, "name", None):
            title = f"{name}, {self.distill.method} distillation"
        settings = {
            "events": f"{self.scope.events:,}",
            "columns": ", ".join((*self.stream.features, *self.stream.numeric)),
            "rows of the embedding table": f"{self.stream.vocabulary:,}",
            "student": f"{self.model.trunk}, embedding {self.model.embedding}, layers {list(self.model.layers)}",
            "teacher": f"{self.teacher.members} of {self.teacher.scale:g} times the width, layers "
            f"{list(self.plan.teacher.layers)}, labels refreshed: {self.teacher.refresh}",
            "weights": ", ".join(f"{weight:g}" for weight in self.distill.weights()),
            "students start": f"at event {self.scope.start * self.train.batch:,}",
            "counted": f"from event {self.scope.scored * self.train.interval * self.train.batch:,}",
            "seeds": str(self.train.seeds),
        }
        if student := self._finished.get("student"):
            artefact = export.serialise(student, self.plan.student)
            io.write_bytes(folder / "student.stablehlo", artefact)
            for size, (half, most) in serving.latency(artefact, self.stream, self.plan.columns).items():
                settings[f"latency, batch of {size}"] = f"{1000 * half:.3g} ms, 99 % within {1000 * most:.3g} ms"
        report.write(rows, folder, title=title, tasks=self.stream.tasks, settings=settings)


def _heard(heard: Heard, found: Batches) -> tuple[teach.Said, jax.Array]:
    """What came through a store, as `follow` takes it."""
    logits = jnp.asarray(heard.logits.astype(found.labels.dtype))
    nothing = jnp.zeros((*logits.shape[:-1], 0), logits.dtype)
    return teach.Said(logits, nothing), jnp.asarray(heard.present.astype(found.valid.dtype))
