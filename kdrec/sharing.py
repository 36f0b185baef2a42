"""One teacher and several students: label once into a store, or once more for each student."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdrec import summary, teach
from kdrec import train as online
from kdrec.experiment import Ranking
from kdrec.experiment import State as Pass
from kdrec.options import Distill, Lockstep, Model, Teacher, Training
from kdrec.options import Sharing as Options


class State(NamedTuple):
    """Everything needed to go on after interval `step` of all passes.

    Attributes:
        step: intervals done, those of all passes one after the other.
        key: of the run.
        teacher: of the pass that is under way.
        student: likewise.
        totals: likewise.
        offset: likewise; see `kdrec.experiment.State`.
        spent: likewise.
        found: `[students, 4]` log loss of each student, its change against the one without a teacher, %, seconds, and
            bytes of labels that it read.
    """

    step: np.ndarray
    key: jax.Array
    teacher: teach.Teacher
    student: Any
    totals: summary.Tally
    offset: np.ndarray
    spent: np.ndarray
    found: np.ndarray


@dataclass(frozen=True)
class Sharing:
    """Passes over one stream, one a student, all with the labels of the same teacher.

    With `labels=lockstep` each pass trains the teacher anew, as students that share nothing do. With a store the first
    student learns beside the teacher, which publishes, and the others read what it has published.
    """

    data: Any
    model: Model
    teacher: Teacher
    distill: Distill
    labels: Any
    train: Training
    sharing: Options

    @cached_property
    def _passes(self) -> tuple[Ranking, ...]:
        """The first pass and the further ones."""
        train = dataclasses.replace(self.train, export=False)
        first = Ranking(self.data, self.model, self.teacher, self.distill, self.labels, train)
        further = self.labels
        if not isinstance(further, Lockstep):
            further = dataclasses.replace(further, source="stored")
        second = Ranking(self.data, self.model, self.teacher, self.distill, further, train)
        return (first, *(second,) * (self.sharing.students - 1))

    def keep_in(self, folder: Path) -> None:
        """Keep labels in the folder of the run, unless `labels.path` names another."""
        for one in self._passes[:2]:
            one.keep_in(folder)

    def length(self) -> int:
        """Intervals of all passes."""
        return self.sharing.students * self._passes[0].length()

    def init(self, key: jax.Array) -> State:
        """State before the first event of the first pass."""
        found = np.zeros((self.sharing.students, 4))
        inner = self._fresh(0, key)
        if self.sharing.students > 1:
            self._fresh(1, key)  # what does not go together is told before the first pass, not after it
        return State(
            np.zeros((), np.int64), key, inner.teacher, inner.student, inner.totals, inner.offset, inner.spent, found
        )

    def _fresh(self, number: int, key: jax.Array) -> Any:
        """State of a pass before its first event: each student starts from parameters of its own."""
        one = self._passes[number]
        state = one.init(key)
        seeds, weights = self.train.seeds, len(self.distill.weights())
        teacher = state.teacher if state.teacher is not None else teach.init_teachers(key, one.plan, seeds)
        student = online.init_students(jax.random.fold_in(key, 3 + number), one.plan, seeds, weights)
        return state._replace(teacher=teacher, student=student)

    def run(self, state: State, *, place: Any = lambda x, axis=0: x) -> Iterator[tuple[State, dict[str, Any]]]:  # noqa: ARG005
        """Pass after pass from `state.step` on."""
        intervals = self._passes[0].length()
        step, found = int(state.step), state.found
        for number in range(step // intervals, self.sharing.students):
            one, done = self._passes[number], step - number * intervals
            inner = Pass(np.asarray(done), *state[1:7]) if done else self._fresh(number, state.key)
            unused = inner.teacher
            if one.stored:
                inner = inner._replace(teacher=None)
            begin = time.perf_counter()
            for inner, row in one.run(inner, place=place):  # noqa: B020
                jax.block_until_ready(inner.student)
                begin, seconds = time.perf_counter(), time.perf_counter() - begin
                step += 1
                found = found.copy()
                found[number] = (row.get("log_loss", 0), _change(row), found[number, 2] + seconds, inner.spent[4])
                teacher: Any = unused if inner.teacher is None else inner.teacher
                kept = (inner.student, inner.totals, inner.offset, inner.spent)
                state = State(np.asarray(step), inner.key, teacher, *kept, found)
                yield state, self._row(number, row, found, one)

    def _row(self, number: int, row: dict[str, Any], found: np.ndarray, one: Ranking) -> dict[str, Any]:
        told = found[: number + 1]
        taught = self.sharing.students if isinstance(self.labels, Lockstep) else 1
        scope = one.scope
        costs = summary.costs(one.plan, scope.steps - scope.start, scope.steps, self.train.batch)
        return {
            "log_loss": float(told[:, 0].mean()),
            "change": float(told[:, 1].mean()),
            "last/log_loss": float(told[-1, 0]),
            "cost/teacher/gflop": taught * costs["cost/teacher/gflop"],
            "cost/student/gflop": self.sharing.students * costs["cost/student/gflop"],
            "cost/seconds": float(found[:, 2].sum()),
            "cost/seconds/first": float(found[0, 2]),
            "cost/seconds/further": float(found[1:, 2].mean()) if self.sharing.students > 1 else 0.0,
            "cost/labels/bytes": row.get("cost/labels/bytes", 0),
            "cost/labels/bytes_read": float(found[:, 3].sum()),
            "labels/lost": row.get("labels/lost", 0),
            "labels/doubled": row.get("labels/doubled", 0),
            "student": number,
            "events": row["events"],
        }


def _change(row: dict[str, Any]) -> float:
    changes = [value for name, value in row.items() if name.startswith("change/")]
    return float(np.mean(changes)) if changes else 0.0
