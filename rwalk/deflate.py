"""Answers from a prepared graph to any tolerance: conjugate gradients in which the basis takes care of its own modes.

Multigrid does not see small pieces with weak borders; these are the lowest modes of a volume. The basis holds them, and
the two together need a fraction of the steps of either. Answers have bounds at every voxel that suppose nothing.

Legend: K pairs, L labels, M seeds, n voxels; A is that of `rwalk.prepared`, F is one on free voxels and zero elsewhere,
W = P Z the span of the basis; blocks are `[k, n]`.
Source: deflation after Nicolaides 1987 and Tang, Nabben, Vuik and Erlangga 2009 (A-DEF2); the bound is derived here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwalk import bounds, multigrid
from rwalk.prepared import EXACT, SIZES, Prepared, Small, held, small
from rwalk.stencil import Stencil, apply, reciprocal

DEGREE = 2  # of the smoother
CERTIFIED = 0.01  # residual at which the steps to the seeds, which certify the error, are known well enough


class Answer(NamedTuple):
    """Probabilities, what they took, and how far they may be from the exact ones.

    Attributes:
        x: `[L, n]`, exactly the labels at the seeds; zero where no seed or prior reaches.
        steps: `[]` of conjugate gradients.
        residual: `[]` relative, the largest of those of the labels that were solved for.
        bound: `[L]` on |x - exact| in the norm of R; infinite where no certificate was asked for or found.
        pointwise: `[n]`, no label's probability at this voxel is further off (maximum principle); infinite likewise.
        reach: `[n]` about the mean number of steps to the seeds, which certifies; zero where it was not asked for.
    """

    x: jax.Array
    steps: jax.Array
    residual: jax.Array
    bound: jax.Array
    pointwise: jax.Array
    reach: jax.Array


def answer(
    ready: Prepared,
    regions: int,
    *,
    positions: Any = (),
    labels: Any = (),
    priors: jax.Array | None = None,
    closed: bool = False,
    start: jax.Array | None = None,
    reach: jax.Array | None = None,
    tol: float = 0.025,
    maximum: int = 60,
    certify: bool = False,
) -> Answer:
    """Solve the random walker with seeds, priors or both, to a residual.

    Args:
        ready: the graph, with the weight of the priors.
        regions: number of labels L.
        positions: `[M]` flat indices of the seeds, each once.
        labels: `[M]` their labels 0..L-1.
        priors: `[L, n]`; zero by default.
        closed: the priors sum to one at every voxel of the graph; so do seeds without priors. One label less is then
            solved for: the last is what the others leave.
        start: `[L, n]` first guess, the answer before this interaction; left out for labels for which it is worse than
            none.
        reach: `[n]` that of an answer on this graph to the same seeds or to fewer: it certifies this answer as well,
            since more seeds only shorten the way to them.
        tol: of the residual; a hundredth of the labels are other than exact at about .03.
        maximum: steps at most.
        certify: find the bounds; one more right-hand side is solved for, unless `reach` is given or gamma positive.

    Returns:
        The answer.

    Raises:
        ValueError: neither seeds nor priors, or priors on a graph that was prepared without them.
    """
    if priors is None and not len(positions):
        raise ValueError("neither seeds nor priors were given; give one of them, or both")
    if priors is not None and not ready.damped:
        raise ValueError("priors, but the graph was prepared for seeds alone; give prepare their weight gamma")
    at, given = padded(positions, labels, ready.root.size)
    known = reach if certify and not ready.damped else None
    return _answer(
        ready, at, given, priors, start, known, np.asarray(tol, ready.root.dtype), regions,
        closed or (priors is None and not ready.damped), maximum, certify,
    )  # fmt: skip


def padded(positions: Any, labels: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeds filled up to one of a few numbers with places beyond the last voxel, so that little is compiled.

    They stay on the host: what a call of a compiled program takes from there costs it a tenth of an array of JAX.
    """
    count = len(positions)
    size = next((size for size in (0, *SIZES) if count <= size), SIZES[-1])
    while size < count:
        size *= 4
    at, given = (np.full(size, fill, np.int32) for fill in (n, 0))
    at[:count], given[:count] = positions, labels
    return at, given


@functools.partial(jax.jit, static_argnames=("regions", "closed", "maximum", "certify"))
def _answer(
    ready: Prepared,
    at: jax.Array,
    labels: jax.Array,
    priors: jax.Array | None,
    start: jax.Array | None,
    reach: jax.Array | None,
    tol: jax.Array,
    regions: int,
    closed: bool,
    maximum: int,
    certify: bool,
) -> Answer:
    root, dtype, inverse = ready.root, ready.root.dtype, reciprocal(ready.root)
    columns = regions - 1 if closed and regions > 1 else regions
    wanted = (labels[None] == jnp.arange(regions, dtype=labels.dtype)[:, None]).astype(dtype)  # [L, M]
    free = (root > 0).at[at].set(False, mode="drop")
    keep, reached = free.astype(dtype)[None], root > 0
    if not ready.damped:  # a piece without a seed is solved for as well, from zero; it is left out of all that is told
        pieces = ready.pieces.at[at].get(mode="fill", fill_value=ready.count)
        reached &= jnp.zeros(ready.count, bool).at[pieces].set(True, mode="drop")[ready.pieces]
    told = keep * reached[None].astype(dtype)
    there = root.at[at].get(mode="fill", fill_value=0)
    given = jnp.zeros((columns, root.size), dtype).at[:, at].set(there[None] * wanted[:columns], mode="drop")
    operator = ready.hierarchy.levels[0].operator
    right = -apply(operator, given) * keep
    if priors is not None:
        right = right + keep * (inverse * ready.gamma * ready.mass)[None] * priors[:columns]
    first = None if start is None else start[:columns] * root[None] * keep
    tols = jnp.full(columns, tol)
    extra = certify and not ready.damped and reach is None
    if extra:
        pull = told * (inverse * ready.mass)[None]
        right, tols = jnp.concatenate([right, pull]), jnp.append(tols, jnp.asarray(CERTIFIED, dtype))
        first = None if first is None else jnp.concatenate([first, jnp.zeros_like(pull)])
    y, steps, residual = _solve(ready, free, right, first, at, tols, maximum)
    far = jnp.full(regions, jnp.inf, dtype), jnp.full(root.size, jnp.inf, dtype), jnp.zeros_like(root)
    if certify:
        way = y[-1] if extra else jnp.zeros_like(root) if reach is None else reach * root
        far = _certified(ready, right[:columns], y[:columns], way, told, regions)
    x = jnp.where(reached[None], y[:columns] * inverse[None], 0)
    if columns < regions:
        rest = 1 - functools.reduce(jnp.add, x)  # fused with what it is joined to; the sum over an axis is not
        x = jnp.concatenate([x, jnp.where(reached, rest, 0)[None]])
    if priors is not None:
        x = jnp.where((ready.active & (root == 0))[None], priors, x)  # nothing but its prior speaks for a lone voxel
    x = x.at[:, at].set(wanted, mode="drop")
    return Answer(x, steps, residual[:columns].max(), *far)


def _certified(
    ready: Prepared, right: jax.Array, y: jax.Array, way: jax.Array, told: jax.Array, regions: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The bounds of the answer y, and the steps to the seeds that they follow from; `way` is D^1/2 times these."""
    root, mass = ready.root, ready.mass * told[0]
    way = jnp.maximum(way, 0) * told[0]
    images = told * apply(ready.hierarchy.levels[0].operator, jnp.concatenate([y, way[None]]))
    left = (told * right - images[:-1]) * root[None]
    if len(y) < regions:
        left = jnp.concatenate([left, -left.sum(0, keepdims=True)])
    flow, steps = root * images[-1], reciprocal(root) * way
    if ready.damped:  # gamma R is what no row sum is below
        flow, steps = mass, told[0] / ready.gamma
    return *bounds.certificate(flow, steps, left, mass), steps


def _solve(
    ready: Prepared,
    free: jax.Array,
    right: jax.Array,
    first: jax.Array | None,
    at: jax.Array,
    tols: jax.Array,
    maximum: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Conjugate gradients for F A F y = `right`, `[k, n]`, from the best start that the span of the basis allows."""
    levels, keep = ready.hierarchy.levels, free.astype(right.dtype)[None]
    hierarchy = held(ready.hierarchy, free)
    operator = hierarchy.levels[0].operator
    system = small(ready, free, at)

    def lower(r: jax.Array) -> jax.Array:
        return jnp.matmul(multigrid.restrict_in_memory(levels[0], r), ready.coarse, precision=EXACT)

    def lift(c: jax.Array, z: jax.Array | float = 0.0) -> tuple[jax.Array, jax.Array]:
        """The step W E^-1 c from z, and F A of where it leads."""
        c = jnp.matmul(system.solve(c), ready.coarse.T, precision=EXACT)
        z, product = multigrid.prolong_and_apply(levels[0], c, lambda e: z + keep * e)
        return z, keep * product

    size = jnp.linalg.norm(right, axis=1)
    size = jnp.where(size > 0, size, 1)

    def relative(r: jax.Array) -> jax.Array:
        return jnp.linalg.norm(r, axis=1) / size

    def step(state: tuple) -> tuple:
        y, r, p, image, energy, count = state
        z, left = multigrid.cycle(hierarchy, r, degree=DEGREE)
        z, product = lift(lower(left), z)
        new = (r * z).sum(1)
        turn = _divided(new, energy)[:, None]
        p, image = z + turn * p, product + turn * image
        length = _divided(new, (p * image).sum(1))[:, None]
        return y + length * p, r - length * image, p, image, new, count + 1

    y, r = jnp.zeros_like(right), right
    c = lower(r)
    if first is not None:
        y, r, c = _better(operator, system, lower, right, first, c)
    e, product = lift(c)
    none = jnp.zeros_like(right)
    state = (y + e, r - product, none, none, jnp.zeros(len(y), y.dtype), jnp.zeros((), jnp.int32))
    y, r, *_, count = lax.while_loop(lambda s: (relative(s[1]) > tols).any() & (s[5] < maximum), step, state)
    return y, count, relative(r)


def _better(
    operator: Stencil,
    system: Small,
    lower: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    first: jax.Array,
    none: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first guess or zero, its residual and W^T of that: whichever has less energy within the span, each label.

    y^T A y / 2 - b^T y is half the squared error in the energy norm, but for a constant: the better one is known.
    """
    r = right - apply(operator, first)
    c = lower(r)

    def gained(c: jax.Array) -> jax.Array:
        return (system.solve(c) * c).sum(1) / 2

    good = (gained(c) + (first * (right + r)).sum(1) / 2 > gained(none))[:, None]
    return jnp.where(good, first, 0), jnp.where(good, r, right), jnp.where(good, c, none)


def _divided(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
