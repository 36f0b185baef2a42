"""Eigensolvers and solvers beside their peers, as experiments: time, memory and error of each in one row.

Every measurement runs in a process of its own, so that a first call compiles and a peak of memory is nobody else's.
"""

import multiprocessing
import resource
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from rwalk import data, deflate, eigen, online, prepared, seeding, solve
from rwalk.checks import InputError
from rwalk.eigen import pencil, reference
from rwalk.experiment import Segmentation, timed_once
from rwalk.rivals import Resampled, Rival, Way

STRICT: dict[str, Any] = {"tol": 1e-6, "residual": 0.02, "confirmations": 2, "maximum": 200}
SCIKIT = ("cg_j", "cg_mg", "bf")


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


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_memory() -> float:
    """Of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def solver_row(shape: tuple[int, ...], noise: float, weights: Any, solver: Any, rival: str | None) -> dict[str, float]:
    """Eigenpairs of the brain: seconds of the first and of the second call, peak memory, and how good they are.

    The sum of the values is compared with that of `right_values`.

    Args:
        shape: of the lattice.
        noise: deviation of the image's noise.
        weights: makes the lattice.
        solver: `rwalk.options.Eigen`.
        rival: `lobpcg_pyamg` instead of the solver, or None.

    Returns:
        The row.
    """
    lattice = weights.graph(brain(shape, noise)[None], np.ones(shape, bool), (1.0,) * len(shape))
    matrix = pencil.pencil_of(lattice, normalised=solver.normalised)

    def run() -> tuple[Any, Any, Any]:
        if rival is None:
            basis = solver.basis(lattice, jax.random.key(0))
            return basis.values, basis.steps, basis.converged
        return _pyamg(matrix, solver.k).values, 0, True

    (values, steps, converged), cold = timed_once(run)
    _, warm = timed_once(run)
    memory = peak_memory()
    right = right_values(lattice, matrix, solver.k, normalised=solver.normalised)
    return {
        "error/sum": float(np.asarray(values, np.float64).sum() / right.sum() - 1),
        "seconds/warm": warm,
        "seconds/cold": cold,
        "memory": memory,
        "voxels": int(np.prod(shape)),
        "pairs/sum": float(np.sum(values)),
        "pairs/steps": int(steps),
        "pairs/converged": float(converged),
    }


def right_values(lattice: Any, matrix: pencil.Pencil, k: int, *, normalised: bool = True) -> np.ndarray:
    """Eigenvalues to compare with: scipy's in float64 in a plane, of a strict run from random vectors in a volume.

    No sum of Ritz values is below the exact one: a negative error beside the strict run means that it missed something.
    """
    if len(lattice.shape) == 2:
        return np.asarray(reference.shift_invert(matrix, k).values)
    start = jax.random.normal(jax.random.key(1), (lattice.active.size, k + max(8, k // 5)), lattice.weights.dtype)
    strict = eigen.smallest_eigenpairs(lattice, k, normalised=normalised, x0=start, **STRICT)
    return np.asarray(strict.values, np.float64)


def walker_row(
    shape: tuple[int, ...], noise: float, weights: Any, solver: Any, exact: Any, plan: Way
) -> dict[str, float]:
    """One way to the probabilities of seeds: its seconds and its error, both against a solve to a small residual.

    Args:
        shape: of the lattice.
        noise: deviation of the image's noise.
        weights: makes the lattice; scikit-image's convention where a mode of scikit-image is the way.
        solver: `rwalk.options.Eigen`.
        exact: `rwalk.options.Exact`.
        plan: the way, the number of labels, the distance of seeds.

    Returns:
        The row; `seconds/once` is spent once an image, `seconds/answer` for every change of seeds.
    """
    image, unit = brain(shape, noise), (1.0,) * len(shape)
    way, classes, every = plan.name, plan.classes, min(plan.every, max(shape) / 2)
    mask = np.ones(shape, bool)
    seeds = seeding.automatic(image[None], mask, classes=classes, every=every, spacing=unit)
    lattice = weights.graph(image[None], mask, unit)
    given: dict[str, Any] = {"regions": classes, "seeds": jnp.asarray(seeds), "maximum": exact.maximum}
    labels, once = seeds.ravel(), 0.0
    at = np.flatnonzero(labels >= 0)

    def spectral() -> jax.Array:
        return online.to_simplex(online.seeds(basis, at, labels[at], classes))

    def polished() -> jax.Array:
        return deflate.answer(ready, classes, positions=at, labels=labels[at]).x

    def solved(start: Any = None) -> jax.Array:
        return solve.random_walker(lattice, tol=exact.rival, start=start, **given).x.reshape(classes, -1)

    if way in ("online", "warm", "prepared"):
        basis, once = timed_once(lambda: solver.basis(lattice, jax.random.key(0)))
    if way == "prepared":
        ready, more = timed_once(lambda: prepared.prepare(lattice, basis))
        once += more
    if way in SCIKIT:
        ways: Callable[[], Any] = _scikit(image, seeds, weights.beta, exact.rival, way)
    else:
        ways = {
            "online": spectral,
            "prepared": polished,
            "cold": solved,
            "warm": lambda: solved(spectral().reshape(classes, *shape)),
        }[way]
    _, first = timed_once(ways)
    x, seconds = timed_once(ways)
    right = solve.random_walker(lattice, tol=exact.tol, aggregates=exact.aggregates, **given).x.reshape(classes, -1)
    return {
        "error/largest": float(np.abs(np.asarray(x) - right).max()),
        "error/relative": float(np.linalg.norm(np.asarray(x) - right) / np.linalg.norm(right)),
        "agreement": float((np.asarray(x).argmax(0) == right.argmax(0)).mean()),
        "seconds/answer": seconds,
        "seconds/first": first,
        "seconds/once": once,
        "seeds": len(at),
        "voxels": int(np.prod(shape)),
    }


def _pyamg(matrix: pencil.Pencil, count: int) -> Any:
    try:
        return reference.lobpcg_pyamg(matrix, count)
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
        """See `solver_row`."""
        return _apart(
            solver_row, self.lattice.edges(), self.lattice.noise, self.weights, self.eigen, self.rival.name
        )  # fmt: skip


@dataclass(frozen=True)
class Speed(Comparison):
    """Probabilities of seeds in one way."""

    way: Way

    def row(self) -> dict[str, float]:
        """See `walker_row`."""
        return _apart(
            walker_row, self.lattice.edges(), self.lattice.noise, self.weights, self.eigen, self.exact, self.way
        )  # fmt: skip
