"""Chebyshev-filtered subspace iteration: nothing but products with A, no preconditioner.

Legend: K pairs wanted, k = K + guards vectors in a block; blocks are `[n, k]`.
Source: Zhou, Saad, Tiago and Chelikowsky 2006.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rwalk.eigen import columns
from rwalk.eigen.lobpcg import Result, root_mean_square
from rwalk.eigen.pencil import Pencil
from rwalk.stencil import on_host

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
    """Filter and project until the Ritz sum rests twice in a row and the residuals are small, then doubt it.

    Before the last round the guards are thrown away for random vectors: a mode that the start had missed shows up.

    Args:
        pencil: A, B.
        x: `[n, k]` first block.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: root mean square, relative to the largest wanted value.
        maximum: filters at most.
        key: of the random guards.
        longest: degree of the filter at most.
        confirmations: how often the guards are renewed; none without guards.

    Returns:
        The pairs.
    """
    size, taken, converged, top, mass = x.shape[1], 0, False, float(pencil.top), columns.weight(pencil)
    values, x = columns.rayleigh_ritz(pencil.operator, mass, (x,), size)
    edge = float(values[-1])
    for number in range(1 + (confirmations if size > count else 0)):
        blocks: tuple[jax.Array, ...] = (x,)
        if number:
            blocks = x[:, :count], columns.random_block(pencil, jax.random.fold_in(key, number), size - count)
        converged, quiet, total = False, 0, np.inf
        while not converged and taken < maximum:
            # The edge is a true Ritz value of the guards: a guess would amplify what is not wanted, or too little.
            degree = degree_for(top, edge, longest)
            blocks = tuple(columns.amplify(pencil, x, jnp.asarray(edge, x.dtype), degree) for x in blocks)
            values, x = columns.rayleigh_ritz(pencil.operator, mass, blocks, size)
            blocks, edge, taken = (x,), float(values[-1]), taken + 1
            change, total = total - values[:count].sum(), values[:count].sum()
            quiet = quiet + 1 if change <= tol * abs(total) else 0
            wanted = values[:count].astype(x.dtype)
            norms = on_host(columns.residual_norms(pencil.operator, mass, wanted, x[:, :count]))
            converged = quiet >= 2 and root_mean_square(norms) <= residual * abs(values[count - 1])
    return Result(values[:count], x[:, :count], taken, converged)
