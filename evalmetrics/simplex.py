"""Aitchison geometry of the simplex.

Legend: K parts (regions), N voxels. Compositions are stored part-first, `[K, ...]`, so that voxels are contiguous;
every function works over the leading axis and takes any number of trailing ones.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from evalmetrics import chunks

Zeros = Literal["clip", "multiplicative", "additive"]
ZEROS = ("clip", "multiplicative", "additive")
CHUNK_ENTRIES = 1 << 20  # parts x voxels per step: 4 MB of float32 for each array in flight


def closure(amounts: jax.Array) -> jax.Array:
    """Scale non-negative amounts to sum to one: x_i / sum_k x_k.

    Args:
        amounts: `[K, ...]`, non-negative, not all zero over K.

    Returns:
        `[K, ...]`, sums to one over K.

    Source: Aitchison 1986, definition 2.3.
    """
    return amounts / amounts.sum(0, keepdims=True)


def replace_zeros(composition: jax.Array, eps: float | jax.Array, method: Zeros = "clip") -> jax.Array:
    """Lift zeros so that logarithms exist.

    `clip` closes max(p, eps); `multiplicative` puts eps in place of each zero and scales the other parts by
    1 - eps * zeros, which keeps their ratios; `additive` is (p + eps) / (1 + K eps).

    Args:
        composition: `[K, ...]`, non-negative, sums to one over K.
        eps: replacement, in (0, 1/K). It is part of every Aitchison score: report it.
        method: `clip`, `multiplicative` or `additive`.

    Returns:
        `[K, ...]`, positive, sums to one over K.

    Raises:
        ValueError: unknown method, or a number eps outside (0, 1/K).

    Source: Martin-Fernandez et al. 2003 (multiplicative); Aitchison 1986, section 11.5 (additive).
    """
    parts = composition.shape[0]
    if isinstance(eps, (int, float)) and not 0 < eps * parts < 1:
        raise ValueError(f"eps must lie in (0, 1/{parts}) for {parts} parts, got {eps}")
    if method == "clip":
        return closure(jnp.maximum(composition, eps))
    if method == "multiplicative":
        zero = composition <= 0
        kept = 1 - eps * zero.sum(0, keepdims=True).astype(composition.dtype)
        return jnp.where(zero, eps, composition * kept)
    if method == "additive":
        return (composition + eps) / (1 + parts * eps)
    raise ValueError(f"unknown zero replacement {method!r}; choose one of {', '.join(ZEROS)}")


def clr(composition: jax.Array) -> jax.Array:
    """Centred log-ratios: ln p_i - mean_k ln p_k.

    Args:
        composition: `[K, ...]`, positive.

    Returns:
        `[K, ...]`, sums to zero over K.

    Source: Aitchison 1986, definition 4.6.
    """
    logs = jnp.log(composition)
    return logs - logs.mean(0, keepdims=True)


def clr_inverse(coordinates: jax.Array) -> jax.Array:
    """Composition `[K, ...]` with the given centred log-ratios `[K, ...]`: the softmax over parts."""
    return jax.nn.softmax(coordinates, axis=0)


def _helmert(parts: int, dtype: Any) -> jax.Array:
    """Orthonormal rows that span the plane of zero sums, `[K - 1, K]`."""
    basis = np.tril(np.ones((parts - 1, parts)))
    rows = np.arange(1, parts)
    basis[rows - 1, rows] = -rows
    return jnp.asarray(basis / np.sqrt(rows * (rows + 1.0))[:, None], dtype)


def ilr(composition: jax.Array) -> jax.Array:
    """Isometric log-ratios: coordinates of clr in the Helmert basis, so that Euclidean distance is Aitchison's.

    Args:
        composition: `[K, ...]`, positive, K >= 2.

    Returns:
        `[K - 1, ...]`.

    Source: Egozcue et al. 2003.
    """
    centred = clr(composition)
    return jnp.tensordot(_helmert(composition.shape[0], centred.dtype), centred, 1, precision="highest")


def ilr_inverse(coordinates: jax.Array) -> jax.Array:
    """Composition with the given isometric log-ratios.

    Args:
        coordinates: `[K - 1, ...]`.

    Returns:
        `[K, ...]`, positive, sums to one over K.
    """
    basis = _helmert(coordinates.shape[0] + 1, coordinates.dtype)
    return clr_inverse(jnp.tensordot(basis.T, coordinates, 1, precision="highest"))


def alr(composition: jax.Array) -> jax.Array:
    """Additive log-ratios against the last part: ln p_i / p_K.

    Args:
        composition: `[K, ...]`, positive, K >= 2.

    Returns:
        `[K - 1, ...]`.

    Source: Aitchison 1986, definition 6.1.
    """
    logs = jnp.log(composition)
    return logs[:-1] - logs[-1:]


def alr_inverse(coordinates: jax.Array) -> jax.Array:
    """Composition with the given additive log-ratios.

    Args:
        coordinates: `[K - 1, ...]`.

    Returns:
        `[K, ...]`, positive, sums to one over K.
    """
    return clr_inverse(jnp.concatenate([coordinates, jnp.zeros_like(coordinates[:1])]))


def perturb(p: jax.Array, q: jax.Array) -> jax.Array:
    """Addition of the simplex (Aitchison 1986, section 2.8): closure of p_i q_i; both `[K, ...]`."""
    return closure(p * q)


def power(p: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """Scaling of the simplex (Aitchison 1986, section 6.7): closure of p_i ** exponent, with p `[K, ...]`."""
    return closure(p**exponent)


def inner(p: jax.Array, q: jax.Array) -> jax.Array:
    """Aitchison inner product sum_i clr_i(p) clr_i(q).

    Args:
        p: `[K, ...]`, positive.
        q: `[K, ...]`, positive.

    Returns:
        `[...]`.

    Source: Pawlowsky-Glahn & Egozcue 2001.
    """
    return (clr(p) * clr(q)).sum(0)


def norm(p: jax.Array) -> jax.Array:
    """Aitchison norm ||clr p||, the distance to the uniform composition; p `[K, ...]`, result `[...]`."""
    return jnp.sqrt((clr(p) ** 2).sum(0))


def distance(p: jax.Array, q: jax.Array) -> jax.Array:
    """Aitchison distance ||clr p - clr q|| at each place.

    With r_i = ln(p_i / q_i) it is sqrt(sum_i (r_i - mean r)^2): one logarithm per part instead of two transforms.

    Args:
        p: `[K, ...]`, positive.
        q: `[K, ...]`, positive.

    Returns:
        `[...]`.

    Raises:
        ValueError: the shapes differ.

    Source: Aitchison 1986, section 4.3; the one-logarithm form is derived here.
    """
    _require_same_shape(p, q)
    ratio = jnp.log(p / q)
    return jnp.sqrt(((ratio - ratio.mean(0, keepdims=True)) ** 2).sum(0))


@functools.partial(jax.jit, static_argnames=("zeros", "chunk"))
def distance_map(
    p: jax.Array, q: jax.Array, *, eps: float = 1e-2, zeros: Zeros = "clip", chunk: int | None = None
) -> jax.Array:
    """Aitchison distance of two probability maps at each voxel, zeros lifted first.

    Args:
        p: `[K, *spatial]` compositions.
        q: `[K, *spatial]` compositions of the same parts, same dtype.
        eps: see `replace_zeros`.
        zeros: see `replace_zeros`.
        chunk: voxels per step; None takes about 2^20 / K.

    Returns:
        `[*spatial]`.

    Raises:
        ValueError: the shapes differ.

    Source: Aitchison 1986, section 4.3.
    """
    _require_same_shape(p, q)
    flat = [x.reshape(x.shape[0], -1) for x in (p, q)]
    mapped = chunks.map_chunks(lambda block: _lifted_distance(block[0], block[1], eps, zeros), flat, _chunk(p, chunk))
    return mapped.reshape(p.shape[1:])


@functools.partial(jax.jit, static_argnames=("zeros", "chunk"))
def mean_distance(
    p: jax.Array,
    q: jax.Array,
    *,
    eps: float = 1e-2,
    zeros: Zeros = "clip",
    weights: jax.Array | None = None,
    chunk: int | None = None,
) -> jax.Array:
    """Weighted mean over voxels of the Aitchison distance of two probability maps, zeros lifted first.

    Args:
        p: `[K, *spatial]` compositions.
        q: `[K, *spatial]` compositions of the same parts, same dtype.
        eps: see `replace_zeros`.
        zeros: see `replace_zeros`.
        weights: `[*spatial]`, non-negative or a mask; None counts every voxel once.
        chunk: voxels per step; None takes about 2^20 / K.

    Returns:
        `[]`.

    Raises:
        ValueError: the shapes differ.

    Source: Aitchison 1986, section 4.3.
    """
    _require_same_shape(p, q)
    flat = (*(x.reshape(x.shape[0], -1) for x in (p, q)), None if weights is None else weights.reshape(-1))

    def summed(block: tuple[jax.Array, jax.Array, jax.Array | None]) -> tuple[jax.Array, jax.Array]:
        distances = _lifted_distance(block[0], block[1], eps, zeros)
        weight = jnp.ones_like(distances) if block[2] is None else block[2].astype(p.dtype)
        return (distances * weight).sum(), weight.sum()

    total, weight = chunks.sum_chunks(summed, flat, _chunk(p, chunk))
    return total / weight


def _lifted_distance(p: jax.Array, q: jax.Array, eps: float, zeros: Zeros) -> jax.Array:
    """Distance of compositions `[K, C]`; closing them would shift all log-ratios alike, which the mean removes."""
    if zeros == "clip":
        p, q = jnp.maximum(p, eps), jnp.maximum(q, eps)
    else:
        p, q = replace_zeros(p, eps, zeros), replace_zeros(q, eps, zeros)
    ratio = jnp.log(p / q)
    return jnp.sqrt(sum_parts((ratio - sum_parts(ratio) / p.shape[0]) ** 2)[0])


def sum_parts(x: jax.Array) -> jax.Array:
    """Sum over parts as a matrix product, `[K, C]` to `[1, C]`.

    On a CPU a plain sum is fused with what follows and computes the logarithms behind `x` again for every use; a
    product reads them from memory, and the logarithms run on all threads.
    """
    return jnp.dot(jnp.ones((1, x.shape[0]), x.dtype), x, precision="highest")


def _chunk(p: jax.Array, chunk: int | None) -> int:
    return max(1, CHUNK_ENTRIES // p.shape[0]) if chunk is None else chunk


def _require_same_shape(p: jax.Array, q: jax.Array) -> None:
    if p.shape != q.shape:
        raise ValueError(f"p and q must share a shape, got {p.shape} and {q.shape}; match or pad the regions first")
