"""How far an answer from a basis may be from the exact one, by products that cost less than the answer.

Legend: K pairs in the basis, L labels, n voxels; p and x are `[L, n]`, R the mass, |.| the norm x^T R x.
"""

import jax
import jax.numpy as jnp

from rwalk import storage
from rwalk.eigen import Basis
from rwalk.stencil import Stencil, apply, reciprocal


def weigh(basis: Basis, p: jax.Array) -> jax.Array:
    """Coefficients c = Q^T R p, `[L, n]` to `[L, K]`."""
    return storage.project(p * basis.mass[None], basis.vectors)


def norms(basis: Basis, x: jax.Array) -> jax.Array:
    """(x^T R x)^1/2 of each row, `[L]`."""
    return jnp.sqrt((basis.mass[None] * x**2).sum(1))


def tails(basis: Basis, p: jax.Array, c: jax.Array, gamma: jax.Array | float) -> jax.Array:
    """Bound on the error with the first k pairs: gamma / (lambda_k+1 + gamma) (|p|^2 - |c_1..k|^2)^1/2, `[L, K]`.

    The value after the last is not known; the last itself is below it, so that the bound holds for k = K too.
    """
    left = jnp.sqrt(jnp.maximum(norms(basis, p)[:, None] ** 2 - jnp.cumsum(c**2, 1), 0))
    following = jnp.concatenate([basis.values[1:], basis.values[-1:]])
    return (gamma / (following + gamma))[None] * left


def enough(basis: Basis, p: jax.Array, c: jax.Array, gamma: jax.Array | float, tol: jax.Array | float) -> jax.Array:
    """Smallest number of pairs whose bound is at most tol |p| for every label, `[]`; K where none suffices."""
    good = (tails(basis, p, c, gamma) <= tol * norms(basis, p)[:, None]).all(0)
    return jnp.where(good.any(), jnp.argmax(good) + 1, basis.values.size)


def promised(basis: Basis, p: jax.Array, gamma: jax.Array | float, used: jax.Array) -> jax.Array:
    """Relative error that x_K with so many pairs keeps for every label, by `tails`, `[]`."""
    bounds = tails(basis, p, weigh(basis, p), gamma) * reciprocal(norms(basis, p))[:, None]  # no prior: no error
    return bounds.max(0)[used - 1]


@jax.jit
def guaranteed(
    mass: jax.Array, laplacian: Stencil, x: jax.Array, p: jax.Array, gamma: jax.Array | float, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Bounds that suppose nothing of a basis, for priors with or without seeds, at which x is exact.

    The smallest value of R^-1 A is not below gamma: |error| <= |r|_R^-1 / gamma; at a voxel as in `error_bound`.

    Args:
        mass: `[n]` R.
        laplacian: L.
        x: `[L, n]`, the labels at the seeds.
        p: `[L, n]` priors.
        gamma: weight of the priors.
        positions: `[M]` flat indices of the seeds, whose rows are no part of the system.

    Returns:
        The bound in the R-norm `[L]` and the pointwise one `[L]`.
    """
    residual = mass[None] * (gamma * (p - x)) - apply(laplacian, x)
    strength = (residual * reciprocal(mass)[None]).at[:, positions].set(0)
    return jnp.sqrt((mass[None] * strength**2).sum(1)) / gamma, jnp.abs(strength).max(1) / gamma


def error_bound(
    basis: Basis, laplacian: Stencil, x: jax.Array, p: jax.Array, gamma: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """How far x can be from the solution of (L + gamma R) x = gamma R p, from one product with L.

    With r the residual and c = Q^T r: |error|^2 <= sum_i (c_i / (lambda_i + gamma))^2 + |r - R Q c|_R^-1^2 /
    (lambda_K + gamma)^2, exact for the known modes. And at every voxel |error| <= max |r_i| / (gamma R_i), since
    L + gamma R is an M-matrix with row sums gamma R. The first supposes exact pairs, the second nothing.

    Args:
        basis: eigenpairs.
        laplacian: L.
        x: `[L, n]`.
        p: `[L, n]`.
        gamma: weight of the priors.

    Returns:
        The bound in the R-norm `[L]` and the pointwise one `[L]`.
    """
    residual = basis.mass[None] * (gamma * (p - x)) - apply(laplacian, x)
    strength = residual * reciprocal(basis.mass)[None]
    c = storage.project(residual, basis.vectors)
    known = (c / (basis.values + gamma)[None]) ** 2
    rest = jnp.maximum((residual * strength).sum(1) - (c**2).sum(1), 0) / (basis.values[-1] + gamma) ** 2
    return jnp.sqrt(known.sum(1) + rest), jnp.abs(strength).max(1) / gamma
