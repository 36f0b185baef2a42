"""Gaussian mixture of intensities on a line, fitted by expectation maximisation.

Legend: N values (or N levels of a histogram, with their counts as weights), K components.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

FLOOR = 1e-6
"""Added to every variance, so that a component cannot shrink onto one level."""


class Mixture(NamedTuple):
    """Fitted mixture, components in ascending order of their start."""

    mean: jax.Array
    """[K]"""
    variance: jax.Array
    """[K]"""
    share: jax.Array
    """[K] sums to one."""
    log_likelihood: jax.Array
    """[] mean over values, before the last update."""
    iterations: jax.Array
    """[] number of updates."""
    converged: jax.Array
    """[] bool; False where the number of iterations ran out first."""


@functools.partial(jax.jit, static_argnames="components")
def fit(
    values: ArrayLike,
    components: int,
    *,
    weights: ArrayLike | None = None,
    tolerance: ArrayLike = 1e-3,
    iterations: ArrayLike = 1000,
) -> Mixture:
    """Fit a mixture of Gaussians from a start by k-means, until the likelihood stands still.

    Without random numbers: k-means itself starts at the quantiles (k + 1/2) / K.

    Args:
        values: `[N]` floating.
        components: K, static.
        weights: `[N]` non-negative; None counts every value once.
        tolerance: change of the mean log-likelihood in one update that counts as standing still. Along a flat
            likelihood components still move: a smaller tolerance gives another mixture, not only a more exact one.
        iterations: largest number of updates.

    Returns:
        Mixture.

    Raises:
        ValueError: values are no list, weights have another shape, or K is not positive.
        TypeError: values are not floating.

    Source: Dempster, Laird & Rubin 1977; Lloyd 1982 for the start.
    """
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"values must be floating, got {values.dtype}; cast them first")
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values must be a non-empty list [N], got shape {values.shape}; ravel an image first")
    weights = jnp.ones_like(values) if weights is None else jnp.asarray(weights).astype(values.dtype)
    if weights.shape != values.shape:
        raise ValueError(f"weights must have the shape of values, {values.shape}, got {weights.shape}")
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
    weights = weights / weights.sum()

    def update(mixture: Mixture) -> Mixture:
        joint = _log_joint(mixture, values)
        evidence = jax.nn.logsumexp(joint, axis=0)
        fitted = _moments(jnp.exp(joint - evidence[None, :]) * weights[None, :], values)
        likelihood = (weights * evidence).sum()
        still = jnp.abs(likelihood - mixture.log_likelihood) < tolerance
        return Mixture(*fitted, likelihood, mixture.iterations + 1, still)

    start = _moments(_k_means(values, weights, components), values)
    unknown = jnp.asarray(-jnp.inf, values.dtype)
    mixture = Mixture(*start, unknown, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    return lax.while_loop(lambda m: ~m.converged & (m.iterations < iterations), update, mixture)


def _moments(parts: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, variance and share of each component from the weight of every value in it, `[K, N]`."""
    share = parts.sum(1)
    safe = jnp.maximum(share, jnp.finfo(share.dtype).tiny)
    mean = (parts * values[None, :]).sum(1) / safe
    variance = (parts * (values[None, :] - mean[:, None]) ** 2).sum(1) / safe + FLOOR
    return mean, variance, share


def _k_means(values: jax.Array, weights: jax.Array, components: int) -> jax.Array:
    """Weights `[K, N]` of the values in each cluster."""
    order = jnp.argsort(values)
    levels = (jnp.arange(components, dtype=values.dtype) + 0.5) / components
    rank = jnp.searchsorted(jnp.cumsum(weights[order]), levels)
    centres = values[order][jnp.minimum(rank, len(values) - 1)]

    def assign(centres: jax.Array) -> jax.Array:
        nearest = jnp.abs(values[None, :] - centres[:, None]).argmin(0)
        return jnp.where(nearest[None, :] == jnp.arange(components)[:, None], weights[None, :], 0)

    def move(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        centres, _, count = carry
        parts = assign(centres)
        total = parts.sum(1)
        means = (parts * values[None, :]).sum(1) / jnp.where(total > 0, total, 1)
        moved = jnp.where(total > 0, means, centres)
        return moved, jnp.abs(moved - centres).max(), count + 1

    # Rounding may let centres swing in their last digits for ever: a bound, and a width that counts as no move.
    width = 4 * jnp.finfo(values.dtype).eps * jnp.abs(values).max()
    start = (centres, jnp.asarray(jnp.inf, values.dtype), jnp.zeros((), jnp.int32))
    centres, _, _ = lax.while_loop(lambda c: (c[1] > width) & (c[2] < 300), move, start)
    return assign(centres)


def _log_joint(mixture: Mixture, values: jax.Array) -> jax.Array:
    """Logarithm of share times density, `[K, N]`."""
    mean, variance, share = (x[:, None] for x in mixture[:3])
    quadratic = (values[None, :] - mean) ** 2 / variance
    return jnp.log(share) - (quadratic + jnp.log(2 * jnp.pi * variance)) / 2


@jax.jit
def posterior(mixture: Mixture, values: ArrayLike) -> jax.Array:
    """Probability of each component given a value: a soft map of K unordered regions.

    Args:
        mixture: from `fit`.
        values: `[N]` floating.

    Returns:
        `[K, N]`, sums to one over K.
    """
    return jax.nn.softmax(_log_joint(mixture, jnp.asarray(values)), axis=0)
