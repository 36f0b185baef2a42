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

from rwalk.stencil import Offsets, Stencil, on_host, to_sparse


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


def unit_diagonal(network: Network) -> tuple[Any, np.ndarray]:
    """C A C with unit diagonal in float64 on the host, a `scipy.sparse` matrix, and the diagonal of C^-1 `[n]`."""
    from scipy import sparse

    bands: Any = on_host(network.bands).astype(float)
    diagonal: Any = on_host(network.excess).astype(float) - bands.sum(0)
    scale = np.divide(1, np.sqrt(diagonal), out=np.zeros_like(diagonal), where=diagonal > 0)
    matrix = to_sparse(Stencil(diagonal, bands, network.shape, network.offsets))
    unit = sparse.diags_array(scale)
    return sparse.csr_array(unit @ matrix @ unit), np.sqrt(diagonal)
