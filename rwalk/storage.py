"""Products with eigenvectors that are kept in half the memory, as bfloat16: widened in pieces, never as a whole."""

import jax
import jax.numpy as jnp

EXACT = jax.lax.Precision.HIGHEST
PIECE = 16384  # rows that are widened at a time


def project(x: jax.Array, vectors: jax.Array) -> jax.Array:
    """Compute x Q, `[L, n]` and `[n, K]` to `[L, K]`, in the precision of x."""
    if vectors.dtype == x.dtype:
        return jnp.matmul(x, vectors, precision=EXACT)
    whole = vectors.shape[0] // PIECE * PIECE
    total = jnp.matmul(x[:, whole:], vectors[whole:].astype(x.dtype), precision=EXACT)

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(vectors, i * PIECE, PIECE).astype(x.dtype)
        return total + jnp.matmul(jax.lax.dynamic_slice_in_dim(x, i * PIECE, PIECE, 1), rows, precision=EXACT)

    return jax.lax.fori_loop(0, whole // PIECE, add, total) if whole else total


def expand(c: jax.Array, vectors: jax.Array) -> jax.Array:
    """Compute c Q^T, `[L, K]` and `[n, K]` to `[L, n]`, in the precision of c."""
    if vectors.dtype == c.dtype:
        return jnp.matmul(c, vectors.T, precision=EXACT)
    whole = vectors.shape[0] // PIECE * PIECE
    rest = jnp.matmul(c, vectors[whole:].astype(c.dtype).T, precision=EXACT)
    if not whole:
        return rest

    def piece(i: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(vectors, i * PIECE, PIECE).astype(c.dtype)
        return jnp.matmul(c, rows.T, precision=EXACT)

    pieces = jax.lax.map(piece, jnp.arange(whole // PIECE))
    return jnp.concatenate([jnp.moveaxis(pieces, 0, 1).reshape(c.shape[0], whole), rest], 1)
