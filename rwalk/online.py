"""Answers from a basis: no linear system of the image's size is solved, and the error is known.

Legend: K pairs in the basis, L labels, n voxels, M seeds; p and x are `[L, n]`, R the mass, |.| the norm x^T R x.
Derived here from Grady and Sinop 2008 and Andrews, Hamarneh and Saad 2010; of arXiv 1607.04174 only the abstract.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import storage
from rwalk.bounds import enough, error_bound, norms, weigh
from rwalk.eigen import Basis
from rwalk.stencil import Stencil, apply, reciprocal

EXACT = jax.lax.Precision.HIGHEST
LARGEST_SEEDS = 4096


class Answer(NamedTuple):
    """Probabilities and how far they may be from the exact ones.

    Attributes:
        x: `[L, n]`.
        bound: `[L]`, |x - exact| is not above it where the basis is exact.
        pointwise: `[L]`, no voxel is further off than this, whatever the basis (maximum principle).
        used: `[]` pairs that were used.
    """

    x: jax.Array
    bound: jax.Array
    pointwise: jax.Array
    used: jax.Array


def expand(basis: Basis, c: jax.Array) -> jax.Array:
    """Q c, `[L, K]` to `[L, n]`."""
    return storage.expand(c, basis.vectors)


@functools.partial(jax.jit, static_argnames=("polish", "complement"))
def priors(
    basis: Basis,
    laplacian: Stencil,
    p: jax.Array,
    gamma: jax.Array | float,
    *,
    tol: jax.Array | float = 0.0,
    polish: int = 10,
    complement: bool = True,
) -> Answer:
    """Solve (L + gamma R) x = gamma R p in the basis.

    x_K = sum_i gamma/(lambda_i + gamma) c_i q_i over the pairs that `tol` asks for; what p has outside the basis is
    treated as one vector with its Rayleigh quotient, common to all labels so that they still sum to one; then
    `polish` steps of Chebyshev semi-iteration on [lambda_K + gamma, top + gamma], which need no inner products.

    Args:
        basis: eigenpairs.
        laplacian: L.
        p: `[L, n]` priors.
        gamma: weight of the priors, positive.
        tol: relative error allowed to x_K, which decides the number of pairs; 0 uses all.
        polish: steps.
        complement: whether to treat what is outside of the basis; without it x_K alone is truncated.

    Returns:
        The answer; a voxel without edges keeps its prior.
    """
    c = weigh(basis, p)
    used = enough(basis, p, c, gamma, tol)
    c = jnp.where((jnp.arange(c.shape[1]) < used)[None], c, 0)
    share = gamma / (basis.values + gamma)
    if complement:
        energy = (p * apply(laplacian, p)).sum() - (basis.values[None] * c**2).sum()
        left = (norms(basis, p) ** 2).sum() - (c**2).sum()
        quotient = jnp.clip(energy / jnp.where(left > 0, left, 1), basis.values[used - 1], basis.top)
        rest = gamma / (quotient + gamma)
        x = expand(basis, (share - rest)[None] * c) + rest * p
    else:
        x = expand(basis, share[None] * c)
    low = basis.values[used - 1] + gamma
    x = _polish(basis, laplacian, x, p, gamma, low, polish)
    x = jnp.where((basis.mass > 0)[None], x, p)
    return Answer(x, *error_bound(basis, laplacian, x, p, gamma), used)


def _polish(
    basis: Basis, laplacian: Stencil, x: jax.Array, p: jax.Array, gamma: Any, low: jax.Array, steps: int
) -> jax.Array:
    centre, half = (basis.top + gamma + low) / 2, (basis.top + gamma - low) / 2
    inverse, ratio = reciprocal(basis.mass)[None], (basis.top + gamma - low) / (basis.top + gamma + low)
    residual = gamma * (p - x) - inverse * apply(laplacian, x)

    def turn(_: int, state: tuple) -> tuple:
        x, residual, step, factor = state
        residual = residual - inverse * apply(laplacian, step) - gamma * step
        following = 1 / (2 / ratio - factor)
        return x + step, residual, following * factor * step + 2 * following / half * residual, following

    # A loop keeps each step in memory: unrolled, XLA computes the one before anew for every neighbour.
    return jax.lax.fori_loop(0, steps, turn, (x, residual, residual / centre, ratio))[0]


def seeds(basis: Basis, positions: Any, labels: Any, regions: int) -> jax.Array:
    """Solve the random walker with seeds in the basis.

    x = G f + c with sources f at the seeds, G = sum_i q_i q_i^T / lambda_i + (R^-1 - Q Q^T) / nu, nu the mean of the
    values outside the basis. Modes whose value is small stay unknowns of the small system, so that nothing is divided
    by them, and several components of the graph are no exception:
    [G_SS Q_S; Q_S^T -Lambda] [f; c] = [x_S; 0].

    Args:
        basis: eigenpairs.
        positions: `[M]` flat indices of the seeds, each once, on coupled voxels.
        labels: `[M]` their labels 0..L-1.
        regions: L.

    Returns:
        x `[L, n]`, exactly the labels at the seeds.

    Raises:
        ValueError: more seeds than the small system is good for.
    """
    if positions.shape[0] > LARGEST_SEEDS:
        raise ValueError(
            f"{positions.shape[0]} seeds; at most {LARGEST_SEEDS} are answered: give fewer, or use rwalk.random_walker"
        )
    return _seeds(basis, jnp.asarray(positions), jnp.asarray(labels), regions, count_soft(basis))


def count_soft(basis: Basis) -> int:
    """Number of pairs whose values are too small to divide by: at least the constant's."""
    return max(int(np.searchsorted(np.asarray(basis.values), 1e-2 * float(basis.values[-1]), side="right")), 1)


@functools.partial(jax.jit, static_argnames=("regions", "small"))
def _seeds(basis: Basis, positions: jax.Array, labels: jax.Array, regions: int, small: int) -> jax.Array:
    dtype = basis.values.dtype
    mean = mean_outside(basis)
    rows = basis.vectors[positions].astype(dtype)  # [M, K]
    stiff = jnp.arange(basis.values.size) >= small
    weights = jnp.where(stiff, 1 / jnp.where(stiff, basis.values, 1), 0) - 1 / mean
    own = reciprocal(basis.mass)[positions] / mean
    green = jnp.matmul(rows * weights[None], rows.T, precision=EXACT) + jnp.diag(own)
    border = rows[:, :small]
    matrix = jnp.block([[green, border], [border.T, -jnp.diag(basis.values[:small])]])
    wanted = (labels[:, None] == jnp.arange(regions, dtype=labels.dtype)[None]).astype(dtype)
    right = jnp.concatenate([wanted, jnp.zeros((small, regions), dtype)])
    solution = solve_scaled(matrix, right)
    sources, low = solution[: positions.shape[0]], solution[positions.shape[0] :]
    c = weights[:, None] * jnp.matmul(rows.T, sources, precision=EXACT)
    c = c.at[:small].add(low)
    x = expand(basis, c.T)
    x = x.at[:, positions].add((own[:, None] * sources).T)
    return x.at[:, positions].set(wanted.T)


def solve_scaled(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solve a small symmetric system whose rows differ much in size, 1/lambda against R^-1/2."""
    scale = 1 / jnp.sqrt(jnp.maximum(jnp.abs(matrix).max(1), jnp.finfo(matrix.dtype).tiny))
    return jnp.linalg.solve(matrix * scale[:, None] * scale[None], right * scale[:, None]) * scale[:, None]


def mean_outside(basis: Basis) -> jax.Array:
    """nu, the mean of the eigenvalues that are not in the basis, `[]`."""
    left = jnp.maximum(basis.size - basis.values.size, 1).astype(basis.values.dtype)
    return jnp.maximum(
        (basis.trace - basis.values.sum()) / left, basis.values[-1]
    )  # no value outside is below the last


@functools.partial(jax.jit, static_argnames="polish")
def both(
    basis: Basis,
    laplacian: Stencil,
    p: jax.Array,
    gamma: jax.Array | float,
    positions: jax.Array,
    labels: jax.Array,
    *,
    polish: int = 10,
) -> jax.Array:
    """Solve (L_U + gamma R_U) x_U = gamma R_U p_U - B^T x_S in the basis.

    x = x_p + G f, x_p the answer to the priors alone, G = sum_i q_i q_i^T / (lambda_i + gamma) +
    (R^-1 - Q Q^T) / (nu + gamma), and sources f at the seeds such that x has their labels.

    Args:
        basis: eigenpairs.
        laplacian: L.
        p: `[L, n]` priors.
        gamma: weight of the priors, positive.
        positions: `[M]` flat indices of the seeds, each once, on coupled voxels.
        labels: `[M]` their labels.
        polish: steps for x_p, see `priors`.

    Returns:
        x `[L, n]`, exactly the labels at the seeds.
    """
    x = priors(basis, laplacian, p, gamma, polish=polish).x
    wanted = (labels[None] == jnp.arange(p.shape[0], dtype=labels.dtype)[:, None]).astype(p.dtype)
    mean = mean_outside(basis) + gamma
    rows = basis.vectors[positions].astype(p.dtype)
    weights = 1 / (basis.values + gamma) - 1 / mean
    own = reciprocal(basis.mass)[positions] / mean
    green = jnp.matmul(rows * weights[None], rows.T, precision=EXACT) + jnp.diag(own)
    sources = jnp.linalg.solve(green, (wanted - x[:, positions]).T)
    x = x + expand(basis, (weights[:, None] * jnp.matmul(rows.T, sources, precision=EXACT)).T)
    return x.at[:, positions].set(wanted)


def to_simplex(x: jax.Array) -> jax.Array:
    """Cut each probability to [0, 1] and let the labels sum to one: a truncated basis leaves the range a little."""
    cut = jnp.clip(x, 0, 1)
    total = cut.sum(0, keepdims=True)
    return jnp.where(total > 0, cut / jnp.where(total > 0, total, 1), 0)


def margin(x: jax.Array) -> jax.Array:
    """Difference of the two largest probabilities at each voxel, `[L, ...]` to `[...]`; one where L = 1."""
    if x.shape[0] == 1:
        return jnp.ones_like(x[0])
    best = jax.lax.top_k(jnp.moveaxis(x, 0, -1), 2)[0]
    return best[..., 0] - best[..., 1]


def entropy(x: jax.Array) -> jax.Array:
    """Entropy of the labels at each voxel over that of equal ones, `[L, ...]` to `[...]` in [0, 1]."""
    terms = jnp.where(x > 0, -x * jnp.log(jnp.where(x > 0, x, 1)), 0).sum(0)
    return terms / math.log(max(x.shape[0], 2))


def could_flip(x: jax.Array, error: jax.Array | float) -> jax.Array:
    """Voxels whose label could change if each probability is off by up to `error` (`[]` or `[n]`), `[n]` bool."""
    return margin(x) <= 2 * jnp.asarray(error, x.dtype)
