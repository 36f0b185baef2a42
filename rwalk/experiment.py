"""Segmentation as an experiment: the basis, the answer from it, the exact answer to compare to; an interval each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import checks, graph, io, online, seeding, solve
from rwalk.data import Case
from rwalk.eigen import Basis
from rwalk.options import Eigen, Exact, Problem, Weights


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    Attributes:
        step: `[]` intervals done: basis, answer, comparison.
        key: of everything random.
        basis: eigenpairs; zeros before the first interval.
        x: `[L, n]` the answer; zeros before the second.
        figures: `[6]` seconds of the basis and of the answer, pairs used, bound, pointwise bound, typical error.
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
    """

    case: Case
    lattice: graph.Lattice
    seeds: np.ndarray
    priors: np.ndarray | None
    regions: int


@dataclass(frozen=True)
class Segmentation:
    """Segments one image; `image` has a method `case()`, `seeds` a method `place(case)`."""

    image: Any
    seeds: Any
    weights: Weights
    problem: Problem
    eigen: Eigen
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
        priors = self._priors(case, seeds)
        regions = int(seeds.max()) + 1 if priors is None else len(priors)
        return Given(case, lattice, seeds, priors, regions)

    def _priors(self, case: Case, seeds: np.ndarray) -> np.ndarray | None:
        if self.problem.kind == "seeds":
            return None
        if self.problem.path is None:
            return seeding.intensity_priors(case.image, case.mask, seeds, int(seeds.max()) + 1)
        volume = io.read(self.problem.path)
        io.same_grid(volume, case.volume, "prior")
        return checks.check_priors(
            case.cut(volume.data.astype(np.float32)), case.mask, self.problem.path, close=self.problem.close
        )

    @cached_property
    def _found(self) -> dict[str, np.ndarray]:
        """What `report` writes; filled by the last interval."""
        return {}

    def length(self) -> int:
        """The three intervals."""
        return 3

    def init(self, key: jax.Array) -> State:
        """State before the first interval."""
        n, dtype = self.given.case.mask.size, self.given.lattice.weights.dtype
        vectors, zero = jnp.zeros((n, self.eigen.k), dtype), jnp.zeros((), dtype)
        counts = jnp.zeros((), jnp.int32)
        basis = Basis(
            vectors[0], vectors, vectors[:, 0], zero, counts, zero, vectors[0], counts, jnp.zeros((), bool)
        )  # fmt: skip
        return State(np.zeros((), np.int64), key, basis, jnp.zeros((self.given.regions, n), dtype), np.zeros(6))

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`. `place` spreads the first axis of the lattice."""
        given = self.given
        lattice = graph.Lattice(place(given.lattice.weights, 1), place(given.lattice.active), given.lattice.offsets)
        for step in range(int(state.step), self.length()):
            if step == 0:
                begin = time.perf_counter()
                basis = self.eigen.basis(lattice, jax.random.fold_in(state.key, 0))
                basis = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), basis, state.basis)
                jax.block_until_ready(basis.vectors)
                figures = np.array([time.perf_counter() - begin, 0, 0, 0, 0, 0])
                state = state._replace(basis=basis, figures=figures)
                row = self._about_basis(state)
            elif step == 1:
                state = self._answer(state, lattice)
                row = self._about_answer(state)
            else:
                row = self._compare(state, lattice)
            state = state._replace(step=np.asarray(step + 1, np.int64))
            yield state, row

    def _about_basis(self, state: State) -> dict[str, float]:
        basis = state.basis
        return {
            "voxels": int(basis.size),
            "pairs/computed": basis.values.size,
            "pairs/steps": int(basis.steps),
            "pairs/converged": float(basis.converged),
            "pairs/sum": float(basis.values.sum()),
            "pairs/residual": float(basis.residual.max()),
            "seconds/basis": float(state.figures[0]),
        }

    def _answer(self, state: State, lattice: graph.Lattice) -> State:
        given, problem, basis = self.given, self.problem, state.basis
        laplacian = graph.stencil_of(lattice)
        labels = given.seeds.ravel()
        positions = np.flatnonzero((labels >= 0) & (np.asarray(basis.mass) > 0))
        used, bound, pointwise = float(basis.values.size), np.nan, np.nan
        p: Any = None if given.priors is None else jnp.asarray(given.priors.reshape(given.regions, -1), state.x.dtype)
        if problem.kind == "seeds":
            x, seconds = timed(lambda: online.seeds(basis, positions, labels[positions], given.regions))
        elif problem.kind == "priors":
            answer, seconds = timed(
                lambda: online.priors(basis, laplacian, p, problem.gamma, tol=problem.error, polish=problem.polish)
            )
            x, used = answer.x, float(answer.used)
            bound = float(jnp.linalg.norm(answer.bound) / jnp.linalg.norm(online.norms(basis, p)))
            pointwise = float(answer.pointwise.max())
        else:
            at = jnp.asarray(positions), jnp.asarray(labels[positions])
            x, seconds = timed(lambda: online.both(basis, laplacian, p, problem.gamma, *at, polish=problem.polish))
        known = solve.one_hot(jnp.asarray(labels), given.regions, x.dtype)
        alone = jnp.asarray((labels >= 0) & (np.asarray(basis.mass) == 0))[None] & (problem.kind != "priors")
        x = jnp.where(alone, known, x)
        figures = np.array([state.figures[0], seconds, used, bound, pointwise, 0])
        return state._replace(x=jnp.where(lattice.active.ravel()[None], x, 0), figures=figures)

    def _about_answer(self, state: State) -> dict[str, float]:
        _, seconds, used, bound, pointwise, _ = (float(value) for value in state.figures)
        row = self._about_basis(state) | {"seconds/online": seconds, "pairs/used": used}
        if self.problem.kind == "priors":
            row |= {"error/bound": bound, "error/pointwise_bound": pointwise}
        return row

    def _compare(self, state: State, lattice: graph.Lattice) -> dict[str, float]:
        given, found = self.given, online.to_simplex(state.x)
        exact = self._solve(lattice, self.exact.tol)
        shape = (given.regions, *lattice.shape)
        guess = found.reshape(shape)
        cold, cold_seconds = timed(lambda: self._solve(lattice, self.exact.rival))
        warm, warm_seconds = timed(lambda: self._solve(lattice, self.exact.rival, guess))
        reference = exact.x.reshape(given.regions, -1)
        active = np.asarray(lattice.active).ravel()
        labels, right = (np.asarray(x.argmax(0)) for x in (found, reference))
        rooted = jnp.sqrt(state.basis.mass)[None]
        row = self._about_answer(state) | {
            "error/relative": float(
                jnp.linalg.norm(rooted * (state.x - reference)) / jnp.linalg.norm(rooted * reference)
            ),
            "error/largest": float(jnp.abs(found - reference).max()),
            "agreement": float((labels == right)[active].mean()),
            "seconds/cold": cold_seconds,
            "seconds/warm": warm_seconds,
            "iterations/exact": int(exact.iterations),
            "iterations/cold": int(cold.iterations),
            "iterations/warm": int(warm.iterations),
            "exact/converged": float(exact.converged),
        }
        if self.problem.kind == "priors":
            row["flips/share"] = float(online.could_flip(state.x, state.figures[4])[active].mean())
        self._found.update(
            labels=np.where(active, labels + 1, 0).reshape(lattice.shape).astype(np.uint8),
            probabilities=np.asarray(guess, np.float32),
            entropy=np.asarray(online.entropy(found), np.float32).reshape(lattice.shape),
            margin=np.where(active, np.asarray(online.margin(found), np.float32), 0).reshape(lattice.shape),
        )
        return self._scores(row, labels, right, active) | row

    def _solve(self, lattice: graph.Lattice, tol: float, start: jax.Array | None = None) -> solve.Solution:
        given, problem = self.given, self.problem
        return solve.random_walker(
            lattice,
            regions=given.regions,
            seeds=None if problem.kind == "priors" else jnp.asarray(given.seeds),
            priors=None if given.priors is None else jnp.asarray(given.priors, lattice.weights.dtype),
            gamma=problem.gamma or 0.0,
            normalised=self.eigen.normalised,
            start=start,
            tol=tol,
            maximum=self.exact.maximum,
        )

    def _scores(
        self, row: dict[str, Any], labels: np.ndarray, right: np.ndarray, active: np.ndarray
    ) -> dict[str, float]:
        from evalmetrics import crisp

        truth = self.given.case.truth
        if truth is None or truth.max() >= self.given.regions:
            return {"agreement": row["agreement"]}
        both = (self.given.regions, self.given.regions)
        known = jnp.asarray(truth.ravel()[active].astype(np.int32))
        scores = {}
        for name, found in (("dice", labels), ("dice_exact", right)):
            table = crisp.contingency(known, jnp.asarray(found[active].astype(np.int32)), both)
            dice = np.asarray(crisp.dice(table, pairs=True)).diagonal()
            scores[name] = float(dice.mean())
            scores |= {f"{name}/{label}": float(d) for label, d in zip(self.given.case.names, dice, strict=False)}
        return scores

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write labels, probabilities, uncertainty and a picture of a finished run."""
        if self._found:
            from rwalk import report

            report.write(self._found, self.given.case, self.given.seeds, rows[-1], folder)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Result of the second call, compiled by the first, and its seconds."""
    jax.block_until_ready(function())
    begin = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - begin
