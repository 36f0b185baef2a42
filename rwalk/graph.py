"""The lattice of an image as a weighted graph: its Laplacian, its mass, coarser lattices.

Legend: E edge directions, n = prod(shape) voxels, flat in C order.
"""

import functools
import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rwalk.stencil import Offsets, Stencil, congruent, reciprocal, to_sparse
from rwalk.weights import edge_weights, edges_between, forward_offsets, shift


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lattice:
    """A graph on a lattice; a pytree whose `offsets` are static.

    Attributes:
        weights: `[E, *shape]`, of the edge from voxel i to i + offsets[e]; zero where there is none.
        active: `[*shape]` bool, the voxels that belong to the graph.
        offsets: E directions, one of each pair of neighbours.
    """

    weights: jax.Array
    active: jax.Array
    offsets: Offsets = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the lattice."""
        return self.active.shape


def build(
    image: Any,
    *,
    beta: Any,
    mask: Any = None,
    spacing: tuple[float, ...] | None = None,
    diagonal: bool = False,
    **options: Any,
) -> Lattice:
    """Make the graph of an image.

    Args:
        image: `[C, *shape]`, two or three axes of space (one is allowed); `[*shape]` is taken for one channel where
            `mask` or `spacing` tells so. Whole numbers are taken for floating point of the run's precision.
        beta: strength of the edges, see `rwalk.weights.edge_weights`.
        mask: `[*shape]` bool; all voxels by default.
        spacing: edge lengths of a voxel, ones by default.
        diagonal: 8 or 26 neighbours instead of 4 or 6.
        options: `convention`, `scale`, `eps`, `radius` of `edge_weights`.

    Returns:
        The lattice.

    Raises:
        ValueError: the shapes do not fit.
    """
    image = jnp.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):  # differences of bytes wrap round, and beta would be cut to whole
        image = image.astype(jnp.result_type(float))
    space = np.ndim(mask) if mask is not None else len(spacing) if spacing is not None else image.ndim - 1
    if image.ndim == space:
        image = image[None]
    if image.ndim != space + 1 or (spacing is not None and len(spacing) != space):
        raise ValueError(
            f"image must be [channels, *space] with as many axes of space as mask and spacing have, got {image.shape}, "
            f"{None if mask is None else np.shape(mask)}, {spacing}"
        )
    active = jnp.ones(image.shape[1:], bool) if mask is None else jnp.asarray(mask, bool)
    offsets = forward_offsets(space, diagonal=diagonal)
    lengths = None if spacing is None else tuple(float(edge) for edge in spacing)
    beta = jnp.asarray(beta, image.dtype)
    return Lattice(edge_weights(image, active, beta, offsets=offsets, spacing=lengths, **options), active, offsets)


def _existing(lattice: Lattice) -> jax.Array:
    """The weights; what stands where there is no edge has no effect, and no derivative."""
    return jnp.where(edges_between(lattice.active, lattice.offsets), lattice.weights, 0)


def degree(lattice: Lattice) -> jax.Array:
    """Sum of the weights at each voxel, `[*shape]`."""
    pairs = zip(_existing(lattice), lattice.offsets, strict=True)
    return sum((w + shift(w, _opposite(o)) for w, o in pairs), jnp.zeros_like(lattice.weights[0]))


def _opposite(offset: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-step for step in offset)


def laplacian(lattice: Lattice, x: jax.Array) -> jax.Array:
    """L x = D x - W x in the form that several devices share.

    Each edge carries its flow out of one voxel and into the other, so columns of L sum to zero by construction.

    Args:
        lattice: the graph.
        x: `[..., *shape]`.

    Returns:
        Like x.
    """
    lead = (None,) * (x.ndim - len(lattice.shape))
    result = jnp.zeros_like(x)
    for w, offset in zip(_existing(lattice), lattice.offsets, strict=True):
        flow = w[lead] * (x - shift(x, offset))
        result = result + flow - shift(flow, _opposite(offset))
    return result


def stencil_of(lattice: Lattice) -> Stencil:
    """L as a flat stencil."""
    weights = _existing(lattice)
    forward = [-w.ravel() for w in weights]
    backward = [-shift(w, _opposite(o)).ravel() for w, o in zip(weights, lattice.offsets, strict=True)]
    offsets = lattice.offsets + tuple(_opposite(offset) for offset in lattice.offsets)
    return Stencil(degree(lattice).ravel(), jnp.stack(forward + backward), lattice.shape, offsets)


def mass(lattice: Lattice, *, normalised: bool = True) -> jax.Array:
    """R, `[n]`: the degree, or one, on voxels with an edge; zero elsewhere, where nothing is coupled."""
    degrees = degree(lattice).ravel()
    return degrees if normalised else (degrees > 0).astype(degrees.dtype)


def standard(lattice: Lattice, *, normalised: bool = True) -> tuple[Stencil, jax.Array]:
    """H = R^-1/2 L R^-1/2, whose eigenvectors z give those of L q = lambda R q by q = R^-1/2 z.

    Args:
        lattice: the graph.
        normalised: R is the degree, and the spectrum within [0, 2]; else R is one.

    Returns:
        H, and R^-1/2 `[n]`, zero on voxels without an edge.
    """
    root = jnp.sqrt(reciprocal(mass(lattice, normalised=normalised)))
    return congruent(stencil_of(lattice), root), root


@functools.partial(jax.jit, static_argnames="factor")
def coarsen(lattice: Lattice, factor: int = 2) -> Lattice:
    """Pool cubes of voxels: a coarse edge is the sum of the fine edges between two cubes, that is P^T L P exactly.

    Args:
        lattice: the fine graph.
        factor: voxels along the edge of a cube; cubes at the far border may be cut.

    Returns:
        The coarse graph, shape rounded up, with the same offsets.
    """
    space = len(lattice.shape)
    coarse = tuple(-(-size // factor) for size in lattice.shape)
    known = {offset: index for index, offset in enumerate(lattice.offsets)}
    sums = [jnp.zeros(coarse, lattice.weights.dtype) for _ in lattice.offsets]
    for weights, offset in zip(lattice.weights, lattice.offsets, strict=True):
        padded = _pad_to(weights, coarse, factor)
        for corner in itertools.product(range(factor), repeat=space):
            step = tuple((c + o) // factor for c, o in zip(corner, offset, strict=True))
            part = padded[tuple(slice(c, None, factor) for c in corner)]
            if step in known:
                sums[known[step]] = sums[known[step]] + part
            elif _opposite(step) in known:  # stored at the other end
                index = known[_opposite(step)]
                sums[index] = sums[index] + shift(part, _opposite(step))
    corners = itertools.product(range(factor), repeat=space)
    padded = _pad_to(lattice.active, coarse, factor)
    active = functools.reduce(jnp.logical_or, (padded[tuple(slice(c, None, factor) for c in each)] for each in corners))
    return Lattice(jnp.stack(sums), active, lattice.offsets)


def _pad_to(x: jax.Array, coarse: tuple[int, ...], factor: int) -> jax.Array:
    return jnp.pad(x, [(0, factor * big - size) for big, size in zip(coarse, x.shape, strict=True)])


def pool(x: jax.Array, factor: int = 2) -> jax.Array:
    """P^T x: sums over the cubes of `coarsen`, `[*shape]` to `[*coarse]`."""
    coarse = tuple(-(-size // factor) for size in x.shape)
    split = [part for size in coarse for part in (size, factor)]
    return _pad_to(x, coarse, factor).reshape(split).sum(tuple(range(1, 2 * x.ndim, 2)))


def repeat(x: jax.Array, shape: tuple[int, ...], factor: int = 2) -> jax.Array:
    """P x: every voxel of `shape` takes the value of its cube."""
    for axis in range(x.ndim):
        x = jnp.repeat(x, factor, axis)
    return x[tuple(slice(size) for size in shape)]


def components(lattice: Lattice) -> np.ndarray:
    """Connected component of each voxel, `[*shape]` int from 0; -1 outside the graph. Runs on the host."""
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(to_sparse(stencil_of(lattice)), directed=False)
    active = np.asarray(lattice.active).ravel()
    _, renumbered = np.unique(labels[active], return_inverse=True)
    found = np.full(active.shape, -1)
    found[active] = renumbered
    return found.reshape(lattice.shape)


__all__ = [
    "Lattice", "build", "coarsen", "components", "degree", "laplacian", "mass", "pool", "repeat",
    "standard", "stencil_of",
]  # fmt: skip
