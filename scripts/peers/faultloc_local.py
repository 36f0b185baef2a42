"""The upward pass over a tree of statements as anybody would write it in NumPy, one statement after the other."""

import numpy as np


def recursion(arrays: dict) -> object:
    """Logarithm of the total probability in float64."""
    parent, relation = np.asarray(arrays["parent"]), np.asarray(arrays["relation"])
    prior, table = np.asarray(arrays["prior"], np.float64), np.asarray(arrays["table"], np.float64)

    def run() -> np.ndarray:
        beta, total = np.asarray(arrays["evidence"], np.float64).copy(), 0.0
        for n in range(len(parent) - 1, -1, -1):
            if parent[n] < 0:
                total += np.logaddexp.reduce(prior + beta[n])
            else:
                beta[parent[n]] += np.logaddexp.reduce(table[relation[n]] + beta[n], axis=-1)
        return np.asarray(total)

    return run
