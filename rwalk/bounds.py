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


def certificate(flow: jax.Array, steps: jax.Array, residual: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bounds on the error e of A e = r for an M-matrix A, from any w >= 0 with A w > 0.

    |r| <= c A w implies |e| <= c w at every voxel, since A^-1 >= 0; with A w = R, w would be the mean number of steps
    to the seeds. The smallest eigenvalue of R^-1 A is not below min A w / (R w) (Barta), so |e| <= |r|_R^-1 over that.

    Args:
        flow: `[n]` A w, or what is not above it.
        steps: `[n]` w, from an inexact solve: only the sign of A w matters.
        residual: `[L, n]` r, zero on voxels that are not free.
        mass: `[n]` R, zero there.

    Returns:
        The bound in the R-norm `[L]` and at each voxel `[n]`; infinite if A w > 0 does not hold.

    Source: derived here; Barta 1937.
    """
    free = mass > 0
    valid = jnp.where(free, (flow > 0) & (steps >= 0), True).all()
    ratio = jnp.where(free[None], jnp.abs(residual) / jnp.where(flow > 0, flow, 1)[None], 0).max(1)
    lowest = jnp.where(free, flow / jnp.where(mass * steps > 0, mass * steps, 1), jnp.inf).min()
    spectral = jnp.sqrt((residual**2 * reciprocal(mass)[None]).sum(1)) / lowest
    bound = jnp.minimum(spectral, ratio * jnp.sqrt((mass * steps**2).sum()))
    return jnp.where(valid, bound, jnp.inf), jnp.where(valid, ratio.max() * steps, jnp.inf)
