"""Learn the structure of a sum-product network from complete rows, on the host.

Variables that a G-test does not tell from independent become factors of a product; else the rows are clustered by hard
EM of a mixture of independent variables and become the terms of a sum; a single variable, or too few rows, end in
leaves.

Source: Gens, Domingos 2013.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from faultloc.circuit import Node

BINS = 4  # of a continuous variable in the test of independence
FLOOR = 0.05  # of the deviation of a Gaussian leaf
ROUNDS = 30  # of the clustering at most


def learn(
    rows: np.ndarray,
    values: np.ndarray,
    *,
    significance: float = 0.001,
    least: int = 20,
    clusters: int = 2,
    smoothing: float = 0.1,
    seed: int = 0,
) -> list[Node]:
    """Learn a circuit; `circuit.build` makes it ready for use.

    Args:
        rows: `[n, V]` without gaps; whole numbers from 0 in the columns of categorical variables.
        values: `[V]` number of values of each variable, 0 for a continuous one.
        significance: p-value below which two variables count as dependent.
        least: rows below which all variables are taken as independent.
        clusters: terms of a sum at most.
        smoothing: added to each count.
        seed: of the starts of clusterings.

    Returns:
        Nodes, children first, the root last.

    Raises:
        ValueError: no row, a gap, or a value out of range.
    """
    rows, values = np.asarray(rows, np.float64), np.asarray(values, np.int64)
    if rows.ndim != 2 or not len(rows) or values.shape != rows.shape[1:]:
        raise ValueError(f"rows must be [n, V] with n > 0 and values [V], got {rows.shape} and {values.shape}")
    discrete = rows[:, values > 0]
    wrong = (discrete != np.floor(discrete)) | (discrete < 0) | (discrete >= values[values > 0])
    if np.isnan(rows).any() or wrong.any():
        raise ValueError("rows must have no gap, and categorical columns whole numbers from 0 to values - 1")
    return _Learner(values, significance, least, clusters, smoothing, np.random.default_rng(seed)).learn(rows)


class _Learner:
    def __init__(
        self, values: np.ndarray, significance: float, least: int, clusters: int, smoothing: float,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._values, self._significance, self._least = values, significance, least
        self._clusters, self._smoothing, self._rng = clusters, smoothing, rng
        self._nodes: list[Node] = []

    def learn(self, rows: np.ndarray) -> list[Node]:
        self._grow(rows, np.arange(rows.shape[1]), split=False)
        return self._nodes

    def _add(self, node: Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _grow(self, rows: np.ndarray, scope: np.ndarray, *, split: bool) -> int:
        """Index of the node over `scope`; `split` where its variables were just found to depend on each other."""
        if len(scope) == 1:
            return self._leaf(rows[:, scope[0]], int(scope[0]))
        if len(rows) < self._least:
            return self._add(Node("product", tuple(self._leaf(rows[:, v], int(v)) for v in scope)))
        if not split:
            groups = self._groups(rows, scope)
            if len(groups) > 1:
                return self._add(Node("product", tuple(self._grow(rows, group, split=True) for group in groups)))
        member = self._cluster(rows, scope)
        found, sizes = np.unique(member, return_counts=True)
        if len(found) == 1:
            return self._add(Node("product", tuple(self._leaf(rows[:, v], int(v)) for v in scope)))
        children = tuple(self._grow(rows[member == c], scope, split=False) for c in found)
        return self._add(Node("sum", children, tuple((sizes / len(rows)).tolist())))

    def _leaf(self, column: np.ndarray, variable: int) -> int:
        if self._values[variable] == 0:
            moments = float(column.mean()), float(max(column.std(), FLOOR))
            return self._add(Node("leaf", variable=variable, gaussian=moments))
        counts = np.bincount(column.astype(int), minlength=self._values[variable]) + self._smoothing
        return self._add(Node("leaf", variable=variable, table=tuple((counts / counts.sum()).tolist())))

    def _groups(self, rows: np.ndarray, scope: np.ndarray) -> list[np.ndarray]:
        """Sets of variables that no chain of dependent pairs connects."""
        coded = [self._coded(rows[:, v], int(v)) for v in scope]
        linked = np.zeros((len(scope), len(scope)), bool)
        for i in range(len(scope)):
            for j in range(i):
                linked[i, j] = dependent(coded[i], coded[j], self._significance)
        count, group = connected_components(linked, directed=False)
        return [scope[group == g] for g in range(count)]

    def _coded(self, column: np.ndarray, variable: int) -> np.ndarray:
        if self._values[variable] > 0:
            return column.astype(int)
        return np.searchsorted(np.quantile(column, np.arange(1, BINS) / BINS), column)

    def _cluster(self, rows: np.ndarray, scope: np.ndarray) -> np.ndarray:
        """`[n]` cluster of each row by hard EM, its variables independent within a cluster."""
        member = self._rng.integers(self._clusters, size=len(rows))
        for _ in range(ROUNDS):
            scores = np.stack([self._score(rows, scope, member == c) for c in range(self._clusters)])
            again = scores.argmax(0)
            if (again == member).all():
                break
            member = again
        return member

    def _score(self, rows: np.ndarray, scope: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """`[n]` log-probability of each row in a cluster with the members `mine`."""
        if not mine.any():
            return np.full(len(rows), -np.inf)
        total = np.full(len(rows), np.log(mine.mean()))
        for v in scope:
            column = rows[:, v]
            if self._values[v] == 0:
                mean, deviation = column[mine].mean(), max(column[mine].std(), FLOOR)
                total += -(((column - mean) / deviation) ** 2) / 2 - np.log(deviation)
            else:
                counts = np.bincount(column[mine].astype(int), minlength=self._values[v]) + self._smoothing
                total += np.log(counts / counts.sum())[column.astype(int)]
        return total


def dependent(first: np.ndarray, second: np.ndarray, significance: float) -> bool:
    """Whether a G-test finds two categorical variables dependent.

    G = 2 sum_ij n_ij log(n_ij n / (n_i n_j)), chi-squared with (I - 1)(J - 1) degrees of freedom under independence.
    """
    counts = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(counts, (first, second), 1)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    seen = counts > 0
    statistic = 2 * (counts[seen] * np.log(counts[seen] / expected[seen])).sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    return bool(freedom > 0 and chi2.sf(statistic, freedom) < significance)
