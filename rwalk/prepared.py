"""A graph made ready for interactions: what multigrid and a basis need is made once a graph, not once a stroke.

A hierarchy of the whole graph knows nothing of seeds, and preconditions badly where they hold a smooth mode down. The
basis repairs just that, and for this it need not be exact: its projection onto the next coarser lattice, Z, is enough,
of which the fine one sees P Z. So no interaction reads the basis; `rwalk.deflate` answers them.

Legend: K pairs, n voxels, m of the coarse lattice; A = D^-1/2 (L + gamma R) D^-1/2 with D the diagonal of the bracket;
blocks are `[k, n]`.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
SMALLEST = 127  # unknowns of the last level; LAPACK takes several threads for more, which wait for XLA's
FITTED = 1e-2  # residual of the projection of the basis
MOST = 30  # steps of it
ROUNDING = 100  # of the last digit, added to the unit diagonal of the matrix that is inverted for each interaction
SIZES = (64, 256, 1024)  # numbers that seeds are padded to; beyond, the last times powers of four


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prepared:
    """A graph made ready for interactions; a pytree.

    Attributes:
        hierarchy: of A, without seeds.
        root: `[n]` D^1/2, zero on voxels without an edge.
        mass: `[n]` R.
        active: `[n]`, voxels of the graph.
        gamma: `[]` weight of the priors; seeds alone are answered where it is zero.
        coarse: `[m, K]` Z.
        cube: `[n]`, number of the coarse voxel that each belongs to.
        energies: `[K, K]`, those of P Z.
        pieces: `[n]`, number of the connected component of each voxel with an edge; all zero where priors reach each.
        count: of components, or one.
        damped: gamma is positive.
        normalised: R is the degree.
    """

    hierarchy: Hierarchy
    root: jax.Array
    mass: jax.Array
    active: jax.Array
    gamma: jax.Array
    coarse: jax.Array
    cube: jax.Array
    energies: jax.Array
    pieces: jax.Array
    count: int = field(metadata={"static": True})
    damped: bool = field(metadata={"static": True})
    normalised: bool = field(metadata={"static": True})


def prepare(lattice: Lattice, basis: Basis, *, gamma: float = 0.0, normalised: bool = True) -> Prepared:
    """Make a graph ready; costs about as much as one solve.

    Args:
        lattice: the graph.
        basis: its eigenpairs, or nearly.
        gamma: weight of the priors in the questions to come; zero where seeds alone will be told.
        normalised: the priors are weighted by the degree, else evenly.

    Returns:
        What `rwalk.deflate` needs.

    Raises:
        ValueError: fewer than 2 voxels, or a basis of another graph's size.
    """
    n = lattice.active.size
    if basis.mass.size != n or n < 2:
        raise ValueError(f"a graph of {n} voxels, a basis of {basis.mass.size}; give the basis of this graph")
    pieces, count = _pieces(lattice, damped=gamma > 0)
    weight = jnp.asarray(gamma, lattice.weights.dtype)
    return _prepare(lattice, basis.vectors, pieces, weight, count, gamma > 0, normalised)


def follow(ready: Prepared, lattice: Lattice) -> Prepared:
    """Make the graph after a change ready, with the span of the basis as it was and its energies in the new graph.

    Conjugate gradients need the span alone, not the pairs in it: for them this is the basis after `mode="ritz"`.

    Args:
        ready: the graph before.
        lattice: the graph after, on the same lattice.

    Returns:
        The graph after, made ready.
    """
    pieces, count = _pieces(lattice, damped=ready.damped)
    return _follow(ready, lattice, pieces, count)


def _pieces(lattice: Lattice, *, damped: bool) -> tuple[jax.Array, int]:
    """The component of each voxel, and their number; one where priors reach every voxel."""
    pieces, count = np.zeros(lattice.active.size, np.int32), 1
    if not damped:
        # Of several processes each holds a part.
        whole = jax.tree.map(lambda part: jnp.asarray(stencil.on_host(part)), lattice)
        coupled = np.asarray(graph.degree(whole) > 0).ravel()
        names, pieces[coupled] = np.unique(graph.components(whole).ravel()[coupled], return_inverse=True)
        count = len(names)
    return stencil.placed_like(pieces, lattice.active.ravel()), count


@functools.partial(jax.jit, static_argnames=("count", "damped", "normalised"))
def _prepare(
    lattice: Lattice,
    vectors: jax.Array,
    pieces: jax.Array,
    gamma: jax.Array,
    count: int,
    damped: bool,
    normalised: bool,
) -> Prepared:
    hierarchy, root, mass = _levels(lattice, gamma, normalised)
    level = hierarchy.levels[0]
    metric = multigrid.galerkin(level, stencil.identity(level.operator))
    unit = jnp.sqrt(reciprocal(metric.diagonal))[None]
    scaled = vectors.astype(root.dtype) * root[:, None]
    right = stencil.one_by_one(functools.partial(multigrid.restrict, level), scaled.T)
    found, *_ = solve.conjugate_gradients(
        functools.partial(apply, congruent(metric, unit[0])),
        lambda r: r,
        unit * right,
        jnp.zeros_like(right),
        FITTED,
        MOST,
    )
    z = unit * found
    return Prepared(
        hierarchy, root, mass, lattice.active.ravel(), gamma, z.T, _cubes(level), _energies(hierarchy, z), pieces,
        count, damped, normalised,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames="count")
def _follow(ready: Prepared, lattice: Lattice, pieces: jax.Array, count: int) -> Prepared:
    hierarchy, root, mass = _levels(lattice, ready.gamma, ready.normalised)
    # The same values on each cube: a column of P is a cube's root, times the scale.
    before, after = ready.hierarchy.levels[0].scale, hierarchy.levels[0].scale
    z = (ready.coarse * (before * reciprocal(after))[:, None]).T
    return Prepared(
        hierarchy, root, mass, lattice.active.ravel(), ready.gamma, z.T, ready.cube, _energies(hierarchy, z), pieces,
        count, ready.damped, ready.normalised,
    )  # fmt: skip


def _levels(lattice: Lattice, gamma: jax.Array, normalised: bool) -> tuple[Hierarchy, jax.Array, jax.Array]:
    """The hierarchy of A, D^1/2 and R."""
    laplacian, mass = graph.stencil_of(lattice), graph.mass(lattice, normalised=normalised)
    diagonal = laplacian.diagonal + gamma * mass
    whole = Stencil(diagonal, laplacian.bands, laplacian.shape, laplacian.offsets)
    root = jnp.sqrt(diagonal)
    operator = congruent(whole, reciprocal(root))
    return multigrid.setup(operator, root, coarsest=min(SMALLEST, operator.size - 1)), root, mass


def _energies(hierarchy: Hierarchy, z: jax.Array) -> jax.Array:
    """Z^T A Z on the coarse lattice, of Z^T `[K, m]`."""
    operator = hierarchy.levels[1].operator if len(hierarchy.levels) > 1 else hierarchy.coarsest
    energies = jnp.matmul(apply(operator, z), z.T, precision=EXACT)
    return (energies + energies.T) / 2


def _cubes(level: Level) -> jax.Array:
    """Number of the aggregate of each voxel, `[n]`."""
    edges = [np.arange(size) // multigrid.FACTOR for size in level.operator.shape]
    grid = np.meshgrid(*edges, indexing="ij")
    return jnp.asarray(np.ravel_multi_index(tuple(g.ravel() for g in grid), level.coarse), jnp.int32)


def held(hierarchy: Hierarchy, free: jax.Array) -> Hierarchy:
    """The hierarchy once some voxels are held fixed, for much less than a new one costs.

    The finest operator is cut exactly. To the coarse ones the energy of the edges that are cut is added on the
    diagonal, as if prolongations were not smooth: without it a cycle would take an aggregate that is held down for one
    that is nearly free.

    Args:
        hierarchy: of the whole graph.
        free: `[n]` bool.

    Returns:
        A hierarchy for a cycle; its coarse operators are no longer products of the finest one.
    """
    first = hierarchy.levels[0]
    cut = jnp.where(free, 0, first.near_null)
    pull = jnp.where(free, -first.near_null * apply(first.operator, cut), 0)
    operator = multigrid.in_memory(first, lambda operator: stencil.restricted(operator, free), first.operator)
    level = replace(first, operator=operator, near_null=jnp.where(free, first.near_null, 0))
    levels = []
    for following in (*hierarchy.levels[1:], None):
        stiff = level.scale**2 * multigrid.pool(pull[None], level.operator.shape, level.coarse)[0]
        unit = 1 / jnp.sqrt(1 + stiff)
        levels.append(replace(level, scale=level.scale * unit))
        operator = hierarchy.coarsest if following is None else following.operator
        operator = replace(operator, diagonal=jnp.where(operator.diagonal > 0, operator.diagonal + stiff, 0))
        operator = stencil.congruent(operator, unit)
        if following is not None:
            pull = following.near_null**2 * stiff
            level = replace(following, operator=operator, near_null=following.near_null / unit)
    matrix = apply(operator, jnp.eye(operator.size, dtype=operator.diagonal.dtype))
    factor, good = _factored(matrix + jnp.diag(jnp.where(operator.diagonal > 0, 0, 1).astype(matrix.dtype)))
    return Hierarchy(
        tuple(levels), operator, jnp.where(good, factor, jnp.eye(operator.size, dtype=factor.dtype)), factored=True
    )


def _factored(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lower Cholesky factor of a small matrix of unit diagonal, a little added to that, and whether it exists."""
    more = ROUNDING * jnp.finfo(matrix.dtype).eps * jnp.eye(len(matrix), dtype=matrix.dtype)
    factor = lax.linalg.cholesky(matrix + more)
    return factor, jnp.isfinite(jnp.diagonal(factor)).all()


class Small(NamedTuple):
    """What solves for E = (F W)^T A F W, W = P Z: the Cholesky factor of S E S, `[K, K]`, and S, `[K]` a diagonal."""

    factor: jax.Array
    scale: jax.Array

    def solve(self, c: jax.Array) -> jax.Array:
        """Compute c E^-1, `[k, K]`."""
        return self.scale[None] * multigrid.solve_factored(self.factor, self.scale[None] * c)


def small(ready: Prepared, free: jax.Array, at: jax.Array) -> Small:
    """The small system of a question; directions that the seeds leave without energy are left out.

    Args:
        ready: the graph.
        free: `[n]` bool, F.
        at: `[M]` flat indices of the seeds, n or more where there is none.

    Returns:
        What solves for it.
    """
    matrix = _energies_around(ready, free, at) if len(at) <= SIZES[-1] else _energies_whole(ready, free)
    diagonal = jnp.diagonal(matrix)
    least = jnp.finfo(matrix.dtype).eps * jnp.diagonal(ready.energies)
    scale = jnp.where(diagonal > least, reciprocal(jnp.sqrt(jnp.maximum(diagonal, 0))), 0)
    one = jnp.where(scale > 0, 0, 1).astype(matrix.dtype)
    factor, good = _factored(matrix * scale[:, None] * scale[None] + jnp.diag(one))
    return Small(jnp.where(good, factor, jnp.eye(len(matrix), dtype=factor.dtype)), jnp.where(good, scale, 0))


def _energies_whole(ready: Prepared, free: jax.Array) -> jax.Array:
    """(F W)^T A F W by products with all of W: for many seeds."""
    level = ready.hierarchy.levels[0]
    keep = free.astype(ready.root.dtype)[None]
    block = stencil.one_by_one(lambda z: keep * multigrid.prolong(level, z), ready.coarse.T)
    image = stencil.one_by_one(lambda w: apply(level.operator, w), block)
    matrix = jnp.matmul(image, block.T, precision=EXACT)
    return (matrix + matrix.T) / 2


def _energies_around(ready: Prepared, free: jax.Array, at: jax.Array) -> jax.Array:
    """The same: the energies of W are known; what the seeds take away follows from the rows of W round them."""
    level = ready.hierarchy.levels[0]
    damping = multigrid.damping(level)
    operator, n = level.operator, ready.root.size

    def spread(places: jax.Array) -> jax.Array:
        cube = ready.cube[places]
        return (level.near_null[places] * level.scale[cube])[..., None] * ready.coarse[cube]

    def rows(places: jax.Array) -> jax.Array:
        around, entries = _around(operator, places)
        return spread(places) - damping * (entries[..., None] * spread(around)).sum(-2)

    seen = (at < n).astype(ready.root.dtype)[:, None]
    around, entries = _around(operator, jnp.minimum(at, n - 1))
    near = rows(around)  # [M, 1 + B, K]
    own = near[:, 0] * seen
    border = (jnp.where(free[around], entries, 0)[..., None] * near).sum(1) * seen
    between = (jnp.where(free[around], 0, entries)[..., None] * near).sum(1) * seen
    crossed = jnp.matmul(own.T, border + between / 2, precision=EXACT)
    return multigrid.in_memory(level, lambda crossed: ready.energies - crossed - crossed.T, crossed)


def _around(operator: Stencil, places: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Each voxel and its neighbours, and the entries of A there, `[..., 1 + B]` each."""
    jumps = [0, *strides(operator.shape, operator.offsets)]
    around = jnp.stack([jnp.clip(places + jump, 0, operator.size - 1) for jump in jumps], -1)
    entries = jnp.concatenate([operator.diagonal[None], operator.bands])
    return around, jnp.moveaxis(entries[:, places], 0, -1)
