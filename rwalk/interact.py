"""One interaction: seeds and priors in, probabilities and how far off they may be out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import bounds, deflate, graph, online
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.options import Problem
from rwalk.stencil import Stencil


class Reply(NamedTuple):
    """An answer and its figures.

    Attributes:
        x: `[L, n]`.
        used: `[]` pairs.
        promised: `[]` relative error that the truncated answer keeps, NaN where nothing is promised.
        bound: `[]` relative error that the answer keeps, infinite where there is no bound.
        pointwise: `[]` the same at the worst voxel, absolute.
        steps: `[]` of conjugate gradients.
    """

    x: jax.Array
    used: jax.Array
    promised: jax.Array
    bound: jax.Array
    pointwise: jax.Array
    steps: jax.Array


def ask(
    basis: Basis,
    lattice: Lattice,
    laplacian: Stencil,
    problem: Problem,
    *,
    regions: int,
    seeds: Any = None,
    priors: Any = None,
    gamma: float = 0.0,
    normalised: bool = True,
    start: jax.Array | None = None,
    maximum: int = 60,
    updated: bool = False,
) -> Reply:
    """Answer from the basis, improve the answer to `problem.residual` if that is asked for, and bound its error.

    Where `problem.error` asks for less than all pairs can promise, the residual decides: the answer is improved until
    its bound is met, or `maximum` steps are done.

    Args:
        basis: eigenpairs of the graph.
        lattice: the graph.
        laplacian: its Laplacian.
        problem: what is told, and how well it is to be answered.
        regions: number of labels L.
        seeds: `[*shape]`, -1 where there is none.
        priors: `[L, *shape]`.
        gamma: weight of the priors.
        normalised: R is the degree.
        start: `[L, n]` the answer before this interaction, to start improving from; the basis's own by default.
        maximum: steps of conjugate gradients at most.
        updated: the pairs are not those of the graph, but nearly: bounds must suppose nothing of them.

    Returns:
        The reply.
    """
    dtype = basis.vectors.dtype
    labels = np.full(basis.mass.size, -1) if seeds is None else np.asarray(seeds).ravel()
    positions = np.flatnonzero((labels >= 0) & (np.asarray(basis.mass) > 0))
    p: Any = None if priors is None else jnp.asarray(priors, dtype).reshape(regions, -1)
    used, promised = jnp.asarray(basis.values.size), jnp.asarray(jnp.nan)
    if p is None:
        x = online.seeds(basis, positions, labels[positions], regions)
    elif seeds is None:
        found = online.priors(basis, laplacian, p, gamma, tol=problem.error, polish=problem.polish)
        x, used, promised = found.x, found.used, bounds.promised(basis, p, gamma, found.used)
    else:
        at = jnp.asarray(positions), jnp.asarray(labels[positions])
        x = online.both(basis, laplacian, p, gamma, *at, polish=problem.polish)
    told: dict[str, Any] = {"regions": regions, "seeds": seeds, "priors": priors, "gamma": gamma}
    told |= {"normalised": normalised, "maximum": maximum}
    size = jnp.linalg.norm(bounds.norms(basis, x if p is None else p))

    def improved(x: jax.Array, tol: float) -> deflate.Certified:
        guess = online.to_simplex(x) if start is None else start
        return deflate.random_walker(basis, lattice, **told, start=guess, tol=tol, certify=p is None)

    def bounded(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if seeds is None and not updated:
            norm, pointwise = bounds.error_bound(basis, laplacian, x, p, gamma)
        else:
            fixed = jnp.asarray(positions if seeds is not None else positions[:0])
            mass = graph.mass(lattice, normalised=normalised)
            norm, pointwise = bounds.guaranteed(mass, laplacian, x, p, gamma, fixed)
        return jnp.linalg.norm(norm) / size, pointwise.max()

    steps = jnp.zeros((), jnp.int32)
    if p is None:
        if not problem.residual:
            return Reply(x, used, promised, jnp.asarray(jnp.inf), jnp.asarray(jnp.inf), steps)
        better = improved(x, problem.residual)
        norm = jnp.linalg.norm(better.bound) / size
        return Reply(better.x, used, promised, norm, better.pointwise.max(), better.iterations)
    if problem.residual:
        better = improved(x, problem.residual)
        x, steps = better.x, better.iterations
    bound, pointwise = bounded(x)
    if problem.error and float(bound) > problem.error:
        better = improved(x, problem.error * gamma / (1 + gamma))
        x, steps = better.x, steps + better.iterations
        bound, pointwise = bounded(x)
    return Reply(x, used, promised, bound, pointwise, steps)
