"""What one user paints and what is known of it: seeds, undo, the graph, its basis, the answer; safe for threads.

An interaction is answered at once from the basis at hand. A thread of its own then makes the answer better: it filters
the basis after a change of the graph, and conjugate gradients go on to a residual, from which the error is certified.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import deflate, online, paint, topology, update
from rwalk.checks import InputError
from rwalk.data import Case
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.options import Problem, Serving, Weights

LARGEST_STROKE = 20_000  # points of one request


class Shown(NamedTuple):
    """An answer on the host.

    Attributes:
        labels: `[*shape]`, -1 where there is none.
        x: `[L, *shape]`.
        entropy: `[*shape]`.
    """

    labels: np.ndarray
    x: np.ndarray
    entropy: np.ndarray


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
        self.first = paint.extend(told.lattice)
        self.known = paint.widen(told.basis, self.first)
        image = jnp.asarray(case.image, told.lattice.weights.dtype).reshape(case.image.shape[0], -1)
        self.image = jnp.pad(image, [(0, 0), (0, self.known.mass.size - self.n)])
        self.seeds = np.full(self.known.mass.size, -1, np.int32)
        if told.seeds is not None:
            self.seeds[: self.n] = np.where(case.mask, told.seeds, -1).ravel()
        self.past: list[tuple[np.ndarray, np.ndarray]] = []
        self.canvas = paint.canvas(self.first, self.known, self.n)
        self.x: jax.Array | None = None
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
        trial = np.full(self.seeds.size, -1, np.int32)
        for count in (2, *(size // 2 + 1 for size in paint.SIZES[1:])):
            inside = np.flatnonzero(self.told.case.mask.ravel())
            trial[inside[np.linspace(0, len(inside) - 1, min(count, len(inside))).astype(int)]] = 0
            trial[inside[-1]] = 1
            found = self._ask(self.canvas, trial)
        self._updated("ritz", 1.01)
        with self.lock:
            self._publish(found.x, 1.0, "from the basis")
            self._answer()
        self.worker.start()

    def stop(self) -> None:
        """End that thread."""
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
            self.seeds[touched] = label - 1
            return self._timed(self._answer)

    def undo(self) -> dict[str, Any]:
        """Take back the last stroke."""
        with self.lock:
            if self.past:
                touched, before = self.past.pop()
                self.seeds[touched] = before
            return self._timed(self._answer)

    def clear(self) -> dict[str, Any]:
        """Take all seeds away; one undo brings them back."""
        with self.lock:
            touched = np.flatnonzero(self.seeds >= 0)
            self.past.append((touched, self.seeds[touched].copy()))
            self.seeds[touched] = -1
            return self._timed(self._answer)

    def change(self, factor: float, region: paint.Region | None) -> dict[str, Any]:
        """Another beta, as a factor of the first, and another region of interest: the basis is updated.

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
            self.canvas = self._updated("ritz", factor)
            self._answer()

        with self.lock:
            return self._timed(apply)

    def _updated(self, mode: Literal["ritz", "filtered"], factor: float) -> paint.Canvas:
        """Graph and basis for a beta and the present region, the basis made from the one that was computed."""
        told = self.told
        lattice = self.first
        if factor == 1 and self.region is None:
            return paint.canvas(lattice, self.known, self.n)
        if factor != 1:
            weights = replace(told.weights, beta=told.weights.beta * factor)
            image = self.image[:, : self.n].reshape(-1, *self.shape)
            lattice = paint.extend(weights.graph(image, told.lattice.active, told.case.spacing))
        if self.region is not None:
            more = lattice.shape[0] - self.shape[0]
            box = np.pad(paint.box(self.shape, self.region), [(0, more), *[(0, 0)] * (len(self.shape) - 1)])
            lattice = topology.keep(lattice, box)
        if mode == "filtered" and self.region is not None:
            basis = topology.restrict(self.known, lattice, normalised=told.normalised)
        else:
            basis = update.reweight(self.known, self.first, lattice, mode=mode, normalised=told.normalised)
        return paint.canvas(lattice, basis, self.n)

    def _ask(self, canvas: paint.Canvas, seeds: np.ndarray) -> paint.Answer:
        problem = self.told.problem
        return paint.ask(
            canvas, self.image, seeds, self.told.serving.labels, kind=problem.kind, gamma=problem.gamma or 0.0,
            polish=problem.polish, normalised=self.told.normalised,
        )  # fmt: skip

    def _answer(self) -> None:
        """From the basis, on the seeds that lie in the region; needs the lock."""
        inside = np.asarray(self.canvas.lattice.active).ravel()
        seeds = np.where(inside, self.seeds, -1).astype(np.int32)
        labels = np.unique(seeds[seeds >= 0])
        self.question += 1
        if len(labels) < 2:
            self.version += 1
            self.x, self.shown, self.figures, self.stage = None, None, {}, "ready"
            return  # nothing to improve
        found = self._ask(self.canvas, seeds)
        self._publish(found.x, float(found.pointwise), "from the basis")
        with self.changed:
            self.changed.notify_all()

    def _publish(self, x: jax.Array, error: float, stage: str) -> None:
        active = np.asarray(self.canvas.lattice.active)[: self.shape[0]]
        whole = online.to_simplex(x)
        entropy = np.asarray(online.entropy(whole))[: self.n].reshape(self.shape)
        probabilities = np.asarray(whole)[:, : self.n].reshape(-1, *self.shape)
        labels = np.where(active & (probabilities.sum(0) > 0), probabilities.argmax(0), -1)
        could = float(np.asarray(online.could_flip(x, error))[: self.n][active.ravel()].mean())
        self.x, self.shown, self.stage = x, Shown(labels, probabilities, entropy), stage
        self.version += 1
        self.figures = {"error": error if np.isfinite(error) else None, "flips": could if np.isfinite(error) else None}

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
            if self.over:
                return
            time.sleep(self.told.serving.settle)
            with self.lock:
                question, graph, x = self.question, self.graph, self.x
                canvas, seeds = self.canvas, self.seeds.copy()
            if graph != filtered:
                filtered = self._filter(graph, filtered)
                continue
            if x is not None:
                better, error = self._solve(canvas, seeds, x)
                with self.lock:
                    if question == self.question:
                        self._publish(better, error, "improved")
            improved = question

    def _has_news_since(self, question: int) -> Callable[[], bool]:
        return lambda: self.over or self.question != question

    def _filter(self, graph: int, filtered: int) -> int:
        """A better basis of the changed graph, unless it has changed again; the graph whose basis is filtered."""
        canvas = self._updated("filtered", self.factor)
        with self.lock:
            if graph != self.graph:
                return filtered
            self.canvas = canvas
            self._answer()
            return graph

    def _solve(self, canvas: paint.Canvas, seeds: np.ndarray, x: jax.Array) -> tuple[jax.Array, float]:
        """The answer to the residual of the session, and what no probability is further off than."""
        told, problem, regions = self.told, self.told.problem, self.told.serving.labels
        active = canvas.lattice.active.ravel()
        flat = jnp.where(active, jnp.asarray(seeds), -1)
        held = jnp.full_like(flat, -1) if problem.kind == "priors" else flat
        given: dict[str, Any] = {"seeds": None if problem.kind == "priors" else flat.reshape(canvas.lattice.shape)}
        p = None
        if problem.kind != "seeds":
            p = paint.densities(self.image, active, flat, regions)
            given |= {"priors": p.reshape(-1, *canvas.lattice.shape), "gamma": problem.gamma}
        found = deflate.random_walker(
            canvas.basis, canvas.lattice, regions=regions, normalised=told.normalised, start=x,
            tol=told.serving.residual, certify=p is None, **given,
        )  # fmt: skip
        better = paint.keep(found.x, held, active)
        if p is None:
            return better, float(found.pointwise.max())
        bound = paint.furthest(canvas, better, p, held, problem.gamma, normalised=told.normalised)
        return better, float(bound)
