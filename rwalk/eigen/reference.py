"""Slow and certain: dense and shift-invert eigenpairs, and a count of eigenvalues that uses no eigensolver."""

import jax
import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh, splu

from rwalk.eigen.lobpcg import Result
from rwalk.eigen.pencil import Pencil
from rwalk.stencil import on_host, placed_like, to_sparse

LARGEST_DENSE = 6000


def _coupled(pencil: Pencil) -> tuple[sparse.csc_array, sparse.csc_array, np.ndarray]:
    live = np.flatnonzero(on_host(pencil.mass.diagonal) > 0)
    a = sparse.csc_array(to_sparse(pencil.operator))[live][:, live]
    return (
        sparse.csc_array(a),
        sparse.csc_array(sparse.diags_array(on_host(pencil.mass.diagonal).astype(float)[live])),
        live,
    )


def _embed(pencil: Pencil, live: np.ndarray, vectors: np.ndarray) -> jax.Array:
    x = np.zeros((pencil.operator.size, vectors.shape[1]), pencil.operator.diagonal.dtype)
    x[live] = vectors
    return placed_like(x, pencil.mass.diagonal)


def dense(pencil: Pencil, count: int) -> Result:
    """All eigenpairs of the matrix written out, in float64; the first `count` are kept.

    Raises:
        ValueError: there are more voxels than a dense matrix is good for, or fewer than pairs wanted.
    """
    a, b, live = _coupled(pencil)
    if not count <= len(live) <= LARGEST_DENSE:
        raise ValueError(
            f"dense needs {count} (pairs) to {LARGEST_DENSE} voxels, got {len(live)}; use lobpcg for larger lattices"
        )
    values, vectors = linalg.eigh(a.toarray(), b.toarray(), subset_by_index=(0, count - 1))
    return Result(values, _embed(pencil, live, vectors), 1, True)


def shift_invert(pencil: Pencil, count: int, *, tol: float = 0.0, x0: jax.Array | None = None) -> Result:
    """Lanczos of scipy (ARPACK) on the inverse, shifted a little below zero, in float64.

    Args:
        pencil: A, B.
        count: pairs wanted.
        tol: of ARPACK; 0 is the machine's.
        x0: `[n, k]`, the sum of its vectors starts the iteration; ones by default.

    Returns:
        The pairs.
    """
    a, b, live = _coupled(pencil)
    start = on_host(pencil.near_null if x0 is None else x0.sum(1)).astype(float)[live]
    if x0 is None:
        start = start + np.cos(np.arange(len(live)))  # the eigenvector at zero alone would end the iteration at once
    shift = -1e-6 * float(pencil.top)
    values, vectors = eigsh(a, k=count, M=b, sigma=shift, which="LM", v0=start, tol=tol, maxiter=10_000)
    order = np.argsort(values)
    return Result(values[order], _embed(pencil, live, vectors[:, order]), 1, True)


def count_below(pencil: Pencil, bound: float) -> int:
    """Number of eigenvalues below `bound`: negative pivots of A - bound B (Sylvester's law of inertia).

    For small volumes: it fills a sparse factor. No vector is iterated, so nothing can be missed.

    Args:
        pencil: A, B.
        bound: not an eigenvalue.

    Returns:
        The count, zeros of A included.

    Raises:
        ValueError: the factor needed row exchanges, which spoil the count; move the bound a little.
    """
    a, b, _ = _coupled(pencil)
    factor = splu(
        sparse.csc_matrix(a - bound * b),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    if (factor.perm_r != factor.perm_c).any():
        raise ValueError(f"rows were exchanged while A - {bound} B was factored; move the bound a little")
    return int((factor.U.diagonal() < 0).sum())


def lobpcg_pyamg(pencil: Pencil, count: int, *, tol: float = 1e-4, maximum: int = 60, extra: int = 0) -> Result:
    """Scipy's LOBPCG, preconditioned by PyAMG's smoothed aggregation, in float64.

    Args:
        pencil: A, B.
        count: pairs wanted.
        tol: of the residual's norm.
        maximum: steps at most.
        extra: guard vectors.

    Returns:
        The pairs.

    Raises:
        ImportError: PyAMG is not installed.

    Source: Knyazev 2001 by scipy.sparse.linalg.lobpcg; the peer that volumes are compared with.
    """
    import warnings

    from pyamg import smoothed_aggregation_solver
    from scipy.sparse.linalg import lobpcg

    a, b, live = _coupled(pencil)
    near_null = on_host(pencil.near_null).astype(float)[live]
    multilevel = smoothed_aggregation_solver(sparse.csr_matrix(a), B=near_null[:, None])
    start = np.random.default_rng(0).normal(size=(len(live), count + extra))
    start[:, 0] = near_null
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a vector is not at tol: the caller judges
        values, vectors, norms = lobpcg(
            a, start, B=b, M=multilevel.aspreconditioner(), tol=tol, maxiter=maximum, largest=False,
            retResidualNormsHistory=True,
        )  # fmt: skip
    order = np.argsort(values)[:count]
    rest = bool((np.asarray(norms[-1])[order] <= tol).all())
    return Result(values[order], _embed(pencil, live, vectors[:, order]), min(len(norms), maximum), rest)
