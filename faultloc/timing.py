"""How long learning and inference take on programs of growing size: the tree pass against circuits written out.

A program is a tree of statements with the shape of `argparse.py`, cut or repeated to its size, under random tables of K
subclasses. Inference is the logarithm of the total probability and the posterior of every statement's subclass;
learning is one round of expectation maximisation: that, and new weights from the expected counts.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import tflm, tree
from faultloc.circuit import Node

Arrays = dict[str, np.ndarray]
KINDS = ("leaf", "product", "sum")
RELATIONS = 200
PEERS = {"deeprob": "deeprob-kit", "spflow": "SPFlow"}
# Functions of `scripts/peers`. Derivatives in SPFlow are for trees alone, and a program shares its sums: no learning.
ANSWERS = {
    "deeprob": {"inference": "faultloc_circuits:deeprob_inference", "learning": "faultloc_circuits:deeprob_learning"},
    "spflow": {"inference": "faultloc_circuits:spflow"},
}


def tree_inputs(size: int, subclasses: int) -> Arrays:
    """A tree of statements with random tables.

    Args:
        size: N.
        subclasses: K.

    Returns:
        `parent [N]`, `relation [N]`, `prior [K]`, `table [R, K, K]`, `evidence [N, K]`; see `tflm.log_total`.
    """
    parsed, _ = tree.from_python({"argparse.py": Path(argparse.__file__).read_text(encoding="utf-8")})
    whole = parsed.parent.astype(np.int64)
    copies = -(-size // len(whole))
    parent = np.concatenate([np.where(whole < 0, -1, whole + i * len(whole)) for i in range(copies)])[:size]
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(subclasses), (RELATIONS, subclasses))
    return {
        "parent": parent, "relation": rng.integers(0, RELATIONS, size).astype(np.int32),
        "prior": np.log(np.full(subclasses, 1 / subclasses)), "table": np.log(table),
        "evidence": rng.normal(size=(size, subclasses)) - 1,
    }  # fmt: skip


def grounded(arrays: Arrays) -> list[Node]:
    """The same program as a circuit: a leaf for what is seen at each statement, a Gaussian of the evidence's height."""
    parent, relation = arrays["parent"], arrays["relation"]
    nodes: list[Node] = []
    inside: dict[int, list[list[int]]] = {}

    def add(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    for n in range(len(parent) - 1, -1, -1):
        here = []
        for k, evidence in enumerate(arrays["evidence"][n]):
            leaf = add(Node("leaf", variable=n, gaussian=(0.0, 1 / (float(np.exp(evidence)) * np.sqrt(2 * np.pi)))))
            here.append(add(Node("product", (leaf, *(each[k] for each in inside.get(n, []))))))
        rows = np.exp(arrays["prior"])[None] if parent[n] < 0 else np.exp(arrays["table"][relation[n]])
        sent = [add(Node("sum", tuple(here), tuple((row / row.sum()).tolist()))) for row in rows]
        inside.setdefault(int(parent[n]), []).append(sent)
    roots = [each[0] for each in inside[-1]]
    if len(roots) > 1:
        add(Node("product", tuple(roots)))
    return nodes


def to_arrays(nodes: Sequence[Node], rows: np.ndarray) -> Arrays:
    """A circuit as arrays, beside the rows of evidence, `[rows, V]`: what is handed to another process."""
    width = max((len(node.table) for node in nodes), default=1)
    table = np.zeros((len(nodes), max(width, 1)))
    for i, node in enumerate(nodes):
        table[i, : len(node.table)] = node.table
    weights = [w for node in nodes for w in (node.weights or (1.0,) * len(node.children))]
    return {
        "rows": np.asarray(rows, np.float64),
        "kind": np.array([KINDS.index(node.kind) for node in nodes]),
        "start": np.cumsum([0, *(len(node.children) for node in nodes)]),
        "children": np.array([child for node in nodes for child in node.children], int),
        "weights": np.array(weights),
        "variable": np.array([node.variable for node in nodes]),
        "values": np.array([len(node.table) for node in nodes]),
        "leaf_table": table,
        "gaussian": np.array([node.gaussian or (0.0, 1.0) for node in nodes]),
    }


def recursion(arrays: Mapping[str, np.ndarray]) -> float:
    """Logarithm of the total probability in float64, one statement after the other."""
    parent, beta, total = arrays["parent"], arrays["evidence"].copy(), 0.0
    for n in range(len(parent) - 1, -1, -1):
        if parent[n] < 0:
            total += np.logaddexp.reduce(arrays["prior"] + beta[n])
        else:
            beta[parent[n]] += np.logaddexp.reduce(arrays["table"][arrays["relation"][n]] + beta[n], axis=-1)
    return float(total)


def tree_pass(arrays: Arrays) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Inference and a round of learning by `faultloc.tflm`, as callables that wait for their result."""
    order = tflm.schedule(arrays["parent"])
    tables = tflm.Tables(*(jnp.asarray(arrays[name], jnp.float32) for name in ("prior", "table")))
    relation, evidence = jnp.asarray(arrays["relation"]), jnp.asarray(arrays["evidence"], jnp.float32)

    @jax.jit
    def weights(counts: tflm.Tables) -> tflm.Tables:
        prior, table = (jnp.log(each + 1e-6) for each in counts)
        return tflm.Tables(jax.nn.log_softmax(prior, axis=0), jax.nn.log_softmax(table, axis=2))

    def infer() -> Any:
        return jax.block_until_ready(tflm.posteriors(order, tables, relation, evidence))

    def learn() -> Any:
        return jax.block_until_ready(weights(infer()[1]))

    return infer, learn


class Timing:
    """One program size and one way as an experiment of one interval.

    Args:
        way: tflm | deeprob | spflow.
        size: statements.
        subclasses: K.
        repetitions: of which the median counts, after one that does not; for a peer, of those that end in time.
        peers: folder of the peers' environments.
        worker: the script that runs a peer there.
        timeout: seconds that a peer may take for all repetitions.
    """

    def __init__(
        self, way: str, size: int, subclasses: int, *, repetitions: int, peers: Path, worker: Path, timeout: float
    ) -> None:
        self._way, self._size, self._subclasses, self._repetitions = way, size, subclasses, repetitions
        self._python, self._worker, self._timeout = peers / way / "bin" / "python", worker, timeout
        self._remark = ""

    def __len__(self) -> int:
        return 1

    def totals(self) -> np.ndarray:
        """Nothing is carried from interval to interval."""
        return np.zeros(0)

    def score(
        self,
        index: int,  # noqa: ARG002
        totals: np.ndarray,
        *,
        key: jax.Array,  # noqa: ARG002
        place: Callable[..., Any],  # noqa: ARG002
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Measure; a peer that is not there leaves its figures empty."""
        arrays = tree_inputs(self._size, self._subclasses)
        reference = recursion(arrays)
        row: dict[str, Any] = {"way": self._way, "statements": self._size}
        if self._way == "tflm":
            infer, learn = tree_pass(arrays)
            begin = time.perf_counter()
            found = float(infer()[2])
            row["seconds/first"] = time.perf_counter() - begin
            row |= {"seconds/inference": self._median(infer), "seconds/learning": self._median(learn)}
        else:
            nodes = grounded(arrays)
            row["nodes"] = len(nodes)
            given = to_arrays(nodes, np.zeros((1, self._size)))
            row["seconds/inference"], found = self._peer("inference", given)
            row["seconds/learning"], _ = self._peer("learning", given)
        row["installed"] = int(self._way == "tflm" or self._python.is_file())
        row["microseconds/statement"] = 1e6 * row["seconds/inference"] / self._size
        row["difference"] = abs(found - reference) / max(1.0, abs(reference))
        return totals, row

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:  # noqa: ARG002
        """Say why there are no figures where there are none."""
        if self._remark:
            print(self._remark, file=sys.stderr)

    def _median(self, run: Callable[[], Any]) -> float:
        run()
        seconds = []
        for _ in range(self._repetitions):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        return float(np.median(seconds))

    def _peer(self, what: str, arrays: Arrays) -> tuple[float, float]:
        """Median seconds of a peer in its own environment and its answer; NaN where it gave none."""
        if self._remark or what not in ANSWERS[self._way]:
            return np.nan, np.nan
        if not (self._python.is_file() and self._worker.is_file()):
            self._remark = f"{PEERS[self._way]} is not installed: `python scripts/bench.py faultloc --setup` makes it"
            return np.nan, np.nan
        with tempfile.TemporaryDirectory(prefix="timing-") as folder:
            files = {name: str(Path(folder, f"{name}.npy")) for name in arrays}
            for name, array in arrays.items():
                np.save(files[name], array)
            asked: list[dict[str, Any]] = [
                {"prepare": ANSWERS[self._way][what], "inputs": files},
                *[{"go": True}] * (1 + self._repetitions),
            ]
            told = self._ask([str(self._python), str(self._worker.resolve()), folder], asked)
            seconds = [each["seconds"] for each in told if "seconds" in each]
            if len(seconds) < 2:  # the first one does not count
                return np.nan, np.nan
            return float(np.median(seconds[1:])), float(np.ravel(np.load(Path(folder, "result.npy")))[0])

    def _ask(self, command: list[str], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a worker answers to messages, before its time is over; a fault of its own or that is remarked."""
        text = "".join(json.dumps(message) + "\n" for message in messages).encode()
        try:
            done = subprocess.run(command, input=text, capture_output=True, timeout=self._timeout)
        except subprocess.TimeoutExpired as late:
            answers = _answers(late.stdout)
            ended = max(sum("seconds" in each for each in answers) - 1, 0)
            self._remark = (
                f"{PEERS[self._way]} took more than {self._timeout:g} s for {self._size} statements, "
                f"{ended} of {self._repetitions} repetitions came to an end"
            )
            return answers
        answers = _answers(done.stdout)
        wrong = [each["error"] for each in answers if "error" in each]
        if wrong or done.returncode:
            reason = (
                wrong[0] if wrong else (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            )
            self._remark = f"{PEERS[self._way]} failed: {reason}"
        return answers


def _answers(output: bytes | None) -> list[dict[str, Any]]:
    """The whole lines that a worker wrote."""
    answers = []
    with contextlib.suppress(json.JSONDecodeError):
        for line in (output or b"").splitlines():
            answers.append(json.loads(line))
    return answers
