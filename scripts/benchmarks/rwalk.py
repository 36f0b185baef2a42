"""Benchmarks of rwalk: interaction, exact solve, eigenpairs, registration; each with the error that its time buys.

Images are the MNI T1 brain resampled to the size, with noise. With `--size` every lattice has edges of so many voxels.
A further part of the package adds its rows by a function like those below, named in `benchmarks`.
"""

import functools
from typing import Any

import numpy as np
from benchmarks import _rwalk_pairs, _rwalk_registration, _rwalk_update
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings

LOCAL = "rwalk_local"
NOISE = 0.02
BETA_WALKER = 130.0
TOLERANCE = 1e-3  # of the solves that both sides are asked for
SCIKIT = {"cg_j": (), "cg_mg": ("pyamg",), "bf": ()}


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    plane = functools.partial(_shape, settings, 2)
    volume = functools.partial(_shape, settings, 3)
    return [
        interaction("online_256", plane(256), 80, 30, every=64, classes=3, modes=("cg_j", "cg_mg", "bf")),
        interaction("stroke_256", plane(256), 80, None, every=64, classes=3, modes=("cg_j", "cg_mg", "bf"), newest=2),
        interaction("online_128_cubed", volume(128), 40, 50, every=48, classes=4, modes=("cg_j", "cg_mg"), tol=0.015),
        interaction(
            "stroke_128_cubed", volume(128), 40, None, every=48, classes=4, modes=("cg_mg",), tol=0.015, newest=2
        ),
        exact("exact_256", plane(256), None, every=64, classes=3, modes=("cg_j", "cg_mg", "bf")),
        exact("exact_128_cubed", volume(128), 3, every=48, classes=4, modes=("cg_j", "cg_mg")),
        *_rwalk_pairs.pairs(settings),
        _rwalk_update.update("update_beta_256", plane(256), 80),
        *_rwalk_registration.registrations(settings),
    ]


def _shape(settings: Settings, axes: int, edge: int) -> tuple[int, ...]:
    return (settings.size or edge,) * axes


def seeded(shape: tuple[int, ...], every: float, classes: int, k: int) -> Inputs:
    """The brain with seeds that are placed by intensity."""
    from rwalk import comparison, seeding

    image = comparison.brain(shape, NOISE)
    every, spacing = min(every, max(shape) / 2), (1.0,) * len(shape)
    seeds = seeding.automatic(image[None], np.ones(shape, bool), classes=classes, every=every, spacing=spacing)
    numbers = {"beta": BETA_WALKER, "tol": TOLERANCE, "k": k}
    return {"image": image, "seeds": seeds.astype(np.int32)} | {n: np.asarray(v) for n, v in numbers.items()}


def _walker_lattice(arrays: Inputs) -> Any:
    from rwalk import graph

    image = arrays["image"]
    return graph.build(
        image[None], beta=float(arrays["beta"]), convention="skimage", spacing=(1.0,) * image.ndim
    )  # fmt: skip


def _solved(arrays: Inputs, tol: float) -> Run:
    import jax.numpy as jnp

    from rwalk import solve

    lattice, seeds = _walker_lattice(arrays), jnp.asarray(arrays["seeds"])
    regions = int(arrays["seeds"].max()) + 1
    return lambda: solve.random_walker(lattice, regions=regions, seeds=seeds, tol=tol, maximum=2000).x


def exact_probabilities(arrays: Inputs) -> np.ndarray:
    """In float64: a sparse factorisation in a plane, ours to a residual that is a million times smaller in a volume.

    A residual does not see voxels that hang on by the least weight, 1e-10, and single precision loses them.
    """
    import jax

    with jax.enable_x64(True):
        double = {**arrays, "image": arrays["image"].astype(np.float64)}
        if arrays["image"].ndim == 3:
            return np.asarray(_solved(double, 1e-6 * TOLERANCE)())
        return _factorised(double)


def _factorised(arrays: Inputs) -> np.ndarray:
    from scipy.sparse.linalg import splu

    from rwalk import graph
    from rwalk.stencil import to_sparse

    laplacian = to_sparse(graph.stencil_of(_walker_lattice(arrays))).tocsr()
    labels = arrays["seeds"].ravel()
    free, known = np.flatnonzero(labels < 0), np.flatnonzero(labels >= 0)
    x = np.zeros((labels.size, labels.max() + 1))
    x[known, labels[known]] = 1
    x[free] = splu(laplacian[free][:, free].tocsc()).solve(-(laplacian[free][:, known] @ x[known]))
    return x.T.reshape(-1, *arrays["image"].shape)


def disagreement(found: Any, right: Any) -> float:
    """Share of voxels with another label."""
    return float((np.asarray(found).argmax(0) != np.asarray(right).argmax(0)).mean())


def interaction(
    name: str,
    shape: tuple[int, ...],
    k: int,
    bar: float | None,
    *,
    every: float,
    classes: int,
    modes: tuple[str, ...],
    newest: int = 0,
    tol: float = 0.025,
) -> Benchmark:
    """An answer to seeds from a basis that is there already; the error is the share of labels that differ.

    With `newest` it starts from the answer that was known before so many seeds were added; peers know of no start. A
    residual buys fewer labels in a volume than in a plane: `tol` is what keeps the error within its bar.
    """

    def ours(arrays: Inputs) -> Run:
        from rwalk import deflate, eigen, prepared

        labels, lattice = arrays["seeds"].ravel(), _walker_lattice(arrays)
        at = np.flatnonzero(labels >= 0)
        ready = prepared.prepare(lattice, eigen.smallest_eigenpairs(lattice, int(arrays["k"])))
        regions = int(labels.max()) + 1
        before = at[newest:]
        start = deflate.answer(ready, regions, positions=before, labels=labels[before]).x if newest else None
        return lambda: deflate.answer(ready, regions, positions=at, labels=labels[at], start=start, tol=tol).x

    told = f"{newest} more seeds, the answer before at hand" if newest else "a change of seeds, basis at hand"
    return Benchmark(
        name, f"{_edges(shape)}, K={k}, {classes} labels: probabilities after {told}",
        functools.partial(seeded, shape, every, classes, k), ours, exact_probabilities,
        tolerance=0.01,
        peers=_modes(modes, bar),
        answer=lambda x: np.asarray(x).reshape(-1, *shape),
        error=disagreement,
    )  # fmt: skip


def exact(
    name: str, shape: tuple[int, ...], bar: float | None, *, every: float, classes: int, modes: tuple[str, ...]
) -> Benchmark:
    """The linear solve at the peers' tolerance, multigrid set-up included."""
    return Benchmark(
        name, f"{_edges(shape)}, {classes} labels: exact path to a residual of {TOLERANCE:g}",
        functools.partial(seeded, shape, every, classes, 0), lambda arrays: _solved(arrays, TOLERANCE),
        exact_probabilities,
        tolerance=0.01,
        peers=_modes(modes, bar),
        error=disagreement,
    )  # fmt: skip


def _modes(modes: tuple[str, ...], bar: float | None) -> tuple[Peer, ...]:
    return tuple(
        Peer(f"scikit-image {mode}", f"{LOCAL}:scikit_{mode}", bar, needs=("skimage", *SCIKIT[mode])) for mode in modes
    )


def _edges(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
