"""Pairs of a changed graph by perturbation theory, for L q = lambda R q where both L and R change.

Legend: K pairs, n voxels; L0, R0 of the graph before, L, R after, dL = L - L0, dR = R - R0; blocks are `[n, K]`.
Source: reconstruction of arXiv 1607.04174 from its abstract; Rayleigh 1894.
"""

import functools

import jax
import jax.numpy as jnp

from rwalk import graph
from rwalk.eigen import Basis, describe
from rwalk.eigen.columns import EXACT
from rwalk.eigen.pencil import Pencil
from rwalk.graph import Lattice
from rwalk.stencil import apply_columns, reciprocal


def perturbed(basis: Basis, before: Lattice, after: Lattice, pencil: Pencil, *, second: bool = False) -> Basis:
    """The pairs to first or second order in the change.

    With s1 = (dL - lambda dR) q the first terms are lambda1 = q^T s1 and q1 = G s1 - 1/2 (q^T dR q) q, where
    G s = sum_{j != i} q_j q_j^T s / (lambda_i - lambda_j) + (R0^-1 s - Q Q^T s) / (lambda_i - nu), nu being the mean
    of the values that are not known. The second, with s2 = (dL - lambda dR) q1 - lambda1 (R0 q1 + dR q), are
    lambda2 = q^T s2 and q2 = G s2 - (1/2 q1^T R0 q1 + q^T dR q1) q.

    Args:
        basis: pairs of `before`.
        before: the graph they belong to.
        after: the graph now, of the same shape.
        pencil: eigenproblem of `after`.
        second: the second terms as well.

    Returns:
        The basis; its vectors are no longer orthonormal beyond that order.

    Differs: vectors whose values lie too close for the formula are not mixed; that only turns them within their span.
    """
    values, vectors = _terms(basis, before, after, pencil.measure, second=second)
    return describe(after, pencil, jnp.where(pencil.measure > 0, pencil.near_null, 0)[:, None] * vectors, values=values)


@functools.partial(jax.jit, static_argnames="second")
def _terms(
    basis: Basis, before: Lattice, after: Lattice, measure: jax.Array, *, second: bool
) -> tuple[jax.Array, jax.Array]:
    q, values, mass = basis.vectors, basis.values[None], basis.mass[:, None]
    gained = measure[:, None] - mass

    def changed(x: jax.Array) -> jax.Array:
        moved = apply_columns(graph.stencil_of(after), x) - apply_columns(graph.stencil_of(before), x)
        return moved - gained * x * values

    def inner(x: jax.Array, y: jax.Array) -> jax.Array:
        return (x * y).sum(0, keepdims=True)

    first = changed(q)
    shift, response = _respond(basis, first)
    moved = response - inner(q, gained * q) / 2 * q
    vectors, shifted = q + moved, values + shift
    if second:
        source = changed(moved) - shift * (mass * moved + gained * q)
        further, response = _respond(basis, source)
        vectors = vectors + response - (inner(moved, mass * moved) / 2 + inner(q, gained * moved)) * q
        shifted = shifted + further
    return jnp.maximum(shifted[0], 0), vectors


def _respond(basis: Basis, source: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q^T s `[1, K]` and G s `[n, K]` of a block s."""
    q, values = basis.vectors, basis.values
    n = jnp.matmul(q.T, source, precision=EXACT)
    gaps = values[None] - values[:, None]
    mix = jnp.where(jnp.abs(n) < jnp.abs(gaps) / 2, n / jnp.where(gaps == 0, 1, gaps), 0)
    unknown = jnp.maximum(basis.size - values.size, 1).astype(values.dtype)
    nu = jnp.maximum((basis.trace - values.sum()) / unknown, values[-1])
    distance = jnp.minimum(values - nu, -jnp.finfo(values.dtype).eps)
    outside = reciprocal(basis.mass)[:, None] * source - jnp.matmul(q, n, precision=EXACT)
    return jnp.diagonal(n)[None], jnp.matmul(q, mix, precision=EXACT) + outside / distance[None]
