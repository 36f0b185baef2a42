"""Chebyshev-filtered subspace iteration: nothing but products with A, no preconditioner.

Legend: K pairs wanted, k = K + guards vectors in a block; blocks are `[k, n]`.
Source: Zhou, Saad, Tiago and Chelikowsky 2006.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rwalk.eigen import ritz
from rwalk.eigen.lobpcg import Result, residual_norms
from rwalk.eigen.pencil import Pencil, amplify, random_block

GAIN = 1e3  # a stronger filter makes a block of float32 vectors dependent before it is orthogonalised again


def degree_for(top: float, edge: float, longest: int) -> int:
    """Degree that amplifies the bottom of the spectrum by `GAIN` over `edge`: a multiple of 8, 8 to `longest`."""
    wanted = math.acosh(GAIN) / 2 * math.sqrt(top / max(edge, top * 1e-12))
    return int(min(max(8 * round(wanted / 8), 8), longest))


def filtered(
    pencil: Pencil,
    x: jax.Array,
    count: int,
    *,
    tol: float,
    residual: float,
    maximum: int,
    key: jax.Array,
    longest: int = 200,
    confirmations: int = 1,
) -> Result:
    """Filter and project until at rest; stopping, guards and doubts as in `rwalk.eigen.lobpcg.lobpcg`.

    Args:
        pencil: A, B.
        x: `[k, n]` first block.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: relative to the largest wanted value.
        maximum: filters at most.
        key: of the random guards.
        longest: degree of the filter at most.
        confirmations: how often the guards are renewed; none without guards.

    Returns:
        The pairs.
    """
    size, taken, converged, top = x.shape[0], 0, False, float(pencil.top)
    values, x = ritz.rayleigh_ritz(pencil.operator, pencil.mass, (x,), size)
    edge = float(values[-1])
    for number in range(1 + (confirmations if size > count else 0)):
        if number:
            x = jnp.concatenate([x[:count], random_block(pencil, jax.random.fold_in(key, number), size - count)])
        converged, quiet, total = False, 0, np.inf
        while not converged and taken < maximum:
            # The edge is a true Ritz value of the guards: a guess would amplify what is not wanted, or too little.
            x = amplify(pencil, x, jnp.asarray(edge, x.dtype), degree_for(top, edge, longest))
            x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
            values, x = ritz.rayleigh_ritz(pencil.operator, pencil.mass, (x,), size)
            edge, taken = float(values[-1]), taken + 1
            change, total = total - values[:count].sum(), values[:count].sum()
            quiet = quiet + 1 if change <= tol * abs(total) else 0
            wanted = jnp.asarray(values[:count], x.dtype)
            norms = np.asarray(residual_norms(pencil.operator, pencil.mass, wanted, x[:count]))
            converged = quiet >= 2 and bool((norms <= residual * abs(values[count - 1])).all())
    return Result(values[:count], x[:count], taken, converged)
