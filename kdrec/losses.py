"""Losses of the two kinds of task: log loss of a binary one, Huber loss of a real one. Legend: n events, K tasks."""

import jax
import jax.numpy as jnp

Real = tuple[bool, ...]  # for each task whether it is real; () where none is


def log_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross entropy -y log s(f) - (1 - y) log(1 - s(f)), elementwise, for labels in [0, 1].

    Args:
        logits: f, any shape.
        labels: y, the same shape; soft ones are allowed.

    Returns:
        The same shape, nats.
    """
    return jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def huber(error: jax.Array) -> jax.Array:
    """Huber loss, elementwise: e^2 / 2 up to |e| = 1, from there on |e| - 1/2.

    Args:
        error: e, any shape, in the unit of the task: what a label is divided by decides where the loss turns linear.

    Returns:
        The same shape.

    Source: Huber 1964.
    """
    size = jnp.abs(error)
    return jnp.where(size <= 1, error**2 / 2, size - 0.5)


def loss(values: jax.Array, labels: jax.Array, real: Real) -> jax.Array:
    """Loss of each task: log loss of logits, Huber loss of values.

    Args:
        values: `[n, K]` logits or values.
        labels: `[n, K]`; soft ones are allowed.
        real: static.

    Returns:
        `[n, K]`.
    """
    if not any(real):
        return log_loss(values, labels)
    return jnp.where(jnp.asarray(real)[None], huber(values - labels), log_loss(values, labels))


def predictions(values: jax.Array, real: Real) -> jax.Array:
    """`[n, K]` probabilities of binary tasks, values of real ones."""
    p = jax.nn.sigmoid(values)
    return jnp.where(jnp.asarray(real)[None], values, p) if any(real) else p
