"""Exact inference in a tractable fault localization model: a distribution over the statements of a program.

Legend: N statements of one program or of many, K latent subclasses, R relations (which kind of statement stands under
which), C chunks of W statements.

Every statement n has a subclass z_n. The subclass of a root has the distribution `prior`, that of any other statement
depends on its parent's through the table of its relation; what is seen at the statement depends on z_n alone:

    P(z, seen) = prod_roots prior(z_n) prod_others table_r(n)(z_parent, z_n) prod_n exp(evidence_n(z_n))

Messages go up the trees once, a whole level at a time, so the cost is linear in N; every posterior is a derivative of
the logarithm of the total, which one reverse pass gives for all statements together. Tables are shared and gathered,
never written out per statement.

Source: reconstruction of the model of Nath, Domingos 2016, from its abstract; the single-fault posterior is ours.
"""

import functools
from typing import Literal, NamedTuple

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
        prior: `[K]` of the subclass of a root.
        table: `[R, K, K]` of a statement's subclass, last axis, given its parent's.
    """

    prior: jax.Array
    table: jax.Array


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
    depth = np.zeros(size, np.int64)
    for node in range(size):
        depth[node] = 0 if parent[node] < 0 else depth[parent[node]] + 1
    chunks = []
    for level in range(int(depth.max(initial=0)), 0, -1):
        members = np.flatnonzero(depth == level)
        chunks += [members[start : start + width] for start in range(0, len(members), width)]
    count = 1 << max(len(chunks) - 1, 0).bit_length()
    node = np.full((count, width), size, np.int32)
    receiver = np.full((count, width), size, np.int32)
    for row, members in enumerate(chunks):
        node[row, : len(members)], receiver[row, : len(members)] = members, parent[members]
    return Schedule(jnp.asarray(node), jnp.asarray(receiver), jnp.asarray(parent < 0))


@functools.partial(jax.jit, static_argnames="semiring")
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
        evidence: `[N, K]` log-probability of what is seen at each statement given its subclass.
        semiring: "sum" adds over subclasses; "max" takes the most probable ones, and then the derivative with respect
            to `evidence` marks them.

    Returns:
        `[]`.
    """
    fold = jax.nn.logsumexp if semiring == "sum" else jnp.max
    # One row more receives what the padding of the chunks sends.
    padded = jnp.concatenate([evidence, jnp.zeros_like(evidence[:1])])
    rows = jnp.concatenate([relation, jnp.zeros_like(relation[:1])])

    def send(beta: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        node, parent = chunk
        message = fold(tables.table[rows[node]] + beta[node][:, None, :], axis=-1)
        message = jnp.where((node < evidence.shape[0])[:, None], message, 0)
        return beta.at[parent].add(message), None

    beta, _ = lax.scan(send, padded, (order.node, order.parent))
    totals = fold(tables.prior[None, :] + beta[:-1], axis=-1)
    return jnp.where(order.root, totals, 0).sum()


def subclasses(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> jax.Array:
    """`[N, K]` posterior of every statement's subclass: the derivative of `log_total` with respect to `evidence`."""
    return _by_evidence(order, tables, relation, evidence, "sum")


def most_probable(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> jax.Array:
    """`[N]` subclasses that are most probable together; where several are, one for each statement of one of them."""
    return _by_evidence(order, tables, relation, evidence, "max").argmax(-1)


def expected_counts(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> Tables:
    """How often each entry of the tables is expected to have been used: what the M-step of soft EM normalises."""
    return _by_tables(order, tables, relation, evidence)


@functools.partial(jax.jit, static_argnames="semiring")
def _by_evidence(
    order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array, semiring: Semiring
) -> jax.Array:
    return jax.grad(lambda seen: log_total(order, tables, relation, seen, semiring=semiring))(evidence)


@jax.jit
def _by_tables(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array) -> Tables:
    return jax.grad(lambda given: log_total(order, given, relation, evidence))(tables)


def buggy(order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array, odds: jax.Array) -> jax.Array:
    """`[N]` probability that each statement is buggy, any number of them being so.

    A statement of subclass k is buggy with probability sigmoid(odds_n(k)), independently given the subclasses.

    Args:
        order: see `log_total`.
        tables: likewise.
        relation: likewise.
        evidence: likewise.
        odds: `[N, K]` log-odds of a bug; -inf where there cannot be one.
    """
    return (subclasses(order, tables, relation, evidence) * jax.nn.sigmoid(odds)).sum(-1)


def single_fault(
    order: Schedule, tables: Tables, relation: jax.Array, evidence: jax.Array, odds: jax.Array
) -> jax.Array:
    """`[N]` log-probability that the bug is at each statement, exactly one statement of the program being buggy.

    With Q0_n(k) the posterior of z_n when every statement is clean, P(n) is proportional to sum_k Q0_n(k) exp
    odds_n(k); this is the derivative of `log_total` with respect to the log-indicator of a bug at the clean point.

    Args:
        order: see `log_total`; the statements of one program.
        tables: likewise.
        relation: likewise.
        evidence: likewise.
        odds: `[N, K]` log-odds of a bug; -inf where there cannot be one.
    """
    clean = evidence - jax.nn.softplus(odds)
    with_bug = jax.nn.logsumexp(odds, axis=-1, b=subclasses(order, tables, relation, clean))
    return with_bug - jax.nn.logsumexp(with_bug)
