"""Benchmarks of faultloc: posteriors of trees of statements, circuits against other libraries, growth, memory."""

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _circuits, _faultloc_collect
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings
from peers import faultloc_local

GOLDEN_ENVIRONMENT, GOLDEN_MODULE, GOLDEN_VERSIONS = "deeprob", "faultloc_circuits", ("deeprob-kit", "torch")
ARGPARSE = 7870  # nodes of the syntax tree of argparse.py in Python 3.11; other versions are cut or repeated to it
SUBCLASSES, RELATIONS = 4, 200
RECURSION = Peer("NumPy, one statement after the other", "faultloc_local:recursion")


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    size = settings.size
    sizes = (1000, 10_000, 100_000, 360_000) if size is None else (100, 400)
    return [
        posterior(ARGPARSE if size is None else 200),
        *map(growth, sizes),
        circuit(6500 if size is None else 200),
        _faultloc_collect.collect(500 if size is None else 20),
    ]


def tree_inputs(size: int) -> Inputs:
    """The syntax tree of argparse.py, cut or repeated to so many nodes, with random tables."""
    from faultloc import tree

    parsed, _ = tree.from_python({"argparse.py": Path(argparse.__file__).read_text(encoding="utf-8")})
    whole = parsed.parent.astype(np.int64)
    copies = -(-size // len(whole))
    parent = np.concatenate([np.where(whole < 0, -1, whole + i * len(whole)) for i in range(copies)])[:size]
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(SUBCLASSES), (RELATIONS, SUBCLASSES))
    return {
        "parent": parent, "relation": rng.integers(0, RELATIONS, size).astype(np.int32),
        "prior": np.log(np.full(SUBCLASSES, 1 / SUBCLASSES)), "table": np.log(table),
        "evidence": rng.normal(size=(size, SUBCLASSES)) - 1,
    }  # fmt: skip


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
        return {**arrays, **_circuits.to_arrays(grounded(arrays), np.zeros((1, size * 2)))}

    return Benchmark(
        "posterior", f"posteriors of {size} nodes, {SUBCLASSES} subclasses (peers: the total alone)", inputs,
        posteriors, lambda arrays: faultloc_local.recursion(arrays)(), 1e-5,
        (Peer("deeprob-kit, grounded", "faultloc_circuits:deeprob", 760, environment="deeprob"), RECURSION),
        answer=lambda result: result[2], error=lambda a, b: relative(np.ravel(a)[0], np.ravel(b)[0]),
    )  # fmt: skip


def grounded(arrays: Inputs) -> list[Any]:
    """The tree as a circuit: each statement has a leaf for what is seen at it, scaled to a probability."""
    from faultloc.circuit import Node

    parent, relation = arrays["parent"], arrays["relation"]
    # Evidence may exceed one: peers get it relative to its largest value, and the rest as a Gaussian's height.
    nodes: list[Node] = []
    inside: dict[int, list[list[int]]] = {}
    for n in range(len(parent) - 1, -1, -1):
        here = []
        for k in range(SUBCLASSES):
            height = float(np.exp(arrays["evidence"][n, k]))
            nodes.append(Node("leaf", variable=n, gaussian=(0.0, 1 / (height * np.sqrt(2 * np.pi)))))
            nodes.append(Node("product", (len(nodes) - 1, *(each[k] for each in inside.get(n, [])))))
            here.append(len(nodes) - 1)
        rows = np.exp(arrays["prior"])[None] if parent[n] < 0 else np.exp(arrays["table"][relation[n]])
        sent = []
        for row in rows:
            nodes.append(Node("sum", tuple(here), tuple((row / row.sum()).tolist())))
            sent.append(len(nodes) - 1)
        inside.setdefault(int(parent[n]), []).append(sent)
    return nodes


def growth(size: int) -> Benchmark:
    """Linear time and memory in the number of nodes."""
    return Benchmark(
        f"growth_{size}", f"posteriors of {size} nodes, {SUBCLASSES} subclasses", functools.partial(tree_inputs, size),
        posteriors, lambda arrays: faultloc_local.recursion(arrays)(), 1e-5, (RECURSION,),
        answer=lambda result: result[2], error=relative, memory_mb=2048,
    )  # fmt: skip


def circuit(size: int) -> Benchmark:
    """A learned circuit, a thousand rows with gaps."""

    def inputs() -> Inputs:
        from faultloc import learnspn

        rng = np.random.default_rng(1)
        hidden = rng.integers(0, 6, 4000)
        rows = (rng.random((4000, 40)) < rng.random((6, 40))[hidden]).astype(float)
        nodes = learnspn.learn(rows[: size // 2], np.full(40, 2), least=4, significance=0.2)
        asked = rows[-1000:].copy()
        asked[rng.random(asked.shape) < 0.2] = np.nan
        return _circuits.to_arrays(nodes, asked)

    def ours(arrays: Inputs) -> Run:
        import jax.numpy as jnp

        from faultloc import circuit

        built, rows = circuit.build(_circuits.from_arrays(arrays)), jnp.asarray(arrays["rows"], jnp.float32)
        return lambda: circuit.log_density(built, rows)

    return Benchmark(
        "circuit", "log-densities of 1,000 rows with gaps under a learned circuit", inputs, ours,
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
    return {name: array.tolist() for name, array in _circuits.to_arrays(nodes, asked).items()}
