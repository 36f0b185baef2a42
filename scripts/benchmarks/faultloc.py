"""Benchmarks of faultloc: posteriors of trees of statements, circuits against other libraries, growth, memory."""

import functools
from typing import Any

import numpy as np
from benchmarks import _circuits, _faultloc_collect, _faultloc_training
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings
from peers import faultloc_local

from faultloc import timing

GOLDEN_ENVIRONMENT, GOLDEN_MODULE, GOLDEN_VERSIONS = "deeprob", "faultloc_circuits", ("deeprob-kit", "torch")
ARGPARSE = 7870  # nodes of the syntax tree of argparse.py in Python 3.11; other versions are cut or repeated to it
SUBCLASSES = 4
ROWS = 460  # to learn a circuit from: it then has 6,448 nodes, those that count beside the bar
RECURSION = Peer("NumPy, one statement after the other", "faultloc_local:recursion")


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    size = settings.size
    sizes = (1000, 10_000, 100_000, 360_000) if size is None else (100, 400)
    return [
        posterior(ARGPARSE if size is None else 200),
        *map(growth, sizes),
        circuit(ROWS if size is None else 100),
        _faultloc_collect.collect(500 if size is None else 20),
        *([_faultloc_training.training(settings.data, size)] if settings.data else []),
    ]


def tree_inputs(size: int) -> Inputs:
    """The syntax tree of argparse.py, cut or repeated to so many nodes, with random tables."""
    return timing.tree_inputs(size, SUBCLASSES)


def posteriors(arrays: Inputs) -> Run:
    """Posteriors of the subclasses of all statements, expected counts, and the total."""
    import jax.numpy as jnp

    from faultloc import tflm

    order = tflm.schedule(arrays["parent"])
    tables = tflm.Tables(*(jnp.asarray(arrays[name], jnp.float32) for name in ("prior", "table")))
    relation, evidence = jnp.asarray(arrays["relation"]), jnp.asarray(arrays["evidence"], jnp.float32)
    return lambda: tflm.posteriors(order, tables, relation, evidence)


def relative(result: Any, reference: Any) -> float:
    """Error of a logarithm that grows with the tree."""
    return float(abs(np.asarray(result, np.float64) - reference).max() / max(1.0, abs(np.asarray(reference)).max()))


def posterior(size: int) -> Benchmark:
    """The tree of argparse.py; ours gives all posteriors, the peers only the total."""

    def inputs() -> Inputs:
        arrays = tree_inputs(size)
        return {**arrays, **timing.to_arrays(timing.grounded(arrays), np.zeros((1, size)))}

    return Benchmark(
        "posterior", f"posteriors of {size} nodes, {SUBCLASSES} subclasses (peers: the total alone)", inputs,
        posteriors, lambda arrays: faultloc_local.recursion(arrays)(), 1e-5,
        (Peer("deeprob-kit, grounded", "faultloc_circuits:deeprob", 760, environment="deeprob"), RECURSION),
        answer=lambda result: result[2], error=lambda a, b: relative(np.ravel(a)[0], np.ravel(b)[0]), seconds=0.005,
    )  # fmt: skip


def growth(size: int) -> Benchmark:
    """Linear time and memory in the number of nodes."""
    return Benchmark(
        f"growth_{size}", f"posteriors of {size} nodes, {SUBCLASSES} subclasses", functools.partial(tree_inputs, size),
        posteriors, lambda arrays: faultloc_local.recursion(arrays)(), 1e-5, (RECURSION,),
        answer=lambda result: result[2], error=relative, memory_mb=2048,
    )  # fmt: skip


def circuit(learned: int) -> Benchmark:
    """A circuit learned from so many rows, asked for a thousand others with gaps."""

    def inputs() -> Inputs:
        from faultloc import learnspn

        rng = np.random.default_rng(1)
        hidden = rng.integers(0, 6, 4000)
        rows = (rng.random((4000, 40)) < rng.random((6, 40))[hidden]).astype(float)
        nodes = learnspn.learn(rows[:learned], np.full(40, 2), least=4, significance=0.2)
        asked = rows[-1000:].copy()
        asked[rng.random(asked.shape) < 0.2] = np.nan
        return timing.to_arrays(nodes, asked)

    def ours(arrays: Inputs) -> Run:
        import jax.numpy as jnp

        from faultloc import circuit

        built, rows = circuit.build(_circuits.from_arrays(arrays)), jnp.asarray(arrays["rows"], jnp.float32)
        return lambda: circuit.log_density(built, rows)

    return Benchmark(
        "circuit", f"log-densities of 1,000 rows with gaps under a circuit learned from {learned}", inputs, ours,
        _circuits.log_density, 2e-4,
        (
            Peer("deeprob-kit", "faultloc_circuits:deeprob", 10, environment="deeprob"),
            Peer("SPFlow", "faultloc_circuits:spflow", 1, environment="spflow"),
        ),
    )  # fmt: skip


def golden_inputs() -> dict[str, Any]:
    """A small learned circuit with rows that have gaps."""
    from faultloc import learnspn

    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 300)
    second = np.where(rng.random(300) < 0.9, first, 1 - first)
    rows = np.stack([first, second, first + rng.normal(size=300) / 2], axis=1)
    nodes = learnspn.learn(rows, np.array([2, 2, 0]))
    asked = rows[:6].copy()
    asked[[1, 2, 3, 3], [0, 2, 0, 1]] = np.nan
    return {name: array.tolist() for name, array in timing.to_arrays(nodes, asked).items()}
