"""Answers to seeds to a residual: what multigrid and a basis need is made once a graph, not once a stroke.

A hierarchy of the whole graph knows nothing of seeds, and preconditions badly where they hold a smooth mode down. The
basis repairs just that, and for this it need not be exact: its projection onto the next coarser lattice, Z, is enough,
of which the fine one sees P Z. So no interaction reads the basis; it costs some products with the Laplacian.

Legend: K pairs, L labels, M seeds, n voxels, m of the coarse lattice; A = D^-1/2 L D^-1/2, F is one on free voxels and
zero at seeds; blocks are `[k, n]`.
Source: deflation as in `rwalk.deflate` (A-DEF2 of Tang, Nabben, Vuik and Erlangga 2009); the two reductions are ours.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rwalk import graph, multigrid, solve, stencil
from rwalk.eigen import Basis
from rwalk.graph import Lattice
from rwalk.multigrid import Hierarchy, Level
from rwalk.stencil import Stencil, apply, congruent, reciprocal, strides

EXACT = lax.Precision.HIGHEST
SMALLEST = 200  # unknowns of the last level
DEGREE = 2  # of the smoother
ROUNDING = 1e-6  # added to the unit diagonal of the matrix that is inverted for each interaction
FITTED = 1e-3  # residual of the projection of the basis
MOST = 100  # steps of it
LARGEST_SEEDS = 4096


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prepared:
    """A graph made ready for interactions; a pytree.

    Attributes:
        hierarchy: of A, without seeds.
        root: `[n]` D^1/2, zero on voxels without an edge.
        coarse: `[m, K]` Z.
        cube: `[n]`, number of the coarse voxel that each belongs to.
        energies: `[K, K]`, those of P Z.
        pieces: `[n]`, number of the connected component of each voxel with an edge.
        count: of components; the last label of a single one is what the others leave.
    """

    hierarchy: Hierarchy
    root: jax.Array
    coarse: jax.Array
    cube: jax.Array
    energies: jax.Array
    pieces: jax.Array
    count: int = field(metadata={"static": True})


class Answer(NamedTuple):
    """Probabilities and what they took.

    Attributes:
        x: `[L, n]`, exactly the labels at the seeds.
        steps: `[]` of conjugate gradients.
        residual: `[]` relative, the largest of those of the labels that were solved for.
    """

    x: jax.Array
    steps: jax.Array
    residual: jax.Array


def prepare(lattice: Lattice, basis: Basis) -> Prepared:
    """Make a graph ready; costs about as much as one solve.

    Args:
        lattice: the graph.
        basis: its eigenpairs, or nearly.

    Returns:
        What `seeds` needs.

    Raises:
        ValueError: fewer than 2 voxels, or a basis of another graph's size.
    """
    n = lattice.active.size
    if basis.mass.size != n or n < 2:
        raise ValueError(f"a graph of {n} voxels, a basis of {basis.mass.size}; give the basis of this graph")
    coupled = np.asarray(graph.degree(lattice) > 0).ravel()
    pieces = np.zeros(n, np.int32)
    names, pieces[coupled] = np.unique(graph.components(lattice).ravel()[coupled], return_inverse=True)
    return _prepare(lattice, basis.vectors, jnp.asarray(pieces), len(names))


@functools.partial(jax.jit, static_argnames="count")
def _prepare(lattice: Lattice, vectors: jax.Array, pieces: jax.Array, count: int) -> Prepared:
    degrees = graph.degree(lattice).ravel()
    root = jnp.sqrt(degrees)
    operator = congruent(graph.stencil_of(lattice), jnp.sqrt(reciprocal(degrees)))
    hierarchy = multigrid.setup(operator, root, coarsest=min(SMALLEST, operator.size - 1))
    level = hierarchy.levels[0]
    mass = multigrid.galerkin(level, stencil.identity(operator))
    unit = jnp.sqrt(reciprocal(mass.diagonal))[None]
    right = stencil.one_by_one(functools.partial(multigrid.restrict, level), (vectors * root[:, None]).T)
    found, *_ = solve.conjugate_gradients(
        congruent(mass, unit[0]), lambda r: r, unit * right, jnp.zeros_like(right), FITTED, MOST
    )
    coarse = unit * found
    last = hierarchy.levels[1].operator if len(hierarchy.levels) > 1 else hierarchy.coarsest
    energies = jnp.matmul(apply(last, coarse), coarse.T, precision=EXACT)
    return Prepared(hierarchy, root, coarse.T, _cubes(level), (energies + energies.T) / 2, pieces, count)


def seeds(
    prepared: Prepared, positions: Any, labels: Any, regions: int, *, tol: float = 0.025, maximum: int = 60
) -> Answer:
    """Solve the random walker with seeds to a residual.

    Args:
        prepared: see `prepare`.
        positions: `[M]` flat indices of the seeds, each once, on coupled voxels.
        labels: `[M]` their labels 0..L-1.
        regions: L.
        tol: of the residual relative to the right-hand side, rows scaled to unit diagonal.
        maximum: steps at most.

    Returns:
        The answer.

    Raises:
        ValueError: more seeds than the small system is good for.
    """
    if positions.shape[0] > LARGEST_SEEDS:
        raise ValueError(
            f"{positions.shape[0]} seeds; at most {LARGEST_SEEDS} are answered: give fewer, or use rwalk.random_walker"
        )
    at, given = jnp.asarray(positions, jnp.int32), jnp.asarray(labels, jnp.int32)
    return _seeds(prepared, at, given, jnp.asarray(tol, prepared.root.dtype), regions, maximum)


@functools.partial(jax.jit, static_argnames=("regions", "maximum"))
def _seeds(prepared: Prepared, at: jax.Array, labels: jax.Array, tol: jax.Array, regions: int, maximum: int) -> Answer:
    root, dtype = prepared.root, prepared.root.dtype
    columns = regions - 1 if prepared.count == 1 and regions > 1 else regions
    wanted = (labels[None] == jnp.arange(regions, dtype=labels.dtype)[:, None]).astype(dtype)  # [L, M]
    reached = jnp.zeros(prepared.count, bool).at[prepared.pieces[at]].set(True)
    free = ((root > 0) & reached[prepared.pieces]).at[at].set(False)
    held = jnp.zeros((columns, root.size), dtype).at[:, at].set(root[at][None] * wanted[:columns])
    y, steps, residual = _solve(prepared, free, held, at, tol, maximum)
    x = (y + held) * reciprocal(root)[None]
    if columns < regions:
        x = jnp.concatenate([x, jnp.where(root > 0, 1 - x.sum(0), 0)[None]])
    return Answer(x, steps, residual)


def _solve(
    prepared: Prepared, free: jax.Array, held: jax.Array, at: jax.Array, tol: jax.Array, maximum: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Conjugate gradients for F A F y = -F A `held`, `[k, n]`, from the best start within P Z."""
    operator = prepared.hierarchy.levels[0].operator
    fine, keep = _masked(prepared.hierarchy.levels[0], free), free.astype(held.dtype)[None]
    hierarchy = Hierarchy(
        (fine, *prepared.hierarchy.levels[1:]), prepared.hierarchy.coarsest, prepared.hierarchy.inverse
    )
    inverse, border = _small(prepared, free, at)

    def lifted(c: jax.Array, finish: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        c = jnp.matmul(jnp.matmul(c, inverse, precision=EXACT), prepared.coarse.T, precision=EXACT)
        return multigrid.prolong_and_apply(prepared.hierarchy.levels[0], c, finish)

    def precondition(r: jax.Array, once: jax.Array) -> tuple[jax.Array, jax.Array]:
        """About (F A F)^-1 r, and F A of it."""
        z, left = multigrid.cycle(hierarchy, r, degree=DEGREE)
        lowered = multigrid.restrict_in_memory(prepared.hierarchy.levels[0], left, once)
        step, product = lifted(jnp.matmul(lowered, prepared.coarse, precision=EXACT), lambda e: keep * e)
        return z + step, r - left + keep * product

    right = -apply(operator, held) * keep
    size = jnp.linalg.norm(right, axis=1)
    size = jnp.where(size > 0, size, 1)

    def relative(r: jax.Array) -> jax.Array:
        return (jnp.linalg.norm(r, axis=1) / size).max()

    def step(state: tuple) -> tuple:
        y, r, p, image, energy, count = state
        z, product = precondition(r, jnp.minimum(count + 1, 1))
        new = (r * z).sum(1)
        turn = _divided(new, energy)[:, None]
        p, image = z + turn * p, product + turn * image
        length = _divided(new, (p * image).sum(1))[:, None]
        return y + length * p, r - length * image, p, image, new, count + 1

    # The start and the seeds together: F A of both is what the right-hand side misses.
    y, product = lifted(-jnp.matmul(held[:, at], border, precision=EXACT), lambda e: keep * e + held)
    none = jnp.zeros_like(y)
    state = (y - held, -keep * product, none, none, jnp.zeros(len(y), y.dtype), jnp.zeros((), jnp.int32))
    y, r, *_, count = lax.while_loop(lambda s: (relative(s[1]) > tol) & (s[5] < maximum), step, state)
    return y, count, relative(r)


def _divided(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def _masked(level: Level, free: jax.Array) -> Level:
    """The level with seeds cut off; the coarse levels keep those of the whole graph."""
    operator = stencil.restricted(level.operator, free)
    return replace(level, operator=operator, near_null=jnp.where(free, level.near_null, 0))


def _small(prepared: Prepared, free: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The inverse of (F P Z)^T A F P Z, `[K, K]`, and rows of F A P Z between seeds and free voxels, `[M, K]`.

    The energies of P Z are known; only what the seeds take away is computed, from the rows of P Z round them.
    """
    level = prepared.hierarchy.levels[0]
    damping = multigrid.damping(level)

    def spread(places: jax.Array) -> jax.Array:
        return (level.near_null[places] * level.scale[prepared.cube[places]])[..., None] * prepared.coarse[
            prepared.cube[places]
        ]

    def rows(places: jax.Array) -> jax.Array:
        return spread(places) - damping * _product_at(level.operator, spread, places)

    around, entries = _around(level.operator, at)
    near = rows(around)  # [M, 1 + B, K]
    own = near[:, 0]
    border = (jnp.where(free[around], entries, 0)[..., None] * near).sum(1)
    between = (jnp.where(free[around], 0, entries)[..., None] * near).sum(1)
    crossed = jnp.matmul(own.T, border, precision=EXACT)
    matrix = prepared.energies - crossed - crossed.T - jnp.matmul(own.T, between, precision=EXACT)
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), jnp.finfo(matrix.dtype).tiny))
    unit = matrix / (size[:, None] * size[None]) + ROUNDING * jnp.eye(len(size), dtype=matrix.dtype)
    inverse = jnp.linalg.inv(unit) / (size[:, None] * size[None])
    return (inverse + inverse.T) / 2, border


def _around(operator: Stencil, places: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each voxel and its neighbours, and the entries of A there, `[..., 1 + B]` each."""
    jumps = [0, *strides(operator.shape, operator.offsets)]
    around = jnp.stack([jnp.clip(places + jump, 0, operator.size - 1) for jump in jumps], -1)
    entries = jnp.concatenate([operator.diagonal[None], operator.bands])
    return around, jnp.moveaxis(entries[:, places], 0, -1)


def _product_at(operator: Stencil, rows: Callable[[jax.Array], jax.Array], places: jax.Array) -> jax.Array:
    """A times the block whose rows `rows` gives, at some voxels only, `[..., K]`."""
    around, entries = _around(operator, places)
    return (entries[..., None] * rows(around)).sum(-2)


def _cubes(level: Level) -> jax.Array:
    """Number of the aggregate of each voxel, `[n]`."""
    shape, coarse = level.operator.shape, level.coarse
    edges = [np.arange(size) // multigrid.FACTOR for size in shape]
    grid = np.meshgrid(*edges, indexing="ij")
    return jnp.asarray(np.ravel_multi_index(tuple(g.ravel() for g in grid), coarse), jnp.int32)
