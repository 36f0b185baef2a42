"""Benchmarks of rwalk: interaction, exact solve, eigenpairs, the stencil; each with the error that its time buys.

Images are the MNI T1 brain resampled to the size, with noise. With `--size` every lattice has edges of so many voxels.
A further part of the package adds its rows by a function like those below, named in `benchmarks`.
"""

import functools
from typing import Any

import numpy as np
from benchmarks import _rwalk_registration, _rwalk_update
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings

LOCAL = "rwalk_local"
NOISE = 0.02
BETA_WALKER, BETA_PAIRS = 130.0, 100.0
TOLERANCE = 1e-3  # of the solves that both sides are asked for
SUM = 1e-3  # relative error of the sum of the values that counts as found
SCIKIT = {"cg_j": (), "cg_mg": ("pyamg",), "bf": ()}


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    plane = functools.partial(_shape, settings, 2)
    volume = functools.partial(_shape, settings, 3)
    return [
        interaction("online_256", plane(256), 80, 30, every=64, classes=3, modes=("cg_j", "cg_mg", "bf")),
        interaction("online_128_cubed", volume(128), 40, 50, every=48, classes=4, modes=("cg_j", "cg_mg")),
        exact("exact_256", plane(256), None, every=64, classes=3, modes=("cg_j", "cg_mg", "bf")),
        exact("exact_128_cubed", volume(128), 3, every=48, classes=4, modes=("cg_j", "cg_mg")),
        eigenpairs("pairs_256_k80", plane(256), 80, (Peer("scipy shift-invert", f"{LOCAL}:scipy_shift_invert", 2),)),
        eigenpairs("pairs_512_k20", plane(512), 20, (Peer("scipy shift-invert", f"{LOCAL}:scipy_shift_invert", 1),)),
        eigenpairs("pairs_512_k80", plane(512), 80, (Peer("scipy shift-invert", f"{LOCAL}:scipy_shift_invert", 2),)),
        eigenpairs("pairs_64_cubed_k20", volume(64), 20, _pyamg(3)),
        eigenpairs("pairs_64_cubed_k80", volume(64), 80, _pyamg(3)),
        eigenpairs("pairs_128_cubed_k40", volume(128), 40, ()),
        _rwalk_update.update("update_beta_256", plane(256), 80),
        product("stencil_512", plane(512), 32),
        product("stencil_64_cubed", volume(64), 32),
        _rwalk_registration.registration(settings),
    ]


def _shape(settings: Settings, axes: int, edge: int) -> tuple[int, ...]:
    return (settings.size or edge,) * axes


def _pyamg(bar: float) -> tuple[Peer, ...]:
    return (Peer("scipy lobpcg + PyAMG", f"{LOCAL}:lobpcg_pyamg", bar, needs=("pyamg",)),)


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
    """By ours, to a residual that is a thousand times smaller."""
    return np.asarray(_solved(arrays, 1e-3 * TOLERANCE)())


def disagreement(found: Any, right: Any) -> float:
    """Share of voxels with another label."""
    return float((np.asarray(found).argmax(0) != np.asarray(right).argmax(0)).mean())


def interaction(
    name: str, shape: tuple[int, ...], k: int, bar: float, *, every: float, classes: int, modes: tuple[str, ...]
) -> Benchmark:
    """An answer to seeds from a basis that is there already; the error is the share of labels that differ."""

    def ours(arrays: Inputs) -> Run:
        from rwalk import eigen, prepared

        labels, lattice = arrays["seeds"].ravel(), _walker_lattice(arrays)
        at = np.flatnonzero(labels >= 0)
        ready = prepared.prepare(lattice, eigen.smallest_eigenpairs(lattice, int(arrays["k"])))
        regions = int(labels.max()) + 1
        return lambda: prepared.seeds(ready, at, labels[at], regions).x

    return Benchmark(
        name, f"{_edges(shape)}, K={k}, {classes} labels: probabilities after a change of seeds, basis at hand",
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


def pictured(shape: tuple[int, ...], k: int) -> Inputs:
    """The brain, beta and K."""
    from rwalk import comparison

    return {"image": comparison.brain(shape, NOISE), "beta": np.asarray(BETA_PAIRS), "k": np.asarray(k)}


def strict_values(arrays: Inputs) -> np.ndarray:
    """Of a strict run from a random start; no sum of Ritz values is below the exact one."""
    import jax
    from peers import rwalk_local

    from rwalk import comparison, eigen

    lattice, _ = rwalk_local.pencil_of(arrays)
    k = int(arrays["k"])
    start = jax.random.normal(jax.random.key(1), (lattice.active.size, k + max(8, k // 5)), lattice.weights.dtype)
    return np.asarray(eigen.smallest_eigenpairs(lattice, k, x0=start, **comparison.STRICT).values, np.float64)


def sum_error(found: Any, right: Any) -> float:
    """Of the sum of the values, relative; missed modes make it large."""
    return float(abs(np.sum(found) / np.sum(right) - 1))


def eigenpairs(name: str, shape: tuple[int, ...], k: int, peers: tuple[Peer, ...]) -> Benchmark:
    """The smallest eigenpairs with default options; compiled already, but for the row of the fresh process."""

    def ours(arrays: Inputs) -> Run:
        from peers import rwalk_local

        from rwalk import eigen

        lattice, _ = rwalk_local.pencil_of(arrays)
        return lambda: eigen.smallest_eigenpairs(lattice, int(arrays["k"])).values

    return Benchmark(
        name, f"{_edges(shape)}: the {k} smallest eigenpairs of the normalised Laplacian",
        functools.partial(pictured, shape, k), ours, strict_values,
        tolerance=SUM,
        peers=(*peers, Peer("ours in a fresh process", f"{LOCAL}:cold_eigenpairs")),
        error=sum_error,
    )  # fmt: skip


def product(name: str, shape: tuple[int, ...], count: int) -> Benchmark:
    """A product of the Laplacian with a block, against a copy of the block; a bar of 1/1.3."""

    def inputs() -> Inputs:
        block = np.random.default_rng(0).normal(size=(count, int(np.prod(shape)))).astype(np.float32)
        return pictured(shape, count) | {"block": block}

    def ours(arrays: Inputs) -> Run:
        import jax
        import jax.numpy as jnp
        from peers import rwalk_local

        from rwalk.eigen import ritz

        matrix, block = rwalk_local.pencil_of(arrays)[1].operator, jnp.asarray(arrays["block"])
        function = jax.jit(ritz.product)
        return lambda: function(matrix, block)

    def reference(arrays: Inputs) -> np.ndarray:
        from peers import rwalk_local

        from rwalk import stencil

        matrix = rwalk_local.pencil_of(arrays)[1].operator
        return np.asarray(stencil.to_sparse(matrix) @ arrays["block"][:2].astype(np.float64).T).T

    return Benchmark(
        name, f"{_edges(shape)}: one product with a block of {count} vectors",
        inputs, ours, reference,
        tolerance=1e-5,
        peers=(Peer("copy of the block", f"{LOCAL}:copy", 1 / 1.3),),
        answer=lambda x: np.asarray(x[:2]),
        error=_difference,
    )  # fmt: skip


def _difference(found: Any, right: Any) -> float:
    """Largest, where both are products; a copy has none."""
    found = np.asarray(found)
    return float(np.abs(found - right).max()) if found.shape == right.shape else float("nan")


def _edges(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
