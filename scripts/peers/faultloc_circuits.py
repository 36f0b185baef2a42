"""Circuits in deeprob-kit and SPFlow, from the arrays that `benchmarks/faultloc.py` writes.

Every function takes the arrays and returns the callable to time; the circuit is built outside the clock.
"""

import numpy as np


def deeprob(arrays: dict) -> object:
    """Log-densities in deeprob-kit, `[rows]`; its rows are NaN where a variable is not observed, as ours."""
    from deeprob.spn.algorithms.inference import log_likelihood

    root, rows = _deeprob_circuit(arrays), np.asarray(arrays["rows"], np.float32)
    return lambda: log_likelihood(root, rows)


def spflow(arrays: dict) -> object:
    """Log-densities in SPFlow, `[rows]`."""
    from spn.algorithms.Inference import log_likelihood

    root, rows = _spflow_circuit(arrays), np.asarray(arrays["rows"], np.float64)
    return lambda: log_likelihood(root, rows)[:, 0]


def deeprob_inference(arrays: dict) -> object:
    """Log-density and the derivatives by all nodes, of which the posteriors are read, in deeprob-kit, `[rows]`."""
    root, rows = _deeprob_circuit(arrays), np.asarray(arrays["rows"], np.float32)
    return lambda: _deeprob_passes(root, rows)[0]


def deeprob_learning(arrays: dict) -> object:
    """One round of its expectation maximisation of the weights of sums, as its `expectation_maximization` does it."""
    from deeprob.spn.structure.node import Sum
    from deeprob.spn.utils.filter import filter_nodes_by_type

    root, rows = _deeprob_circuit(arrays), np.asarray(arrays["rows"], np.float32)
    sums = filter_nodes_by_type(root, Sum)

    def run() -> np.ndarray:
        total, logs, slopes = _deeprob_passes(root, rows)
        for node in sums:
            inside = logs[[child.id for child in node.children]]
            node.em_step(np.exp(inside - total + slopes[node.id]), 0.5)
        return total

    return run


def _deeprob_passes(root: object, rows: np.ndarray) -> tuple:
    from deeprob.spn.algorithms.gradient import eval_backward
    from deeprob.spn.algorithms.inference import log_likelihood

    total, logs = log_likelihood(root, rows, return_results=True)
    return total, logs, eval_backward(root, logs)


def golden(inputs: dict) -> dict:
    """Values that the tests keep."""
    arrays = {name: np.array(value, np.float64) for name, value in inputs.items()}
    return {"log_density": deeprob(arrays)().tolist()}


def _grow(arrays: dict, leaf: object, inner: object) -> object:
    """Build bottom-up: `leaf(variable, table or None, gaussian)`, `inner(is_sum, children, weights)`."""
    made: list = []
    start = np.asarray(arrays["start"], int)
    children, weights = np.asarray(arrays["children"], int), np.asarray(arrays["weights"], np.float64)
    for i, kind in enumerate(np.asarray(arrays["kind"], int)):
        below = slice(start[i], start[i + 1])
        if kind == 0:
            size = int(arrays["values"][i])
            table = np.asarray(arrays["leaf_table"][i][:size], np.float64) if size else None
            made.append(leaf(int(arrays["variable"][i]), table, arrays["gaussian"][i]))
        else:
            made.append(inner(kind == 2, [made[c] for c in children[below]], weights[below]))
    return made[-1]


def _deeprob_circuit(arrays: dict) -> object:
    from deeprob.spn.structure.leaf import Categorical, Gaussian
    from deeprob.spn.structure.node import Product, Sum, assign_ids

    def leaf(variable: int, table: np.ndarray | None, gaussian: np.ndarray) -> object:
        if table is None:
            return Gaussian(variable, float(gaussian[0]), float(gaussian[1]))
        return Categorical(variable, list(range(len(table))), (table / table.sum()).tolist())

    def inner(is_sum: bool, children: list, weights: np.ndarray) -> object:
        if is_sum:
            return Sum(children=children, weights=np.asarray(weights / weights.sum(), np.float32))
        return Product(children=children)

    return assign_ids(_grow(arrays, leaf, inner))


def _spflow_circuit(arrays: dict) -> object:
    from spn.structure.Base import Product, Sum, assign_ids, rebuild_scopes_bottom_up
    from spn.structure.leaves.parametric.Parametric import Categorical, Gaussian

    def leaf(variable: int, table: np.ndarray | None, gaussian: np.ndarray) -> object:
        if table is None:
            return Gaussian(mean=float(gaussian[0]), stdev=float(gaussian[1]), scope=variable)
        return Categorical(p=(table / table.sum()).tolist(), scope=variable)

    def inner(is_sum: bool, children: list, weights: np.ndarray) -> object:
        return Sum(weights=list(weights / weights.sum()), children=children) if is_sum else Product(children=children)

    root = assign_ids(_grow(arrays, leaf, inner))
    return rebuild_scopes_bottom_up(root)
