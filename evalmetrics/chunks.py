"""Loops over blocks of voxels: bounded memory, and float32 sums that stay accurate at any length.

Legend: N voxels, on the last axis of every array.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Blocks = Any  # pytree of arrays whose last axis is voxels


def sum_chunks(function: Callable[[Blocks], Any], arrays: Blocks, chunk: int) -> Any:
    """Sum `function(block)` over the blocks of the last axis.

    The sum within a block is the function's; across blocks it is compensated, because a sequential float32 sum of
    2^24 voxels is off in the fifth digit. Blocks are cut inside the loop, so that no second copy of the volume exists.

    Args:
        function: from arrays of at most `chunk` voxels to a pytree of additive sums.
        arrays: pytree of arrays `[..., N]`.
        chunk: voxels per block, at least 1.

    Returns:
        The pytree that `function` returns, summed.

    Raises:
        ValueError: chunk is not positive.

    Source: Kahan 1965 (compensated summation).
    """
    voxels, size, steps = _plan(arrays, chunk)
    if steps <= 1 and size == voxels:
        return function(arrays)

    def step(carry: tuple[Any, Any], index: jax.Array) -> tuple[tuple[Any, Any], None]:
        return compensated_add(*carry, function(_cut(arrays, index * size, size))), None

    zero = jax.tree.map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda a: function(_cut(a, 0, size)), arrays)
    )
    (total, lost), _ = lax.scan(step, (zero, zero), jnp.arange(steps))
    if steps * size < voxels:
        total, lost = compensated_add(total, lost, function(_rest(arrays, steps * size)))
    return total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def differentiable_sum(function: Callable[[Blocks, Blocks], Any], maps: Blocks, rest: Blocks, chunk: int) -> Any:
    """`sum_chunks` of `function(maps, rest)` with a derivative in `maps` that takes one more pass.

    Differentiating the loop itself would keep what every step computed. Here each block is computed again and pulled
    back on its own, because the derivative of a sum needs nothing of the other blocks.

    Args:
        function: from the maps of at most `chunk` voxels, and the rest, to a pytree of additive sums.
        maps: pytree of floating arrays `[..., N]`, differentiated.
        rest: pair of a pytree of arrays `[..., N]` and a pytree of constants that are not cut; not differentiated.
        chunk: voxels per block, at least 1.

    Returns:
        The pytree that `function` returns, summed.
    """
    blocks, constants = rest
    return sum_chunks(lambda x: function(x[0], (x[1], constants)), (maps, blocks), chunk)


def _forward(function: Callable[[Blocks, Blocks], Any], maps: Blocks, rest: Blocks, chunk: int) -> tuple[Any, Any]:
    return differentiable_sum(function, maps, rest, chunk), (maps, rest)


def _backward(function: Callable[[Blocks, Blocks], Any], chunk: int, kept: Any, cotangent: Any) -> tuple[Any, None]:
    maps, (blocks, constants) = kept

    def pull_back(x: Blocks) -> Blocks:
        return jax.vjp(lambda m: function(m, (x[1], constants)), x[0])[1](cotangent)[0]

    return map_chunks(pull_back, (maps, blocks), chunk), None


differentiable_sum.defvjp(_forward, _backward)


def map_chunks(function: Callable[[Blocks], Any], arrays: Blocks, chunk: int) -> Any:
    """Apply `function` to each block of the last axis and join the results along it.

    Args:
        function: from arrays of at most `chunk` voxels to a pytree of arrays with voxels last.
        arrays: pytree of arrays `[..., N]`.
        chunk: voxels per block, at least 1.

    Returns:
        The pytree that `function` returns, each `[..., N]`.

    Raises:
        ValueError: chunk is not positive.
    """
    voxels, size, steps = _plan(arrays, chunk)
    if steps <= 1 and size == voxels:
        return function(arrays)
    shapes = jax.eval_shape(lambda a: function(_cut(a, 0, size)), arrays)

    def step(index: jax.Array, out: Any) -> Any:
        return _put(out, function(_cut(arrays, index * size, size)), index * size)

    out = jax.tree.map(lambda s: jnp.zeros((*s.shape[:-1], voxels), s.dtype), shapes)
    out = lax.fori_loop(0, steps, step, out)
    return _put(out, function(_rest(arrays, steps * size)), steps * size) if steps * size < voxels else out


def _put(out: Blocks, block: Blocks, start: jax.Array | int) -> Blocks:
    return jax.tree.map(lambda o, x: lax.dynamic_update_slice_in_dim(o, x, start, -1), out, block)


def _plan(arrays: Blocks, chunk: int) -> tuple[int, int, int]:
    """Voxels, voxels per block, number of whole blocks."""
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 voxel, got {chunk}")
    voxels = jax.tree.leaves(arrays)[0].shape[-1]
    size = min(chunk, voxels)
    return voxels, size, voxels // size if size else 1


def _cut(arrays: Blocks, start: jax.Array | int, size: int) -> Blocks:
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, -1), arrays)


def _rest(arrays: Blocks, start: int) -> Blocks:
    return jax.tree.map(lambda x: x[..., start:], arrays)


def compensated_add(total: Any, lost: Any, term: Any) -> tuple[Any, Any]:
    """One step of Kahan's sum on every leaf: the new total and what its rounding lost."""
    corrected = jax.tree.map(lambda t, c: t - c, term, lost)
    summed = jax.tree.map(lambda s, y: s + y, total, corrected)
    return summed, jax.tree.map(lambda t, s, y: (t - s) - y, summed, total, corrected)
