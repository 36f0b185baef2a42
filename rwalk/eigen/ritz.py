"""Rayleigh and Ritz: the best eigenpairs within the span of s vectors, by small matrices in float64 on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from rwalk.blas import one_thread


def coefficients(masses: Any, energies: Any, count: int, rounding: float) -> tuple[np.ndarray, np.ndarray]:
    """Solve the small problem S A S^T c = theta S B S^T c.

    Directions in which the vectors are dependent up to rounding are left out: the vectors are scaled to one length and
    the eigenvectors of their inner products with tiny eigenvalues dropped (SVQB), which a Cholesky factor cannot do.

    Args:
        masses: `[s, s]` S B S^T.
        energies: `[s, s]` S A S^T.
        count: pairs wanted.
        rounding: unit of the dtype in which the inner products were taken.

    Returns:
        The smallest Ritz values `[k]` and their coefficients `[s, k]`, k = count or what there is, float64.

    Source: Stathopoulos and Wu 2002 (SVQB).
    """
    masses, energies = (np.asarray(x, np.float64) for x in (masses, energies))
    lengths = np.sqrt(np.maximum(np.diag(masses), 0))
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    with one_thread():
        shares, directions = linalg.eigh(scale[:, None] * (masses + masses.T) / 2 * scale)
        kept = shares > 100 * rounding * shares[-1]
        basis = scale[:, None] * directions[:, kept] / np.sqrt(shares[kept])
        values, vectors = linalg.eigh(basis.T @ ((energies + energies.T) / 2) @ basis)
        return values[:count], (basis @ vectors)[:, :count]


def unit(x: jax.Array) -> float:
    """Of rounding in the dtype of x."""
    return float(jnp.finfo(x.dtype).eps)
