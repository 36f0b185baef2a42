"""Preconditioned conjugate gradients for several right-hand sides at once.

Legend: L right-hand sides, n unknowns.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

SETTLED = 10  # times the tolerance of the residual: what the last correction may have been at any voxel


def conjugate_gradients(
    product: Callable[[jax.Array], jax.Array],
    precondition: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    start: jax.Array,
    tol: jax.Array | float,
    maximum: int,
    unit: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Preconditioned conjugate gradients for several right-hand sides at once, each with steps of its own.

    Args:
        product: A x, `[L, n]` to `[L, n]`, of an A with unit diagonal.
        precondition: an approximate inverse of A, `[L, n]` to `[L, n]`, symmetric and positive.
        b: `[L, n]`.
        start: `[L, n]`.
        tol: stop when every |b - A x| <= tol |b|; one for all, or `[L]`.
        maximum: steps at most.
        unit: `[n]` of an entry of x. With it the preconditioned residual, about the error, is at the end below
            `SETTLED` tol of these units at every voxel: the norm of a residual does not see a weakly held piece.

    Returns:
        x `[L, n]`, steps `[]`, relative residuals `[L]`, whether all reached tol `[]`.
    """
    size = jnp.linalg.norm(b, axis=1)
    size = jnp.where(size > 0, size, 1)

    def relative(residual: jax.Array) -> jax.Array:
        return jnp.linalg.norm(residual, axis=1) / size

    def settled(preconditioned: jax.Array) -> jax.Array:
        if unit is None:
            return jnp.ones((), bool)
        return (jnp.abs(unit[None] * preconditioned) <= SETTLED * jnp.asarray(tol).reshape(-1, 1)).all()

    def step(state: tuple) -> tuple:
        x, residual, direction, energy, _, count = state
        image = product(direction)
        curvature = (direction * image).sum(1)
        length = jnp.where(curvature > 0, energy / jnp.where(curvature > 0, curvature, 1), 0)[:, None]
        x, residual = x + length * direction, residual - length * image
        preconditioned = precondition(residual)
        new = (residual * preconditioned).sum(1)
        turn = jnp.where(energy > 0, new / jnp.where(energy > 0, energy, 1), 0)[:, None]
        return x, residual, preconditioned + turn * direction, new, settled(preconditioned), count + 1

    residual = b - product(start)
    direction = precondition(residual)
    energy, count = (residual * direction).sum(1), jnp.zeros((), jnp.int32)
    state = (start, residual, direction, energy, settled(direction), count)
    x, *_, rests, count = lax.while_loop(
        lambda s: ((relative(s[1]) > tol).any() | ~s[4]) & (s[5] < maximum), step, state
    )
    left = relative(b - product(x))
    return x, count, left, (left <= 10 * tol).all() & rests
