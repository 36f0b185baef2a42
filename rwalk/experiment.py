"""Segmentation as an experiment: the basis in some intervals, the answer from it, the exact answer to compare to."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import checks, data, graph, interact, online, precompute, prepared, seeding, solve
from rwalk.data import Case
from rwalk.eigen import Basis
from rwalk.options import Bases, Eigen, Exact, Problem, Weights


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    Attributes:
        step: `[]` intervals done: those of the basis, answer, comparison.
        key: of everything random.
        basis: eigenpairs; zeros before the first interval.
        x: `[L, n]` the answer; zeros before it was given.
        figures: `[8]` seconds of the basis, whether it was opened, seconds of the answer, pairs used, what is promised
            for them, bound, pointwise bound, steps of conjugate gradients.
    """

    step: np.ndarray
    key: jax.Array
    basis: Basis
    x: jax.Array
    figures: np.ndarray


class Given(NamedTuple):
    """What is known before anything is solved.

    Attributes:
        case: the image.
        lattice: its graph.
        seeds: `[*shape]`, -1 where there is none.
        priors: `[L, *shape]`, None where the problem has none.
        regions: L.
        name: digest of image, mask and weights: of the graph whose basis is computed.
    """

    case: Case
    lattice: graph.Lattice
    seeds: np.ndarray
    priors: np.ndarray | None
    regions: int
    name: str


@dataclass(frozen=True)
class Segmentation:
    """Segments one image; `image` has a method `case()`, `seeds` a method `place(case)`."""

    image: Any
    seeds: Any
    weights: Weights
    problem: Problem
    eigen: Eigen
    basis: Bases
    exact: Exact

    @cached_property
    def given(self) -> Given:
        """Image, graph, seeds and priors, read and checked.

        Raises:
            InputError: one of them cannot be used.
        """
        case = self.image.case()
        seeds = self.seeds.place(case)
        name = getattr(self.seeds, "path", None) or case.name
        checks.check_seeds(seeds, case.mask, name)
        image = jnp.asarray(case.image, jnp.result_type(float))  # in the precision of the run
        lattice = self.weights.graph(image, jnp.asarray(case.mask), case.spacing)
        if self.problem.kind != "priors":
            pieces = graph.components(lattice)
            if self.seeds.pieces == "ignore":
                lonely = checks.pieces_without_seeds(pieces, seeds)
                mask = case.mask & ~np.isin(pieces, lonely)
                lattice = self.weights.graph(image, jnp.asarray(mask), case.spacing)
            else:
                checks.check_pieces(pieces, seeds, name)
        seeds = np.where(case.mask, seeds, -1)
        priors = self._priors(case, seeds, name)
        regions = int(seeds.max()) + 1 if priors is None else len(priors)
        name = precompute.graph_of(case, np.asarray(lattice.active), self.weights, image.dtype)
        return Given(case, lattice, seeds, priors, regions, name)

    @property
    def first(self) -> tuple[graph.Lattice, str]:
        """The graph whose basis is computed, and its digest."""
        return self.given.lattice, self.given.name

    def fit(self, basis: Basis, first: graph.Lattice, lattice: graph.Lattice, key: jax.Array) -> Basis:  # noqa: ARG002
        """The basis to answer from: that of the first graph, made to fit the one of the question."""
        return basis

    def _priors(self, case: Case, seeds: np.ndarray, name: str) -> np.ndarray | None:
        if self.problem.kind == "seeds":
            return None
        if self.problem.path is None:
            return seeding.intensity_priors(case.image, case.mask, seeds, int(seeds.max()) + 1)
        priors = data.read_priors(self.problem.path, case, close=self.problem.close)
        if self.problem.kind == "both":
            checks.check_labels(seeds, len(priors), name, self.problem.path)
        return priors

    updates = False  # whether the basis is one that followed a change

    @cached_property
    def _found(self) -> dict[str, np.ndarray]:
        """What `report` writes; filled by the last interval."""
        return {}

    def length(self) -> int:
        """Those of the basis and two more."""
        return precompute.rounds(self.eigen, self.basis) + 2

    def init(self, key: jax.Array) -> State:
        """State before the first interval."""
        n, dtype = self.given.case.mask.size, self.given.lattice.weights.dtype
        storage = None if self.updates else self.basis.storage  # what is changed is held in full
        basis = precompute.blank(n, self.eigen.k, dtype, storage)
        return State(np.zeros((), np.int64), key, basis, jnp.zeros((self.given.regions, n), dtype), np.zeros(8))

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`. `place` spreads the first axis of the lattice."""

        def spread(lattice: graph.Lattice) -> graph.Lattice:
            return graph.Lattice(place(lattice.weights, 1), place(lattice.active), lattice.offsets)

        given, (first, name) = self.given, self.first
        lattice = spread(given.lattice)
        first = lattice if first is given.lattice else spread(first)
        parts = precompute.rounds(self.eigen, self.basis)
        for step in range(int(state.step), self.length()):
            if step < parts:
                before = precompute.Interval(state.basis, float(state.figures[0]), bool(state.figures[1]))
                after = precompute.advance(first, self.eigen, self.basis, name, before, step, state.key, place)
                state = state._replace(basis=after.basis, figures=np.array([after.seconds, after.found, *[0] * 6]))
                row = self._about_basis(state)
            elif step == parts:
                state = self._answer(state, self.fit(state.basis, first, lattice, state.key), lattice)
                row = self._about_answer(state)
            else:
                row = self._compare(state, lattice)
            state = state._replace(step=np.asarray(step + 1, np.int64))
            yield state, row

    def _about_basis(self, state: State) -> dict[str, float]:
        return precompute.about(state.basis, float(state.figures[0]), found=bool(state.figures[1]))

    def _answer(self, state: State, basis: Basis, lattice: graph.Lattice) -> State:
        problem, labels = self.problem, self.given.seeds.ravel()
        coupled = np.asarray(basis.mass) > 0
        laplacian = graph.stencil_of(lattice)
        ready = None
        if interact.needs_ready(problem, lattice):  # once a graph, not once a question
            gamma, normalised = problem.gamma or 0.0, self.eigen.normalised
            ready = prepared.prepare(lattice, basis, gamma=gamma, normalised=normalised)
        answer, seconds = timed(
            lambda: interact.ask(
                basis,
                lattice,
                laplacian,
                problem,
                **self._told(lattice),
                ready=ready,
                maximum=self.exact.maximum,
                updated=self.updates or basis.vectors.dtype != basis.mass.dtype,  # rounded pairs are not exact
            )
        )
        known = solve.one_hot(jnp.asarray(labels), self.given.regions, answer.x.dtype)
        alone = jnp.asarray((labels >= 0) & ~coupled)[None] & (problem.kind != "priors")
        x = jnp.where(lattice.active.ravel()[None], jnp.where(alone, known, answer.x), 0)
        figures = [answer.used, answer.promised, answer.bound, answer.pointwise, answer.steps]
        return state._replace(x=x, figures=np.array([*state.figures[:2], seconds, *(float(f) for f in figures)]))

    def _about_answer(self, state: State) -> dict[str, float]:
        _, _, seconds, used, promised, bound, pointwise, steps = (float(value) for value in state.figures)
        row = self._about_basis(state) | {"seconds/online": seconds, "pairs/used": used, "iterations/online": steps}
        known = {"error/promised": promised, "error/bound": bound, "error/pointwise_bound": pointwise}
        return row | {name: value for name, value in known.items() if np.isfinite(value)}

    def _compare(self, state: State, lattice: graph.Lattice) -> dict[str, float]:
        given, found = self.given, online.to_simplex(state.x)
        exact = self._exactly(lattice)
        shape = (given.regions, *lattice.shape)
        guess = found.reshape(shape)
        cold, cold_seconds = timed(lambda: self._solve(lattice, self.exact.rival))
        warm, warm_seconds = timed(lambda: self._solve(lattice, self.exact.rival, guess))
        reference = exact.x.reshape(given.regions, -1)
        active = np.asarray(lattice.active).ravel()
        labels, right = (np.asarray(x.argmax(0)) for x in (found, reference))
        rooted = jnp.sqrt(graph.mass(lattice, normalised=self.eigen.normalised))[None]
        off = jnp.linalg.norm(rooted * (state.x - reference), axis=1)
        row = self._about_answer(state) | {
            "error/relative": float(jnp.linalg.norm(off) / jnp.linalg.norm(rooted * reference)),
            "error/largest": float(jnp.abs(found - reference).max()),
            "agreement": float((labels == right)[active].mean()),
            "seconds/cold": cold_seconds,
            "seconds/warm": warm_seconds,
            "iterations/exact": int(exact.iterations),
            "iterations/cold": int(cold.iterations),
            "iterations/warm": int(warm.iterations),
            "exact/converged": float(exact.converged),
        }
        if given.priors is not None and self.problem.kind == "priors":
            p = rooted * jnp.asarray(given.priors.reshape(given.regions, -1), rooted.dtype)
            row["error/achieved"] = float(jnp.linalg.norm(off) / jnp.linalg.norm(p))  # as the bounds are told
            for name in ("promised", "bound"):
                row[f"tightness/{name}"] = row.get(f"error/{name}", np.inf) / row["error/achieved"]
        if np.isfinite(state.figures[6]):
            row["flips/share"] = float(online.could_flip(state.x, state.figures[6])[active].mean())
        self._found.update(
            labels=np.where(active, labels + 1, 0).reshape(lattice.shape).astype(np.min_scalar_type(given.regions)),
            probabilities=np.asarray(guess, np.float32),
            entropy=np.asarray(online.entropy(found), np.float32).reshape(lattice.shape),
            margin=np.where(active, np.asarray(online.margin(found), np.float32), 0).reshape(lattice.shape),
        )
        return self._scores(row, found, online.to_simplex(reference), active) | row

    def _told(self, lattice: graph.Lattice) -> dict[str, Any]:
        """The problem, as all solvers want it."""
        given, problem = self.given, self.problem
        return {
            "regions": given.regions,
            "seeds": None if problem.kind == "priors" else jnp.asarray(given.seeds),
            "priors": None if given.priors is None else jnp.asarray(given.priors, lattice.weights.dtype),
            "gamma": problem.gamma or 0.0,
            "normalised": self.eigen.normalised,
        }

    def _exactly(self, lattice: graph.Lattice) -> solve.Solution:
        return self._solve(lattice, self.exact.tol, aggregates=self.exact.aggregates)

    def _solve(
        self, lattice: graph.Lattice, tol: float, start: jax.Array | None = None, aggregates: str = "cubes"
    ) -> solve.Solution:
        return solve.random_walker(
            lattice, **self._told(lattice), start=start, tol=tol, maximum=self.exact.maximum, aggregates=aggregates
        )

    def _scores(self, row: dict[str, Any], found: jax.Array, exact: jax.Array, active: np.ndarray) -> dict[str, float]:
        """Of labels and of probabilities, against the truth; those of the exact solution beside them."""
        from evalmetrics import calibration, crisp, score

        truth, regions = self.given.case.truth, self.given.regions
        if truth is None or truth.max() >= regions:
            return {"agreement": row["agreement"]}
        inside = np.flatnonzero(active & (truth.ravel() >= 0))
        known = jnp.asarray(truth.ravel()[inside].astype(np.int32))
        scores = {}
        for name, x in (("", found[:, inside]), ("_exact", exact[:, inside])):
            table = crisp.contingency(known, x.argmax(0).astype(jnp.int32), (regions, regions))
            dice = np.asarray(crisp.dice(table, pairs=True)).diagonal()
            scores[f"dice{name}"] = float(dice.mean())
            names = zip(self.given.case.names, dice, strict=False)
            scores |= {f"dice{name}/{label}": float(d) for label, d in names}
            sums = calibration.calibration_sums(known, x)
            scores[f"overlap{name}"] = float(score(known, x, labels="ordered", regions=(regions, regions)).macro)
            scores[f"brier{name}"] = float(calibration.brier_score(sums))
            scores[f"calibration{name}"] = float(calibration.expected_calibration_error(sums))
        return scores

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write labels, probabilities, uncertainty and a picture of a finished run."""
        if self._found:
            from rwalk import report

            report.write(self._found, self.given.case, self.given.seeds, rows[-1], folder)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result of the second call, compiled by the first, and its seconds."""
    jax.block_until_ready(function())
    return timed_once(function)


def timed_once(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call and its seconds."""
    begin = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - begin
