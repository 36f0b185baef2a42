"""Computing a basis in intervals that can be resumed, keeping it, and opening one that was kept."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import cache, graph
from rwalk.checks import InputError
from rwalk.data import Case
from rwalk.eigen import Basis, unfit
from rwalk.graph import Lattice
from rwalk.options import Bases, Eigen, Weights


def rounds(eigen: Eigen, bases: Bases) -> int:
    """Intervals in which a basis is computed; those after it has converged do nothing."""
    return -(-eigen.maximum // bases.steps) if eigen.method in ("lobpcg", "chebyshev") else 1


def graph_of(case: Case, mask: np.ndarray, weights: Weights, dtype: Any) -> str:
    """Digest of what a graph is made from."""
    return cache.digest(case.image, mask, list(case.spacing), asdict(weights), str(np.dtype(dtype)))


def settings_of(eigen: Eigen, bases: Bases) -> dict[str, Any]:
    """What a kept basis depends on beside its graph."""
    return asdict(eigen) | ({} if bases.storage is None else {"storage": bases.storage})


def widened(basis: Basis) -> Basis:
    """The basis with vectors in the precision of the rest, for what changes it."""
    return basis._replace(vectors=basis.vectors.astype(basis.mass.dtype))


def blank(size: int, k: int, dtype: Any, storage: str | None = None) -> Basis:
    """A basis of zeros, to be filled: `size` voxels, k pairs, vectors stored as `storage`, else as the rest."""
    vectors, values, mass = jnp.zeros((size, k), storage or dtype), jnp.zeros(k, dtype), jnp.zeros(size, dtype)
    zero, count = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    return Basis(values, vectors, mass, zero, count, zero, values, count, jnp.zeros((), bool))


def opened(eigen: Eigen, bases: Bases, graph: str, place: Any) -> cache.Kept | None:
    """The basis that is kept for a graph, None if there is none.

    Raises:
        InputError: `bases.path` names one that does not fit, or what is kept is damaged.
    """
    if bases.path is not None:
        kept = cache.load(Path(bases.path), graph, place=place)
        normalised, known = cache.read_meta(kept.path)["settings"]["normalised"], kept.basis.values.size
        if normalised != eigen.normalised:
            theirs, ours = (str(flag).lower() for flag in (normalised, eigen.normalised))
            raise InputError(
                f"{bases.path}: computed with eigen.normalised={theirs}, this run has {ours}; set "
                f"eigen.normalised={theirs}, or open another basis"
            )
        if known < eigen.k:
            raise InputError(f"{bases.path}: holds {known} pairs, eigen.k={eigen.k}; set eigen.k={known} or less")
        few = kept.basis._replace(
            values=kept.basis.values[: eigen.k],
            vectors=kept.basis.vectors[:, : eigen.k],
            residual=kept.basis.residual[: eigen.k],
        )
        return kept._replace(basis=few)
    if bases.folder is None:
        return None
    path = cache.path_of(Path(bases.folder), graph, settings_of(eigen, bases))
    return cache.load(path, graph, place=place) if path.exists() else None


def check_pairs(lattice: Lattice, eigen: Eigen) -> None:
    """Refuse more pairs than the eigensolver finds of a graph, or a graph too large for it.

    Raises:
        InputError: `eigen` does not fit.
    """
    fault = unfit(eigen.k, int((graph.degree(lattice) > 0).sum()), eigen.method)
    if fault is not None:
        raise InputError(f"eigen.{fault}")


class Interval(NamedTuple):
    """What an interval leaves behind: the basis, the seconds it took so far, and whether it was opened."""

    basis: Basis
    seconds: float
    found: bool


def advance(
    lattice: Lattice,
    eigen: Eigen,
    bases: Bases,
    graph: str,
    before: Interval,
    step: int,
    key: jax.Array,
    place: Any,
) -> Interval:
    """Go on with a basis: open it if it is kept, else some more steps of the eigensolver.

    Args:
        lattice: the graph.
        eigen: the eigensolver.
        bases: where bases are kept, and steps of an interval.
        graph: digest of the graph.
        before: what the interval before left behind.
        step: number of the interval.
        key: of everything random.
        place: spreads the first axis of an array over the devices.

    Returns:
        The state after it; a basis that has converged is kept if that is asked for.

    Raises:
        InputError: see `opened` and `check_pairs`.
    """
    if step == 0 and (kept := opened(eigen, bases, graph, place)) is not None:
        return Interval(_like(kept.basis, before.basis), kept.seconds, True)
    if step and (before.found or bool(before.basis.converged)):
        return before
    if step == 0:
        check_pairs(lattice, eigen)
    begin = time.perf_counter()
    start = widened(before.basis).vectors if step else None
    basis = eigen.basis(lattice, jax.random.fold_in(key, step), start=start, steps=bases.steps)
    basis = _like(basis._replace(steps=basis.steps + before.basis.steps), before.basis)
    jax.block_until_ready(basis.vectors)
    seconds = before.seconds + time.perf_counter() - begin
    if bases.write and bases.folder is not None and bool(basis.converged):
        settings = settings_of(eigen, bases)
        kept = basis._replace(vectors=basis.vectors.astype(bases.storage or basis.vectors.dtype))
        cache.save(
            cache.path_of(Path(bases.folder), graph, settings), kept, graph=graph, settings=settings, seconds=seconds
        )
    return Interval(basis, seconds, False)


def _like(basis: Basis, old: Basis) -> Basis:
    return jax.tree.map(lambda new, before: jnp.asarray(new, before.dtype), basis, old)


def about(basis: Basis, seconds: float, *, found: bool) -> dict[str, float]:
    """The figures of a basis."""
    return {
        "voxels": int(basis.size),
        "pairs/computed": basis.values.size,
        "pairs/steps": int(basis.steps),
        "pairs/converged": float(basis.converged),
        "pairs/sum": float(basis.values.sum()),
        "pairs/residual": float(basis.residual.max()),
        "pairs/opened": float(found),
        "seconds/basis": seconds,
    }


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    Attributes:
        step: `[]` intervals done.
        key: of everything random.
        basis: the pairs so far.
        figures: `[2]` seconds, whether the basis was opened.
    """

    step: np.ndarray
    key: jax.Array
    basis: Basis
    figures: np.ndarray


@dataclass(frozen=True)
class Precompute:
    """Computes the basis of one image and keeps it; `image` has a method `case()`."""

    image: Any
    weights: Weights
    eigen: Eigen
    basis: Bases

    @cached_property
    def given(self) -> tuple[Lattice, str]:
        """The graph, and its digest."""
        if self.basis.folder is None:
            raise InputError("basis.folder: required for task=precompute; give basis.folder=FOLDER")
        case = self.image.case()
        image = jnp.asarray(case.image, jnp.result_type(float))  # in the precision of the run
        lattice = self.weights.graph(image, jnp.asarray(case.mask), case.spacing)
        return lattice, graph_of(case, case.mask, self.weights, image.dtype)

    def length(self) -> int:
        """Intervals at most."""
        return rounds(self.eigen, self.basis)

    def init(self, key: jax.Array) -> State:
        """State before the first interval."""
        lattice, _ = self.given
        basis = blank(lattice.active.size, self.eigen.k, lattice.weights.dtype, self.basis.storage)
        return State(np.zeros((), np.int64), key, basis, np.zeros(2))

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`. `place` spreads the first axis of the lattice."""
        lattice, name = self.given
        lattice = graph.Lattice(place(lattice.weights, 1), place(lattice.active), lattice.offsets)
        for step in range(int(state.step), self.length()):
            before = Interval(state.basis, float(state.figures[0]), bool(state.figures[1]))
            after = advance(lattice, self.eigen, self.basis, name, before, step, state.key, place)
            figures = np.array([after.seconds, after.found])
            state = State(np.asarray(step + 1, np.int64), state.key, after.basis, figures)
            yield state, about(after.basis, after.seconds, found=after.found)
        if not bool(state.basis.converged):
            raise InputError(
                f"eigen.maximum={self.eigen.maximum}: the pairs did not converge in so many steps and were not kept; "
                "allow more, or a larger eigen.residual"
            )
