"""Circuits as arrays, as peers receive them, and their densities in float64."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from faultloc.timing import KINDS


def from_arrays(arrays: Mapping[str, np.ndarray]) -> list[Any]:
    """The nodes back."""
    from faultloc.circuit import Node

    nodes = []
    for i, kind in enumerate(arrays["kind"]):
        below = slice(*arrays["start"][i : i + 2])
        children, size = tuple(map(int, arrays["children"][below])), int(arrays["values"][i])
        if kind == 0 and size:
            table = arrays["leaf_table"][i, :size]
            nodes.append(Node("leaf", variable=int(arrays["variable"][i]), table=tuple((table / table.sum()).tolist())))
        elif kind == 0:
            nodes.append(Node("leaf", variable=int(arrays["variable"][i]), gaussian=tuple(arrays["gaussian"][i])))
        else:
            weights = tuple(arrays["weights"][below].tolist()) if kind == 2 else ()
            nodes.append(Node(KINDS[kind], children, weights))  # type: ignore[arg-type]
    return nodes


def log_density(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """`[rows]` logarithms of the root, one node after the other in float64."""
    logs: list[np.ndarray] = []
    rows = np.asarray(arrays["rows"], np.float64)
    for i, kind in enumerate(arrays["kind"]):
        x = rows[:, arrays["variable"][i]]
        below = slice(*arrays["start"][i : i + 2])
        if kind == 0 and arrays["values"][i]:
            logs.append(np.where(np.isnan(x), 0, np.log(arrays["leaf_table"][i][np.nan_to_num(x).astype(int)])))
        elif kind == 0:
            mean, deviation = arrays["gaussian"][i]
            normal = -(((x - mean) / deviation) ** 2) / 2 - np.log(deviation * np.sqrt(2 * np.pi))
            logs.append(np.where(np.isnan(x), 0, normal))
        else:
            inner = np.stack([logs[child] for child in arrays["children"][below]])
            if kind == 1:
                logs.append(inner.sum(0))
            else:
                logs.append(np.logaddexp.reduce(inner + np.log(arrays["weights"][below])[:, None]))
    return logs[-1]
