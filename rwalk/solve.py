"""The exact random walker: a sparse linear system a label, by conjugate gradients preconditioned with multigrid.

Legend: L labels, n voxels flat in C order.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwalk import aggregation, graph, multigrid
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, reciprocal, restricted


class Solution(NamedTuple):
    """Probabilities and how they were reached.

    Attributes:
        x: `[L, *shape]`; zero outside the graph, and where no seed or prior reaches.
        iterations: `[]` steps taken.
        residual: `[L]`, norm of the last residual over that of the right-hand side, each row scaled to unit diagonal.
        converged: `[]` bool.
    """

    x: jax.Array
    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array


class System(NamedTuple):
    """K x = b for the voxels that are free, the others known: what `assemble` makes of a problem.

    Attributes:
        operator: K, the identity on voxels that are not free.
        right: `[L, n]`, zero on voxels that are not free.
        known: `[L, n]`, zero on free voxels.
        free: `[n]` bool.
    """

    operator: Stencil
    right: jax.Array
    known: jax.Array
    free: jax.Array


def one_hot(seeds: jax.Array, regions: int, dtype: jnp.dtype) -> jax.Array:
    """Indicators of the labels, `[L, *shape]`; all zero at a voxel without a seed (-1)."""
    labels = jnp.arange(regions, dtype=seeds.dtype).reshape((-1,) + (1,) * seeds.ndim)
    return (seeds[None] == labels).astype(dtype)


def assemble(
    lattice: Lattice,
    *,
    regions: int,
    seeds: jax.Array | None = None,
    priors: jax.Array | None = None,
    gamma: jax.Array | float = 0.0,
    normalised: bool = True,
) -> System:
    """Write down (L_U + gamma R_U) x_U = gamma R_U p_U - B^T x_S, with seeds S, priors p, or both.

    Args:
        lattice: the graph.
        regions: L.
        seeds: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        priors: `[L, *shape]`.
        gamma: weight of the priors.
        normalised: R is the degree, else one.

    Returns:
        The system.

    Raises:
        ValueError: neither seeds nor priors, or shapes that do not fit.
    """
    if seeds is None and priors is None:
        raise ValueError("neither seeds nor priors were given; give one of them, or both")
    dtype = lattice.weights.dtype
    known = jnp.zeros((regions, *lattice.shape), dtype) if seeds is None else one_hot(seeds, regions, dtype)
    for name, given in (("seeds", known), ("priors", known if priors is None else priors)):
        if given.shape != (regions, *lattice.shape):
            raise ValueError(
                f"{name} must have the lattice's shape {lattice.shape} and {regions} labels: {given.shape}"
            )
    known = known.reshape(regions, -1)
    mass = graph.mass(lattice, normalised=normalised)
    coupled = mass > 0
    free = coupled if seeds is None else coupled & (seeds < 0).ravel()
    base = graph.stencil_of(lattice)
    right = -apply(base, known)
    diagonal = base.diagonal
    if priors is not None:
        p = priors.reshape(regions, -1)
        pull = gamma * mass
        diagonal = diagonal + pull
        right = right + pull[None] * p
        lone = ~coupled & lattice.active.ravel() & (True if seeds is None else (seeds < 0).ravel())
        known = jnp.where(lone[None], p, known)  # nothing but its prior speaks for a voxel without an edge
    operator = restricted(Stencil(diagonal, base.bands, base.shape, base.offsets), free)
    known = jnp.where(free[None] | ~lattice.active.ravel()[None], 0, known)
    return System(operator, jnp.where(free[None], right, 0), known, free)


def random_walker(
    lattice: Lattice,
    *,
    regions: int,
    seeds: jax.Array | None = None,
    priors: jax.Array | None = None,
    gamma: jax.Array | float = 0.0,
    normalised: bool = True,
    start: jax.Array | None = None,
    tol: float = 1e-6,
    maximum: int = 500,
    degree: int = 2,
    aggregates: str = "cubes",
) -> Solution:
    """Solve the random walker with seeds, priors or both, to a residual.

    Differentiable in the weights, in gamma and in the priors, by the implicit function theorem: the derivative is one
    more system with the same matrix, whatever the number of steps.

    Args:
        lattice: the graph.
        regions: number of labels L.
        seeds: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        priors: `[L, *shape]`.
        gamma: weight of the priors.
        normalised: the priors are weighted by the degree, else evenly.
        start: `[L, *shape]` first guess; zero by default.
        tol: of the residual.
        maximum: steps at most.
        degree: of the multigrid smoother of `cubes`.
        aggregates: what the coarse levels of multigrid are made of: `cubes` of voxels, or `strong`, trees of strongest
            edges, which take a tenth of the steps where structures are thin and contrasts extreme. They are found on
            the host for each problem: not inside `jit` or `grad`.

    Returns:
        The probabilities; rows sum to one where every component has a seed or priors that sum to one.

    Raises:
        ValueError: neither seeds nor priors, shapes that do not fit, other aggregates.

    Source: Grady 2006 (seeds), Andrews, Hamarneh and Saad 2010 (priors).
    """
    if start is None:  # an array as well: one compiled program serves cold and warm starts
        start = jnp.zeros((regions, *lattice.shape), lattice.weights.dtype)
    problem = {"seeds": seeds, "priors": priors, "gamma": gamma}
    if aggregates not in ("cubes", "strong"):
        raise ValueError(f"aggregates={aggregates!r}: there are cubes and strong")
    hierarchy = None
    if aggregates == "strong":
        scaled, _, near_null = _scaled(_assembled(lattice, problem, regions, normalised))
        hierarchy, _ = aggregation.build(scaled, near_null)
    return _solve(lattice, problem, start, hierarchy, tol, regions, normalised, maximum, degree)


@functools.partial(jax.jit, static_argnames=("regions", "normalised"))
def _assembled(lattice: Lattice, problem: dict[str, Any], regions: int, normalised: bool) -> System:
    return assemble(lattice, regions=regions, normalised=normalised, **problem)


def _scaled(system: System) -> tuple[Stencil, jax.Array, jax.Array]:
    """The operator with unit diagonal, the scale that gave it, what it nearly annihilates; in no derivative."""
    operator = lax.stop_gradient(system.operator)
    unit = jnp.sqrt(reciprocal(operator.diagonal))
    return congruent(operator, unit), unit, jnp.where(system.free, reciprocal(unit), 0)


@functools.partial(jax.jit, static_argnames=("regions", "normalised", "maximum", "degree"))
def _solve(
    lattice: Lattice,
    problem: dict[str, Any],
    start: jax.Array,
    strong: aggregation.Hierarchy | None,
    tol: jax.Array | float,
    regions: int,
    normalised: bool,
    maximum: int,
    degree: int,
) -> Solution:
    system = assemble(lattice, regions=regions, normalised=normalised, **problem)
    first = jnp.where(system.free[None], start.reshape(regions, -1), 0)
    # How the solution is found has no part in its derivative.
    scaled, unit, near_null = _scaled(system)
    if strong is None:
        cubes = multigrid.setup(scaled, near_null, coarsest=200)
        precondition = functools.partial(multigrid.vcycle, cubes, degree=degree)
    else:
        precondition = functools.partial(aggregation.vcycle, strong)

    def iterate(_: object, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        x, *state = conjugate_gradients(
            scaled, precondition, unit[None] * b, first * reciprocal(unit)[None], tol, maximum
        )
        return unit[None] * x, tuple(state)

    x, state = lax.custom_linear_solve(
        lambda v: apply(system.operator, v), system.right, iterate, symmetric=True, has_aux=True
    )
    return Solution((x + system.known).reshape(regions, *lattice.shape), *state)


def conjugate_gradients(
    operator: Stencil,
    precondition: Callable[[jax.Array], jax.Array],
    b: jax.Array,
    start: jax.Array,
    tol: jax.Array | float,
    maximum: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Preconditioned conjugate gradients for several right-hand sides at once, each with steps of its own.

    Args:
        operator: A, unit diagonal.
        precondition: an approximate inverse of A, `[L, n]` to `[L, n]`, symmetric and positive.
        b: `[L, n]`.
        start: `[L, n]`.
        tol: stop when every |b - A x| <= tol |b|; one for all, or `[L]`.
        maximum: steps at most.

    Returns:
        x `[L, n]`, steps `[]`, relative residuals `[L]`, whether all reached tol `[]`.
    """
    size = jnp.linalg.norm(b, axis=1)
    size = jnp.where(size > 0, size, 1)

    def relative(residual: jax.Array) -> jax.Array:
        return jnp.linalg.norm(residual, axis=1) / size

    def step(state: tuple) -> tuple:
        x, residual, direction, energy, count = state
        product = apply(operator, direction)
        curvature = (direction * product).sum(1)
        length = jnp.where(curvature > 0, energy / jnp.where(curvature > 0, curvature, 1), 0)[:, None]
        x, residual = x + length * direction, residual - length * product
        preconditioned = precondition(residual)
        new = (residual * preconditioned).sum(1)
        turn = jnp.where(energy > 0, new / jnp.where(energy > 0, energy, 1), 0)[:, None]
        return x, residual, preconditioned + turn * direction, new, count + 1

    residual = b - apply(operator, start)
    direction = precondition(residual)
    state = (start, residual, direction, (residual * direction).sum(1), jnp.zeros((), jnp.int32))
    x, *_, count = lax.while_loop(lambda s: (relative(s[1]) > tol).any() & (s[4] < maximum), step, state)
    left = relative(b - apply(operator, x))
    return x, count, left, (left <= 10 * tol).all()
