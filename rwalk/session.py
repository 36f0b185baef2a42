"""What one user paints and what is known of it: seeds, undo, the graph, its basis, the answer; safe for threads.

An interaction is answered at once from the prepared graph, to a loose residual. A thread of its own then makes the
answer better: it filters the basis after a change of the graph and prepares that graph anew, and goes on to a small
residual. Seeds that are added keep the certificate that an answer to fewer of them found.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import certified, deflate, interact, paint, prepared, topology, update
from rwalk.checks import InputError
from rwalk.data import Case
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.options import Problem, Serving, Weights

LARGEST_STROKE = 20_000  # points of one request
MOST = 200  # steps of conjugate gradients


class Shown(NamedTuple):
    """An answer on the host.

    Attributes:
        labels: `[*shape]`, -1 where there is none.
        x: `[L, *shape]`.
    """

    labels: np.ndarray
    x: np.ndarray


@dataclass(frozen=True)
class Told:
    """What a session starts from."""

    case: Case
    lattice: Lattice
    basis: Basis
    weights: Weights
    problem: Problem
    serving: Serving
    normalised: bool
    seeds: np.ndarray | None


class Session:
    """One image, one user; every public method may be called from any thread."""

    def __init__(self, told: Told):
        self.told = told
        case = told.case
        self.shape, self.n = case.mask.shape, case.mask.size
        self.basis, self.lattice = told.basis, told.lattice
        self.first = self.ready = prepared.prepare(
            told.lattice, told.basis, gamma=told.problem.gamma or 0.0, normalised=told.normalised
        )
        self.image = jnp.asarray(case.image, told.lattice.weights.dtype).reshape(case.image.shape[0], -1)
        self.active = case.mask.ravel()
        self.window = tuple(np.percentile(case.image[0][case.mask], [0.5, 99.5]).tolist())  # from black to white
        self.seeds = np.full(self.n, -1, np.int32)
        if told.seeds is not None:
            self.seeds[:] = np.where(case.mask, told.seeds, -1).ravel()
        self.past: list[tuple[np.ndarray, np.ndarray]] = []
        self.x: jax.Array | None = None
        self.reach: jax.Array | None = None  # certifies as long as no seed is erased and the graph stays
        self.shown: Shown | None = None
        self.figures: dict[str, Any] = {}
        self.factor = 1.0
        self.region: paint.Region | None = None
        self.graph, self.question, self.version, self.stage = 0, 0, 0, "ready"  # the first three count changes
        self.times: list[float] = []
        self.lock, self.changed, self.over = threading.RLock(), threading.Condition(), False
        self.worker = threading.Thread(target=self._improve, daemon=True)
        with self.lock:
            self._answer()

    def start(self) -> None:
        """Compile what the first interactions need, and let the thread that improves answers begin."""
        inside = np.flatnonzero(self.active)
        for count in (2, *(size + 1 for size in prepared.SIZES[:-1])):
            trial = np.full(self.n, -1, np.int32)
            trial[inside[np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int)]] = 0
            trial[inside[-1]] = 1
            found = self._solve(self._posed(trial), None, None, self.told.serving.first, certify=self.first.damped)
        prepared.follow(self.first, self._changed(1.01))
        with self.lock:
            self._publish(found, "trial")
            self._answer()
        self.worker.start()

    def stop(self) -> None:
        """End that thread; what it computes at this moment is finished first."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
        if self.worker.is_alive():
            self.worker.join(timeout=60)

    def stroke(self, centres: np.ndarray, axis: int, radius: float, label: int) -> dict[str, Any]:
        """Paint discs in the slice across an axis; label 0 erases, 1, 2, ... are the labels.

        Raises:
            InputError: a centre, the axis, the radius or the label is out of range.
        """
        d = len(self.shape)
        if not 0 <= axis < 3 or not 0 <= label <= self.told.serving.labels or not 0 <= radius <= 50:
            raise InputError(
                f"axis={axis}, label={label}, radius={radius}: an axis is 0 to 2, a label 0 to "
                f"{self.told.serving.labels}, a radius 0 to 50"
            )
        if centres.ndim != 2 or centres.shape[1] != d or not 0 < len(centres) <= LARGEST_STROKE:
            raise InputError(f"points: lists of {d} indices are needed, {LARGEST_STROKE} at most")
        with self.lock:
            touched = paint.discs(centres, axis, radius, self.told.case.mask)
            before = self.seeds[touched]
            self.past.append((touched, before.copy()))
            if label == 0:
                self.reach = None
            self.seeds[touched] = label - 1
            return self._timed(self._answer)

    def undo(self) -> dict[str, Any]:
        """Take back the last stroke."""
        with self.lock:
            if self.past:
                touched, before = self.past.pop()
                self.seeds[touched], self.reach = before, None
            return self._timed(self._answer)

    def clear(self) -> dict[str, Any]:
        """Take all seeds away; one undo brings them back."""
        with self.lock:
            touched = np.flatnonzero(self.seeds >= 0)
            self.past.append((touched, self.seeds[touched].copy()))
            self.seeds[touched], self.reach = -1, None
            return self._timed(self._answer)

    def change(self, factor: float, region: paint.Region | None) -> dict[str, Any]:
        """Another beta, as a factor of the first, and another region of interest: the span of the basis stays.

        Raises:
            InputError: the factor or the region is out of range, or the region holds no voxel of the mask.
        """
        if not 0.05 <= factor <= 20:
            raise InputError(f"beta: a factor of 0.05 to 20 is allowed, got {factor:g}")
        if region is not None:
            inside = len(region.centre) == len(self.shape) and 1 <= region.half <= max(self.shape)
            if not inside or not (paint.box(self.shape, region) & self.told.case.mask).any():
                raise InputError(f"region: {region.centre} and {region.half} hold no voxel of the mask; draw it inside")

        def apply() -> None:
            self.factor, self.region = factor, region
            self.graph += 1
            self._adopt(self._changed(factor), self.told.basis)
            self._answer()

        with self.lock:
            return self._timed(apply)

    def _changed(self, factor: float) -> Lattice:
        """The graph for a beta and the present region."""
        told = self.told
        if factor == 1:
            lattice = told.lattice
        else:
            weights = replace(told.weights, beta=told.weights.beta * factor)
            lattice = weights.graph(self.image.reshape(-1, *self.shape), told.lattice.active, told.case.spacing)
        return lattice if self.region is None else topology.keep(lattice, paint.box(self.shape, self.region))

    def _adopt(self, lattice: Lattice, basis: Basis, ready: prepared.Prepared | None = None) -> None:
        """Go on with another graph; needs the lock."""
        whole = self.factor == 1 and self.region is None
        if ready is None:
            ready = self.first if whole else prepared.follow(self.first, lattice)
        self.lattice, self.basis, self.ready, self.reach = lattice, basis, ready, None
        self.active = np.asarray(lattice.active).ravel()

    def _posed(self, seeds: np.ndarray) -> paint.Posed:
        """The question that seeds `[n]` ask on the present graph; needs the lock."""
        return paint.pose(self.ready, self.image, self.active, seeds, self.told.problem.kind, self.told.serving.labels)

    def _solve(
        self, posed: paint.Posed, x: jax.Array | None, reach: jax.Array | None, tol: float, *, certify: bool = True
    ) -> deflate.Answer:
        regions = self.told.serving.labels
        start = jnp.zeros((regions, self.n), self.image.dtype) if x is None else x
        return deflate.answer(
            posed.ready, regions, positions=posed.positions, labels=posed.labels, priors=posed.priors, closed=True,
            start=start, reach=reach, tol=tol, maximum=MOST, certify=certify,
        )  # fmt: skip

    def _answer(self) -> None:
        """To the loose residual, on the seeds that lie in the region; needs the lock."""
        self.question += 1
        if len(np.unique(self.seeds[(self.seeds >= 0) & self.active])) < 2:
            self.version += 1
            self.x, self.shown, self.figures, self.stage = None, None, {}, "ready"
            return  # nothing to improve
        known = self.ready.damped or self.reach is not None
        found = self._solve(self._posed(self.seeds), self.x, self.reach, self.told.serving.first, certify=known)
        self._publish(found, "at once")
        with self.changed:
            self.changed.notify_all()

    def _publish(self, found: deflate.Answer, stage: str) -> None:
        x, labels, error, flips = paint.shown(found.x, found.pointwise, self.ready.active)
        self.x, self.stage = found.x, stage
        self.shown = Shown(np.asarray(labels).reshape(self.shape), np.asarray(x).reshape(-1, *self.shape))
        self.version += 1
        known = bool(np.isfinite(np.asarray(found.bound)).all())
        self.figures = {"error": float(error) if known else None, "flips": float(flips) if known else None}

    def _timed(self, action: Callable[[], None]) -> dict[str, Any]:
        begin = time.perf_counter()
        action()
        self.times.append(time.perf_counter() - begin)
        return self.state()

    def state(self) -> dict[str, Any]:
        """What the page shows beside the pictures."""
        with self.lock:
            counts = np.bincount(self.seeds[self.seeds >= 0], minlength=self.told.serving.labels)
            return {
                "version": self.version,
                "seeds": counts.tolist(),
                "undo": len(self.past),
                "answered": self.shown is not None,
                "stage": self.stage,
                "milliseconds": 1e3 * self.times[-1] if self.times else None,
                "beta": self.told.weights.beta * self.factor,
                "region": None if self.region is None else [list(self.region.centre), self.region.half],
                **self.figures,
            }

    def _improve(self) -> None:
        """The thread: wait for a change, let it settle, filter the basis, improve the answer to a residual."""
        filtered, improved = 0, 0
        while True:
            with self.changed:
                self.changed.wait_for(self._has_news_since(improved))
                if self.changed.wait_for(lambda: self.over, self.told.serving.settle):
                    return
            with self.lock:
                question, graph, x, lattice = self.question, self.graph, self.x, self.lattice
                posed = self._posed(self.seeds) if x is not None else None
            if graph != filtered:
                filtered = self._filter(graph, filtered)
                continue
            if posed is not None:
                better = jax.block_until_ready(self._improved(posed, lattice, x))
                with self.lock:
                    if question == self.question:
                        keeps = not (self.ready.damped or interact.goes_without(self.told.problem, lattice))
                        self.reach = better.reach if keeps else None
                        self._publish(better, "improved")
            improved = question

    def _improved(self, posed: paint.Posed, lattice: Lattice, x: jax.Array | None) -> deflate.Answer:
        """To the small residual, with its certificate."""
        told = self.told
        if not interact.goes_without(told.problem, lattice):
            return self._solve(posed, x, None, told.serving.residual)
        seeds = np.full(self.n, -1, np.int32)
        seeds[posed.positions] = posed.labels
        return certified.answer(
            lattice, told.serving.labels, seeds=seeds, start=x, tol=told.serving.residual, normalised=told.normalised
        )

    def _has_news_since(self, question: int) -> Callable[[], bool]:
        return lambda: self.over or self.question != question

    def _filter(self, graph: int, filtered: int) -> int:
        """Prepare the changed graph with a basis of its own, unless it changes again; the graph that is prepared."""
        told = self.told
        with self.lock:
            lattice, whole = self.lattice, self.factor == 1 and self.region is None
            cut = self.region is not None
        if whole or not bool(lattice.weights.any()):  # without an edge there are no pairs
            return graph
        if cut:
            basis = topology.restrict(told.basis, lattice, normalised=told.normalised)
        else:
            basis = update.reweight(told.basis, told.lattice, lattice, mode="filtered", normalised=told.normalised)
        gamma = told.problem.gamma or 0.0
        ready = jax.block_until_ready(prepared.prepare(lattice, basis, gamma=gamma, normalised=told.normalised))
        with self.lock:
            if graph != self.graph:
                return filtered
            self._adopt(lattice, basis, ready)
            self._answer()
            return graph
