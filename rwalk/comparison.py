"""Eigensolvers and solvers beside their peers, as experiments: time, memory and error of each in one row.

Every measurement runs in a process of its own, so that a first call compiles and a peak of memory is nobody else's.
"""

import functools
import multiprocessing
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from rwalk import data, deflate, eigen, graph, online, prepared, seeding, solve
from rwalk.checks import InputError
from rwalk.eigen import pencil, reference
from rwalk.experiment import Segmentation, timed_once
from rwalk.rivals import Resampled, Rival, Way

STRICT: dict[str, Any] = {"tol": 1e-5, "residual": 0.1, "confirmations": 1, "maximum": 200}
SCIKIT = ("cg_j", "cg_mg", "bf")
ARPACK, PYAMG = 1e-3, 1e-4  # tolerances of the rivals: relative to the values, of the residuals


class State(NamedTuple):
    """`step` `[]` rows done, and the key."""

    step: np.ndarray
    key: jax.Array


def brain(shape: tuple[int, ...], noise: float, seed: int = 0) -> np.ndarray:
    """The MNI T1 brain, or its middle slice, resampled to a shape, within [0, 1], noise added: `[*shape]` float32."""
    image = data.mni(1).image[0]
    image = image if len(shape) == 3 else image[:, :, image.shape[2] // 2]
    image = ndimage.zoom(image, [new / old for new, old in zip(shape, image.shape, strict=True)], order=1)
    image = image / image.max() + noise * np.random.default_rng(seed).normal(size=shape)
    return image.astype(np.float32)


def _apart(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a fresh process; None where that takes longer than so many seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # leaving it ends the process
        try:
            return pool.apply_async(function, arguments).get(seconds)
        except multiprocessing.TimeoutError:
            return None


@functools.lru_cache(maxsize=8)
def _shared(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """The same, kept for the cells of a table that ask for it again."""
    return _apart(seconds, function, *arguments)


def peak_memory() -> float:
    """Of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def lattice_of(shape: tuple[int, ...], noise: float, weights: Any) -> graph.Lattice:
    """The graph of the brain on a lattice of unit spacing, nothing masked."""
    return weights.graph(brain(shape, noise)[None], np.ones(shape, bool), (1.0,) * len(shape))


class Found(NamedTuple):
    """Eigenvalues `[K]` of a solver, its first and its second call in seconds, the peak of memory in GiB, its steps."""

    values: np.ndarray
    cold: float
    warm: float
    memory: float
    steps: int
    converged: bool


def measured(shape: tuple[int, ...], noise: float, weights: Any, solver: Any, rival: Rival) -> Found:
    """Eigenpairs of the brain by `solver`, a `rwalk.options.Eigen`, or by a rival, which compiles nothing: once."""
    lattice = lattice_of(shape, noise, weights)

    def run() -> tuple[Any, Any, Any]:
        if rival.name is None:
            basis = solver.basis(lattice, jax.random.key(0))
            return basis.values, basis.steps, basis.converged
        found = _rival(pencil.pencil_of(lattice, normalised=solver.normalised), solver.k, rival)
        return found.values, found.steps, found.converged

    (values, steps, converged), cold = timed_once(run)
    warm = timed_once(run)[1] if rival.name is None else cold
    return Found(np.asarray(values, np.float64), cold, warm, peak_memory(), int(steps), bool(converged))


def known_values(shape: tuple[int, ...], noise: float, weights: Any, k: int, normalised: bool) -> np.ndarray:
    """`right_values` of the brain."""
    lattice = lattice_of(shape, noise, weights)
    return right_values(lattice, pencil.pencil_of(lattice, normalised=normalised), k, normalised=normalised)


def right_values(lattice: Any, matrix: pencil.Pencil, k: int, *, normalised: bool = True) -> np.ndarray:
    """Eigenvalues to compare with: scipy's in float64 in a plane, of a strict run from random vectors in a volume.

    No sum of Ritz values is below the exact one: a negative error beside the strict run means that it missed something.
    """
    if len(lattice.shape) == 2:
        return np.asarray(reference.shift_invert(matrix, k).values)
    start = jax.random.normal(jax.random.key(1), (lattice.active.size, k + max(8, k // 5)), lattice.weights.dtype)
    strict = eigen.smallest_eigenpairs(lattice, k, normalised=normalised, x0=start, **STRICT)
    return np.asarray(strict.values, np.float64)


def seeds_of(shape: tuple[int, ...], noise: float, plan: Way) -> np.ndarray:
    """Seeds `[*shape]` that intensities place, -1 where there is none."""
    every, mask = min(plan.every, max(shape) / 2), np.ones(shape, bool)
    unit = (1.0,) * len(shape)
    return seeding.automatic(brain(shape, noise)[None], mask, classes=plan.classes, every=every, spacing=unit)


def known_answer(shape: tuple[int, ...], noise: float, weights: Any, exact: Any, plan: Way) -> np.ndarray:
    """Probabilities `[L, n]` of the seeds to a small residual, that of `exact`, a `rwalk.options.Exact`."""
    lattice, seeds = lattice_of(shape, noise, weights), jnp.asarray(seeds_of(shape, noise, plan))
    rules = {"tol": exact.tol, "aggregates": exact.aggregates, "maximum": exact.maximum}
    return np.asarray(solve.random_walker(lattice, regions=plan.classes, seeds=seeds, **rules).x).reshape(
        plan.classes, -1
    )


def walked(
    shape: tuple[int, ...], noise: float, weights: Any, solver: Any, exact: Any, plan: Way
) -> tuple[np.ndarray, dict[str, float]]:
    """One way to the probabilities of seeds, and its seconds.

    Args:
        shape: of the lattice.
        noise: deviation of the image's noise.
        weights: makes the lattice; scikit-image's convention where a mode of scikit-image is the way.
        solver: `rwalk.options.Eigen`.
        exact: `rwalk.options.Exact`.
        plan: the way, the number of labels, the distance of seeds.

    Returns:
        x `[L, n]` and the figures; `seconds/once` is spent once an image, `seconds/answer` for every change of seeds.
    """
    way, classes, once = plan.name, plan.classes, 0.0
    lattice, seeds = lattice_of(shape, noise, weights), seeds_of(shape, noise, plan)
    labels = seeds.ravel()
    at = np.flatnonzero(labels >= 0)

    def spectral() -> jax.Array:
        return online.to_simplex(online.seeds(basis, at, labels[at], classes))

    def solved(start: Any = None) -> jax.Array:
        rules = {"tol": exact.rival, "maximum": exact.maximum, "start": start}
        return solve.random_walker(lattice, regions=classes, seeds=jnp.asarray(seeds), **rules).x.reshape(classes, -1)

    if way in ("online", "warm", "prepared"):
        basis, once = timed_once(lambda: solver.basis(lattice, jax.random.key(0)))
    if way == "prepared":
        ready, more = timed_once(lambda: prepared.prepare(lattice, basis))
        once += more
    if way in SCIKIT:
        ways: Callable[[], Any] = _scikit(brain(shape, noise), seeds, weights.beta, exact.rival, way)
    else:
        ways = {
            "online": spectral,
            "prepared": lambda: deflate.answer(ready, classes, positions=at, labels=labels[at]).x,
            "cold": solved,
            "warm": lambda: solved(spectral().reshape(classes, *shape)),
        }[way]
    _, first = timed_once(ways)
    x, seconds = timed_once(ways)
    figures = {"seconds/answer": seconds, "seconds/first": first, "seconds/once": once, "seeds": len(at)}
    return np.asarray(x), figures


def _rival(matrix: pencil.Pencil, count: int, rival: Rival) -> Any:
    if rival.name == "shift_invert":
        return reference.shift_invert(matrix, count, tol=ARPACK)
    rules = {"maximum": rival.maximum, "extra": max(8, count // 5)}
    try:
        return reference.lobpcg_pyamg(matrix, count, tol=PYAMG, **rules)
    except ImportError as error:
        raise InputError("rival.name=lobpcg_pyamg needs PyAMG; install it, or leave the rival out") from error


def _scikit(image: np.ndarray, seeds: np.ndarray, beta: float, tol: float, mode: str) -> Callable[[], np.ndarray]:
    try:
        from skimage.segmentation import random_walker
    except ImportError as error:
        raise InputError(f"way.name={mode} needs scikit-image; install it, or choose online, cold or warm") from error
    regions = int(seeds.max()) + 1
    return lambda: random_walker(
        image, seeds + 1, beta=beta, mode=mode, tol=tol, return_full_prob=True
    ).reshape(regions, -1)  # fmt: skip


@dataclass(frozen=True)
class Comparison(Segmentation, ABC):
    """What both tables share: one row, of the brain on a `lattice` instead of `image` and `seeds`."""

    lattice: Resampled

    def length(self) -> int:
        """One row."""
        return 1

    def init(self, key: jax.Array) -> State:  # type: ignore[override]
        """State before the row."""
        return State(np.zeros((), np.int64), key)

    def size(self) -> dict[str, float]:
        """What every row has."""
        return {"voxels": int(np.prod(self.lattice.edges())), "finished": 1.0}

    def nothing(self) -> dict[str, float]:
        """The row of a measurement that took too long: no figures."""
        return self.size() | {"finished": 0.0}

    @abstractmethod
    def row(self) -> dict[str, float]:
        """Measure."""

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:  # type: ignore[override]  # noqa: ARG002
        """Measure in a process of its own; see `quartet.drive`."""
        for step in range(int(state.step), self.length()):
            row = self.row()
            yield state._replace(step=np.asarray(step + 1, np.int64)), row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Nothing beside the figures."""


@dataclass(frozen=True)
class Eigensolvers(Comparison):
    """Eigenpairs by one solver, or by a rival."""

    rival: Rival

    def row(self) -> dict[str, float]:
        """See `measured`; the error of the sum of the values is that against `right_values`."""
        image = (self.lattice.edges(), self.lattice.noise, self.weights)
        found = _apart(self.lattice.seconds, measured, *image, self.eigen, self.rival)
        if found is None:
            return self.nothing()
        row = {
            "seconds/warm": found.warm,
            "seconds/cold": found.cold,
            "memory": found.memory,
            "pairs/sum": float(found.values.sum()),
            "pairs/steps": found.steps,
            "pairs/converged": float(found.converged),
        }
        right = _shared(self.lattice.seconds, known_values, *image, self.eigen.k, self.eigen.normalised)
        known = {} if right is None else {"error/sum": float(found.values.sum() / right.sum() - 1)}
        return known | row | self.size()


@dataclass(frozen=True)
class Speed(Comparison):
    """Probabilities of seeds in one way."""

    way: Way

    def row(self) -> dict[str, float]:
        """See `walked`; its errors are those against `known_answer`."""
        image = (self.lattice.edges(), self.lattice.noise, self.weights)
        found = _apart(self.lattice.seconds, walked, *image, self.eigen, self.exact, self.way)
        if found is None:
            return self.nothing()
        x, figures = found
        asked = replace(self.way, name="cold")  # one answer is right for all ways
        right = _shared(self.lattice.seconds, known_answer, *image, self.exact, asked)
        known = {} if right is None else {
            "agreement": float((x.argmax(0) == right.argmax(0)).mean()),
            "error/largest": float(np.abs(x - right).max()),
            "error/relative": float(np.linalg.norm(x - right) / np.linalg.norm(right)),
        }  # fmt: skip
        return known | figures | self.size()
