"""One interaction: seeds and priors in, probabilities and how far off they may be out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rwalk import bounds, certified, deflate, graph, online
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.options import Problem
from rwalk.prepared import Prepared
from rwalk.stencil import Stencil

ATTEMPTS = 6  # to meet a bound
SAFETY = 0.7  # of a tolerance that is lowered in proportion to the bound
Found = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


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
    promised: ArrayLike
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
    ready: Prepared | None = None,
    maximum: int = 60,
    updated: bool = False,
) -> Reply:
    """Answer from the basis, improve the answer to `problem.residual` if that is asked for, and bound its error.

    Where the bound is above `problem.error`, the answer is improved again.

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
        ready: the graph, prepared for this gamma; needed where `needs_ready`.
        maximum: steps of conjugate gradients at most.
        updated: the pairs are not those of the graph, but nearly: bounds must suppose nothing of them.

    Returns:
        The reply.
    """
    at = _places(basis, seeds)
    p: Any = None if priors is None else jnp.asarray(priors, basis.mass.dtype).reshape(regions, -1)
    x, used, promised = _from_basis(basis, laplacian, problem, p, gamma, at, regions)
    size = jnp.linalg.norm(bounds.norms(basis, x if p is None else p))

    def improved(x: jax.Array, tol: float) -> deflate.Answer:
        if goes_without(problem, lattice):
            return certified.answer(lattice, regions, seeds=seeds, start=x, tol=tol, normalised=normalised)
        if ready is None:
            raise ValueError("an answer is to be improved, but the graph is not prepared; give `ready`")
        return deflate.answer(
            ready, regions, positions=at[0], labels=at[1], priors=p, start=x, tol=tol, maximum=maximum,
            certify=p is None,
        )  # fmt: skip

    first = online.to_simplex(x)

    def bounded(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mass = graph.mass(lattice, normalised=normalised)
        norm, pointwise = bounds.guaranteed(mass, laplacian, x, p, gamma, jnp.asarray(at[0]))
        if seeds is None and not updated:
            norm, _ = bounds.error_bound(basis, laplacian, x, p, gamma)
        return jnp.linalg.norm(norm) / size, pointwise.max()

    if p is None:
        x, *rest = _to_residual(x, first, problem, improved, size)
    else:
        x, *rest = _to_error(x, first, problem, improved, bounded)
    return Reply(x, used, promised, *rest)


def needs_ready(problem: Problem, lattice: Lattice) -> bool:
    """Whether the answer shall be nearer than that of the truncated basis, and the prepared graph makes it so."""
    return bool(problem.residual or problem.error) and not goes_without(problem, lattice)


def goes_without(problem: Problem, lattice: Lattice) -> bool:
    """Whether answers are improved without the basis: to seeds alone in a volume, of which it knows too little."""
    return problem.kind == "seeds" and len(lattice.shape) == 3


def _to_residual(
    x: jax.Array, first: jax.Array, problem: Problem, improved: Callable[..., deflate.Answer], size: jax.Array
) -> Found:
    """An answer to seeds, its bounds, where it was improved, and the steps that took."""
    if not problem.residual:
        return x, jnp.asarray(jnp.inf), jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32)
    better = improved(first, problem.residual)
    return better.x, jnp.linalg.norm(better.bound) / size, better.pointwise.max(), better.steps


def _to_error(
    x: jax.Array,
    first: jax.Array,
    problem: Problem,
    improved: Callable[..., deflate.Answer],
    bounded: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
) -> Found:
    """An answer to priors, its bounds, and the steps that it took to bring them below `problem.error`.

    A residual of the size of the error that is asked for is enough where there are no seeds: |error| <= |r| / gamma,
    and |b| = gamma |p|. Where it was not, the bound tells by how much to lower it.
    """
    steps = jnp.zeros((), jnp.int32)
    if problem.residual:
        better = improved(first, problem.residual)
        x, steps = better.x, better.steps
    bound, pointwise = bounded(x)
    tol = problem.error
    for _ in range(ATTEMPTS):
        if float(bound) <= problem.error or not problem.error:
            break
        better = improved(x, tol)
        x, steps = better.x, steps + better.steps
        bound, pointwise = bounded(x)
        tol *= SAFETY * problem.error / max(float(bound), problem.error)
    return x, bound, pointwise, steps


def _places(basis: Basis, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and labels of the seeds on coupled voxels."""
    labels = np.full(basis.mass.size, -1) if seeds is None else np.asarray(seeds).ravel()
    positions = np.flatnonzero((labels >= 0) & (np.asarray(basis.mass) > 0))
    return positions, labels[positions]


def _from_basis(
    basis: Basis, laplacian: Stencil, problem: Problem, p: Any, gamma: float, at: tuple[Any, Any], regions: int
) -> tuple[jax.Array, jax.Array, ArrayLike]:
    """The answer of the basis alone, the pairs it used and the error it promised."""
    used, promised = jnp.asarray(basis.values.size), np.asarray(np.nan)  # NumPy: run=debug stops at a NaN of JAX
    if p is None:
        return online.seeds(basis, *at, regions), used, promised
    if at[0].size:
        places, labels = (jnp.asarray(part) for part in at)
        return online.both(basis, laplacian, p, gamma, places, labels, polish=problem.polish), used, promised
    found = online.priors(basis, laplacian, p, gamma, tol=problem.error, polish=problem.polish)
    return found.x, found.used, bounds.promised(basis, p, gamma, found.used)
