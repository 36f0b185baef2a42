"""Locally optimal block preconditioned conjugate gradients, preconditioned with one V-cycle of `aggregation`.

Legend: K pairs wanted, k = K + guards vectors in a block; blocks are `[k, n]`.
Source: Knyazev 2001; basis selection after Duersch et al. 2018, with dropping instead of restarts.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from rwalk import aggregation
from rwalk.aggregation import Hierarchy
from rwalk.blas import one_thread
from rwalk.eigen import ritz
from rwalk.eigen.pencil import Pencil, amplify, combine, gram, grams, in_pieces, random_block
from rwalk.stencil import Stencil, apply, one_by_one

MEASURED = 4  # steps after which the inner products of X and P are measured again
LOOSE = 10  # times `tol`: where the sum is nearly at rest
SLIP = 1e-2  # error of a Ritz value, relative to the largest, at which they are at once


class Result(NamedTuple):
    """Eigenpairs of a pencil.

    Attributes:
        values: `[K]` float64.
        vectors: `[K, n]`, B-orthonormal.
        steps: taken on the finest level.
        converged: whether the stopping rule was met.
    """

    values: np.ndarray
    vectors: jax.Array
    steps: int
    converged: bool


@jax.jit
def residual_norms(operator: Stencil, mass: Stencil, values: jax.Array, x: jax.Array) -> jax.Array:
    """|A x - lambda B x| of each vector, `[k]`."""
    return jnp.linalg.norm(_residuals(operator, mass, values, x), axis=1)


def _residuals(operator: Stencil, mass: Stencil, values: jax.Array, x: jax.Array) -> jax.Array:
    def residual(v: jax.Array, value: jax.Array) -> jax.Array:
        return apply(operator, v) - value * apply(mass, v)

    return one_by_one(residual, x, values[:, None])


@jax.jit
def _expand(
    operator: Stencil, mass: Stencil, hierarchy: Hierarchy, values: jax.Array, x: jax.Array, p: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """New directions W, norms of the residuals, the rows W B [X P W]^T and W A [X P W]^T, x^T (A - lambda B) x."""
    residual = _residuals(operator, mass, values, x)
    norms, slip = jnp.linalg.norm(residual, axis=1), (residual * x).sum(1)
    w = aggregation.vcycle(hierarchy, residual)
    w = w - combine(gram(ritz.product(mass, w), x), x)
    lengths = jnp.linalg.norm(w, axis=1)
    w = w / jnp.where(lengths > 0, lengths, 1)[:, None]
    images = ritz.product(mass, w), ritz.product(operator, w)
    rows = grams(images, (x, p, w)).reshape(2, w.shape[0], -1)
    return w, norms, rows, slip


@functools.partial(jax.jit, donate_argnames=("x", "p"))
def _recombine(
    chosen: jax.Array, scale: jax.Array, x: jax.Array, p: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """X and P of the next step, in place of the old ones."""
    k, size = x.shape[0], chosen.shape[1]

    def new(x: jax.Array, p: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        moved = combine(chosen[k:].T, jnp.concatenate([p, w]))
        return combine(chosen[:k].T, x) + moved, scale[:, None] * moved

    return in_pieces(new, (x, p), w) if size == k else new(x, p, w)  # type: ignore[return-value]


class _Known(NamedTuple):
    """Inner products of X and P, `[2 k, 2 k]` float64: they follow from the coefficients, no vector is touched.

    Where P and W are nearly dependent the rounding errors grow from step to step: they are measured again now and then.
    """

    masses: np.ndarray
    energies: np.ndarray

    def with_rows(self, masses: jax.Array, energies: jax.Array) -> "_Known":
        """Of X, P and W, given the rows of W."""
        return _Known(*(_bordered(known, np.asarray(rows, np.float64))
                        for known, rows in zip(self, (masses, energies), strict=True)))  # fmt: skip

    def within(self, chosen: np.ndarray) -> "_Known":
        """Of the combinations `chosen` `[s, t]`."""
        return _Known(*(chosen.T @ matrix @ chosen for matrix in self))


def _bordered(known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    side = known.shape[0]
    return np.block([[known, rows[:, :side].T], [rows[:, :side], (rows[:, side:] + rows[:, side:].T) / 2]])


def steps(
    operator: Stencil, mass: Stencil, hierarchy: Hierarchy, values: np.ndarray, x: jax.Array
) -> Iterator[tuple[np.ndarray, jax.Array, np.ndarray]]:
    """Iterate for ever from Ritz vectors: after each step Ritz values, vectors, and the residuals before the step.

    Args:
        operator: A.
        mass: B.
        hierarchy: of A.
        values: `[k]` Ritz values of the block.
        x: `[k, n]`, B-orthonormal Ritz vectors, overwritten.

    Yields:
        values `[k]`, vectors `[k, n]` (overwritten by the next step), residual norms `[k]` of the vectors before.
    """
    size = x.shape[0]
    p = jnp.zeros_like(x)
    known = _alone(values, size)
    for number in itertools.count(1):
        k = x.shape[0]
        current = jnp.asarray(values, x.dtype)
        w, norms, rows, slip = _expand(operator, mass, hierarchy, current, x, p)
        if number % MEASURED == 0 or float(jnp.abs(slip).max()) > SLIP * abs(values[-1]):
            known = _Known(*(np.asarray(matrix, np.float64) for matrix in ritz.project(operator, mass, (x, p))))
        whole = known.with_rows(*rows)
        values, chosen = ritz.coefficients(*whole, size, ritz.unit(x))
        moved = chosen.copy()
        moved[:k] = 0
        with one_thread():
            lengths = np.sqrt(np.maximum(np.einsum("ik,ij,jk->k", moved, whole.masses, moved, optimize=True), 0))
            scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
            known = whole.within(np.concatenate([chosen, moved * scale], 1))
        x, p = _recombine(jnp.asarray(chosen, x.dtype), jnp.asarray(scale, x.dtype), x, p, w)
        yield values, x, np.asarray(norms)


def _alone(values: np.ndarray, size: int) -> _Known:
    """Of Ritz vectors and no directions."""
    own, none = np.eye(len(values)), np.zeros((size, size))
    return _Known(linalg.block_diag(own, none), linalg.block_diag(np.diag(values), none))


@jax.jit
def _rows(operator: Stencil, mass: Stencil, x: jax.Array, g: jax.Array) -> jax.Array:
    return grams((ritz.product(mass, g), ritz.product(operator, g)), (x, g)).reshape(2, g.shape[0], -1)


def _joined(pencil: Pencil, values: np.ndarray, x: jax.Array, guards: jax.Array) -> tuple[np.ndarray, jax.Array]:
    """Ritz pairs in the span of Ritz vectors and further ones."""
    known = _Known(np.eye(len(values)), np.diag(values))
    whole = known.with_rows(*_rows(pencil.operator, pencil.mass, x, guards))
    values, chosen = ritz.coefficients(*whole, len(values) + len(guards), ritz.unit(x))
    return values, ritz.recombine(ritz.split(chosen, (x, guards)), (x, guards))


def prefilter(pencil: Pencil, x: jax.Array, degree: int) -> jax.Array:
    """A mild Chebyshev filter, gain at most 75: what lies above top (2.5 / degree)^2 is damped."""
    return amplify(pencil, x, pencil.top * (2.5 / max(degree, 3)) ** 2, degree) if degree else x


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
    filter_degree: int = 20,
    confirmations: int = 1,
) -> Result:
    """Improve a block until the sum of the Ritz values rests and the residuals are small, then doubt it.

    It stops when the sum of the wanted values fell by less than `tol` of itself twice in a row and every wanted
    |A x - lambda B x| is at most `residual` lambda_K. Before, when the sum is nearly at rest, the guards are thrown
    away for filtered random vectors: a mode that the start had missed shows up in these, a sum alone does not tell.

    Args:
        pencil: A, B.
        hierarchy: of A.
        values: `[k]` Ritz values of the first block.
        x: `[k, n]` first block, Ritz vectors, k >= count.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: relative to the largest wanted value; the error of the values falls with its square.
        maximum: steps at most.
        key: of the random guards.
        filter_degree: of the filter on the start and on random guards; 0 leaves it out.
        confirmations: how often the guards are renewed; none without guards.

    Returns:
        The pairs.
    """
    size, taken, converged, total = x.shape[0], 0, False, np.inf
    rounds = 1 + (confirmations if size > count else 0)
    for number in range(rounds):
        if number:
            guards = random_block(pencil, jax.random.fold_in(key, number), size - count)
            values, x = _joined(pencil, values[:count], x[:count], prefilter(pencil, guards, filter_degree))
        last = number + 1 == rounds
        converged, quiet, rest = False, 0, tol if last else LOOSE * tol
        path = steps(pencil.operator, pencil.mass, hierarchy, values, x)
        for values, x, norms in path:  # noqa: B007 - used after the loop
            taken += 1
            change, total = total - values[:count].sum(), values[:count].sum()
            quiet = quiet + 1 if change <= rest * abs(total) else 0
            small = bool((norms[:count] <= residual * abs(values[count - 1])).all())
            converged = quiet >= 2 and small if last else quiet > 0
            if converged or taken >= maximum:
                break
    return Result(values[:count], x[:count], taken, converged)
