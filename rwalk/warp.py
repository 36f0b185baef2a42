"""Displacement fields on a lattice: sampling along them, composing, scaling, and what they do to volumes.

Legend: d axes of space; a field u is `[d, *shape]` in voxels and takes the point i of the fixed grid to i + u(i).
"""

import functools

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def grid(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Index of every voxel, `[d, *shape]`."""
    return jnp.stack(jnp.meshgrid(*(jnp.arange(size, dtype=dtype) for size in shape), indexing="ij"))


@functools.partial(jax.jit, static_argnames="order")
def sample(images: jax.Array, field: jax.Array, *, order: int = 1) -> jax.Array:
    """Values at i + u(i): images of the moving grid on the fixed grid.

    Args:
        images: `[C, *moving]`.
        field: `[d, *shape]`.
        order: 1 interpolates linearly, 0 takes the nearest voxel.

    Returns:
        `[C, *shape]`; beyond its border an image goes on with its border's value.
    """
    points = list(grid(field.shape[1:], field.dtype) + field)
    return jnp.stack([map_coordinates(image, points, order, mode="nearest") for image in images])


def compose(first: jax.Array, then: jax.Array) -> jax.Array:
    """The field of i -> (i + a(i)) -> (i + a(i)) + b(i + a(i)), for a = `first` and b = `then`, `[d, *shape]` each."""
    return first + sample(then, first)


@functools.partial(jax.jit, static_argnames=("shape", "factor"))
def refine(field: jax.Array, shape: tuple[int, ...], factor: int) -> jax.Array:
    """A field of cubes of `factor` voxels on the voxels themselves, `[d, *coarse]` to `[d, *shape]`, linearly.

    The centre of cube I is at index factor I + (factor - 1)/2 of the fine grid.
    """
    axes = [(jnp.arange(size, dtype=field.dtype) - (factor - 1) / 2) / factor for size in shape]
    points = jnp.meshgrid(*axes, indexing="ij")
    return factor * jnp.stack([map_coordinates(part, points, 1, mode="nearest") for part in field])


@jax.jit
def jacobian(field: jax.Array) -> jax.Array:
    """det(I + grad u) by central differences, one-sided at the border, `[*shape]`; not positive where space folds.

    Along an axis of length one nothing changes.
    """
    dimensions = field.shape[0]
    matrix = [[_slope(part, axis) for axis in range(dimensions)] for part in field]
    for axis in range(dimensions):
        matrix[axis][axis] = matrix[axis][axis] + 1
    if dimensions == 2:
        (a, b), (c, d) = matrix
        return a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def _slope(x: jax.Array, axis: int) -> jax.Array:
    return jnp.asarray(jnp.gradient(x, axis=axis)) if x.shape[axis] > 1 else jnp.zeros_like(x)


@functools.partial(jax.jit, static_argnames="steps")
def invert(field: jax.Array, *, steps: int = 20) -> jax.Array:
    """The field v with v(j) = -u(j + v(j)), by fixed-point steps, which contract where u changes by less than a voxel.

    Args:
        field: `[d, *shape]`.
        steps: of v <- -u(. + v).

    Returns:
        `[d, *shape]`, of the same grid.

    Source: Chen et al. 2008, Medical Physics 35:81, eq. 12.
    """
    return jax.lax.fori_loop(0, steps, lambda _, v: -sample(field, v), -field)


def inconsistency(there: jax.Array, back: jax.Array) -> jax.Array:
    """|u(i) + v(i + u(i))|: how far a point is from itself after going there and back, `[*shape]`, voxels."""
    return jnp.sqrt((compose(there, back) ** 2).sum(0))
