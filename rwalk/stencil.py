"""Sparse symmetric operators on a lattice as diagonals (DIA): one flat array per neighbour.

Legend: n voxels, flat in C order; B bands, one per neighbour in both directions; blocks of vectors are `[k, n]`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Offsets = tuple[tuple[int, ...], ...]
LARGEST_GROUP = 8
LARGE = 2**22  # entries of a block from which memory matters
SHORT = 2**15  # entries up to which a block is not worth taking apart


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stencil:
    """(A x)(i) = diagonal(i) x(i) + sum_b bands(b, i) x(i + offsets(b)); a pytree, `shape` and `offsets` static.

    A band is zero where its neighbour is outside the lattice, so that flat shifts need no border.

    Attributes:
        diagonal: `[n]`.
        bands: `[B, n]`.
        shape: of the lattice.
        offsets: B neighbours.
    """

    diagonal: jax.Array
    bands: jax.Array
    shape: tuple[int, ...] = field(metadata={"static": True})
    offsets: Offsets = field(metadata={"static": True})

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)


def strides(shape: tuple[int, ...], offsets: Offsets) -> list[int]:
    """Distance of each neighbour in the flat array."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return [sum(a * b for a, b in zip(offset, steps, strict=True)) for offset in offsets]


def neighbours(x: jax.Array, shape: tuple[int, ...], offsets: Offsets, axis: int = -1) -> list[jax.Array]:
    """Values at each neighbour along the flat axis, like x each; off the ends of the array they are zero.

    A pad that cuts at one end what it adds at the other: XLA fuses it with what it is multiplied by, several devices
    exchange only what crosses their borders, and no padded copy of x is made.
    """
    widths = [[(0, 0, 0)] * x.ndim for _ in offsets]
    for width, jump in zip(widths, strides(shape, offsets), strict=True):
        width[axis] = (-jump, jump, 0)
    return [lax.pad(x, jnp.zeros((), x.dtype), width) for width in widths]


def apply(operator: Stencil, x: jax.Array) -> jax.Array:
    """A x.

    Args:
        operator: A.
        x: `[n]` or `[k, n]`.

    Returns:
        Like x.
    """
    grid = (*x.shape[:-1], *operator.shape)
    lead = (None,) * (x.ndim - 1)
    x = x.reshape(grid)
    result = operator.diagonal.reshape(operator.shape)[lead] * x
    for band, offset in zip(operator.bands, operator.offsets, strict=True):
        # Pads of whole axes: XLA vectorises them, which it does not where one axis stands for all.
        widths = [(0, 0, 0)] * len(lead) + [(-step, step, 0) for step in offset]
        result = result + band.reshape(operator.shape)[lead] * lax.pad(x, jnp.zeros((), x.dtype), widths)
    return result.reshape(*grid[: len(lead)], -1)


def apply_columns(operator: Stencil, x: jax.Array) -> jax.Array:
    """A x of a block turned to `[n, k]`: whole rows are moved, at nearly the speed of a copy."""
    result = operator.diagonal[:, None] * x
    for band, values in zip(operator.bands, neighbours(x, operator.shape, operator.offsets, 0), strict=True):
        result = result + band[:, None] * values
    return result


def placed_like(x: Any, like: jax.Array, *, whole: bool = False) -> jax.Array:
    """An array `[n, ...]` on the devices that hold `like` `[n]`: the same rows on each, or all of it (`whole`)."""
    sharding = getattr(like, "sharding", None)
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return jnp.asarray(x)
    first = None if whole else (tuple(sharding.spec) or (None,))[0]
    spec = jax.sharding.PartitionSpec(*(first, None, None)[: np.ndim(x)])
    return jax.device_put(x, jax.sharding.NamedSharding(sharding.mesh, spec))


def on_host(x: Any) -> np.ndarray:
    """An array as NumPy has it, also one whose pieces other processes hold."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        whole = jax.sharding.NamedSharding(x.sharding.mesh, jax.sharding.PartitionSpec())  # type: ignore[attr-defined]
        x = jax.jit(lambda y: y, out_shardings=whole)(x)
    return np.asarray(x)


def one_by_one(function: Callable[..., Any], *blocks: jax.Array) -> Any:
    """A function of blocks, `[k, n]` each, vector by vector: what it does to one of them stays in the caches.

    What it needs beside its result is memory for one vector. Short vectors are taken all at once.
    """
    if blocks[0].shape[0] < 2 or blocks[0].shape[1] < SHORT:
        return function(*blocks)
    results = lax.map(lambda rows: function(*(row[None] for row in rows)), blocks)
    return jax.tree.map(lambda result: result[:, 0], results)


def in_groups(function: Callable[[jax.Array], jax.Array], block: jax.Array) -> jax.Array:
    """A function of a large block, `[k, n]`, for a few vectors at a time, so that its own memory is that of a few."""
    k, n = block.shape
    group = next(size for size in range(min(LARGEST_GROUP, k), 0, -1) if k % size == 0)
    if k * n < LARGE or group == k:
        return function(block)
    return lax.map(function, block.reshape(k // group, group, n)).reshape(k, n)


def congruent(operator: Stencil, scale: jax.Array) -> Stencil:
    """C A C for the diagonal matrix C = diag(scale), `scale` `[n]`."""
    others = jnp.stack(neighbours(scale, operator.shape, operator.offsets))
    return Stencil(
        operator.diagonal * scale**2, operator.bands * scale[None] * others, operator.shape, operator.offsets
    )


def restricted(operator: Stencil, free: jax.Array) -> Stencil:
    """A on the voxels where `free` `[n]` bool, the identity on the others, nothing between the two."""
    keep = free.astype(operator.diagonal.dtype)
    cut = congruent(operator, keep)
    return Stencil(jnp.where(free, operator.diagonal, 1), cut.bands, operator.shape, operator.offsets)


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x where x is positive, else zero."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def to_sparse(operator: Stencil) -> Any:
    """The operator as a float64 `scipy.sparse` matrix in CSR form."""
    from scipy import sparse

    jumps = strides(operator.shape, operator.offsets)
    bands = [np.roll(band, jump) for band, jump in zip(on_host(operator.bands).astype(float), jumps, strict=True)]
    data = np.stack([on_host(operator.diagonal).astype(float), *bands])  # a diagonal is stored by its columns
    whole: dict[int, np.ndarray] = {}
    for jump, row in zip([0, *jumps], data, strict=True):
        whole[jump] = whole[jump] + row if jump in whole else row
    n = operator.size
    matrix = sparse.dia_array((np.stack(list(whole.values())), list(whole)), shape=(n, n)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def identity(like: Stencil) -> Stencil:
    """The identity on the lattice of another stencil."""
    return Stencil(jnp.ones_like(like.diagonal), jnp.zeros_like(like.bands), like.shape, like.offsets)
