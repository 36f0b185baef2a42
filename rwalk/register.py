"""Registration as labelling: the labels are displacements, the random walker gives each its probability.

One lattice and one gamma serve all labels, so everything that is linear in the probabilities needs no label's solution:
the mean displacement is d right-hand sides, its covariance d (d + 1)/2 more, whatever the window.

Legend: d axes of space, S displacements of a window, S[.] the solve, n voxels flat in C order; fields are `[d, *shape]`
in voxels.
Source: Andrews, Tang and Hamarneh 2014 (displacements as labels, priors from an image distance); the moments by
linearity, their streaming form and the refinement are derived here.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwalk import dissimilarity, graph, warp
from rwalk.graph import Lattice
from rwalk.stencil import Stencil, apply, congruent, reciprocal

Estimate = Literal["expected", "map"]
ESTIMATES = ("expected", "map")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walker:
    """S[p] = gamma (L + gamma R)^-1 R p, R the degree: a fixed polynomial of L, so S[.] is linear to rounding.

    Attributes:
        operator: R^-1/2 (L + gamma R) R^-1/2 / (1 + gamma), eigenvalues in [gamma, 2 + gamma] / (1 + gamma).
        mass: R `[n]`, zero on voxels without an edge, which keep what they are given.
        gamma: weight of the labels' own evidence against the edges.
        degree: of the Chebyshev semi-iteration.
    """

    operator: Stencil
    mass: jax.Array
    gamma: float = field(metadata={"static": True})
    degree: int = field(metadata={"static": True})

    def __call__(self, p: jax.Array) -> jax.Array:
        """S[p] of each of `[k, *shape]`."""
        flat, gamma = p.reshape(p.shape[0], -1), self.gamma
        root = jnp.sqrt(self.mass)[None]
        low, high = (jnp.asarray(value / (1 + gamma), p.dtype) for value in (gamma, 2 + gamma))
        x = chebyshev(self.operator, gamma / (1 + gamma) * root * flat, low, high, self.degree)
        return jnp.where(root > 0, reciprocal(root) * x, flat).reshape(p.shape)


def chebyshev(operator: Stencil, b: jax.Array, low: jax.Array, high: jax.Array, degree: int) -> jax.Array:
    """`degree` steps of Chebyshev semi-iteration for A x = b from zero, eigenvalues in [low, high], as a loop."""
    centre, half = (high + low) / 2, (high - low) / 2
    ratio = half / centre

    def step(_: int, state: tuple) -> tuple:
        x, residual, change, factor = state
        residual = residual - apply(operator, change)
        following = 1 / (2 / ratio - factor)
        change = following * factor * change + 2 * following / half * residual
        return x + change, residual, change, following

    return lax.fori_loop(0, degree - 1, step, (b / centre, b, b / centre, ratio))[0]


@functools.partial(jax.jit, static_argnames=("gamma", "tol"))
def walker(lattice: Lattice, *, gamma: float, tol: float = 1e-2) -> Walker:
    """Prepare S[.] of a lattice.

    Args:
        lattice: the graph of the fixed image.
        gamma: weight of the evidence; smaller is smoother.
        tol: relative error of the solve, which fixes the degree: 2 exp(-2 degree (gamma / (2 + gamma))^1/2) <= tol.

    Returns:
        The walker.
    """
    base, mass = graph.stencil_of(lattice), graph.mass(lattice)
    full = Stencil(base.diagonal + gamma * mass, base.bands, base.shape, base.offsets)
    degree = math.ceil(math.log(2 / tol) / (2 * math.sqrt(gamma / (2 + gamma))))
    return Walker(congruent(full, jnp.sqrt(reciprocal(full.diagonal))), mass, gamma, degree)


def evidence(costs: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """p_s = exp(-alpha cost_s) / sum, `[S, *shape]`: what the images say of each displacement at each voxel alone."""
    return jax.nn.softmax(-alpha * costs, axis=0)


@jax.jit
def moments(costs: jax.Array, alpha: jax.Array | float, values: jax.Array) -> jax.Array:
    """sum_s p_s values_s at each voxel, in one pass that keeps no probability.

    Args:
        costs: `[S, *shape]`.
        alpha: sharpness of the evidence.
        values: `[S, k]`, of each displacement.

    Returns:
        `[k, *shape]`.
    """
    lead = (slice(None),) + (None,) * (costs.ndim - 1)

    def add(state: tuple, item: tuple) -> tuple:
        highest, total, sums = state
        logit, value = -alpha * item[0], item[1]
        new = jnp.maximum(highest, logit)
        keep, weight = jnp.exp(highest - new), jnp.exp(logit - new)
        return (new, total * keep + weight, sums * keep[None] + weight[None] * value[lead]), None

    zero = jnp.zeros_like(costs[0])
    start = (jnp.full_like(zero, -jnp.inf), zero, jnp.zeros((values.shape[1], *zero.shape), costs.dtype))
    (_, total, sums), _ = lax.scan(add, start, (costs, values))
    return sums / total[None]


@jax.jit
def expected(s: Walker, costs: jax.Array, alpha: jax.Array | float, shifts: jax.Array) -> jax.Array:
    """Mean displacement under the walker's probabilities: sum_s S[p_s] d_s = S[sum_s p_s d_s], d right-hand sides.

    Args:
        s: the walker.
        costs: `[S, *shape]`.
        alpha: sharpness of the evidence.
        shifts: `[S, d]`.

    Returns:
        `[d, *shape]`, the same as from all S solutions, to rounding.
    """
    return s(moments(costs, alpha, shifts))


@jax.jit
def covariance(s: Walker, costs: jax.Array, alpha: jax.Array | float, shifts: jax.Array) -> jax.Array:
    """Covariance of the displacement under the walker's probabilities, from d + d (d + 1)/2 right-hand sides.

    Args:
        s: the walker.
        costs: `[S, *shape]`.
        alpha: sharpness of the evidence.
        shifts: `[S, d]`.

    Returns:
        `[d, d, *shape]`, voxels squared.
    """
    d = shifts.shape[1]
    rows, columns = np.triu_indices(d)
    both = jnp.concatenate([shifts, shifts[:, rows] * shifts[:, columns]], axis=1)
    found = s(moments(costs, alpha, both))
    mean, second = found[:d], found[d:]
    index = np.zeros((d, d), int)
    index[rows, columns] = index[columns, rows] = np.arange(len(rows))
    return second[index] - mean[:, None] * mean[None]


@jax.jit
def posterior(s: Walker, costs: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """S[p_s] of every displacement, `[S, *shape]`; sums to one at each voxel."""
    return s(evidence(costs, alpha))


@jax.jit
def entropy(s: Walker, costs: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """Entropy of the walker's probabilities over that of equal ones, `[*shape]` in [0, 1]; one label at a time."""
    total = jax.nn.logsumexp(-alpha * costs, axis=0)

    def add(sums: jax.Array, cost: jax.Array) -> tuple[jax.Array, None]:
        x = s(jnp.exp(-alpha * cost - total)[None])[0]
        return sums - jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, x, 1)), 0), None

    return lax.scan(add, jnp.zeros_like(total), costs)[0] / math.log(costs.shape[0])


def most_probable(x: jax.Array, radius: int) -> jax.Array:
    """The displacement of the largest probability, refined by a parabola through its logarithm along each axis.

    Args:
        x: `[S, *shape]` probabilities of a window.
        radius: of the window.

    Returns:
        `[d, *shape]`; moved by half a voxel at most, and not where the best lies on the rim of the window.
    """
    d = x.ndim - 1
    shifts = jnp.asarray(dissimilarity.window(radius, d))
    best = x.argmax(0)
    chosen = jnp.moveaxis(shifts[best], -1, 0)
    log = jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))

    def at(number: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log, number[None], axis=0)[0]

    parts = []
    for axis in range(d):
        jump = (2 * radius + 1) ** (d - 1 - axis)
        inner = jnp.abs(chosen[axis]) < radius
        middle = at(best)
        below, above = (jnp.where(inner, at(jnp.where(inner, best + j, best)), middle) for j in (-jump, jump))
        bend = below - 2 * middle + above
        step = jnp.where(bend < 0, (below - above) / jnp.where(bend < 0, 2 * bend, 1), 0)
        parts.append(chosen[axis].astype(x.dtype) + jnp.where(inner, jnp.clip(step, -0.5, 0.5), 0))
    return jnp.stack(parts)


@functools.partial(jax.jit, static_argnames=("radius", "kind", "patch", "estimate"))
def improve(
    fixed: jax.Array,
    moving: jax.Array,
    u: jax.Array,
    s: Walker,
    hold: Walker | None,
    alpha: jax.Array | float,
    *,
    radius: int,
    kind: dissimilarity.Kind,
    patch: int,
    estimate: Estimate = "expected",
) -> jax.Array:
    """One round: warp the moving image, search a window round where each voxel came to lie, go there.

    Args:
        fixed: `[*shape]`.
        moving: `[*shape]`.
        u: field so far, `[d, *shape]`.
        s: walker of the fixed image.
        hold: walker that smooths the whole field after the step; None leaves it.
        alpha: sharpness of the evidence.
        radius: of the window, voxels.
        kind: dissimilarity, see `rwalk.dissimilarity.costs`.
        patch: its radius, voxels.
        estimate: `expected`, the mean displacement; `map`, the most probable one, which needs all labels' solutions.

    Returns:
        The field i -> i + v(i) + u(i + v(i)), v the displacement found, held together where that is asked for.

    Raises:
        ValueError: unknown estimate.
    """
    if estimate not in ESTIMATES:
        raise ValueError(f"estimate={estimate!r}; allowed are {', '.join(ESTIMATES)}")
    costs = window_costs(fixed, moving, u, radius=radius, kind=kind, patch=patch)
    if estimate == "map":
        found = most_probable(posterior(s, costs, alpha), radius)
    else:
        found = expected(s, costs, alpha, jnp.asarray(dissimilarity.window(radius, fixed.ndim), fixed.dtype))
    u = warp.compose(found, u)
    return u if hold is None else hold(u)


def climb(
    fixed: jax.Array,
    moving: jax.Array,
    lattice: Lattice,
    u: jax.Array,
    *,
    factor: int,
    rounds: int,
    gamma: float,
    hold: float | None,
    alpha: float,
    **options: Any,
) -> jax.Array:
    """The rounds of one level of a pyramid.

    Args:
        fixed: `[*coarse]`, over cubes of `factor` voxels.
        moving: likewise.
        lattice: graph of `fixed`.
        u: field so far, `[d, *shape]` on the voxels themselves.
        factor: voxels along the edge of a cube.
        rounds: of `improve`.
        gamma: weight of the evidence in a step.
        hold: likewise for the whole field after each step; None leaves it.
        alpha: sharpness of the evidence.
        options: `radius`, `kind`, `patch` and `estimate` of `improve`.

    Returns:
        The field after it, `[d, *shape]`.
    """
    coarse = jnp.stack([shrink(part, factor) for part in u]) / factor
    step = walker(lattice, gamma=gamma)
    whole = None if hold is None else walker(lattice, gamma=hold)
    for _ in range(rounds):
        coarse = improve(fixed, moving, coarse, step, whole, alpha, **options)
    return coarse if factor == 1 else warp.refine(coarse, u.shape[1:], factor)


def window_costs(fixed: jax.Array, moving: jax.Array, u: jax.Array, **options: Any) -> jax.Array:
    """Symmetric dissimilarities of the fixed image and the moving one warped by u; options as for `costs`."""
    return dissimilarity.costs(fixed, warp.sample(moving[None], u)[0], symmetric=True, **options)


def shrink(x: jax.Array, factor: int) -> jax.Array:
    """Means over cubes of `factor` voxels, `[*shape]` to `[*coarse]`; a cube cut at the border has fewer."""
    return x if factor == 1 else graph.pool(x, factor) / graph.pool(jnp.ones_like(x), factor)
