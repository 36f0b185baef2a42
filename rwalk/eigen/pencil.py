"""The eigenproblem A y = lambda B y that all solvers share: A with unit diagonal, B diagonal on the finest level.

L q = lambda R q becomes this by q = D^-1/2 y: A = D^-1/2 L D^-1/2, B = R / D. The normalised problem has B = 1.

Legend: n voxels; blocks of vectors are `[k, n]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rwalk import graph, multigrid
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, reciprocal

EXACT = jax.lax.Precision.HIGHEST  # products of blocks must not be rounded to less than the dtype on an accelerator


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
    return jnp.matmul(left, right.T, precision=EXACT)


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

    def mapped(v: jax.Array) -> jax.Array:
        return (inverse * apply(pencil.operator, v) - centre * v) / half

    def step(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        previous, current = pair
        return current, 2 * mapped(current) - previous

    return jax.lax.fori_loop(1, degree, step, (x, mapped(x)))[1]


def random_block(pencil: Pencil, key: jax.Array, count: int) -> jax.Array:
    """Normal vectors that are zero on voxels which are not coupled, `[count, n]`."""
    mass = pencil.mass.diagonal
    return jnp.where((mass > 0)[None], jax.random.normal(key, (count, mass.size), mass.dtype), 0)


def hierarchy_of(pencil: Pencil, coarsest: int) -> multigrid.Hierarchy:
    """Multigrid of A."""
    return multigrid.setup(pencil.operator, pencil.near_null, coarsest=coarsest)
