"""Locally optimal block preconditioned conjugate gradients, preconditioned with one V-cycle of `aggregation`.

Legend: K pairs wanted, k = K + guards vectors in a block; blocks are `[n, k]`.
Source: Knyazev 2001; basis selection after Duersch et al. 2018, with dropping instead of restarts.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import linalg

from rwalk import aggregation
from rwalk.aggregation import Hierarchy
from rwalk.blas import one_thread
from rwalk.eigen import columns, ritz
from rwalk.eigen.columns import gram, slabs, sums, weighed
from rwalk.eigen.pencil import Pencil
from rwalk.stencil import Stencil, on_host

MEASURED = 8  # steps after which the inner products of X and P are measured again
LEAST = 5  # steps in which random guards show what the start has missed: at the fifth, where pieces were withheld
DOUBT = 20  # degree of the filter on them
SLIP = 1e-2  # error of a Ritz value, relative to the largest, at which they are at once


class Result(NamedTuple):
    """Eigenpairs of a pencil.

    Attributes:
        values: `[K]` float64.
        vectors: `[n, K]`, B-orthonormal.
        steps: taken on the finest level.
        converged: whether the stopping rule was met.
    """

    values: np.ndarray
    vectors: jax.Array
    steps: int
    converged: bool


class Step(NamedTuple):
    """What one step leaves behind.

    Attributes:
        values: `[k]` Ritz values after it, float64.
        vectors: `[n, k]`, overwritten by the next step.
        norms: `[k]` |A x - lambda B x| before it.
    """

    values: np.ndarray
    vectors: jax.Array
    norms: np.ndarray


@jax.jit
def _expand(
    operator: Stencil, mass: jax.Array | None, hierarchy: Hierarchy, values: Any, x: jax.Array, p: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """New directions W, the columns [X P W]^T [B W, A W], and the sums of r^2 and of r x."""
    parts = slabs(operator.shape)
    residual = lax.optimization_barrier(columns.residuals(operator, mass, values, x))
    about = jnp.stack([sums(residual * other, parts) for other in (residual, x)])
    w = lax.optimization_barrier(aggregation.cycle(hierarchy, residual))
    w = w - jnp.matmul(x, gram(x, weighed(mass, w), parts), precision=columns.EXACT)
    images = [lax.optimization_barrier(image) for image in (weighed(mass, w), columns.apply_columns(operator, w))]
    products = jnp.stack([jnp.concatenate([gram(block, image, parts) for block in (x, p, w)]) for image in images])
    return w, products, about


@functools.partial(jax.jit, donate_argnames=("x", "p"))
def _recombine(chosen: tuple[Any, ...], x: jax.Array, p: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """X and P of the next step."""
    moved = columns.combine((p, w), chosen[1:])
    return columns.combine((x,), chosen[:1]) + moved, moved


class _Known(NamedTuple):
    """Inner products of X and P, `[2 k, 2 k]` float64: they follow from the coefficients, no vector is touched.

    Where P and W are nearly dependent the rounding errors grow from step to step: they are measured again now and then.
    """

    masses: np.ndarray
    energies: np.ndarray

    def with_columns(self, products: np.ndarray) -> "_Known":
        """Of X, P and W, given the columns of W."""
        return _Known(*(_bordered(known, side) for known, side in zip(self, products, strict=True)))

    def within(self, chosen: np.ndarray) -> "_Known":
        """Of the combinations `chosen` `[s, t]`."""
        return _Known(*(chosen.T @ matrix @ chosen for matrix in self))


def _bordered(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    side = known.shape[0]
    return np.block([[known, new[:side]], [new[:side].T, (new[side:] + new[side:].T) / 2]])


def steps(
    operator: Stencil, mass: jax.Array | None, hierarchy: Hierarchy, values: np.ndarray, x: jax.Array
) -> Iterator[Step]:
    """Iterate for ever from Ritz vectors.

    Args:
        operator: A.
        mass: diagonal of B, None for one.
        hierarchy: of A.
        values: `[k]` Ritz values of the block.
        x: `[n, k]`, B-orthonormal Ritz vectors, overwritten.

    Yields:
        What each step leaves behind.
    """
    k, dtype = x.shape[1], x.dtype
    p = jnp.zeros_like(x)
    none = np.zeros((k, k))
    known = _Known(linalg.block_diag(np.eye(k), none), linalg.block_diag(np.diag(values), none))
    for number in itertools.count(1):
        w, products, about = _expand(operator, mass, hierarchy, values.astype(dtype), x, p)
        squares, slip = on_host(about).astype(float)
        if number % MEASURED == 0 or np.abs(slip).max() > SLIP * abs(values[-1]):
            known = _Known(*(on_host(matrix).astype(float) for matrix in columns.project(operator, mass, (x, p))))
        whole = known.with_columns(on_host(products).astype(float))
        values, chosen = ritz.coefficients(*whole, k, ritz.unit(x))
        moved = chosen.copy()
        moved[:k] = 0
        with one_thread():
            known = whole.within(np.concatenate([chosen, moved], 1))
        x, p = _recombine(columns.split(chosen, (x, p, w)), x, p, w)
        yield Step(values, x, np.sqrt(squares))


def lobpcg(
    pencil: Pencil,
    hierarchy: Hierarchy,
    values: np.ndarray,
    x: jax.Array,
    count: int,
    *,
    tol: float,
    residual: float,
    maximum: int,
    key: jax.Array,
    confirmations: int = 0,
) -> Result:
    """Improve a block until the sum of the Ritz values rests and the residuals are small.

    It stops after `LEAST` steps or more, when the sum of the wanted values fell by at most `tol` of itself and the root
    mean square of |A x - lambda B x| is at most `residual` lambda_K. The guards of the first block should be random: a
    mode that the start had missed may show up in these, of which the sum alone tells nothing.

    Args:
        pencil: A, B.
        hierarchy: of A.
        values: `[k]` Ritz values of the first block.
        x: `[n, k]` first block, Ritz vectors, k >= count; overwritten.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: relative to the largest wanted value; the error of the values falls with its square.
        maximum: steps at most.
        key: of the random guards.
        confirmations: how often the guards are then thrown away for random vectors, to come to rest again.

    Returns:
        The pairs.
    """
    taken, converged, mass, size = 0, False, columns.weight(pencil), x.shape[1]
    for number in range(1 + (confirmations if size > count else 0)):
        if number:
            guards = columns.random_block(pencil, jax.random.fold_in(key, number), size - count)
            values, x = columns.rayleigh_ritz(pencil.operator, mass, (x[:, :count], doubtful(pencil, guards)), size)
        total = values[:count].sum()
        for tried, step in enumerate(steps(pencil.operator, mass, hierarchy, values, x), 1):
            values, x, taken = step.values, step.vectors, taken + 1
            change, total = total - values[:count].sum(), values[:count].sum()
            small = root_mean_square(step.norms[:count]) <= residual * abs(values[count - 1])
            converged = bool(tried >= LEAST and change <= tol * abs(total) and small)
            if converged or taken >= maximum:
                break
    return Result(values[:count], x[:, :count], taken, converged)


def doubtful(pencil: Pencil, x: jax.Array) -> jax.Array:
    """Random vectors without what is far above the wanted values."""
    return columns.mild(pencil, x, DOUBT)


def root_mean_square(x: np.ndarray) -> float:
    """Of some lengths."""
    return float(np.sqrt((x.astype(float) ** 2).mean()))
