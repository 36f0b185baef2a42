"""The exact random walker: a sparse linear system a label, by conjugate gradients preconditioned with multigrid.

Legend: L labels, n voxels flat in C order.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rwalk import aggregation, graph, multigrid, network
from rwalk.conjugate import conjugate_gradients
from rwalk.graph import Lattice
from rwalk.network import Network
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
        network: K, the identity on voxels that are not free.
        right: `[L, n]`, zero on voxels that are not free.
        known: `[L, n]`, zero on free voxels.
        free: `[n]` bool.
    """

    network: Network
    right: jax.Array
    known: jax.Array
    free: jax.Array

    @property
    def operator(self) -> Stencil:
        """K as a stencil."""
        return self.network.stencil


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
    held = (~free).astype(dtype)
    excess = -apply(replace(base, diagonal=jnp.zeros_like(held)), held)  # edges to what is known
    if priors is not None:
        p = priors.reshape(regions, -1)
        pull = gamma * mass
        excess = excess + pull
        right = right + pull[None] * p
        lone = ~coupled & lattice.active.ravel() & (True if seeds is None else (seeds < 0).ravel())
        known = jnp.where(lone[None], p, known)  # nothing but its prior speaks for a voxel without an edge
    bands = restricted(base, free).bands
    edges = Network(jnp.where(free, excess, 1), bands, base.shape, base.offsets)
    known = jnp.where(free[None] | ~lattice.active.ravel()[None], 0, known)
    return System(edges, jnp.where(free[None], right, 0), known, free)


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
    aggregates: str | aggregation.Hierarchy = "cubes",
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
            the host for each problem; inside `jit` and `grad` give those of `strong_aggregates`.

    Returns:
        The probabilities; rows sum to one where every component has a seed or priors that sum to one.

    Raises:
        ValueError: neither seeds nor priors, shapes that do not fit, a seed of no region, other aggregates.

    Source: Grady 2006 (seeds), Andrews, Hamarneh and Saad 2010 (priors).
    """
    _refuse_labels(seeds, regions)
    if start is None:  # an array as well: one compiled program serves cold and warm starts
        start = jnp.zeros((regions, *lattice.shape), lattice.weights.dtype)
    problem: dict[str, Any] = {"seeds": seeds, "priors": priors, "gamma": gamma}
    hierarchy = aggregates if isinstance(aggregates, aggregation.Hierarchy) else None
    if aggregates == "strong":
        return _in_double(lattice, problem, start, tol, regions, normalised, maximum)
    if hierarchy is None and aggregates != "cubes":
        raise ValueError(f"aggregates={aggregates!r}: there are cubes and strong")
    return _solve(lattice, problem, start, hierarchy, tol, regions, normalised, maximum, degree)


def _in_double(
    lattice: Lattice,
    problem: dict[str, Any],
    start: jax.Array,
    tol: jax.Array | float,
    regions: int,
    normalised: bool,
    maximum: int,
) -> Solution:
    """With strong aggregates in the lattice's precision, and the rest in float64: that costs next to nothing more."""
    dtype = lattice.weights.dtype
    _refuse_tracers(lattice)
    with jax.enable_x64(True):
        lattice, problem, start = converted((lattice, problem, start), jnp.float64)
        system = assembled(lattice, problem, regions, normalised)
        hierarchy, _ = network.strong(system.network, system.free, dtype)
        found = _solve(lattice, problem, start, hierarchy, tol, regions, normalised, maximum, 0)
        return converted(found, dtype)


def converted(tree: Any, dtype: Any) -> Any:
    """A pytree whose arrays of floating point have another precision."""

    def convert(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(getattr(leaf, "dtype", int), jnp.floating) else leaf

    return jax.tree.map(convert, tree)


def _refuse_labels(seeds: jax.Array | None, regions: int) -> None:
    """Such seeds would hold zeros; inside `jit` their values are not known."""
    if seeds is None or isinstance(seeds, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():  # what the caller compiles may close over them
        largest = int(jnp.max(seeds))
    if largest >= regions:
        raise ValueError(f"seeds hold label {largest}, regions={regions} allows 0 to {regions - 1}; give more regions")


def _refuse_tracers(lattice: Lattice) -> None:
    if isinstance(lattice.weights, jax.core.Tracer):
        raise TypeError("strong aggregates are found on the host; call strong_aggregates before jit or grad")


def strong_aggregates(
    lattice: Lattice,
    *,
    regions: int,
    seeds: jax.Array | None = None,
    priors: jax.Array | None = None,
    gamma: jax.Array | float = 0.0,
    normalised: bool = True,
) -> aggregation.Hierarchy:
    """What `random_walker` makes of `aggregates="strong"`, for use inside `jit` and `grad`; the same arguments.

    It stays good for weights and gamma not far from these: it changes the number of steps, not the answer.

    Raises:
        TypeError: inside `jit` or `grad`.
    """
    problem = {"seeds": seeds, "priors": priors, "gamma": gamma}
    _refuse_tracers(lattice)
    system = assembled(lattice, problem, regions, normalised)
    return network.strong(system.network, system.free)[0]


@functools.partial(jax.jit, static_argnames=("regions", "normalised"))
def assembled(lattice: Lattice, problem: dict[str, Any], regions: int, normalised: bool) -> System:
    """`assemble`, compiled."""
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
    solver = iteration(system, strong, maximum, degree)

    def iterate(_: object, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        x, *state = solver(b, first, tol)
        return x, tuple(state)

    x, state = lax.custom_linear_solve(
        lambda v: network.apply(system.network, v), system.right, iterate, symmetric=True, has_aux=True
    )
    return Solution((x + system.known).reshape(regions, *lattice.shape), *state)


def iteration(
    system: System, strong: aggregation.Hierarchy | None, maximum: int, degree: int = 2
) -> Callable[..., tuple[jax.Array, ...]]:
    """K^-1: of a right-hand side `[L, n]`, a first guess and a tolerance, x and what `conjugate_gradients` tells.

    How the solution is found has no part in its derivative.
    """
    scaled, unit, near_null = _scaled(system)
    if strong is None:
        cubes = multigrid.setup(scaled, near_null, coarsest=200)
        precondition, seen = functools.partial(multigrid.vcycle, cubes, degree=degree), None
    else:
        rough = strong.factor.dtype  # single precision will do for it
        precondition, seen = lambda r: aggregation.vcycle(strong, r.astype(rough)).astype(r.dtype), unit

    def product(y: jax.Array) -> jax.Array:
        return unit[None] * network.apply(lax.stop_gradient(system.network), unit[None] * y)

    def solver(b: jax.Array, first: jax.Array, tol: jax.Array | float) -> tuple[jax.Array, ...]:
        start = first * reciprocal(unit)[None]
        x, *state = conjugate_gradients(product, precondition, unit[None] * b, start, tol, maximum, seen)
        return unit[None] * x, *state

    return solver
