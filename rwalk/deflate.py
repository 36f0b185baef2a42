"""Answers to any tolerance that start from a basis: conjugate gradients in which the basis takes care of its own modes.

Multigrid does not see small pieces with weak borders; these are the lowest modes of a volume. The basis holds them, and
the two together need a fraction of the steps of either. Every answer has a bound at every voxel that supposes nothing.

Legend: K pairs, L labels, n voxels; A is the operator on the free voxels, blocks are `[k, n]`.
Source: deflation after Nicolaides 1987 and Tang, Nabben, Vuik and Erlangga 2009 (A-DEF2); the bound is derived here.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rwalk import graph, multigrid, solve
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, reciprocal

EXACT = jax.lax.Precision.HIGHEST
DROPPED = 1e-6  # share of the largest eigenvalue of the coarse matrix below which a direction is left out
CERTIFIED = 0.01  # residual at which the steps to the seeds, which certify the error, are known well enough


class Certified(NamedTuple):
    """Probabilities and how far they may be from the exact ones.

    Attributes:
        x: `[L, n]`.
        iterations: `[]` steps taken.
        residual: `[L]` relative, each row of the system scaled to unit diagonal.
        bound: `[L]` on |x - exact| in the norm of R; infinite where no certificate was found.
        pointwise: `[n]`, no label's probability at this voxel is further off (maximum principle); infinite likewise.
    """

    x: jax.Array
    iterations: jax.Array
    residual: jax.Array
    bound: jax.Array
    pointwise: jax.Array


class Coarse(NamedTuple):
    """The space of the basis on the free voxels: W `[K, n]` and the pseudo-inverse of W A W^T `[K, K]`."""

    block: jax.Array
    inverse: jax.Array


def coarse_of(basis: Basis, operator: Stencil, root: jax.Array) -> Coarse:
    """The coarse space of an operator with unit diagonal.

    Args:
        basis: pairs, of this graph or a similar one.
        operator: A, scaled.
        root: `[n]`, square root of the diagonal it had before, zero on voxels that are not free.

    Returns:
        The space.
    """
    block = (basis.vectors.astype(root.dtype) * root[:, None]).T
    matrix = jnp.matmul(apply(operator, block), block.T, precision=EXACT)
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), jnp.finfo(matrix.dtype).tiny))
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2 / (size[:, None] * size[None]))
    kept = values > DROPPED * values[-1]
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    return Coarse(block / size[:, None], jnp.matmul(vectors * inverse[None], vectors.T, precision=EXACT))


def correct(coarse: Coarse, residual: jax.Array) -> jax.Array:
    """W^T (W A W^T)^-1 W r, `[k, n]`."""
    c = jnp.matmul(residual, coarse.block.T, precision=EXACT)
    return jnp.matmul(jnp.matmul(c, coarse.inverse, precision=EXACT), coarse.block, precision=EXACT)


@functools.partial(jax.jit, static_argnames=("regions", "normalised", "maximum", "degree", "certify"))
def random_walker(
    basis: Basis,
    lattice: Lattice,
    *,
    regions: int,
    seeds: jax.Array | None = None,
    priors: jax.Array | None = None,
    gamma: jax.Array | float = 0.0,
    normalised: bool = True,
    start: jax.Array | None = None,
    tol: float = 1e-4,
    maximum: int = 60,
    degree: int = 2,
    certify: bool = True,
) -> Certified:
    """Solve the random walker with seeds, priors or both, to a residual, with the help of a basis.

    Args:
        basis: eigenpairs of this graph, or of a similar one.
        lattice: the graph.
        regions: number of labels L.
        seeds: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        priors: `[L, *shape]`.
        gamma: weight of the priors.
        normalised: the priors are weighted by the degree, else evenly.
        start: `[L, n]` first guess: an answer of `rwalk.online`, or the one before this interaction; none if it is
            worse than zero.
        tol: of the residual.
        maximum: steps at most.
        degree: of the multigrid smoother.
        certify: find the bounds, at the price of one more right-hand side; else they are infinite.

    Returns:
        The answer.
    """
    system = solve.assemble(lattice, regions=regions, seeds=seeds, priors=priors, gamma=gamma, normalised=normalised)
    unit = jnp.sqrt(reciprocal(system.operator.diagonal))
    root = jnp.where(system.free, reciprocal(unit), 0)
    scaled = congruent(system.operator, unit)
    hierarchy = multigrid.setup(scaled, root)
    coarse = coarse_of(basis, scaled, root)
    mass = jnp.where(system.free, graph.mass(lattice, normalised=normalised), 0)
    right = jnp.concatenate([system.right, mass[None]]) if certify else system.right
    first = jnp.zeros_like(system.right) if start is None else start
    first = jnp.where(system.free[None], first, 0) * root[None]
    if certify:
        first = jnp.concatenate([first, jnp.zeros_like(first[:1])])
    tols = jnp.where(jnp.arange(right.shape[0]) < regions, tol, CERTIFIED).astype(right.dtype)

    def precondition(r: jax.Array) -> jax.Array:
        z = multigrid.vcycle(hierarchy, r, degree=degree)
        return z + correct(coarse, r - apply(scaled, z))

    right = unit[None] * right
    first = _better(scaled, coarse, right, first)
    y, count, residual, _ = solve.conjugate_gradients(scaled, precondition, right, first, tols, maximum)
    x = unit[None] * y
    left = system.right - apply(system.operator, x[:regions])
    if certify:
        bound, pointwise = certificate(system.operator, x[-1], left, mass)
    else:
        bound, pointwise = jnp.full(regions, jnp.inf, x.dtype), jnp.full(x.shape[1], jnp.inf, x.dtype)
    return Certified(x[:regions] + system.known, count, residual[:regions], bound, pointwise)


def certificate(
    operator: Stencil, steps: jax.Array, residual: jax.Array, mass: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Bounds on the error e of A e = r for an M-matrix A, from any w >= 0 with A w > 0.

    |r| <= c A w implies |e| <= c w at every voxel, since A^-1 >= 0; with A w = R, w would be the mean number of steps
    to the seeds. The smallest eigenvalue of R^-1 A is not below min A w / (R w) (Barta), so |e| <= |r|_R^-1 over that.

    Args:
        operator: A, the identity on voxels that are not free.
        steps: `[n]` w, from an inexact solve: only its residual's sign matters.
        residual: `[L, n]` r, zero on voxels that are not free.
        mass: `[n]` R, zero there.

    Returns:
        The bound in the R-norm `[L]` and at each voxel `[n]`; infinite if A w > 0 does not hold.

    Source: derived here; Barta 1937.
    """
    free = mass > 0
    w = jnp.where(free, jnp.maximum(steps, 0), 0)
    flow = apply(operator, w)
    valid = jnp.where(free, flow > 0, True).all()
    ratio = jnp.where(free[None], jnp.abs(residual) / jnp.where(flow > 0, flow, 1)[None], 0).max(1)
    lowest = jnp.where(free, flow / jnp.where(mass * w > 0, mass * w, 1), jnp.inf).min()
    spectral = jnp.sqrt((residual**2 * reciprocal(mass)[None]).sum(1)) / lowest
    bound = jnp.minimum(spectral, ratio * jnp.sqrt((mass * w**2).sum()))
    return jnp.where(valid, bound, jnp.inf), jnp.where(valid, ratio.max() * w, jnp.inf)


def _better(operator: Stencil, coarse: Coarse, b: jax.Array, start: jax.Array) -> jax.Array:
    """The start or zero, each made exact within the coarse space: whichever has less energy, a label at a time.

    x^T A x / 2 - b^T x is half the squared error in the energy norm, but for a constant: the better one is known.
    """

    def corrected(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = x + correct(coarse, b - apply(operator, x))
        return x, (x * (apply(operator, x) / 2 - b)).sum(1)

    (given, energy), (none, other) = corrected(start), corrected(jnp.zeros_like(start))
    return jnp.where((energy < other)[:, None], given, none)
