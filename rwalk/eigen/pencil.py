"""The eigenproblem A y = lambda B y that all solvers share: A with unit diagonal, B diagonal on the finest level.

L q = lambda R q becomes this by q = D^-1/2 y: A = D^-1/2 L D^-1/2, B = R / D. The normalised problem has B = 1.

Legend: n voxels; blocks of vectors are `[k, n]`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwalk import graph
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, one_by_one, reciprocal

Blocks = tuple[jax.Array, ...]
PIECE = 4096  # entries of a vector that are multiplied at a time
EXACT = lax.Precision.HIGHEST  # products of blocks must not be rounded to less than the dtype on an accelerator


class Pencil(NamedTuple):
    """A, B and what goes with them.

    Attributes:
        operator: A.
        mass: B as a stencil without bands; zero on voxels that are not coupled.
        root: `[n]` D^-1/2, zero there too.
        near_null: `[n]` D^1/2, which A annihilates.
        top: `[]`, not below the largest eigenvalue.
    """

    operator: Stencil
    mass: Stencil
    root: jax.Array
    near_null: jax.Array
    top: jax.Array


@functools.partial(jax.jit, static_argnames="normalised")
def pencil_of(lattice: Lattice, *, normalised: bool = True) -> Pencil:
    """Write down the eigenproblem of a lattice; `normalised` as in `rwalk.graph.mass`."""
    degrees = graph.degree(lattice).ravel()
    root = jnp.sqrt(reciprocal(degrees))
    operator = congruent(graph.stencil_of(lattice), root)
    mass = graph.mass(lattice, normalised=normalised) * root**2
    empty = Stencil(mass, jnp.zeros((0, mass.size), mass.dtype), lattice.shape, ())
    return Pencil(operator, empty, root, jnp.sqrt(degrees), 2 * reciprocal(jnp.where(mass > 0, mass, jnp.inf).min()))


def gram(left: jax.Array, right: jax.Array) -> jax.Array:
    """Inner products of two blocks, `[k, n]` and `[m, n]` to `[k, m]`."""
    return grams((left,), (right,))


def grams(left: Blocks, right: Blocks) -> jax.Array:
    """Inner products of all vectors in the blocks `left` with all in `right`, `[k, m]`.

    They are summed over pieces of the vectors that fit into a cache, of which the multiplication is several times
    faster than of whole vectors, and the rounding errors smaller.
    """

    def piece(first: jax.Array | int, width: int) -> jax.Array:
        rows, columns = (jnp.concatenate([lax.dynamic_slice_in_dim(block, first, width, 1) for block in blocks])
                         for blocks in (left, right))  # fmt: skip
        return jnp.matmul(rows, columns.T, precision=EXACT)

    n = left[0].shape[1]
    whole = n // PIECE
    total = piece(whole * PIECE, n - whole * PIECE)
    return lax.fori_loop(0, whole, lambda i, total: total + piece(i * PIECE, PIECE), total) if whole else total


def combine(coefficients: jax.Array, block: jax.Array) -> jax.Array:
    """Linear combinations of a block's vectors, `[k, m]` and `[m, n]` to `[k, n]`."""
    return jnp.matmul(coefficients, block, precision=EXACT)


@jax.jit
def amplify(pencil: Pencil, x: jax.Array, edge: jax.Array | float, degree: jax.Array | int) -> jax.Array:
    """Chebyshev polynomial of B^-1 A that is at most one on [edge, top] and grows below.

    Args:
        pencil: A, B, and the top of the spectrum.
        x: `[k, n]`.
        edge: eigenvalues below are amplified.
        degree: of the polynomial, at least 1; a gain of g at zero needs about
            acosh(g) / (2 sqrt(edge / top)).

    Returns:
        `[k, n]`.
    """
    centre, half = (pencil.top + edge) / 2, (pencil.top - edge) / 2
    inverse = reciprocal(pencil.mass.diagonal)[None]
    return one_by_one(lambda rows: _amplified(pencil.operator, inverse, centre, half, rows, degree), x)


def _amplified(
    operator: Stencil, inverse: jax.Array, centre: jax.Array, half: jax.Array, x: jax.Array, degree: jax.Array | int
) -> jax.Array:
    def mapped(v: jax.Array) -> jax.Array:
        return (inverse * apply(operator, v) - centre * v) / half

    def step(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        previous, current = pair
        return current, 2 * mapped(current) - previous

    return lax.fori_loop(1, degree, step, (x, mapped(x)))[1]
