"""Exact inference in a tractable fault localization model: a distribution over the statements of a program.

Legend: N statements of one program or of many, K latent subclasses, R relations (which kind of statement stands under
which), C chunks of W statements, `...` axes of independent models or programs of one shape, which come last.

Every statement n has a subclass z_n. The subclass of a root has the distribution `prior`, that of any other statement
depends on its parent's through the table of its relation; what is seen at the statement depends on z_n alone:

    P(z, seen) = prod_roots prior(z_n) prod_others table_r(n)(z_parent, z_n) prod_n exp(evidence_n(z_n))

Messages go up the trees once, a whole level at a time, so the cost is linear in N; posteriors are derivatives of the
logarithm of the total, and come from one pass down. Derivatives are passes of their own: that of `log_total` is the
pass down, that of `subclasses` both passes along a tangent. Nothing is kept but N K numbers, so that programs of
hundreds of thousands of statements need no checkpointing. Tables are shared and gathered, never written out.

Source: reconstruction of the model of Nath, Domingos 2016, from its abstract; the single-fault posterior is ours.
"""

import functools
import itertools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Semiring = Literal["sum", "max"]
WIDTH = 256


class Schedule(NamedTuple):
    """The order in which messages go up; made once per program by `schedule`.

    Attributes:
        node: `[C, W]` senders, the deepest first, those of a chunk all of one level; N where a chunk is not full.
        parent: `[C, W]` receiver of each; N likewise.
        root: `[N]` bool.
    """

    node: jax.Array
    parent: jax.Array
    root: jax.Array


class Tables(NamedTuple):
    """Log-probabilities that statements share.

    Attributes:
        prior: `[K, ...]` of the subclass of a root.
        table: `[R, K, K, ...]` of a statement's subclass, third axis, given its parent's.
    """

    prior: Any
    table: Any


def schedule(parent: np.ndarray, *, width: int = WIDTH) -> Schedule:
    """Arrange statements for the upward pass.

    Args:
        parent: `[N]` index of the enclosing statement, smaller than its own; -1 at a root.
        width: W. Programs with as many chunks share a compiled pass; their number is rounded up to a power of two.

    Raises:
        ValueError: a parent does not come before its child.
    """
    parent = np.asarray(parent, np.int64)
    size = len(parent)
    if (parent >= np.arange(size)).any() or (parent < -1).any():
        raise ValueError("parent must hold -1 or an earlier statement for each; sort the statements in preorder")
    depth = depths(parent)
    order = np.argsort(-depth, kind="stable")
    bounds = np.flatnonzero(np.diff(depth[order], prepend=-1, append=-1))
    chunks = []
    for start, stop in itertools.pairwise(bounds):
        if depth[order[start]] > 0:
            chunks += [order[first : min(first + width, stop)] for first in range(start, stop, width)]
    count = 1 << max(len(chunks) - 1, 0).bit_length()
    node = np.full((count, width), size, np.int32)
    receiver = np.full((count, width), size, np.int32)
    for row, members in enumerate(chunks):
        node[row, : len(members)], receiver[row, : len(members)] = members, parent[members]
    return Schedule(jnp.asarray(node), jnp.asarray(receiver), jnp.asarray(parent < 0))


def depths(parent: np.ndarray) -> np.ndarray:
    """`[N]` number of statements around each, by doubling the distance that a pointer jumps."""
    depth, up = (parent >= 0).astype(np.int64), parent.copy()
    while True:
        moving = np.flatnonzero(up >= 0)
        if not len(moving):
            return depth
        at = up[moving]
        depth[moving] += depth[at]
        up[moving] = up[at]


def log_total(
    order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array, *, semiring: Semiring = "sum"
) -> jax.Array:
    """Logarithm of the total probability, or of the largest single one.

    With beta_n(k) = evidence_n(k) + sum over children c of logsumexp_k' [table_r(c)(k, k') + beta_c(k')], the total of
    a tree is logsumexp_k [prior(k) + beta_root(k)], and that of a forest the sum over its roots.

    Args:
        order: see `schedule`.
        tables: shared log-probabilities.
        relation: `[N]` row of the table that leads to each statement; that of a root is not used.
        evidence: `[N, K, ...]` log-probability of what is seen at each statement given its subclass.
        semiring: "sum" adds over subclasses; "max" takes the most probable ones, and then the derivative with respect
            to `evidence` marks them.

    Returns:
        `[...]`.
    """
    return _total(semiring, order, relation, tables, evidence)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _total(
    semiring: Semiring, order: Schedule, relation: jax.Array, tables: Tables, evidence: jax.Array
) -> jax.Array:  # fmt: skip
    beta, _ = _up(semiring, order, relation, tables, evidence)
    return _sum_of_roots(semiring, order, tables, beta)


def _total_forward(semiring: Semiring, *given: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    return _total(semiring, *given), given


def _total_backward(semiring: Semiring, given: tuple[Any, ...], slope: jax.Array) -> tuple[Any, ...]:
    found, counts, _ = _moments(semiring, *given)
    scaled = jax.tree.map(lambda each: each * jnp.expand_dims(slope, range(each.ndim - slope.ndim)), (counts, found))
    return None, None, *scaled


_total.defvjp(_total_forward, _total_backward)


def subclasses(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> jax.Array:
    """`[N, K, ...]` posterior of every statement's subclass: the derivative of `log_total` by `evidence`."""
    return _subclasses(order, relation, tables, evidence)


@jax.custom_vjp
def _subclasses(order: Schedule, relation: jax.Array, tables: Tables, evidence: jax.Array) -> jax.Array:
    return _moments("sum", order, relation, tables, evidence)[0]


def _subclasses_forward(*given: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    return _subclasses(*given), given


def _subclasses_backward(given: tuple[Any, ...], slope: jax.Array) -> tuple[Any, ...]:
    # Second derivatives of log_total are symmetric: the transpose is the tangent of its gradient.
    order, relation, tables, evidence = given
    along = functools.partial(_moments, "sum", order, relation, tables)
    _, (found, counts, _) = jax.jvp(along, (evidence,), (slope,))
    return None, None, counts, found


_subclasses.defvjp(_subclasses_forward, _subclasses_backward)


def most_probable(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> jax.Array:
    """`[N, ...]` subclasses that are most probable together; where several assignments are, one of them."""
    return _moments("max", order, relation, tables, evidence)[0].argmax(1)


def expected_counts(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> Tables:
    """How often each entry of the tables is expected to have been used: what the M-step of soft EM normalises."""
    return _moments("sum", order, relation, tables, evidence)[1]


def posteriors(
    order: Schedule,
    tables: Tables,
    relation: jax.Array,
    evidence: jax.Array,
    *,
    semiring: Semiring = "sum",
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Tables, jax.Array]:
    """The results of `subclasses`, `expected_counts` and `log_total` together.

    Args:
        order: see `log_total`.
        tables: likewise.
        relation: likewise.
        evidence: likewise.
        semiring: "max" marks and counts the most probable assignment instead.
        weight: `[N, ...]` how often the tree of each root counts; None: once.
    """
    return _moments(semiring, order, relation, tables, evidence, weight)


@functools.partial(jax.jit, static_argnums=0)
def _moments(
    semiring: Semiring,
    order: Schedule,
    relation: jax.Array,
    tables: Tables,
    evidence: jax.Array,
    weight: jax.Array | None = None,
) -> tuple[jax.Array, Tables, jax.Array]:
    """Both passes: gradients of `log_total` by evidence and by tables, and itself."""
    beta, messages = _up(semiring, order, relation, tables, evidence)
    top = tables.prior[None] + beta[:-1]
    at_roots = jnp.where(_leading(order.root, top), _shares(semiring, top, 1), 0)
    totals = _fold(semiring, top, 1)
    totals = jnp.where(_leading(order.root, totals), totals, 0)
    if weight is not None:  # all that comes down from a root is in proportion to what starts there
        at_roots, totals = at_roots * weight[:, None], totals * weight
    rows = _padded(relation)

    def receive(carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        found, used = carry
        node, parent = chunk
        shares = _shares(semiring, tables.table[rows[node]] + beta[node][:, None], 2, messages[node])
        pairs = found[parent][:, :, None] * shares
        return (found.at[node].add(_sum(pairs, 1)), used.at[rows[node]].add(pairs)), None

    first = _padded(at_roots), jnp.zeros_like(tables.table)
    (found, used), _ = lax.scan(receive, first, (order.node, order.parent), reverse=True)
    return found[:-1], Tables(at_roots.sum(0), used), totals.sum(0)


def _up(
    semiring: Semiring, order: Schedule, relation: jax.Array, tables: Tables, evidence: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`[N + 1, K, ...]` beta and messages, with one more row for what fills up the chunks."""
    rows = _padded(relation)

    def send(carry: tuple[jax.Array, jax.Array], chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        beta, messages = carry
        node, parent = chunk
        message = _fold(semiring, tables.table[rows[node]] + beta[node][:, None], 2)
        message = jnp.where(_leading(node < evidence.shape[0], message), message, 0)
        return (beta.at[parent].add(message), messages.at[node].add(message)), None

    first = _padded(evidence)
    # Both are carried along: XLA copies what a scan stacks up, all of it in every step, on a CPU.
    return lax.scan(send, (first, jnp.zeros_like(first)), (order.node, order.parent))[0]


def _sum_of_roots(semiring: Semiring, order: Schedule, tables: Tables, beta: jax.Array) -> jax.Array:
    totals = _fold(semiring, tables.prior[None] + beta[:-1], 1)
    return jnp.where(_leading(order.root, totals), totals, 0).sum(0)


def _fold(semiring: Semiring, values: jax.Array, axis: int) -> jax.Array:
    if semiring == "max":
        return values.max(axis)
    highest = lax.stop_gradient(values.max(axis, keepdims=True))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    return jnp.log(_sum(jnp.exp(values - highest), axis)) + highest.squeeze(axis)


def _sum(values: jax.Array, axis: int) -> jax.Array:
    """Sum over subclasses, written out: XLA's reductions on a CPU are slow where they take in an exponential."""
    return functools.reduce(jnp.add, (lax.index_in_dim(values, k, axis, False) for k in range(values.shape[axis])))


def _shares(semiring: Semiring, values: jax.Array, axis: int, total: jax.Array | None = None) -> jax.Array:
    """How a total divides among what was added up, or a one for the first of the largest."""
    if semiring == "max":
        return jax.nn.one_hot(values.argmax(axis), values.shape[axis], axis=axis, dtype=values.dtype)
    total = _fold(semiring, values, axis) if total is None else total
    # Where everything is impossible the shares are zeros, not NaN.
    return jnp.exp(values - jnp.expand_dims(jnp.where(jnp.isfinite(total), total, 0), axis))


def _padded(values: jax.Array) -> jax.Array:
    return jnp.concatenate([values, jnp.zeros_like(values, shape=(1, *values.shape[1:]))])


def _leading(mask: jax.Array, like: jax.Array) -> jax.Array:
    """Give `[n]` the rank of `like`, along its first axis."""
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))


def bucket(size: int, smallest: int = WIDTH) -> int:
    """The next power of two, at least `smallest`."""
    return max(smallest, 1 << max(size - 1, 0).bit_length())
