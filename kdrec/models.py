"""Rankers: categorical columns share one embedding table; four trunks; one logit for each task.

Legend: S rows of the table, E embedding width, F categorical columns, M numeric columns, D = F E + M, K tasks, H trunk
width, B events.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

TRUNKS = ("mlp", "dlrm", "dcn", "mmoe")
Params = dict[str, Any]


class Spec(NamedTuple):
    """Shape of a ranker.

    Attributes:
        trunk: one of `TRUNKS`.
        vocabulary: S.
        features: F.
        numeric: M.
        tasks: K.
        embedding: E.
        layers: widths of the hidden layers; the last one is H.
        crosses: cross layers of `dcn`.
        experts: experts of `mmoe`.
    """

    trunk: str
    vocabulary: int
    features: int
    numeric: int
    tasks: int
    embedding: int
    layers: tuple[int, ...]
    crosses: int
    experts: int

    def scaled(self, factor: float) -> "Spec":
        """The same trunk with embedding and layers this much wider."""
        return self._replace(
            embedding=max(1, round(self.embedding * factor)),
            layers=tuple(max(1, round(width * factor)) for width in self.layers),
        )


class Output(NamedTuple):
    """What a ranker says of B events.

    Attributes:
        logits: `[B, K]`.
        hidden: `[B, 1, H]`, or `[B, K, H]` of a trunk with a path for each task; what heads read.
    """

    logits: jax.Array
    hidden: jax.Array


class Dense(nnx.Module):
    """x W + b; W normal with variance 2 / fan-in (He et al. 2015), b zero."""

    def __init__(self, key: jax.Array, inputs: int, outputs: int) -> None:
        self.kernel = nnx.Param(jax.random.normal(key, (inputs, outputs)) * (2 / max(inputs, 1)) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, inputs]` to `[B, outputs]`."""
        bias = self.bias[...]
        return x @ self.kernel[...] + bias[None]


class Mlp(nnx.Module):
    """Dense layers with rectified outputs."""

    def __init__(self, key: jax.Array, inputs: int, layers: tuple[int, ...]) -> None:
        keys = jax.random.split(key, len(layers))
        self.layers: Any = nnx.Dict()
        for number, (each, width) in enumerate(zip(keys, layers, strict=True)):
            self.layers[f"layer{number}"] = Dense(each, inputs, width)
            inputs = width

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, inputs]` to `[B, last width]`."""
        for number in range(len(self.layers)):
            x = jax.nn.relu(self.layers[f"layer{number}"](x))
        return x


class Plain(nnx.Module):
    """A multi-layer perceptron on the concatenated embeddings."""

    def __init__(self, key: jax.Array, spec: Spec) -> None:
        self.mlp = Mlp(key, spec.features * spec.embedding + spec.numeric, spec.layers)

    def __call__(self, embedded: jax.Array, numbers: jax.Array) -> jax.Array:
        """`[B, F, E]` and `[B, M]` to `[B, 1, H]`."""
        return self.mlp(_flat(embedded, numbers))[:, None]


class Dlrm(nnx.Module):
    """Dot products of all pairs of embeddings, with a projection of the numeric columns as one more embedding.

    Source: Naumov et al. 2019, arXiv 1906.00091.
    Differs: the embeddings themselves go into the upper perceptron too, since a stream without numeric columns would
    otherwise leave it nothing of first order.
    """

    def __init__(self, key: jax.Array, spec: Spec) -> None:
        lower, upper = jax.random.split(key)
        vectors = spec.features + bool(spec.numeric)
        self.lower = Dense(lower, spec.numeric, spec.embedding) if spec.numeric else None
        self.upper = Mlp(upper, vectors * spec.embedding + vectors * (vectors - 1) // 2, spec.layers)

    def __call__(self, embedded: jax.Array, numbers: jax.Array) -> jax.Array:
        """`[B, F, E]` and `[B, M]` to `[B, 1, H]`."""
        if self.lower is not None:
            embedded = jnp.concatenate([embedded, self.lower(numbers)[:, None]], axis=1)
        dots = jnp.einsum("bfe,bge->bfg", embedded, embedded)
        rows, columns = jnp.triu_indices(embedded.shape[1], 1)
        return self.upper(jnp.concatenate([embedded.reshape(embedded.shape[0], -1), dots[:, rows, columns]], axis=1))[
            :, None
        ]


class Dcn(nnx.Module):
    """Cross layers x0 * (W x + b) + x beside a perceptron, in parallel.

    Source: Wang et al. 2021 (DCN-V2), equation 1, arXiv 2008.13535.
    """

    def __init__(self, key: jax.Array, spec: Spec) -> None:
        width = spec.features * spec.embedding + spec.numeric
        deep, *keys = jax.random.split(key, spec.crosses + 1)
        self.crosses = nnx.Dict({f"cross{i}": Dense(each, width, width) for i, each in enumerate(keys)})
        self.deep = Mlp(deep, width, spec.layers)

    def __call__(self, embedded: jax.Array, numbers: jax.Array) -> jax.Array:
        """`[B, F, E]` and `[B, M]` to `[B, 1, D + H]`."""
        first = crossed = _flat(embedded, numbers)
        for number in range(len(self.crosses)):
            crossed = first * self.crosses[f"cross{number}"](crossed) + crossed
        return jnp.concatenate([crossed, self.deep(first)], axis=1)[:, None]


class Mmoe(nnx.Module):
    """Experts that all tasks share, mixed by a gate for each task.

    Source: Ma et al. 2018 (MMoE), equations 6 and 7.
    """

    def __init__(self, key: jax.Array, spec: Spec) -> None:
        width = spec.features * spec.embedding + spec.numeric
        gate, *keys = jax.random.split(key, spec.experts + 1)
        self.experts = nnx.Dict({f"expert{i}": Mlp(each, width, spec.layers) for i, each in enumerate(keys)})
        self.gates = Dense(gate, width, spec.tasks * spec.experts)

    def __call__(self, embedded: jax.Array, numbers: jax.Array) -> jax.Array:
        """`[B, F, E]` and `[B, M]` to `[B, K, H]`."""
        flat = _flat(embedded, numbers)
        experts = jnp.stack([self.experts[f"expert{i}"](flat) for i in range(len(self.experts))], axis=1)
        gates = jax.nn.softmax(self.gates(flat).reshape(flat.shape[0], -1, len(self.experts)))
        return jnp.einsum("bke,beh->bkh", gates, experts)


def _flat(embedded: jax.Array, numbers: jax.Array) -> jax.Array:
    return jnp.concatenate([embedded.reshape(embedded.shape[0], -1), numbers], axis=1)


class Heads(nnx.Module):
    """One linear logit a task on the trunk's output."""

    def __init__(self, key: jax.Array, tasks: int, width: int) -> None:
        self.kernel = nnx.Param(jax.random.normal(key, (tasks, width)) * (1 / width) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(tasks))

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """`[B, 1 or K, H]` to `[B, K]`."""
        kernel, bias = self.kernel[...], self.bias[...]
        logits = hidden[:, 0] @ kernel.T if hidden.shape[1] == 1 else jnp.einsum("bkh,kh->bk", hidden, kernel)
        return logits + bias[None]


class Ranker(nnx.Module):
    """Embeddings, a trunk and heads, plus a bias of every value of every column for each task.

    Each part draws from a key of its own, so a part that is added leaves the others as they were.
    """

    def __init__(self, key: jax.Array, spec: Spec) -> None:
        table, trunk, heads = (jax.random.fold_in(key, part) for part in range(3))
        self.embedding = nnx.Param(jax.random.normal(table, (spec.vocabulary, spec.embedding)) * 0.05)
        self.biases = nnx.Param(jnp.zeros((spec.vocabulary, spec.tasks)))
        self.trunk = {"mlp": Plain, "dlrm": Dlrm, "dcn": Dcn, "mmoe": Mmoe}[spec.trunk](trunk, spec)
        self.heads = Heads(heads, spec.tasks, width(spec))

    def __call__(self, ids: jax.Array, numbers: jax.Array) -> Output:
        """`[B, F]` ids and `[B, M]` numbers to logits and what they were made from."""
        hidden = self.trunk(self.embedding[...][ids], numbers)
        return Output(self.heads(hidden) + self.biases[...][ids].sum(1), hidden)


def width(spec: Spec) -> int:
    """Width of what the heads of a ranker read."""
    inputs = spec.features * spec.embedding + spec.numeric
    return spec.layers[-1] + (inputs if spec.trunk == "dcn" else 0)


def init(key: jax.Array, spec: Spec) -> Params:
    """Parameters of a fresh ranker, as nested dictionaries of arrays.

    Args:
        key: what they are drawn from.
        spec: shape of the ranker.

    Returns:
        The parameters.

    Raises:
        ValueError: there is no such trunk, or no layer.
    """
    if spec.trunk not in TRUNKS:
        raise ValueError(f"trunk must be one of {', '.join(TRUNKS)}, got {spec.trunk!r}")
    if not spec.layers:
        raise ValueError("layers must name at least one width, got none; heads read the last layer")
    return nnx.to_pure_dict(nnx.state(Ranker(key, spec)))


def apply(params: Params, spec: Spec, ids: jax.Array, numbers: jax.Array) -> Output:
    """Run a ranker.

    Args:
        params: as of `init`.
        spec: shape of the ranker.
        ids: `[B, F]` int32.
        numbers: `[B, M]`.

    Returns:
        Logits and the trunk's output.
    """
    graph, _ = nnx.split(nnx.eval_shape(lambda: Ranker(jax.random.key(0), spec)))
    return nnx.merge(graph, nnx.State(params))(ids, numbers)


def by_rows(tree: Any, place: Any) -> Any:
    """Split embedding tables, and what an optimiser keeps of them, by rows over devices; all else stays on each.

    Args:
        tree: learners with any leading axes.
        place: `place(array, axis=)` puts an array on the devices, split along an axis.

    Returns:
        The tree, placed.
    """

    def put(path: Any, leaf: Any) -> Any:
        name = getattr(path[-1], "key", None)
        array = np.asarray(leaf)  # an array that is bound to one device could not meet those on several
        return place(array, axis=array.ndim - 2) if name in ("embedding", "biases") else array

    return jax.tree_util.tree_map_with_path(put, tree)


def parameters(spec: Spec) -> int:
    """Number of parameters of a ranker."""
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), spec))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def multiplications(spec: Spec) -> int:
    """Multiplications of one forward pass over one event, those of the dense layers alone; for the ledger of costs."""
    inputs = spec.features * spec.embedding + spec.numeric
    widths = (inputs, *spec.layers)
    mlp = sum(a * b for a, b in itertools.pairwise(widths))
    heads = spec.tasks * width(spec)
    match spec.trunk:
        case "mlp":
            return mlp + heads
        case "dlrm":
            vectors = spec.features + bool(spec.numeric)
            first = vectors * spec.embedding + vectors * (vectors - 1) // 2
            dots = vectors * vectors * spec.embedding + spec.numeric * spec.embedding
            return mlp + (first - inputs) * spec.layers[0] + dots + heads
        case "dcn":
            return mlp + spec.crosses * inputs * inputs + heads
        case _:
            mixing = spec.tasks * spec.experts * (inputs + spec.layers[-1])
            return spec.experts * mlp + mixing + heads
