"""Find a teacher under a budget: a grid of candidates screened early in the stream, the worse half dropped each time.

Candidates of one shape train together. Legend: C candidates, I intervals, P screening points, K tasks.
"""

import itertools
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdrec import models, teach
from kdrec.distill import Method
from kdrec.options import Distill, Grid, Model, Teacher, Training
from kdrec.plan import Plan
from kdrec.stream import Batches, Stream, batches, steps


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    Attributes:
        step: intervals done.
        key: of the run.
        teachers: for each scale and number of members, their leading axis the rates, seeds and members.
        loss: `[C, I]` mean log loss over tasks and seeds of each interval; NaN where a candidate was not trained.
        seconds: `[C, 2]` that candidates took so far and in their last interval; those of one shape train together
            and share their time.
        alive: `[C]` 1 for candidates that train on.
    """

    step: np.ndarray
    key: jax.Array
    teachers: dict[str, teach.Teacher]
    loss: np.ndarray
    seconds: np.ndarray
    alive: np.ndarray


@dataclass(frozen=True)
class Search:
    """One pass of a grid of teachers over a stream.

    A search trains teachers alone: `teacher`, `distill` and `labels` are those of the run that will use what it finds.
    """

    data: Any
    model: Model
    teacher: Teacher
    distill: Distill
    labels: Any
    grid: Grid
    train: Training

    @cached_property
    def stream(self) -> Stream:
        """The events."""
        return self.data.stream()

    @cached_property
    def _events(self) -> int:
        limit, options = self.train.limit, self.train
        return min(len(self.stream), limit * options.interval * options.batch if limit else len(self.stream))

    @cached_property
    def groups(self) -> tuple[tuple[float, int], ...]:
        """Scale and members of the candidates that train together, which differ in their learning rates."""
        return tuple(itertools.product(self.grid.scales, self.grid.members))

    @property
    def candidates(self) -> tuple[tuple[float, int, float], ...]:
        """`[C]` scale, members and learning rate."""
        return tuple((*group, rate) for group in self.groups for rate in self.grid.rates)

    @cached_property
    def points(self) -> tuple[int, ...]:
        """`[P]` intervals after which candidates are compared."""
        return tuple(max(1, round(point * self.length())) for point in self.grid.points)

    @cached_property
    def costs(self) -> np.ndarray:
        """`[C]` GFLOP of an interval, of the dense layers."""
        events = self.train.interval * self.train.batch * self.train.seeds
        each = [models.multiplications(self._plan(scale, n).teacher) * n for scale, n, _ in self.candidates]
        return 6e-9 * events * np.asarray(each, np.float64)

    def _plan(self, scale: float, members: int) -> Plan:
        shape = self.model.spec(self.stream).scaled(scale)
        method = Method("none", (1.0,) * shape.tasks, "", "", real=self.stream.real)
        return teach.alone(Plan(shape, shape, method, 0, self.train.segments, 0, self.train.bins, (), members))

    def length(self) -> int:
        """Number of intervals."""
        return -(-steps(self._events, self.train.batch) // self.train.interval)

    def init(self, key: jax.Array) -> State:
        """State before the first event: candidates of one shape and seed start alike."""
        rates, seeds = len(self.grid.rates), self.train.seeds
        teachers = {}
        for scale, members in self.groups:
            one = teach.init_teachers(key, self._plan(scale, members), seeds)
            teachers[f"{scale:g} {members}"] = jax.tree.map(lambda x: jnp.tile(x, (rates, *[1] * (x.ndim - 1))), one)
        count = len(self.candidates)
        loss = np.full((count, self.length()), np.nan)
        return State(np.zeros((), np.int64), key, teachers, loss, np.zeros((count, 2)), np.ones(count))

    def run(self, state: State, *, place: Any = lambda x, axis=0: x) -> Iterator[tuple[State, dict[str, Any]]]:  # noqa: ARG005
        """Interval after interval from `state.step` on."""
        for index in range(int(state.step), self.length()):
            number, options = jnp.zeros(()).dtype, self.train
            found, time = batches(self.stream, index * options.interval, options.interval, options.batch, self._events)
            columns = (found.ids, *(column.astype(number) for column in found[1:]))
            placed = Batches(*(place(column, axis=1) for column in columns))
            teachers, loss, seconds = dict(state.teachers), state.loss.copy(), state.seconds.copy()
            for number_of, group in enumerate(self.groups):
                rows = slice(number_of * len(self.grid.rates), (number_of + 1) * len(self.grid.rates))
                if state.alive[rows].any():
                    name, begin = "{:g} {}".format(*group), clock.perf_counter()
                    teachers[name], told = self._interval(group, teachers[name], placed, index, state.alive[rows])
                    loss[rows, index] = np.where(state.alive[rows] > 0, told, np.nan)
                    seconds[rows, 1] = (clock.perf_counter() - begin) / state.alive[rows].sum() * state.alive[rows]
                    seconds[rows, 0] += seconds[rows, 1]
            alive = self._screen(index + 1, loss, seconds, state.alive)
            state = State(np.asarray(index + 1), state.key, teachers, loss, seconds, alive)
            events = index * options.interval * options.batch + len(time)
            yield (
                state,
                {"events": events, "cost/seconds": float(seconds[:, 0].sum()), **self._row(index + 1, loss, alive)},
            )

    def _interval(
        self, group: tuple[float, int], teacher: teach.Teacher, found: Batches, index: int, alive: np.ndarray
    ) -> tuple[teach.Teacher, np.ndarray]:
        """Train the candidates of one shape that are alive; `[rates]` mean log loss."""
        seeds, number = self.train.seeds, jnp.zeros(()).dtype
        learners = seeds * group[1]  # of a candidate
        rows = np.flatnonzero(np.repeat(alive > 0, learners))
        whole = len(rows) == len(alive) * learners
        some = teacher if whole else jax.tree.map(lambda x: x[rows], teacher)
        rates = np.repeat(np.asarray(self.grid.rates), learners)[rows]
        knobs = teach.Knobs(
            rate=jnp.asarray(rates, number),
            refresh=jnp.asarray(1, jnp.int32),
            start=jnp.asarray(0, jnp.int32),
            slope=jnp.asarray(1, number),
            shift=jnp.zeros(self.train.segments, number),
        )
        base = index * self.train.interval
        last = min(self.train.interval, steps(self._events, self.train.batch) - base)
        span = (jnp.asarray(base, jnp.int32), jnp.asarray(last, jnp.int32))
        some, _, sums = teach.publish(self._plan(*group), knobs, some, found, *span)
        told = np.full(len(alive) * seeds, np.nan)
        told[np.repeat(alive > 0, seeds)] = (
            np.asarray(sums.loss, np.float64) / np.asarray(sums.events, np.float64)[:, None]
        ).mean(1)
        back = some if whole else jax.tree.map(lambda old, new: old.at[rows].set(new), teacher, some)
        return back, told.reshape(-1, seeds).mean(1)

    def _screen(self, done: int, loss: np.ndarray, seconds: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Candidates that go on: all, unless a screening point is reached; then what both budgets can carry."""
        if not self.grid.prune or done not in self.points or done == self.length():
            return alive
        budgets = [np.inf if given is None else given for given in (self.grid.budget, self.grid.seconds)]
        spent = [(np.isfinite(loss).sum(1) * self.costs).sum(), seconds[:, 0].sum()]
        cost = np.stack([self.costs, seconds[:, 1]], axis=1) * (self.length() - done)
        return halve(self._score(loss, done), alive > 0, cost, np.subtract(budgets, spent)).astype(np.float64)

    def _score(self, loss: np.ndarray, done: int) -> np.ndarray:
        """`[C]` mean log loss up to an interval, without the first tenth of the stream where all are fresh."""
        skip = min(self.length() // 10, done - 1)
        return loss[:, skip:done].mean(1)

    def _row(self, done: int, loss: np.ndarray, alive: np.ndarray) -> dict[str, Any]:
        trained = np.isfinite(loss[:, :done])
        spent = float((trained.sum(1) * self.costs).sum())
        full = float(self.costs.sum() * done)
        score = np.where(alive > 0, self._score(loss, done), np.inf)
        best = int(np.argmin(score))
        row: dict[str, Any] = {
            "log_loss": float(score[best]),
            **dict(zip(("best/scale", "best/members", "best/rate"), self.candidates[best], strict=True)),
            "alive": float(alive.sum()), "cost/gflop": spent, "cost/saved": 1 - spent / full,
        }  # fmt: skip
        row["window"] = {"loss": [value if np.isfinite(value) else None for value in loss[:, done - 1]]}
        if done == self.length() and trained.all():
            final = self._score(loss, done)
            for point, at in zip(self.grid.points, self.points, strict=True):
                told = screening(self._score(loss, at), final, self.costs, at / done)
                row |= {f"{name}/{round(100 * point)}": value for name, value in told.items()}
        return row


def halve(score: np.ndarray, alive: np.ndarray, cost: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Keep the better half of the candidates, or as many of them as the rest of each budget can carry to the end.

    Args:
        score: `[C]`, lower is better.
        alive: `[C]` bool.
        cost: `[C, L]` of carrying on to the end, in the unit of each budget.
        rest: `[L]` of the budgets.

    Returns:
        `[C]` bool; the best one is kept in any case.

    Source: successive halving, Jamieson and Talwalkar 2016, with a limit on the cost that is still to come.
    """
    order = [c for c in np.argsort(score, kind="stable") if alive[c]]
    kept, spent = np.zeros(len(score), bool), np.zeros(len(rest))
    for c in order[: max(1, -(-len(order) // 2))]:
        if kept.any() and np.any(spent + cost[c] > rest):
            continue
        kept[c], spent = True, spent + cost[c]
    return kept


def screening(early: np.ndarray, final: np.ndarray, cost: np.ndarray, part: float) -> dict[str, float]:
    """What an early choice of the best half would have meant.

    Args:
        early: `[C]` scores at a point of the stream, lower is better.
        final: `[C]` scores at its end.
        cost: `[C]` of a candidate over the whole stream, in any unit.
        part: of the stream that is over at the point.

    Returns:
        `tau`, Kendall's tau-b of the two rankings; `regret`, %, by which the best of the kept half ends above that of
        all; `regret_one`, %, the same where only the best one is kept; `saved`, the share of compute that the dropped
        half would have taken.
    """
    from scipy.stats import kendalltau

    kept = np.argsort(early, kind="stable")[: max(1, -(-len(early) // 2))]
    dropped = np.setdiff1d(np.arange(len(early)), kept)
    best = final.min()
    return {
        "tau": float(kendalltau(early, final).statistic),
        "regret": float(100 * (final[kept].min() / best - 1)),
        "regret_one": float(100 * (final[kept[0]] / best - 1)),
        "saved": float((1 - part) * cost[dropped].sum() / cost.sum()),
    }
