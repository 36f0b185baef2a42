"""Answers from a basis where a few edges have changed: exact for the basis's own operator, nothing is updated.

With the change L + U C U^T, U the incidence `e_i - e_j` of m edges and C their changes of weight, the flow through each
changed edge is one more unknown of the small system: Woodbury's identity. The edges may join any two voxels.

Legend: K pairs, L labels, n voxels, M seeds, m edges, t voxels that are touched.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import online
from rwalk.eigen import Basis
from rwalk.stencil import Stencil, reciprocal

EXACT = jax.lax.Precision.HIGHEST
LARGEST = 4096  # unknowns of the small system


class Change(NamedTuple):
    """What happens to some edges.

    Attributes:
        here: `[m]` flat index of one end.
        there: `[m]` of the other.
        weights: `[m]` that are added to what the edges weighed, not zero; negative to weaken or delete.
    """

    here: np.ndarray
    there: np.ndarray
    weights: np.ndarray


def change_of(here: Any, there: Any, weights: Any) -> Change:
    """A change of edges, checked; those of no effect are left out.

    Args:
        here: `[m]` flat indices.
        there: `[m]` flat indices.
        weights: `[m]` to be added.

    Returns:
        The change.

    Raises:
        ValueError: shapes differ, or an edge joins a voxel with itself.
    """
    here, there, weights = np.asarray(here, np.int64), np.asarray(there, np.int64), np.asarray(weights, float)
    if not here.shape == there.shape == weights.shape or here.ndim != 1:
        raise ValueError(f"one end, other end and weight of each edge are needed: {here.shape}, {there.shape}, "
                         f"{weights.shape}")  # fmt: skip
    if (here == there).any():
        raise ValueError(f"voxel {here[here == there][0]} cannot be joined with itself")
    kept = weights != 0
    return Change(here[kept], there[kept], weights[kept])


def _incidence(change: Change, voxels: np.ndarray) -> np.ndarray:
    """U on the touched voxels, `[t, m]`."""
    u = np.zeros((len(voxels), len(change.weights)))
    columns = np.arange(len(change.weights))
    u[np.searchsorted(voxels, change.here), columns] = 1
    u[np.searchsorted(voxels, change.there), columns] = -1
    return u


def seeds(basis: Basis, positions: Any, labels: Any, regions: int, change: Change) -> jax.Array:
    """`rwalk.online.seeds` on the changed graph.

    Args:
        basis: eigenpairs of the graph before the change.
        positions: `[M]` flat indices of the seeds, each once, on coupled voxels.
        labels: `[M]` their labels 0..L-1.
        regions: L.
        change: of the edges; no voxel may lose all of its edges.

    Returns:
        x `[L, n]`, exactly the labels at the seeds.

    Raises:
        ValueError: more seeds and edges than the small system is good for.
    """
    positions, labels = np.asarray(positions), np.asarray(labels)
    if len(positions) + len(change.weights) > LARGEST:
        raise ValueError(f"{len(positions)} seeds and {len(change.weights)} edges; at most {LARGEST} together: "
                         "update the basis instead, rwalk.update")  # fmt: skip
    voxels = np.unique(np.concatenate([positions, change.here, change.there]))
    sources = np.zeros((len(voxels), len(positions)))
    sources[np.searchsorted(voxels, positions), np.arange(len(positions))] = 1
    pattern = np.concatenate([sources, -_incidence(change, voxels)], 1)
    slack = np.concatenate([np.zeros(len(positions)), 1 / change.weights])
    wanted = np.zeros((pattern.shape[1], regions))
    wanted[np.arange(len(positions)), labels] = 1
    small = online.count_soft(basis)
    dtype = basis.vectors.dtype
    arrays = (jnp.asarray(x, dtype) for x in (pattern, slack, wanted))
    x = _seeds(basis, jnp.asarray(voxels), *arrays, small)
    return x.at[:, jnp.asarray(positions)].set(jnp.asarray(wanted[: len(positions)].T, dtype))


@functools.partial(jax.jit, static_argnames="small")
def _seeds(
    basis: Basis, voxels: jax.Array, pattern: jax.Array, slack: jax.Array, wanted: jax.Array, small: int
) -> jax.Array:
    dtype = basis.vectors.dtype
    mean = online.mean_outside(basis)
    rows = jnp.matmul(pattern.T, basis.vectors[voxels], precision=EXACT)  # [M + m, K]
    stiff = jnp.arange(basis.values.size) >= small
    weights = jnp.where(stiff, 1 / jnp.where(stiff, basis.values, 1), 0) - 1 / mean
    own = reciprocal(basis.mass)[voxels] / mean
    local = jnp.matmul(pattern.T * own[None], pattern, precision=EXACT)
    green = jnp.matmul(rows * weights[None], rows.T, precision=EXACT) + local + jnp.diag(slack)
    border = rows[:, :small]
    matrix = jnp.block([[green, border], [border.T, -jnp.diag(basis.values[:small])]])
    right = jnp.concatenate([wanted, jnp.zeros((small, wanted.shape[1]), dtype)])
    solution = online.solve_scaled(matrix, right)
    sources, low = solution[: pattern.shape[1]], solution[pattern.shape[1] :]
    c = weights[:, None] * jnp.matmul(rows.T, sources, precision=EXACT)
    x = online.expand(basis, c.at[:small].add(low).T)
    return x.at[:, voxels].add((own[:, None] * jnp.matmul(pattern, sources, precision=EXACT)).T)


def priors(
    basis: Basis,
    laplacian: Stencil,
    p: jax.Array,
    gamma: float,
    change: Change,
    *,
    normalised: bool = True,
    polish: int = 10,
) -> jax.Array:
    """`rwalk.online.priors` on the changed graph.

    Args:
        basis: eigenpairs of the graph before the change.
        laplacian: L of that graph.
        p: `[L, n]` priors.
        gamma: weight of the priors, positive.
        change: of the edges.
        normalised: R is the degree, which changes too at the ends of the edges.
        polish: steps of the answer before the change.

    Returns:
        x `[L, n]`.
    """
    voxels = np.unique(np.concatenate([change.here, change.there]))
    incidence = _incidence(change, voxels)
    gain = np.abs(incidence) @ change.weights if normalised else np.zeros(len(voxels))
    touched = np.flatnonzero(gain)
    pattern = np.concatenate([incidence, np.eye(len(voxels))[:, touched]], 1)
    strengths = np.concatenate([change.weights, gamma * gain[touched]])
    dtype = p.dtype
    base = online.priors(basis, laplacian, p, gamma, polish=polish).x
    arrays = (jnp.asarray(x, dtype) for x in (pattern, strengths, gamma * gain))
    return _priors(basis, base, p, jnp.asarray(gamma, dtype), jnp.asarray(voxels), *arrays)


@jax.jit
def _priors(
    basis: Basis,
    base: jax.Array,
    p: jax.Array,
    gamma: jax.Array,
    voxels: jax.Array,
    pattern: jax.Array,
    strengths: jax.Array,
    pull: jax.Array,
) -> jax.Array:
    mean = online.mean_outside(basis) + gamma
    rows = basis.vectors[voxels]  # [t, K]
    weights = 1 / (basis.values + gamma) - 1 / mean
    own = reciprocal(basis.mass)[voxels] / mean
    green = jnp.matmul(rows * weights[None], rows.T, precision=EXACT) + jnp.diag(own)  # between touched voxels
    added = pull[:, None] * p[:, voxels].T  # [t, L] what the priors say more strongly now
    there = base[:, voxels].T + jnp.matmul(green, added, precision=EXACT)
    coupling = jnp.matmul(pattern.T, jnp.matmul(green, pattern, precision=EXACT), precision=EXACT)
    system = jnp.diag(1 / strengths) + coupling
    flows = -online.solve_scaled(system, jnp.matmul(pattern.T, there, precision=EXACT))
    sources = added + jnp.matmul(pattern, flows, precision=EXACT)  # [t, L]
    x = base + online.expand(basis, (weights[:, None] * jnp.matmul(rows.T, sources, precision=EXACT)).T)
    return x.at[:, voxels].add((own[:, None] * sources).T)
