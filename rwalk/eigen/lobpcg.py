"""Locally optimal block preconditioned conjugate gradients, preconditioned with one multigrid V-cycle.

Legend: K pairs wanted, k = K + guards vectors in a block; blocks are `[k, n]`.
Source: Knyazev 2001; basis selection after Duersch et al. 2018, with dropping instead of restarts.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import multigrid
from rwalk.eigen import ritz
from rwalk.eigen.pencil import Pencil, amplify, combine, gram, random_block
from rwalk.multigrid import Hierarchy
from rwalk.stencil import Stencil, apply


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
    return jnp.linalg.norm(apply(operator, x) - values[:, None] * apply(mass, x), axis=1)


def _expand(
    operator: Stencil,
    mass: Stencil,
    hierarchy: Hierarchy,
    values: jax.Array,
    x: jax.Array,
    p: jax.Array,
    degree: int,
    width: float,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    weighted = apply(mass, x)
    residual = apply(operator, x) - values[:, None] * weighted
    norms = jnp.linalg.norm(residual, axis=1)
    w = multigrid.vcycle(hierarchy, residual, degree=degree, width=width)
    w = w - combine(gram(w, weighted), x)
    lengths = jnp.linalg.norm(w, axis=1)
    w = w / jnp.where(lengths > 0, lengths, 1)[:, None]
    masses, energies = ritz.projections(operator, mass, (x, p, w))
    return w, norms, masses, energies


_expand_jitted = jax.jit(_expand, static_argnames=("degree", "width"))


def steps(
    operator: Stencil, mass: Stencil, hierarchy: Hierarchy, x: jax.Array, *, degree: int, width: float
) -> Iterator[tuple[np.ndarray, jax.Array, np.ndarray]]:
    """Iterate for ever from a block: after each step Ritz values, vectors, and the residuals before the step.

    Args:
        operator: A.
        mass: B.
        hierarchy: of A, from this level down.
        x: `[k, n]`, linearly independent.
        degree: of the V-cycle's smoother.
        width: of the V-cycle's smoother.

    Yields:
        values `[k]`, vectors `[k, n]`, residual norms `[k]` of the vectors that were yielded before.
    """
    count = x.shape[0]
    values, x = ritz.rayleigh_ritz(operator, mass, (x,), count)
    p = jnp.zeros_like(x)
    while True:
        w, norms, masses, energies = _expand_jitted(
            operator, mass, hierarchy, jnp.asarray(values, x.dtype), x, p, degree=degree, width=width
        )
        values, chosen = ritz.coefficients(masses, energies, count)
        blocks = (x, p, w)
        parts = ritz.split(chosen, blocks)
        moved = (jnp.zeros_like(parts[0]), *parts[1:])
        x, p = ritz.recombine(parts, blocks), ritz.recombine(moved, blocks)
        yield values, x, np.asarray(norms)


def prefilter(pencil: Pencil, x: jax.Array, degree: int) -> jax.Array:
    """A mild Chebyshev filter, gain at most 75: what lies above top (2.5 / degree)^2 is damped."""
    return amplify(pencil, x, pencil.top * (2.5 / max(degree, 3)) ** 2, degree) if degree else x


def lobpcg(
    pencil: Pencil,
    hierarchy: Hierarchy,
    x: jax.Array,
    count: int,
    *,
    tol: float,
    residual: float,
    maximum: int,
    key: jax.Array,
    degree: int = 3,
    width: float = 12.0,
    filter_degree: int = 20,
    confirmations: int = 1,
) -> Result:
    """Improve a block until the sum of the Ritz values rests and the residuals are small, then doubt it.

    It stops when the sum of the wanted values fell by less than `tol` of itself twice in a row and every wanted
    |A x - lambda B x| is at most `residual` lambda_K. The guards are then thrown away for filtered random vectors and
    it must come to rest again: a mode that the start had missed shows up in these, a sum at rest alone does not tell.

    Args:
        pencil: A, B.
        hierarchy: of A.
        x: `[k, n]` first block, k >= count.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: relative to the largest wanted value; the error of the values falls with its square.
        maximum: steps at most.
        key: of the random guards.
        degree: of the V-cycle's smoother.
        width: of the V-cycle's smoother.
        filter_degree: of the filter on the start and on random guards; 0 leaves it out.
        confirmations: how often the guards are renewed; none without guards.

    Returns:
        The pairs.
    """
    size, taken, converged = x.shape[0], 0, False
    rounds = 1 + (confirmations if size > count else 0)
    values = np.full(size, np.inf)
    for number in range(rounds):
        if number:
            guards = random_block(pencil, jax.random.fold_in(key, number), size - count)
            x = jnp.concatenate([x[:count], prefilter(pencil, guards, filter_degree)])
        converged, quiet, total = False, 0, np.inf
        path = steps(pencil.operator, pencil.mass, hierarchy, x, degree=degree, width=width)
        for values, x, norms in path:  # noqa: B007 - used after the loop
            taken += 1
            change, total = total - values[:count].sum(), values[:count].sum()
            quiet = quiet + 1 if change <= tol * abs(total) else 0
            converged = quiet >= 2 and bool((norms[:count] <= residual * abs(values[count - 1])).all())
            if converged or taken >= maximum:
                break
    return Result(values[:count], x[:count], taken, converged)
