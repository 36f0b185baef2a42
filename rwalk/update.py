"""A basis made fit for a graph whose weights have changed, at a small part of the cost of a new one.

Legend: K pairs, n voxels; L0, R0 of the graph before, L, R after; blocks are `[n, k]`; y = D^1/2 q as in `Pencil`.
Derived here from the abstract of arXiv 1607.04174 (reconstruction).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import perturbation
from rwalk.eigen import Basis, columns, describe, ritz, smallest_eigenpairs
from rwalk.eigen.columns import Blocks
from rwalk.eigen.pencil import Pencil, pencil_of
from rwalk.graph import Lattice
from rwalk.stencil import apply_columns, on_host, reciprocal

Mode = Literal["stale", "first_order", "second_order", "ritz", "filtered"]
MODES = ("stale", "first_order", "second_order", "ritz", "filtered")
SAMPLE = 20  # vectors at most that tell how large a change is
MILD = 1.0  # a filter of degree m begins at top (MILD/m)^2 at least
STRONG = 3.8  # its degree is at most this times (top / edge)^1/2: a gain above 1e3 makes float32 blocks dependent
FOLLOWED = 8.0  # its degree in these units, over the square of the change: that is how the Ritz values are off
SMOOTH, SMOOTH_GAIN = 0.5, 99.0  # edge of a filter of degree 3, as a share of top, and T_3(3), its gain at zero
NEARER = 0.5  # rank of the value, as a share of K, from which the edge is placed when the last ones are not known
BEYOND = 3.5  # the edge over that value
DOUBT = 20  # degree of the filter on random vectors
ROUNDS = 3  # of filter and projection at most, where the edge had to be guessed
BATCH = 8  # random vectors come in multiples of so many: sizes that share a compiled program


def reweight(
    basis: Basis,
    before: Lattice,
    after: Lattice,
    *,
    mode: Mode = "filtered",
    degree: int = 40,
    normalised: bool = True,
) -> Basis:
    """A basis for a graph whose weights have changed everywhere a little, as by another beta.

    Modes of a few voxels that were cut off are not near the old span: for these see `rwalk.topology.restrict`.

    Args:
        basis: pairs of `before`.
        before: the graph they belong to.
        after: the graph now, of the same shape.
        mode: `stale` leaves the basis as it is, `first_order` is perturbation theory (the paper's) and `second_order`
            its next term, `ritz` finds the best pairs within the old span, `filtered` within that span after a
            Chebyshev filter of the new graph, the stronger the larger the change.
        degree: of the filter at most.
        normalised: R is the degree, as when the basis was computed.

    Returns:
        The basis; of `ritz` fewer pairs where the old vectors are dependent on what is left of the graph.

    Raises:
        ValueError: unknown mode, or graphs of different shapes.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}; allowed are {', '.join(MODES)}")
    if before.shape != after.shape or before.offsets != after.offsets:
        raise ValueError(
            f"the graphs have shapes {before.shape} and {after.shape}, or other neighbours; use rwalk.topology"
        )
    if mode == "stale":
        return basis
    pencil = pencil_of(after, normalised=normalised)
    if mode in ("first_order", "second_order"):
        return perturbation.perturbed(basis, before, after, pencil, second=mode == "second_order")
    mass, count = columns.weight(pencil), basis.values.size
    block, steps = _scaled(basis.vectors, pencil.near_null), jnp.zeros((), jnp.int32)
    if mode == "filtered":
        wanted, change = _change(pencil, basis.vectors)
        block, steps, _ = _filter(pencil, block, wanted, jnp.minimum(FOLLOWED * change**2, STRONG), degree)
    masses, energies = (on_host(matrix) for matrix in columns.project(pencil.operator, mass, (block,)))
    values, chosen = ritz.coefficients(masses, energies, count, ritz.unit(block))
    if mode == "filtered" and len(values) < count:
        return refit(after, basis.vectors, count, mass=pencil.measure, degree=degree)
    return describe(after, pencil, columns.recombine((block,), columns.split(chosen, (block,))), steps)


@jax.jit
def _scaled(vectors: jax.Array, near_null: jax.Array) -> jax.Array:
    return vectors * near_null[:, None]


def _change(pencil: Pencil, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest Rayleigh quotient of some vectors, and how far they are from eigenvectors relative to it.

    That is the root mean square of their residuals B^-1 A y - theta y without what is rough in these, noise for the
    most part, in which the wanted vectors have no share and which any filter takes out. Evenly spread ones tell it.
    """
    y = _sampled(pencil, vectors)
    residual, largest = _residual(pencil, y, _image(pencil, y))  # apart: see `columns.residual_norms`
    return largest, _size(pencil, y, columns.amplify(pencil, residual, SMOOTH * pencil.top, 3)) * reciprocal(largest)


@jax.jit
def _sampled(pencil: Pencil, vectors: jax.Array) -> jax.Array:
    last = vectors.shape[1] - 1
    return _scaled(vectors[:, last % (step := last // SAMPLE + 1) :: step], pencil.near_null)


@jax.jit
def _image(pencil: Pencil, y: jax.Array) -> jax.Array:
    return reciprocal(pencil.mass.diagonal)[:, None] * apply_columns(pencil.operator, y)


@jax.jit
def _residual(pencil: Pencil, y: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    quotients = _inner(pencil, y, image) * reciprocal(_inner(pencil, y, y))
    return image - quotients[None] * y, quotients.max()


@jax.jit
def _size(pencil: Pencil, y: jax.Array, residual: jax.Array) -> jax.Array:
    return jnp.sqrt((_inner(pencil, residual, residual) * reciprocal(_inner(pencil, y, y))).mean()) / SMOOTH_GAIN


def _inner(pencil: Pencil, x: jax.Array, y: jax.Array) -> jax.Array:
    return columns.sums(pencil.mass.diagonal[:, None] * x * y, columns.slabs(pencil.operator.shape))


@functools.partial(jax.jit, donate_argnames="block")
def _filter(
    pencil: Pencil, block: jax.Array, edge: jax.Array | float, strength: jax.Array | float, longest: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A block after a Chebyshev filter whose degree is `strength` (top / edge)^1/2; that degree, and the edge."""
    top = pencil.top
    edge = jnp.clip(edge, top * (MILD / longest) ** 2, 0.9 * top)
    steps = jnp.clip(strength * jnp.sqrt(top / edge), 1, longest).astype(jnp.int32)
    return columns.amplify(pencil, block, edge, steps), steps, edge


def refit(
    lattice: Lattice,
    vectors: jax.Array,
    count: int,
    *,
    mass: jax.Array,
    degree: int = 40,
    extra: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Basis:
    """The best pairs of a graph near a span that may lack some: add random vectors, filter, then Rayleigh and Ritz.

    Args:
        lattice: the graph.
        vectors: `[n, m]` of a similar graph; need not be orthogonal, nor independent.
        count: pairs wanted, K.
        mass: `[n]` R.
        degree: of the Chebyshev filter.
        extra: `[n, e]` further vectors of the span: indicators of components, say.
        key: of the random vectors, a fifth of K and as many as the span lacks.

    Returns:
        The basis.

    Raises:
        ValueError: the graph has no edge, or the vectors are zero wherever it has one.
    """
    pencil = pencil_of(lattice, mass)
    weight = columns.weight(pencil)
    blocks: Blocks = tuple(_scaled(x, pencil.near_null) for x in (vectors, extra) if x is not None and x.shape[1])
    values, block = _projected(pencil, weight, blocks, count)
    if not len(values):
        raise ValueError(
            f"the vectors are zero wherever one of the {int(lattice.active.sum())} voxels of the graph has an edge; a "
            "basis needs two neighbours: keep some"
        )
    missing = BATCH * -(-(max(8, count // 5) + count - len(values)) // BATCH)
    guards = columns.random_block(pencil, jax.random.key(0) if key is None else key, missing)
    blocks, taken = (block, columns.mild(pencil, guards, DOUBT)), 0
    for _ in range(ROUNDS):
        edge = BEYOND * float(values[min(int(NEARER * count), len(values) - 1)])
        filtered = [_filter(pencil, block, edge, STRONG, degree) for block in blocks]
        values, block = _projected(pencil, weight, tuple(block for block, *_ in filtered), count + missing)
        taken, blocks = taken + int(filtered[0][1]), (block,)
        # A wanted value above the edge may have met a zero of the polynomial, and its vector be lost.
        if len(values) >= count and values[count - 1] <= float(filtered[0][2]):
            break
    return describe(lattice, pencil, block[:, : min(count, len(values))], taken)


def _projected(pencil: Pencil, mass: jax.Array | None, blocks: Blocks, count: int) -> tuple[np.ndarray, jax.Array]:
    """Ritz values, `count` or what there are, and their vectors with columns of zeros for those that are missing."""
    masses, energies = (on_host(matrix) for matrix in columns.project(pencil.operator, mass, blocks))
    values, chosen = ritz.coefficients(masses, energies, count, ritz.unit(blocks[0]))
    chosen = np.pad(chosen, ((0, 0), (0, count - len(values))))
    return values, columns.recombine(blocks, columns.split(chosen, blocks))


def append(basis: Basis, lattice: Lattice, count: int, **options: Any) -> Basis:
    """More pairs of the same graph, starting from those that are known.

    Args:
        basis: its pairs.
        lattice: the graph.
        count: pairs wanted in all.
        options: of `rwalk.eigen.smallest_eigenpairs`.

    Returns:
        The larger basis.
    """
    return smallest_eigenpairs(lattice, count, x0=basis.vectors, **options)
