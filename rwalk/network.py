"""M-matrices by their edges and what each row has beyond them, so that no rounding hides a piece with weak borders.

Voxels that hang together by edges of one and on the rest by edges of 1e-10 have rows whose sum is 1e-10: in single
precision the sum of a diagonal and its neighbours is noise of 6e-8, and the piece is nowhere. Here row sums are kept,
and edges carry differences: what flows out of one voxel flows into another, to the last digit.

Legend: n voxels, flat in C order; E pairs of opposite neighbours are 2 E bands.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from rwalk import aggregation
from rwalk.stencil import Offsets, Stencil, congruent, on_host, reciprocal, to_sparse


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Network:
    """(A x)(i) = excess(i) x(i) + sum_b bands(b, i) (x(i + offsets(b)) - x(i)); a pytree.

    Attributes:
        excess: `[n]` row sums, not negative.
        bands: `[2 E, n]`, not positive, those of a symmetric `Stencil`.
        shape: of the lattice.
        offsets: neighbours.
    """

    excess: jax.Array
    bands: jax.Array
    shape: tuple[int, ...] = field(metadata={"static": True})
    offsets: Offsets = field(metadata={"static": True})

    @property
    def stencil(self) -> Stencil:
        """The same with its diagonal written out: a little faster, and what it has lost is lost."""
        return Stencil(self.excess - self.bands.sum(0), self.bands, self.shape, self.offsets)


def apply(network: Network, x: jax.Array) -> jax.Array:
    """A x.

    Args:
        network: A.
        x: `[k, n]`.

    Returns:
        Like x.
    """
    grid = x.reshape(-1, *network.shape)
    result = network.excess.reshape(network.shape)[None] * grid
    for band, offset in zip(network.bands, network.offsets, strict=True):
        widths = [(0, 0, 0)] + [(-step, step, 0) for step in offset]
        there = lax.pad(grid, jnp.zeros((), x.dtype), widths)
        result = result + band.reshape(network.shape)[None] * (there - grid)
    return result.reshape(x.shape)


def strong(network: Network, free: jax.Array, dtype: Any = None) -> tuple[aggregation.Hierarchy, np.ndarray]:
    """Multigrid of strong aggregates for A scaled to unit diagonal, found in float64 on the host.

    Args:
        network: A.
        free: `[n]` bool, the unknowns; A is the identity on the others.
        dtype: of the hierarchy; that of A by default.

    Returns:
        The hierarchy, and the unknowns on pieces whose rows do not all sum to zero `[n]`: that seeds or priors reach.
    """
    bands: Any = on_host(network.bands).astype(float)
    excess, free = on_host(network.excess), on_host(free)
    diagonal: Any = excess.astype(float) - bands.sum(0)
    matrix = to_sparse(Stencil(diagonal, bands, network.shape, network.offsets))
    unit = sparse.diags_array(np.divide(1, np.sqrt(diagonal), out=np.zeros_like(diagonal), where=diagonal > 0))
    matrix = sparse.csr_array(unit @ matrix @ unit)
    count, pieces = connected_components(matrix, directed=False)
    held = np.zeros(count, bool)
    held[pieces[excess > 0]] = True
    matrix = matrix + sparse.diags_array((~held[pieces]).astype(float))  # no longer singular there
    reached = free & held[pieces]
    rounded = network.stencil
    scaled = congruent(rounded, jnp.sqrt(reciprocal(rounded.diagonal)))
    scaled = jax.tree.map(lambda part: part.astype(dtype or part.dtype), scaled)
    return aggregation.build(scaled, np.where(reached, np.sqrt(diagonal), 0), matrix=matrix)[0], reached
