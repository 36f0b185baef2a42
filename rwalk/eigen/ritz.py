"""Rayleigh and Ritz: the best eigenpairs within the span of some blocks, small matrices in float64 on the host.

Legend: n voxels; a block is `[k, n]`; s vectors in all blocks together.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from rwalk.blas import one_thread
from rwalk.eigen.pencil import Blocks, combine, grams
from rwalk.stencil import Stencil, apply, one_by_one


def product(operator: Stencil, block: jax.Array) -> jax.Array:
    """A x of a block, in memory before it is used."""
    return one_by_one(lambda rows: apply(operator, rows), block)


def projections(operator: Stencil, mass: Stencil, blocks: Blocks) -> tuple[jax.Array, jax.Array]:
    """S B S^T and S A S^T, `[s, s]` each, for the stacked blocks S; the lower half is the transposed upper one."""
    results = []
    for matrix in (mass, operator):
        rows = [grams((product(matrix, block),), blocks[i:]) for i, block in enumerate(blocks)]
        side = sum(block.shape[0] for block in blocks)
        upper = jnp.concatenate([jnp.pad(row, ((0, 0), (side - row.shape[1], 0))) for row in rows])
        results.append(jnp.triu(upper) + jnp.triu(upper, 1).T)
    return results[0], results[1]


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


@jax.jit
def project(operator: Stencil, mass: Stencil, blocks: Blocks) -> tuple[jax.Array, jax.Array]:
    """`projections`, compiled."""
    return projections(operator, mass, blocks)


@jax.jit
def recombine(weights: Blocks, blocks: Blocks) -> jax.Array:
    """Sum over blocks of weights^T block: `[k_b, k]` and `[k_b, n]` to `[k, n]`."""
    return functools.reduce(jnp.add, (combine(w.T, block) for w, block in zip(weights, blocks, strict=True)))


def split(matrix: np.ndarray, blocks: Blocks) -> Blocks:
    """Rows of `matrix` `[s, k]` that belong to each block, in the blocks' dtype."""
    edges = np.cumsum([0, *(block.shape[0] for block in blocks)])
    return tuple(jnp.asarray(matrix[a:b], blocks[0].dtype) for a, b in itertools.pairwise(edges))


def rayleigh_ritz(operator: Stencil, mass: Stencil, blocks: Blocks, count: int) -> tuple[np.ndarray, jax.Array]:
    """The smallest `count` Ritz pairs within the blocks: values `[k]` float64, B-orthonormal vectors `[k, n]`."""
    masses, energies = project(operator, mass, blocks)
    values, chosen = coefficients(masses, energies, count, unit(masses))
    return values, recombine(split(chosen, blocks), blocks)
