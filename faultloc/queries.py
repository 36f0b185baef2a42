"""What a circuit is asked for: posteriors of every variable, conditional densities, the most probable values, samples.

Legend: V variables, `B` rows of evidence; NaN where a variable is not observed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faultloc.circuit import Circuit, Semiring, from_leaves, from_leaves_upward, leaf_logs, log_density


class Marginals(NamedTuple):
    """Posterior of every variable given the evidence of a row.

    Attributes:
        table: `[B, V, values]` of categorical variables; zero for others.
        mean: `[B, V]` of Gaussian ones; NaN for others.
    """

    table: np.ndarray
    mean: np.ndarray


def marginals(circuit: Circuit, rows: Any) -> Marginals:
    """Posteriors of all variables, all from one derivative of the logarithm of the root.

    The derivative by the logarithm of a leaf is the probability that the leaf is used; the posterior of a variable is
    the mixture of its leaves with these weights. That of an observed variable is its value.
    """
    rows = jnp.asarray(rows, jnp.float32)
    used = np.asarray(jax.grad(lambda leaves: from_leaves(circuit, leaves).sum())(leaf_logs(circuit, rows)))
    leaves, given = circuit.leaves, np.asarray(rows)
    table = np.exp(np.asarray(leaves.log_table))
    count = len(leaves.categorical)
    found = np.zeros((len(given), circuit.shape.variables, table.shape[1]))
    mean = np.full((len(given), circuit.shape.variables), np.nan)
    for row, variable in enumerate(np.asarray(leaves.categorical)):
        found[:, variable] += used[row][:, None] * table[row]
    for row, variable in enumerate(np.asarray(leaves.gaussian)):
        so_far = np.nan_to_num(mean[:, variable])
        mean[:, variable] = so_far + used[count + row] * np.asarray(leaves.mean)[row]
    seen = ~np.isnan(given)
    categorical = seen & np.isin(np.arange(given.shape[1]), np.asarray(leaves.categorical))
    found[categorical] = given[categorical][:, None] == np.arange(table.shape[1])
    continuous = seen & np.isin(np.arange(given.shape[1]), np.asarray(leaves.gaussian))
    mean[continuous] = given[continuous]
    return Marginals(found, mean)


def log_conditional(circuit: Circuit, query: Any, evidence: Any) -> jax.Array:
    """`[B]` log-density of the query given the evidence.

    Args:
        circuit: see `faultloc.circuit.build`.
        query: `[B, V]` values; NaN where nothing is asked.
        evidence: `[B, V]`.

    Raises:
        ValueError: a variable is in both.
    """
    query, evidence = np.asarray(query, np.float32), np.asarray(evidence, np.float32)
    if (~np.isnan(query) & ~np.isnan(evidence)).any():
        raise ValueError("a variable is both asked for and observed; take it out of one of the two")
    both = np.where(np.isnan(query), evidence, query)
    return log_density(circuit, both) - log_density(circuit, evidence)


def most_probable(circuit: Circuit, rows: Any) -> np.ndarray:
    """Fill in the values that are most probable together with one choice at every sum.

    Exact for a circuit whose sums have at most one term that is not zero once all variables have values (selective);
    for another it is the usual approximation, since the probabilities of different terms are not added up.

    Returns:
        `[B, V]`, observed values as they were.

    Source: Poon, Domingos 2011; on when it is exact, Peharz, Gens, Pernkopf, Domingos 2016.
    """
    rows = np.asarray(rows, np.float32)
    leaves, values = circuit.leaves, _filled(circuit, rows, "max")
    used = _descend(circuit, values, None)
    best = np.asarray(leaves.log_table).argmax(1, keepdims=True) if len(leaves.categorical) else np.zeros((0, 1))
    fill = np.concatenate([best, np.asarray(leaves.mean)[:, None]])
    return _read(circuit, rows, used, np.broadcast_to(fill, used.shape))


def sample(circuit: Circuit, rows: Any, key: jax.Array) -> np.ndarray:
    """Draw the values that are not observed from their joint posterior.

    Args:
        circuit: see `faultloc.circuit.build`.
        rows: `[B, V]`; a row of NaN draws from the circuit itself.
        key: random key.

    Returns:
        `[B, V]`, observed values as they were.
    """
    rows = np.asarray(rows, np.float32)
    leaves, batch = circuit.leaves, len(rows)
    for_sums, for_tables, for_normals = jax.random.split(key, 3)
    used = _descend(circuit, _filled(circuit, rows, "sum"), for_sums)
    shape = (len(leaves.categorical), batch)
    drawn = jax.random.categorical(for_tables, leaves.log_table[:, None], shape=shape)
    normal = jax.random.normal(for_normals, (len(leaves.gaussian), batch))
    normal = leaves.mean[:, None] + leaves.deviation[:, None] * normal
    return _read(circuit, rows, used, np.concatenate([np.asarray(drawn, np.float32), np.asarray(normal)]))


def _filled(circuit: Circuit, rows: np.ndarray, semiring: Semiring) -> np.ndarray:
    """`[Q, B]` logarithms of all nodes."""
    logs = leaf_logs(circuit, jnp.asarray(rows), semiring=semiring)
    return np.asarray(from_leaves_upward(circuit, logs, semiring=semiring))


def _descend(circuit: Circuit, values: np.ndarray, key: jax.Array | None) -> np.ndarray:
    """`[leaves, B]` which leaves are used when every sum takes one term: the largest, or one drawn by its share."""
    used = np.zeros(values.shape, bool)
    used[-1] = True
    weights = np.asarray(circuit.log_weights)
    top = len(values)
    for number in range(len(circuit.layers) - 1, -1, -1):
        layer, (kind, size) = circuit.layers[number], circuit.shape.layers[number]
        child, parent = np.asarray(layer.child), np.asarray(layer.parent)
        here = used[top - size : top]
        top -= size
        taken = here[parent]
        if kind == "sum":
            scores = values[child] + weights[np.asarray(layer.edge)][:, None]
            if key is not None:
                scores = scores + np.asarray(jax.random.gumbel(jax.random.fold_in(key, number), scores.shape))
            taken = taken & _first_largest(scores, parent, size)
        np.logical_or.at(used, child, taken)
    return used[:top]


def _first_largest(scores: np.ndarray, parent: np.ndarray, size: int) -> np.ndarray:
    """`[M, B]` the first edge of each parent with the largest score."""
    starts = np.searchsorted(parent, np.arange(size))
    largest = scores == np.maximum.reduceat(scores, starts)[parent]
    before = np.cumsum(largest, axis=0) - largest
    return largest & (before == before[starts][parent])


def _read(circuit: Circuit, rows: np.ndarray, used: np.ndarray, fill: np.ndarray) -> np.ndarray:
    leaves = circuit.leaves
    found = rows.copy()
    variables = np.concatenate([np.asarray(leaves.categorical), np.asarray(leaves.gaussian)])
    for row, variable in enumerate(variables):
        chosen = used[row] & np.isnan(rows[:, variable])
        found[chosen, variable] = fill[row, chosen]
    return found
