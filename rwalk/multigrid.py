"""Smoothed aggregation on a lattice: a hierarchy of ever coarser stencils and the V-cycle that preconditions with it.

Aggregates are cubes of 3 voxels, so that P^T A P closes in the 3^d neighbours and can be read off from 3^d products.

Legend: n voxels of a level, m of the next coarser one; blocks are `[k, n]`.
Source: Vanek, Mandel and Brezina 1996; the lattice form, exact by colours, is ours.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwalk import stencil
from rwalk.stencil import Stencil, apply, in_groups, reciprocal

FACTOR = 3
POWER_STEPS = 15
COLOURS_AT_A_TIME = 9
DROPPED = 1e-6  # share of the largest eigenvalue below which the coarsest matrix counts as singular


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Level:
    """One operator and the way to the next coarser one.

    Attributes:
        operator: A, with unit diagonal.
        near_null: `[n]`, what A nearly annihilates; zero on voxels left out of the coarse levels.
        scale: `[m]`, of the columns of P: gives the coarse operator its unit diagonal.
        top: `[]`, not below the largest eigenvalue of A.
        coarse: shape of the next level.
    """

    operator: Stencil
    near_null: jax.Array
    scale: jax.Array
    top: jax.Array
    coarse: tuple[int, ...] = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hierarchy:
    """Levels from fine to coarse, the coarsest operator, and what solves for it.

    Attributes:
        levels: from fine to coarse.
        coarsest: the operator after the last of them, of m unknowns.
        solver: `[m, m]` its pseudo-inverse, or its lower Cholesky factor.
        factored: it is the factor.
    """

    levels: tuple[Level, ...]
    coarsest: Stencil
    solver: jax.Array
    factored: bool = field(default=False, metadata={"static": True})


def pool(x: jax.Array, shape: tuple[int, ...], coarse: tuple[int, ...]) -> jax.Array:
    """Sums over aggregates, `[k, n]` to `[k, m]`."""
    x = x.reshape(x.shape[0], *shape)
    x = jnp.pad(x, [(0, 0)] + [(0, FACTOR * c - s) for c, s in zip(coarse, shape, strict=True)])
    for axis in range(1, x.ndim):  # sums of slices: a reduction would be slower, and slow to compile behind a product
        x = functools.reduce(jnp.add, [lax.slice_in_dim(x, first, None, FACTOR, axis) for first in range(FACTOR)])
    return x.reshape(x.shape[0], -1)


def _spread(x: jax.Array, shape: tuple[int, ...], coarse: tuple[int, ...]) -> jax.Array:
    """Every voxel takes the value of its aggregate, `[k, m]` to `[k, n]`."""
    k = x.shape[0]
    x = x.reshape(k, *(part for c in coarse for part in (c, 1)))
    x = jnp.broadcast_to(x, (k, *(part for c in coarse for part in (c, FACTOR))))
    x = x.reshape(k, *(FACTOR * c for c in coarse))
    return x[(slice(None), *(slice(s) for s in shape))].reshape(k, -1)


def damping(level: Level) -> jax.Array:
    """Of the step that smooths the prolongation."""
    return 4 / (3 * level.top)


def spread(level: Level, x: jax.Array) -> jax.Array:
    """P_t x, in the scaled columns: `[k, m]` to `[k, n]`."""
    return _spread(level.scale[None] * x, level.operator.shape, level.coarse) * level.near_null[None]


def prolong(level: Level, x: jax.Array) -> jax.Array:
    """P x, P = (I - 4/(3 top) A) P_t: `[k, m]` to `[k, n]`."""
    fine = spread(level, x)
    return fine - damping(level) * apply(level.operator, fine)


def in_memory(level: Level, function: Callable[[Any], Any], x: Any) -> Any:
    """function(x), computed before it is used: XLA would compute it anew for every neighbour that asks for it.

    It stands in a branch of which the compiler does not know that it is always taken. A loop of one turn does the same,
    but copies x.
    """
    return lax.cond(level.near_null[0] >= 0, function, lambda x: x, x)


def prolong_and_apply(
    level: Level, x: jax.Array, finish: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """A correction e = finish(P x), `[k, m]` to `[k, n]`, and A e."""
    fine = spread(level, x)
    e = in_memory(level, lambda fine: finish(fine - damping(level) * apply(level.operator, fine)), fine)
    return e, apply(level.operator, e)


def restrict(level: Level, x: jax.Array) -> jax.Array:
    """P^T x: `[k, n]` to `[k, m]`."""
    smooth = x - damping(level) * apply(level.operator, x)
    return level.scale[None] * pool(level.near_null[None] * smooth, level.operator.shape, level.coarse)


def restrict_in_memory(level: Level, x: jax.Array) -> jax.Array:
    """As `restrict`, with the product in memory before it is summed."""
    smooth = in_memory(level, lambda x: x - damping(level) * apply(level.operator, x), x)
    return level.scale[None] * pool(level.near_null[None] * smooth, level.operator.shape, level.coarse)


def galerkin(level: Level, operator: Stencil) -> Stencil:
    """P^T M P of a symmetric stencil M on the fine level, exactly, from one product per colour (index modulo 3).

    Two coarse voxels of one colour share no neighbour, so row I of the product with all of a colour is the entry of
    the only one of them that is near I.
    """
    space = len(level.coarse)
    indices = jnp.stack(jnp.meshgrid(*(jnp.arange(size) for size in level.coarse), indexing="ij")).reshape(space, -1)
    steps = np.array([FACTOR**axis for axis in range(space)])
    colour = (indices % FACTOR * steps[:, None]).sum(0)

    def product(numbers: jax.Array) -> jax.Array:
        probes = (colour[None] == numbers[:, None]).astype(operator.diagonal.dtype)
        fine, _ = prolong_and_apply(level, probes, lambda e: e)
        return restrict_in_memory(level, in_memory(level, lambda e: apply(operator, e), fine))

    numbers = jnp.arange(FACTOR**space).reshape(-1, min(COLOURS_AT_A_TIME, FACTOR**space))
    products = lax.map(product, numbers).reshape(FACTOR**space, -1)
    around = tuple(o for o in itertools.product((-1, 0, 1), repeat=space) if any(o))
    there = indices[None] + np.array([(0,) * space, *around])[:, :, None]
    inside = ((there >= 0) & (there < np.asarray(level.coarse)[None, :, None])).all(1)
    entries = jnp.take_along_axis(products, (there % FACTOR * steps[None, :, None]).sum(1), axis=0)
    diagonal, *bands = jnp.where(inside, entries, 0)
    return Stencil(diagonal, jnp.stack(bands), level.coarse, around)


def largest(operator: Stencil, steps: int = POWER_STEPS) -> jax.Array:
    """The largest eigenvalue, by power iteration, with a tenth added for what that lacks."""

    def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, _quotient = state
        y = apply(operator, x)
        return y / jnp.maximum(jnp.linalg.norm(y), jnp.finfo(y.dtype).tiny), jnp.vdot(x, y)

    # Alternating signs, unevenly strong: near the top eigenvector of a Laplacian, orthogonal to none.
    flat = jnp.arange(operator.size)
    start = jnp.where(flat % 2 == 0, 1, -1) * (1 + jnp.cos(flat)).astype(operator.diagonal.dtype)
    _, quotient = lax.fori_loop(0, steps + 1, step, (start / jnp.linalg.norm(start), jnp.zeros_like(start[0])))
    return 1.1 * quotient


def largest_of(matrix: Any, steps: int = POWER_STEPS) -> float:
    """As `largest`, of a `scipy.sparse` matrix."""
    flat = np.arange(matrix.shape[0])
    x = np.where(flat % 2 == 0, 1.0, -1.0) * (1 + np.cos(flat))
    for _ in range(steps):
        x = matrix @ x
        x = x / max(np.linalg.norm(x), np.finfo(x.dtype).tiny)
    return float(1.1 * (x @ (matrix @ x)) / max(x @ x, np.finfo(x.dtype).tiny))


@jax.jit
def _coarser(operator: Stencil, near_null: jax.Array, top: jax.Array) -> tuple[Level, Stencil, jax.Array]:
    coarse = tuple(-(-size // FACTOR) for size in operator.shape)
    norm = jnp.sqrt(pool(near_null[None] ** 2, operator.shape, coarse)[0])
    level = Level(operator, near_null, reciprocal(norm), top, coarse)
    product = galerkin(level, operator)
    unit = jnp.sqrt(reciprocal(product.diagonal))
    level = Level(operator, near_null, level.scale * unit, top, coarse)
    # P_t maps the aggregates' norms to the near-null vector; in the scaled columns they are divided by the scale.
    return level, stencil.congruent(product, unit), norm * jnp.sqrt(product.diagonal)


def setup(operator: Stencil, near_null: jax.Array, *, coarsest: int = 600) -> Hierarchy:
    """Build the hierarchy.

    Args:
        operator: symmetric, positive semi-definite, with unit diagonal (zero on voxels that are not coupled), reaching
            no further than the 3^d neighbours, off-diagonal row sums at most one.
        near_null: `[n]`, not negative; zero on voxels that the coarse levels shall leave alone.
        coarsest: unknowns of the last level at most.

    Returns:
        The hierarchy; jittable, no value is looked at.
    """
    levels = []
    top = jnp.asarray(2, operator.diagonal.dtype)
    while operator.size > coarsest:
        level, operator, near_null = _coarser(operator, near_null, top)
        levels.append(level)
        top = largest(operator)
    return Hierarchy(tuple(levels), operator, _pseudo_inverse(operator))


def _pseudo_inverse(operator: Stencil) -> jax.Array:
    matrix = apply(operator, jnp.eye(operator.size, dtype=operator.diagonal.dtype))
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    inverse = jnp.where(values > DROPPED * values[-1], 1 / jnp.where(values > 0, values, 1), 0)
    return (vectors * inverse[None]) @ vectors.T


def solve_factored(factor: jax.Array, b: jax.Array) -> jax.Array:
    """M^-1 of the rows of b, `[k, m]`, for M = C C^T of the lower Cholesky factor C, `[m, m]`.

    For few rows quicker than to find an inverse, on which BLAS puts threads that wait for cores that XLA's hold.
    """
    half = lax.linalg.triangular_solve(factor, b, lower=True, transpose_a=True)
    return lax.linalg.triangular_solve(factor, half, lower=True)


def schedule(degree: int, width: float) -> np.ndarray:
    """Chebyshev semi-iteration on [top / width, top], step = a step + b residual / centre: a and b, `[2, degree]`."""
    ratio = (width - 1) / (width + 1)
    factor, turns = ratio, [(0.0, 1.0)]
    for _ in range(degree - 1):
        following = 1 / (2 / ratio - factor)
        turns.append((following * factor, 2 * following / ratio))
        factor = following
    return np.array(turns).T


def _smoothed(level: Level, b: jax.Array, start: jax.Array | None, degree: int, width: float) -> jax.Array:
    """Chebyshev semi-iteration for A x = b from a start, or from zero: one pass through memory a step.

    x' = x + past (x - before) + fresh (b - A x); a step and a residual of their own would be two passes more.
    """
    centre = level.top * (1 + 1 / width) / 2
    (_, first), *turns = schedule(degree, width).T.tolist()

    def turn(past: float, fresh: float, before: jax.Array | float, x: jax.Array) -> jax.Array:
        return x + past * (x - before) + fresh / centre * (b - apply(level.operator, x))

    if start is None:
        before, x = jnp.zeros_like(b), first / centre * b
    else:
        before, x = start, in_memory(level, functools.partial(turn, 0.0, first, 0.0), start)
    for past, fresh in turns:
        before, x = x, in_memory(level, functools.partial(turn, past, fresh, before), x)
    return x


def _down(level: Level, b: jax.Array, degree: int, width: float) -> tuple[jax.Array, jax.Array]:
    """Smooth from zero: x, and P^T of its residual b - A x."""
    x = _smoothed(level, b, None, degree, width)
    residual = in_memory(level, lambda x: b - apply(level.operator, x), x)
    return x, restrict_in_memory(level, residual)


def _up(level: Level, b: jax.Array, x: jax.Array, coarse: jax.Array, degree: int, width: float) -> jax.Array:
    """Add the prolonged correction, then smooth as on the way down."""
    fine = spread(level, coarse)
    start = in_memory(level, lambda fine: x + fine - damping(level) * apply(level.operator, fine), fine)
    return _smoothed(level, b, start, degree, width)


def vcycle(hierarchy: Hierarchy, b: jax.Array, *, degree: int = 2, width: float = 6.0) -> jax.Array:
    """One symmetric V-cycle from zero: about A^-1 b, a fixed symmetric positive operator.

    Args:
        hierarchy: of A.
        b: `[k, n]`.
        degree: of the Chebyshev smoother, before and after.
        width: the smoother acts on [top / width, top].

    Returns:
        `[k, n]`.
    """
    return in_groups(lambda rows: _cycle(hierarchy, 0, rows, degree, width), b)


def cycle(hierarchy: Hierarchy, b: jax.Array, *, degree: int = 2, width: float = 6.0) -> tuple[jax.Array, jax.Array]:
    """As `vcycle`, of few vectors, and the residual b - A x that it leaves."""
    level = hierarchy.levels[0]
    x = _cycle(hierarchy, 0, b, degree, width)
    return x, in_memory(level, lambda x: b - apply(level.operator, x), x)


def _cycle(hierarchy: Hierarchy, depth: int, b: jax.Array, degree: int, width: float) -> jax.Array:
    if depth == len(hierarchy.levels):
        if hierarchy.factored:
            return solve_factored(hierarchy.solver, b)
        return jnp.matmul(b, hierarchy.solver, precision=lax.Precision.HIGHEST)
    level = hierarchy.levels[depth]
    x, coarse = _down(level, b, degree, width)
    return _up(level, b, x, _cycle(hierarchy, depth + 1, coarse, degree, width), degree, width)
