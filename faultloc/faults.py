"""Where the fault is, given the exact posterior of the subclasses: any number of faults, or exactly one.

Legend: see `faultloc.tflm`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import tflm


def buggy(
    order: tflm.Schedule, tables: tflm.Tables, relation: jax.Array, evidence: jax.Array, odds: jax.Array
) -> jax.Array:
    """`[N, ...]` probability that each statement is buggy, any number of them being so.

    A statement of subclass k is buggy with probability sigmoid(odds_n(k)), independently given the subclasses.

    Args:
        order: see `tflm.log_total`.
        tables: likewise.
        relation: likewise.
        evidence: likewise.
        odds: `[N, K, ...]` log-odds of a bug; -inf where there cannot be one.
    """
    return (tflm.subclasses(order, tables, relation, evidence) * jax.nn.sigmoid(odds)).sum(1)


def single_fault(
    order: tflm.Schedule, tables: tflm.Tables, relation: jax.Array, evidence: jax.Array, odds: jax.Array
) -> jax.Array:
    """`[N, ...]` log-probability that the bug is at each statement, exactly one statement of the program being buggy.

    With Q0_n(k) the posterior of z_n when every statement is clean, P(n) is proportional to sum_k Q0_n(k) exp
    odds_n(k); this is the derivative of `tflm.log_total` with respect to the log-indicator of a bug at the clean point.

    Args:
        order: see `tflm.log_total`; the statements of one program.
        tables: likewise.
        relation: likewise.
        evidence: likewise.
        odds: `[N, K, ...]` log-odds of a bug; -inf where there cannot be one.
    """
    clean = evidence - jax.nn.softplus(odds)
    with_bug = jax.nn.logsumexp(odds, axis=1, b=tflm.subclasses(order, tables, relation, clean))
    return with_bug - jax.nn.logsumexp(with_bug, axis=0, keepdims=True)


def posterior(
    parent: np.ndarray, tables: tflm.Tables, relation: np.ndarray, evidence: np.ndarray, odds: np.ndarray
) -> np.ndarray:
    """`[N]` of `single_fault` for one program on the host.

    The number of statements is rounded up to a power of two, so that programs of similar size share a compiled pass.

    Args:
        parent: `[N]` see `tflm.schedule`.
        tables: arrays of the host or of a device.
        relation: `[N]`.
        evidence: `[N, K]`.
        odds: `[N, K]`.
    """
    size = len(parent)
    fill = tflm.bucket(size) - size
    tables = tflm.Tables(*(jnp.asarray(each, jnp.float32) for each in tables))
    order = tflm.schedule(np.pad(parent, (0, fill), constant_values=-1))
    rows = jnp.asarray(np.pad(relation, (0, fill)), jnp.int32)
    seen = jnp.asarray(np.pad(evidence, ((0, fill), (0, 0))), jnp.float32)
    chances = jnp.asarray(np.pad(odds, ((0, fill), (0, 0)), constant_values=-np.inf), jnp.float32)
    return np.asarray(_single_fault(order, tables, rows, seen, chances))[:size]


_single_fault = jax.jit(single_fault)
