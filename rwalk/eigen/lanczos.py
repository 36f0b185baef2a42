"""Lanczos with thick restarts and full reorthogonalisation: one vector at a time, on a function of B^-1 A.

The smallest eigenvalues are ill placed for Lanczos, so that the operator is a function that makes them the largest:
`inverted` (A + s B)^-1 by conjugate gradients with multigrid, `filtered` a Chebyshev polynomial, `plain` top - B^-1 A.
Vectors are z = B^1/2 y, in which the operator is symmetric.

Legend: K pairs wanted, p = K + guards vectors kept at a restart, m vectors in the whole basis; n voxels.
Source: Wu and Simon 2000 (thick restart).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import linalg

from rwalk import multigrid
from rwalk.blas import one_thread
from rwalk.eigen import columns, ritz
from rwalk.eigen.chebyshev import degree_for
from rwalk.eigen.columns import EXACT, random_block, residual_norms
from rwalk.eigen.lobpcg import Result, root_mean_square
from rwalk.eigen.pencil import Pencil
from rwalk.multigrid import Hierarchy
from rwalk.solve import conjugate_gradients
from rwalk.stencil import Stencil, apply, congruent, reciprocal

Operator = Literal["inverted", "filtered", "plain"]
OPERATORS = ("inverted", "filtered", "plain")
SHIFT = 0.1  # of the largest wanted value: the inverse stays bounded, and its largest values well apart
INNER_STEPS = 100


def _root(pencil: Pencil) -> jax.Array:
    return jnp.sqrt(pencil.mass.diagonal)


@functools.partial(jax.jit, static_argnames="coarsest")
def _shifted(pencil: Pencil, shift: jax.Array, coarsest: int) -> tuple[Stencil, Hierarchy, jax.Array]:
    """C (A + shift B) C with unit diagonal, its hierarchy, and C `[n]`."""
    diagonal = pencil.operator.diagonal + shift * pencil.mass.diagonal
    unit = jnp.sqrt(reciprocal(diagonal))
    whole = Stencil(diagonal, pencil.operator.bands, pencil.operator.shape, pencil.operator.offsets)
    operator = congruent(whole, unit)
    return operator, multigrid.setup(operator, pencil.near_null * jnp.sqrt(diagonal), coarsest=coarsest), unit


def _plain(pencil: Pencil, v: jax.Array) -> jax.Array:
    inverse = jnp.sqrt(reciprocal(pencil.mass.diagonal))
    return pencil.top * v - inverse * apply(pencil.operator, inverse * v)


@functools.partial(jax.jit, static_argnames="tol", donate_argnames=("basis", "matrix"))
def _extend(
    pencil: Pencil,
    solver: tuple[Stencil, Hierarchy, jax.Array] | None,
    edge: jax.Array | None,
    degree: jax.Array | None,
    basis: jax.Array,
    matrix: jax.Array,
    first: jax.Array,
    tol: float,
) -> tuple[jax.Array, jax.Array]:
    """Fill up the basis from vector number `first`: `basis` `[m + 1, n]`, orthonormal up to it, `matrix` `[m + 1, m]`.

    A vector that the operator maps into the basis already, up to rounding, adds nothing: it is left at zero.
    """
    root = _root(pencil)
    inverse = jnp.sqrt(reciprocal(pencil.mass.diagonal))

    def operate(v: jax.Array) -> jax.Array:
        if solver is not None:
            operator, hierarchy, unit = solver
            right = (unit * root * v)[None]
            precondition = functools.partial(multigrid.vcycle, hierarchy, degree=2)
            x = conjugate_gradients(
                functools.partial(apply, operator), precondition, right, jnp.zeros_like(right), tol, INNER_STEPS
            )[0]
            return root * unit * x[0]
        if edge is not None and degree is not None:
            return root * columns.amplify(pencil, (inverse * v)[:, None], edge, degree)[:, 0]
        return _plain(pencil, v)

    def step(number: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        basis, matrix = state
        w = operate(lax.dynamic_index_in_dim(basis, number, keepdims=False))
        size = jnp.linalg.norm(w)
        once, w = _without(basis, w)
        again, w = _without(basis, w)
        left = jnp.linalg.norm(w)
        small = left <= 30 * ritz.unit(w) * size
        w = jnp.where(small, 0, w / jnp.where(small, 1, left))
        matrix = lax.dynamic_update_index_in_dim(matrix, once + again, number, axis=1)
        return lax.dynamic_update_index_in_dim(basis, w, number + 1, axis=0), matrix

    return lax.fori_loop(first, matrix.shape[1], step, (basis, matrix))


def _without(basis: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Coefficients `[m]` of a vector `[n]` in an orthonormal basis `[m, n]`, and what is left of it."""
    coefficients = jnp.matmul(basis, v, precision=EXACT)
    return coefficients, v - jnp.matmul(coefficients, basis, precision=EXACT)


def _new_direction(basis: jax.Array, vector: jax.Array) -> jax.Array:
    """A vector `[n]` made orthogonal to a basis `[m, n]`, with unit length."""
    for _ in range(2):
        vector = _without(basis, vector)[1]
        vector = vector / jnp.linalg.norm(vector)
    return vector


def lanczos(
    pencil: Pencil,
    x: jax.Array,
    count: int,
    *,
    tol: float,
    residual: float,
    maximum: int,
    key: jax.Array,
    operator: Operator = "inverted",
    inner: float = 1e-5,
    confirmations: int = 1,
) -> Result:
    """Build a Krylov space, keep its best vectors, begin again from them until the Ritz sum rests.

    A Krylov space holds one vector of each eigenspace, and none that its first vector lacks: after it is at rest a
    random vector is put in place of the last residual and it must come to rest again, `confirmations` times.

    Args:
        pencil: A, B.
        x: `[n, p]` about the wanted vectors, p > count: their sum is the first vector, their values place the shift
            and the filter.
        count: pairs wanted, K.
        tol: relative change of the Ritz sum.
        residual: root mean square, relative to the largest wanted value.
        maximum: restarts at most.
        key: of random vectors.
        operator: `inverted`, `filtered` or `plain`.
        inner: residual of the linear systems of `inverted`.
        confirmations: how often a random vector is put in.

    Returns:
        The pairs; an unknown operator is a ValueError.
    """
    mass = columns.weight(pencil)
    values, x = columns.rayleigh_ritz(pencil.operator, mass, (x,), x.shape[1])
    kept, whole = x.shape[1], 2 * x.shape[1] + 10
    solver, edge, degree = _function(pencil, values, count, operator, x.dtype)
    root = _root(pencil)
    newcomer = root * _mixture(pencil, x, key)
    basis = jnp.zeros((whole + 1, newcomer.size), x.dtype).at[0].set(newcomer / jnp.linalg.norm(newcomer))
    matrix, first, converged, quiet, doubts, total, taken = np.zeros((whole + 1, whole)), 0, False, 0, 0, np.inf, 0
    while taken < maximum and not converged:
        taken += 1
        projected = jnp.asarray(matrix, x.dtype)
        basis, found = _extend(pencil, solver, edge, degree, basis, projected, jnp.asarray(first), inner)
        matrix = np.asarray(found, np.float64)
        theta, chosen = _largest(matrix[:whole], kept)
        last = basis[whole]
        best = jnp.matmul(jnp.asarray(chosen.T, x.dtype), basis[:whole], precision=EXACT)
        y = (best[:count] * jnp.sqrt(reciprocal(pencil.mass.diagonal))[None]).T
        values, turned = columns.rayleigh_ritz(pencil.operator, mass, (y,), count)
        change, total = abs(total - values.sum()), values.sum()
        quiet = quiet + 1 if change <= tol * abs(total) else 0
        norms = residual_norms(pencil.operator, mass, jnp.asarray(values, x.dtype), turned)
        if quiet >= 2 and root_mean_square(np.asarray(norms)) <= residual * abs(values[-1]):
            converged = doubts == confirmations
            doubts, quiet = doubts + 1, 0
            last = _new_direction(best, root * random_block(pencil, jax.random.fold_in(key, 1 + doubts), 1)[:, 0])
        basis = jnp.zeros_like(basis).at[:kept].set(best).at[kept].set(last)
        matrix, first = np.zeros((whole + 1, whole)), kept
        matrix[range(kept), range(kept)] = theta
    return Result(values, turned, taken, converged)


def _function(
    pencil: Pencil, values: np.ndarray, count: int, operator: str, dtype: jnp.dtype
) -> tuple[tuple[Stencil, Hierarchy, jax.Array] | None, jax.Array | None, jax.Array | None]:
    """What `_extend` needs for an operator: a solver, or the edge and the degree of a filter, or nothing."""
    if operator not in OPERATORS:
        raise ValueError(f"operator={operator!r} of lanczos; allowed are {', '.join(OPERATORS)}")
    if operator == "inverted":
        return _shifted(pencil, jnp.asarray(SHIFT * values[count - 1], dtype), 600), None, None
    if operator == "filtered":
        edge = float(values[-1])
        return None, jnp.asarray(edge, dtype), jnp.asarray(max(degree_for(float(pencil.top), edge, 200) // 2, 4))
    return None, None, None


def _mixture(pencil: Pencil, x: jax.Array, key: jax.Array) -> jax.Array:
    """One vector `[n]` with a share of each in a block `[n, p]`, and some noise."""
    signs = jnp.sign(jax.random.normal(jax.random.fold_in(key, 0), (x.shape[1],), x.dtype))
    noise = random_block(pencil, jax.random.fold_in(key, 1), 1)[:, 0] / x.shape[0] ** 0.5
    return jnp.matmul(x, signs, precision=EXACT) + 0.1 * noise


def _largest(matrix: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenpairs of the projected operator, of whose columns the upper half was computed."""
    with one_thread():
        theta, vectors = linalg.eigh(np.triu(matrix), lower=False)
    return theta[::-1][:kept], vectors[:, ::-1][:, :kept]
