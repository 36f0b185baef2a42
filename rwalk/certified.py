"""Seeds alone, solved exactly and certified: for volumes, where small pieces with weak borders keep a basis from it.

Aggregates of strong edges are found for each question; what the residual leaves is then bounded at every voxel, from
a solve whose right-hand side is the size of that residual. The bound is near what it bounds, and it supposes nothing.

Legend: L labels, n voxels; K and its unknowns are those of `rwalk.solve.assemble`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rwalk import aggregation, bounds, graph, network, solve
from rwalk.deflate import Answer
from rwalk.graph import Lattice
from rwalk.stencil import placed_like

FLOOR = 0.1  # of the mean size of the residual, added everywhere: a certificate asks for a positive right-hand side
LOOSE = 1e-3  # residual to which the system of the bound is solved


def answer(
    lattice: Lattice,
    regions: int,
    *,
    seeds: Any,
    start: jax.Array | None = None,
    tol: float = 1e-4,
    maximum: int = 200,
    normalised: bool = True,
) -> Answer:
    """Solve for seeds to a residual and bound the error, with multigrid that follows strong edges.

    With r the residual, w about K^-1 (max_l |r_l| + floor) and c the largest |r| / K w, every |error| <= c w.

    Args:
        lattice: the graph.
        regions: number of labels L.
        seeds: `[*shape]`, 0..L-1 at a seed and -1 elsewhere.
        start: `[L, n]` first guess.
        tol: of the residual.
        maximum: steps at most, of each of the two solves.
        normalised: bounds are in the norm of the degree, else of one.

    Returns:
        The answer, both solves among its steps; its `reach` is zero: w is made for this residual.

    Source: derived here; K is an M-matrix, see `bounds.certificate`.
    """
    dtype = lattice.weights.dtype
    labels = jnp.asarray(seeds, jnp.int32).reshape(lattice.shape)
    with jax.enable_x64(True):
        lattice, start = solve.converted((lattice, start), jnp.float64)
        system = solve.assembled(lattice, {"seeds": labels}, regions, normalised)
        hierarchy, reached = network.strong(system.network, system.free, dtype)
        mass = graph.mass(lattice, normalised=normalised)
        first = jnp.zeros_like(system.right) if start is None else start
        found = _answer(system, hierarchy, placed_like(reached, mass), mass, first, tol, maximum)
        return solve.converted(found, dtype)


@functools.partial(jax.jit, static_argnames="maximum")
def _answer(
    system: solve.System,
    hierarchy: aggregation.Hierarchy,
    reached: jax.Array,
    mass: jax.Array,
    start: jax.Array,
    tol: jax.Array | float,
    maximum: int,
) -> Answer:
    regions = len(system.right)
    columns = max(regions - 1, 1)  # labels sum to one
    told = reached.astype(mass.dtype)[None]
    right, mass = system.right[:columns] * told, mass * told[0]
    solver = solve.iteration(system, hierarchy, maximum)
    x, steps, residual, _ = solver(right, start[:columns] * told, tol)
    left = told * (right - network.apply(system.network, x))
    if columns < regions:
        left = jnp.concatenate([left, -left.sum(0, keepdims=True)])
        x = jnp.concatenate([x, told * (1 - x.sum(0, keepdims=True))])
    size = jnp.abs(left).max(0)
    size = size + FLOOR * mass * size.sum() / jnp.maximum(mass.sum(), jnp.finfo(mass.dtype).tiny)
    way, more, *_ = solver(size[None], jnp.zeros_like(size)[None], LOOSE)
    way = jnp.maximum(way, 0) * told
    bound, pointwise = bounds.certificate(network.apply(system.network, way)[0], way[0], left, mass)
    return Answer(x + system.known, steps + more, residual.max(), bound, pointwise, jnp.zeros_like(mass))
