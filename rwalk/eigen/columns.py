"""Blocks of vectors as columns, `[n, k]`: what an iteration does with them, on one device or on several.

A neighbour's row lies together in memory, so that a product with the stencil costs little more than a copy. Where the
lattice is spread over devices each holds the rows of its voxels: XLA exchanges borders for products, and sums the inner
products, in which the order of the sums is all that differs.

Legend: n voxels; k vectors of a block; s vectors in all blocks together.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwalk.eigen.pencil import Pencil
from rwalk.eigen.ritz import coefficients, unit
from rwalk.stencil import Stencil, apply_columns, on_host, placed_like, reciprocal

Blocks = tuple[jax.Array, ...]
EXACT = lax.Precision.HIGHEST  # products of blocks must not be rounded to less than the dtype on an accelerator
ROWS = 2048  # of a block that are multiplied at a time: they stay in a cache


def weight(pencil: Pencil) -> jax.Array | None:
    """The diagonal of B `[n]`; None where B is one for every coupled voxel, and vectors are zero on the others."""
    coupled = (diagonal := on_host(pencil.mass.diagonal))[diagonal > 0]
    return None if np.allclose(coupled, 1, rtol=8 * np.finfo(diagonal.dtype).eps, atol=0) else pencil.mass.diagonal


def weighed(mass: jax.Array | None, x: jax.Array) -> jax.Array:
    """B x."""
    return x if mass is None else mass[:, None] * x


def slabs(shape: tuple[int, ...]) -> int:
    """Number of equal parts of the first axis, each of `ROWS` voxels or a few more."""
    rest = int(np.prod(shape[1:]))
    return next(
        (parts for parts in range(shape[0], 0, -1) if shape[0] % parts == 0 and shape[0] // parts * rest >= ROWS), 1
    )


def gram(left: jax.Array, right: jax.Array, parts: int) -> jax.Array:
    """Inner products of the columns of two blocks, `[k, m]`: slab by slab, for the caches and for the rounding."""
    left, right = (block.reshape(parts, -1, block.shape[1]) for block in (left, right))
    return jnp.einsum("pni,pnj->pij", left, right, precision=EXACT).sum(0)


def combine(blocks: Blocks, weights: Sequence[Any]) -> jax.Array:
    """Linear combinations of the columns of several blocks, `[n, k_b]` and `[k_b, k]` to `[n, k]`."""
    products = (jnp.matmul(block, w, precision=EXACT) for block, w in zip(blocks, weights, strict=True))
    return functools.reduce(jnp.add, products)


def sums(x: jax.Array, parts: int) -> jax.Array:
    """Of each column, `[k]`."""
    return x.reshape(parts, -1, x.shape[1]).sum(1).sum(0)


@jax.jit
def residuals(operator: Stencil, mass: jax.Array | None, values: Any, x: jax.Array) -> jax.Array:
    """A x - lambda B x."""
    return apply_columns(operator, x) - values[None] * weighed(mass, x)


def residual_norms(operator: Stencil, mass: jax.Array | None, values: Any, x: jax.Array) -> jax.Array:
    """Lengths of the residuals, `[k]`.

    In a program of their own, as all sums that follow a product with a stencil: fused with it they take ten times as
    long, and a barrier within one program does not keep XLA from fusing them on a CPU.
    """
    return lengths(residuals(operator, mass, values, x), slabs(operator.shape))


@functools.partial(jax.jit, static_argnames="parts")
def lengths(x: jax.Array, parts: int) -> jax.Array:
    """Of each column, `[k]`."""
    return jnp.sqrt(sums(x**2, parts))


@jax.jit
def project(operator: Stencil, mass: jax.Array | None, blocks: Blocks) -> tuple[jax.Array, jax.Array]:
    """S^T B S and S^T A S of the columns S of all blocks, `[s, s]` each, symmetric by construction."""
    parts = slabs(operator.shape)
    results = []
    for image in (functools.partial(weighed, mass), functools.partial(apply_columns, operator)):
        images = [lax.optimization_barrier(image(block)) for block in blocks]
        rows = [
            jnp.concatenate([gram(image, block, parts) for block in blocks[i:]], 1) for i, image in enumerate(images)
        ]
        side = rows[0].shape[1]
        upper = jnp.concatenate([jnp.pad(row, ((0, 0), (side - row.shape[1], 0))) for row in rows])
        results.append(jnp.triu(upper) + jnp.triu(upper, 1).T)
    return results[0], results[1]


recombine = jax.jit(combine)


def split(matrix: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, ...]:
    """Rows of `matrix` `[s, k]` that belong to each block, in the blocks' dtype."""
    edges = np.cumsum([0, *(block.shape[1] for block in blocks)])
    return tuple(matrix[a:b].astype(blocks[0].dtype) for a, b in itertools.pairwise(edges))


def rayleigh_ritz(
    operator: Stencil, mass: jax.Array | None, blocks: Blocks, count: int
) -> tuple[np.ndarray, jax.Array]:
    """The smallest `count` Ritz pairs within the blocks: values `[k]` float64, B-orthonormal columns `[n, k]`."""
    masses, energies = (on_host(matrix) for matrix in project(operator, mass, blocks))
    values, chosen = coefficients(masses, energies, count, unit(blocks[0]))
    return values, recombine(blocks, split(chosen, blocks))


@jax.jit
def amplify(pencil: Pencil, x: jax.Array, edge: jax.Array | float, degree: jax.Array | int) -> jax.Array:
    """Chebyshev polynomial of B^-1 A that is between -1 and 1 on [edge, top] and grows below.

    Args:
        pencil: A, B, and the top of the spectrum.
        x: `[n, k]`.
        edge: eigenvalues below are amplified.
        degree: of the polynomial, an even one rounded up; a gain of g at zero needs about
            acosh(g) / (2 sqrt(edge / top)).

    Returns:
        `[n, k]`.
    """
    centre, half = (pencil.top + edge) / 2, (pencil.top - edge) / 2
    twice = 2 * reciprocal(pencil.mass.diagonal) / half
    mapped = Stencil(
        2 * centre / half - twice * pencil.operator.diagonal,
        -twice[None] * pencil.operator.bands,
        pencil.operator.shape,
        pencil.operator.offsets,
    )

    def two(_: int, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Each vector takes the place of the last but one: a loop that handed them on one by one would copy them.
        first, second = pair
        first = lax.optimization_barrier(apply_columns(mapped, second) - first)
        return first, apply_columns(mapped, first) - second

    return lax.fori_loop(0, degree // 2, two, (x, apply_columns(mapped, x) / 2))[1]


def mild(pencil: Pencil, x: jax.Array, degree: int) -> jax.Array:
    """A Chebyshev filter of gain 75: what lies above top (2.5 / degree)^2 is damped."""
    return amplify(pencil, x, pencil.top * (2.5 / degree) ** 2, degree) if x.shape[1] else x


def random_block(pencil: Pencil, key: jax.Array, count: int) -> jax.Array:
    """Normal vectors that are zero on voxels which are not coupled, `[n, count]`; the same on any devices."""
    mass = pencil.mass.diagonal
    return jnp.where((mass > 0)[:, None], placed_like(jax.random.normal(key, (mass.size, count), mass.dtype), mass), 0)
