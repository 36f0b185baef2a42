"""A graph that is no lattice, as a list of edges: what supervoxels make of one."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Edges:
    """A weighted graph; a pytree, `size` static.

    Attributes:
        here: `[m]` one end of each edge.
        there: `[m]` the other.
        weights: `[m]`.
        size: number of vertices.
    """

    here: jax.Array
    there: jax.Array
    weights: jax.Array
    size: int = field(metadata={"static": True})

    def degree(self) -> jax.Array:
        """Sum of the weights at each vertex, `[size]`."""
        return jnp.zeros(self.size, self.weights.dtype).at[self.here].add(self.weights).at[self.there].add(self.weights)

    def apply(self, x: jax.Array) -> jax.Array:
        """L x, `[..., size]`: each edge carries its flow out of one vertex and into the other."""
        flow = self.weights.reshape((1,) * (x.ndim - 1) + (-1,)) * (x[..., self.here] - x[..., self.there])
        return jnp.zeros_like(x).at[..., self.here].add(flow).at[..., self.there].add(-flow)
