"""Sum-product networks as layers: what makes them valid, and exact sums over what is not observed.

Legend: V variables, Q nodes, M edges, `B` rows of evidence, which are the last axis of every array on the way up.

A circuit is a directed graph of leaves, products and weighted sums. With sums that add nodes over the same variables
(smooth) and products that multiply nodes over disjoint ones (decomposable) its root is a joint distribution, and one
pass up gives any marginal: a variable that is not observed contributes a factor of one. Posteriors are derivatives of
the logarithm of the root; with `max` in place of the sum the same pass finds the most probable values.

Source: Poon, Domingos 2011; the layers are ours.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Semiring = Literal["sum", "max"]
Kind = Literal["leaf", "product", "sum"]


class Node(NamedTuple):
    """One node of a circuit as it is built on the host.

    Attributes:
        kind: leaf | product | sum.
        children: indices of earlier nodes.
        weights: probability of each child of a sum.
        variable: of a leaf.
        table: of a categorical leaf, the probability of each of its values.
        gaussian: mean and deviation of a Gaussian leaf.
    """

    kind: Kind
    children: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    variable: int = -1
    table: tuple[float, ...] = ()
    gaussian: tuple[float, float] | None = None


class Layer(NamedTuple):
    """Inner nodes of one height, as edges in the order of their parents.

    Attributes:
        child: `[M]` place of each child among the nodes below.
        parent: `[M]` place of each parent within the layer, ascending.
        edge: `[M]` place of the edge's weight in `Circuit.log_weights`.
    """

    child: jax.Array
    parent: jax.Array
    edge: jax.Array


class Leaves(NamedTuple):
    """Leaves by kind; a categorical leaf is a row of `log_table`, padded by -inf.

    Attributes:
        categorical: `[C]` variables.
        log_table: `[C, values]`.
        gaussian: `[G]` variables.
        mean, deviation: `[G]`.
    """

    categorical: jax.Array
    log_table: jax.Array
    gaussian: jax.Array
    mean: jax.Array
    deviation: jax.Array


class Shape(NamedTuple):
    """What of a circuit is fixed when it is compiled: kind and number of nodes of each layer, number of variables."""

    layers: tuple[tuple[Kind, int], ...]
    variables: int


class Circuit(NamedTuple):
    """A circuit ready to be evaluated; see `build`.

    Attributes:
        leaves: the lowest layer, categorical leaves first.
        layers: the others, from below.
        log_weights: `[E]` of all edges of sums.
        shape: static.
        nodes: as they were given, the root last.
    """

    leaves: Leaves
    layers: tuple[Layer, ...]
    log_weights: jax.Array
    shape: Shape
    nodes: tuple[Node, ...]


def build(nodes: Sequence[Node]) -> Circuit:
    """Arrange nodes in layers.

    Args:
        nodes: children before parents, the root last.

    Raises:
        ValueError: the circuit is not valid; see `validate`.
    """
    nodes = tuple(nodes)
    faults = validate(nodes)
    if faults:
        raise ValueError(f"not a valid circuit: {faults[0]}" + (f" ({len(faults)} faults)" if faults[1:] else ""))
    nodes = _reachable(nodes)
    height = np.zeros(len(nodes), np.int64)
    for i, node in enumerate(nodes):
        if node.kind != "leaf":
            height[i] = 1 + max(height[child] for child in node.children)
    leaves = [i for i, node in enumerate(nodes) if node.kind == "leaf"]
    tables = [i for i in leaves if nodes[i].gaussian is None]
    normals = [i for i in leaves if nodes[i].gaussian is not None]
    place = {node: i for i, node in enumerate([*tables, *normals])}
    layers: list[Layer] = []
    kinds: list[tuple[Kind, int]] = []
    weights: list[float] = []
    both: tuple[Kind, Kind] = ("product", "sum")
    for level in range(1, int(height.max(initial=0)) + 1):
        for kind in both:
            members = [int(i) for i in np.flatnonzero(height == level) if nodes[i].kind == kind]
            if not members:
                continue
            edges = [(place[child], n) for n, i in enumerate(members) for child in nodes[i].children]
            first = len(weights)
            weights += [w for i in members for w in nodes[i].weights]
            numbers = np.arange(first, first + len(edges)) if kind == "sum" else np.zeros(len(edges))
            child, parent = np.array(edges, np.int32).T
            layers.append(Layer(jnp.asarray(child), jnp.asarray(parent), jnp.asarray(numbers, jnp.int32)))
            kinds.append((kind, len(members)))
            place |= {i: len(place) + n for n, i in enumerate(members)}
    with np.errstate(divide="ignore"):
        log_weights = jnp.asarray(np.log(np.array(weights)), jnp.float32)
    variables = 1 + max(nodes[i].variable for i in leaves)
    return Circuit(_leaves(nodes, tables, normals), tuple(layers), log_weights, Shape(tuple(kinds), variables), nodes)


def _reachable(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes below the root, renumbered."""
    needed = {len(nodes) - 1}
    for i in range(len(nodes) - 1, -1, -1):
        if i in needed:
            needed.update(nodes[i].children)
    number = {old: new for new, old in enumerate(sorted(needed))}
    return tuple(nodes[i]._replace(children=tuple(number[c] for c in nodes[i].children)) for i in sorted(needed))


def _leaves(nodes: Sequence[Node], tables: list[int], normals: list[int]) -> Leaves:
    width = max((len(nodes[i].table) for i in tables), default=1)
    table = np.zeros((len(tables), width))
    for row, i in enumerate(tables):
        table[row, : len(nodes[i].table)] = nodes[i].table
    moments = np.array([nodes[i].gaussian for i in normals], np.float64).reshape(-1, 2)
    with np.errstate(divide="ignore"):
        log_table = np.log(table)
    return Leaves(
        jnp.asarray([nodes[i].variable for i in tables], jnp.int32), jnp.asarray(log_table, jnp.float32),
        jnp.asarray([nodes[i].variable for i in normals], jnp.int32), jnp.asarray(moments[:, 0], jnp.float32),
        jnp.asarray(moments[:, 1], jnp.float32),
    )  # fmt: skip


def validate(nodes: Sequence[Node]) -> list[str]:
    """What is wrong with a circuit, one line each; nothing where its root is a distribution.

    Checked are the order of nodes, smoothness of sums, decomposability of products, and that weights and tables are
    probabilities that add up to one.
    """
    faults: list[str] = []
    scopes: list[frozenset[int]] = []
    for i, node in enumerate(nodes):
        if any(not 0 <= child < i for child in node.children):
            return [f"node {i}: its children must come before it, got {list(node.children)}"]
        inner = [scopes[child] for child in node.children]
        scope = frozenset([node.variable]) if node.kind == "leaf" else frozenset().union(*inner)
        scopes.append(scope)
        if node.kind == "leaf":
            faults += _leaf_faults(i, node)
        elif not inner:
            faults.append(f"node {i}: a {node.kind} needs children")
        elif node.kind == "product" and sum(map(len, inner)) != len(scope):
            faults.append(f"node {i}: the factors of a product must be over disjoint variables (decomposable)")
        elif node.kind == "sum":
            if any(each != scope for each in inner):
                faults.append(f"node {i}: the terms of a sum must be over the same variables (smooth)")
            if len(node.weights) != len(inner) or not _is_distribution(node.weights):
                faults.append(f"node {i}: the weights of a sum must be probabilities that add up to one")
    return faults if nodes else ["there is no node"]


def _leaf_faults(i: int, node: Node) -> list[str]:
    if node.variable < 0:
        return [f"node {i}: a leaf needs a variable, from 0"]
    if node.gaussian is None and not _is_distribution(node.table):
        return [f"node {i}: the table of a leaf must hold probabilities that add up to one"]
    if node.gaussian is not None and not node.gaussian[1] > 0:
        return [f"node {i}: the deviation of a Gaussian leaf must be greater than 0, got {node.gaussian[1]}"]
    return []


def _is_distribution(weights: Sequence[float]) -> bool:
    return bool(weights) and min(weights) >= 0 and abs(sum(weights) - 1) < 1e-6


def log_density(circuit: Circuit, rows: Any, *, semiring: Semiring = "sum") -> jax.Array:
    """Logarithm of the density of what is observed, everything else summed out, or maximised with "max".

    Args:
        circuit: see `build`.
        rows: `[B, V]` values; NaN where a variable is not observed. A value that a table does not hold is impossible.
        semiring: "sum" | "max", which also takes the largest term of every sum.

    Returns:
        `[B]`.
    """
    logs = leaf_logs(circuit, jnp.asarray(rows, jnp.float32), semiring=semiring)
    return from_leaves(circuit, logs, semiring=semiring)


def leaf_logs(circuit: Circuit, rows: jax.Array, *, semiring: Semiring = "sum") -> jax.Array:
    """`[leaves, B]` log-density of each leaf; of an unobserved variable zero, or that of the leaf's mode with "max"."""
    return _leaf_logs(circuit.leaves, rows, semiring)


@functools.partial(jax.jit, static_argnames="semiring")
def _leaf_logs(leaves: Leaves, rows: jax.Array, semiring: Semiring) -> jax.Array:
    given = rows.T
    x = given[leaves.categorical]
    value = jnp.clip(jnp.where(jnp.isnan(x), 0, x).astype(jnp.int32), 0, leaves.log_table.shape[1] - 1)
    tables = jnp.where(value.astype(x.dtype) == x, jnp.take_along_axis(leaves.log_table, value, axis=1), -jnp.inf)
    tables = jnp.where(jnp.isnan(x), leaves.log_table.max(1, keepdims=True) if semiring == "max" else 0, tables)
    x = given[leaves.gaussian]
    mean, deviation = leaves.mean[:, None], leaves.deviation[:, None]
    # The mean in place of no value is the mode, and keeps derivatives finite.
    standard = (jnp.where(jnp.isnan(x), mean, x) - mean) / deviation
    normal = -(standard**2) / 2 - jnp.log(deviation) - jnp.float32(np.log(2 * np.pi) / 2)
    return jnp.concatenate([tables, normal if semiring == "max" else jnp.where(jnp.isnan(x), 0, normal)])


def from_leaves(circuit: Circuit, leaves: jax.Array, *, semiring: Semiring = "sum") -> jax.Array:
    """`[B]` logarithm of the root from those of the leaves, `[leaves, B]`; its derivatives are the posteriors."""
    return _up(circuit.layers, circuit.log_weights, leaves, circuit.shape, semiring)[-1]


def from_leaves_upward(circuit: Circuit, leaves: jax.Array, *, semiring: Semiring = "sum") -> jax.Array:
    """`[Q, B]` logarithms of all nodes: leaves, then layer by layer, the root last."""
    return _up(circuit.layers, circuit.log_weights, leaves, circuit.shape, semiring)


@functools.partial(jax.jit, static_argnames=("shape", "semiring"))
def _up(
    layers: tuple[Layer, ...], log_weights: jax.Array, leaves: jax.Array, shape: Shape, semiring: Semiring
) -> jax.Array:  # fmt: skip
    below = leaves
    for layer, (kind, size) in zip(layers, shape.layers, strict=True):
        values = below[layer.child]
        if kind == "product":
            here = jax.ops.segment_sum(values, layer.parent, size, indices_are_sorted=True)
        else:
            here = _fold(values + log_weights[layer.edge][:, None], layer.parent, size, semiring)
        below = jnp.concatenate([below, here])
    return below


def _fold(values: jax.Array, parent: jax.Array, size: int, semiring: Semiring) -> jax.Array:
    highest = jax.ops.segment_max(values, parent, size, indices_are_sorted=True)
    if semiring == "max":
        return highest
    # The maximum only keeps the exponentials in range: no derivative goes through it.
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0))
    total = jax.ops.segment_sum(jnp.exp(values - shift[parent]), parent, size, indices_are_sorted=True)
    positive = total > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, total, 1)) + shift, -jnp.inf)
