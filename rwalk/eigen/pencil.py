"""The eigenproblem A y = lambda B y that all solvers share: A with unit diagonal, B diagonal on the finest level.

L q = lambda R q becomes this by q = D^-1/2 y: A = D^-1/2 L D^-1/2, B = R / D. The normalised problem has B = 1.

Legend: n voxels.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rwalk import graph
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, congruent, reciprocal


class Pencil(NamedTuple):
    """A, B and what goes with them.

    Attributes:
        operator: A.
        mass: B as a stencil without bands; zero on voxels that are not coupled.
        root: `[n]` D^-1/2, zero there too.
        near_null: `[n]` D^1/2, which A annihilates.
        top: `[]`, not below the largest eigenvalue.
        measure: `[n]` R.
    """

    operator: Stencil
    mass: Stencil
    root: jax.Array
    near_null: jax.Array
    top: jax.Array
    measure: jax.Array


@functools.partial(jax.jit, static_argnames="normalised")
def pencil_of(lattice: Lattice, mass: jax.Array | None = None, *, normalised: bool = True) -> Pencil:
    """Write down the eigenproblem of a lattice: for a mass R `[n]`, else as `rwalk.graph.mass` has it."""
    degrees = graph.degree(lattice).ravel()
    root = jnp.sqrt(reciprocal(degrees))
    mass = graph.mass(lattice, normalised=normalised) if mass is None else mass
    scaled = mass * root**2
    empty = Stencil(scaled, jnp.zeros((0, scaled.size), scaled.dtype), lattice.shape, ())
    top = 2 * reciprocal(jnp.where(scaled > 0, scaled, jnp.inf).min())
    return Pencil(congruent(graph.stencil_of(lattice), root), empty, root, jnp.sqrt(degrees), top, mass)
