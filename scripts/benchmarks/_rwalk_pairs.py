"""Eigenpairs and the product with the stencil: rows of `rwalk`, each with the error that its time buys.

Planes are judged by scipy's shift-invert in float64 at its full accuracy, volumes by a strict run of ours from random
vectors: no sum of Ritz values is below the exact one. A row of its own tells what a fresh process needs. Those of
512 x 512 and of volumes with K=80 take minutes, most of them the peer's: run them by name.

PyAMG smooths one vector after the other: in 64 x 64 x 64 a step of scipy's LOBPCG takes 3 s with K=20, 11 s with K=80.
It gets as many guards as ours and `STEPS` steps, two minutes; its error is shown, and where that is larger, the
ratio is the least that it would be.
"""

import functools
from typing import Any

import numpy as np
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings

LOCAL = "rwalk_local"
NOISE, BETA = 0.02, 100.0
SUM = 1e-3  # relative error of the sum of the values that counts as found
STEPS = {20: 36, 80: 10}  # of the peer in volumes, by K
SHIFT_INVERT, PYAMG = "scipy shift-invert", "scipy lobpcg + PyAMG"


def pairs(settings: Settings) -> list[Benchmark]:
    """Eigenpairs, warm and in a fresh process, and the products."""
    plane = functools.partial(_shape, settings, 2)
    volume = functools.partial(_shape, settings, 3)
    cases = [
        ("pairs_256_k80", plane(256), 80, _shift_invert(2)),
        ("pairs_512_k20", plane(512), 20, _shift_invert(1)),
        ("pairs_512_k80", plane(512), 80, _shift_invert(2)),
        ("pairs_64_cubed_k20", volume(64), 20, _pyamg(20, 3)),
        ("pairs_64_cubed_k80", volume(64), 80, _pyamg(80, 3)),
    ]
    warm = [eigenpairs(name, shape, k, peer) for name, shape, k, peer in cases]
    fresh = Peer("ours in a fresh process", f"{LOCAL}:cold_eigenpairs")
    cold = [eigenpairs(f"{name}_cold", shape, k, fresh) for name, shape, k, _ in cases]
    alone = [eigenpairs("pairs_128_cubed_k40", volume(128), 40, fresh)]
    return [*warm, *cold, *alone, product("stencil_512", plane(512), 32), product("stencil_64_cubed", volume(64), 32)]


def _shape(settings: Settings, axes: int, edge: int) -> tuple[int, ...]:
    return (settings.size or edge,) * axes


def _shift_invert(bar: float) -> Peer:
    return Peer(SHIFT_INVERT, f"{LOCAL}:scipy_shift_invert", bar)


def _pyamg(k: int, bar: float) -> Peer:
    return Peer(f"{PYAMG}, {STEPS[k]} steps", f"{LOCAL}:lobpcg_pyamg", bar, needs=("pyamg",))


def pictured(shape: tuple[int, ...], k: int) -> Inputs:
    """The brain, beta, K, and the steps of a peer that has no end."""
    from rwalk import comparison

    numbers = {"beta": BETA, "k": k, "steps": STEPS.get(k, 0)}
    return {"image": comparison.brain(shape, NOISE)} | {name: np.asarray(x) for name, x in numbers.items()}


def right_values(arrays: Inputs) -> np.ndarray:
    """See `rwalk.comparison.right_values`."""
    from peers import rwalk_local

    from rwalk import comparison

    return comparison.right_values(*rwalk_local.pencil_of(arrays), int(arrays["k"]))


def sum_error(found: Any, right: Any) -> float:
    """Of the sum of the values, relative; missed modes make it large."""
    return float(abs(np.asarray(found, np.float64).sum() / np.sum(right) - 1))


def eigenpairs(name: str, shape: tuple[int, ...], k: int, peer: Peer) -> Benchmark:
    """The smallest eigenpairs with default options, compiled already."""

    def ours(arrays: Inputs) -> Run:
        from peers import rwalk_local

        from rwalk import eigen

        lattice, _ = rwalk_local.pencil_of(arrays)
        return lambda: eigen.smallest_eigenpairs(lattice, int(arrays["k"])).values

    return Benchmark(
        name, f"{_edges(shape)}: the {k} smallest eigenpairs of the normalised Laplacian",
        functools.partial(pictured, shape, k), ours, right_values,
        tolerance=SUM,
        peers=(peer,),
        error=sum_error,
    )  # fmt: skip


def product(name: str, shape: tuple[int, ...], count: int) -> Benchmark:
    """A product of the Laplacian with a block of columns, against a copy of the block; a bar of 1/1.3."""

    def inputs() -> Inputs:
        block = np.random.default_rng(0).normal(size=(int(np.prod(shape)), count)).astype(np.float32)
        return pictured(shape, count) | {"block": block}

    def ours(arrays: Inputs) -> Run:
        import jax
        import jax.numpy as jnp
        from peers import rwalk_local

        from rwalk import stencil

        matrix, block = rwalk_local.pencil_of(arrays)[1].operator, jnp.asarray(arrays["block"])
        function = jax.jit(stencil.apply_columns)
        return lambda: function(matrix, block)

    def reference(arrays: Inputs) -> np.ndarray:
        from peers import rwalk_local

        from rwalk import stencil

        matrix = rwalk_local.pencil_of(arrays)[1].operator
        return stencil.to_sparse(matrix) @ arrays["block"][:, :2].astype(np.float64)

    return Benchmark(
        name, f"{_edges(shape)}: one product with a block of {count} vectors",
        inputs, ours, reference,
        tolerance=1e-5,
        peers=(Peer("copy of the block", f"{LOCAL}:copy", 1 / 1.3),),
        answer=lambda x: np.asarray(x[:, :2]),
        error=_difference,
    )  # fmt: skip


def _difference(found: Any, right: Any) -> float:
    """Largest, where both are products; a copy has none."""
    found = np.asarray(found)
    return float(np.abs(found - right).max()) if found.shape == right.shape else float("nan")


def _edges(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
