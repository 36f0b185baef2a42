"""What may happen to a graph after its basis is known: validated objects that the config builds, without jax."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from rwalk.options import STRICT

if TYPE_CHECKING:
    import numpy as np

    from rwalk.data import Case
    from rwalk.options import Updating, Weights


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Beta:
    """Another strength of the edges."""

    kind: Literal["beta"]
    factor: float = Field(gt=0)

    def graphs(self, lattice: Any, weights: "Weights", case: "Case") -> tuple[Any, Any]:
        """The graph before and after."""
        from dataclasses import replace

        import jax.numpy as jnp

        changed = replace(weights, beta=weights.beta * self.factor)
        return lattice, changed.graph(jnp.asarray(case.image, lattice.weights.dtype), lattice.active, case.spacing)

    def carry(self, basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:
        """The basis of the graph after."""
        return _reweight(basis, before, after, how, key, normalised=normalised)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Region:
    """A region of interest: the rest of the graph is cut off."""

    kind: Literal["region"]
    path: str | None
    share: float = Field(gt=0, le=1)

    def graphs(self, lattice: Any, weights: "Weights", case: "Case") -> tuple[Any, Any]:  # noqa: ARG002
        """The graph before and after."""
        import numpy as np

        from rwalk import io, topology
        from rwalk.checks import InputError

        if self.path is None:
            region = far_part(case.mask, self.share)
        else:
            volume = io.read(self.path)
            io.same_grid(volume, case.volume, "region")
            region = case.cut(np.asarray((volume.data > 0).any(0)))
        if not (region & case.mask).any():
            raise InputError(f"{self.path or 'change.share'}: the region holds no voxel of the mask; draw it inside")
        return lattice, topology.keep(lattice, region)

    def carry(self, basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:
        """The basis of the graph after."""
        return _cut(basis, before, after, how, key, normalised=normalised)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grow:
    """The basis of a part becomes that of the whole."""

    kind: Literal["grow"]
    share: float = Field(gt=0, lt=1)

    def graphs(self, lattice: Any, weights: "Weights", case: "Case") -> tuple[Any, Any]:  # noqa: ARG002
        """The graph before and after."""
        from rwalk import topology

        return topology.keep(lattice, far_part(case.mask, self.share)), lattice

    def carry(self, basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:
        """The basis of the graph after."""
        from rwalk import topology

        if how.mode != "filtered":
            return _reweight(basis, before, after, how, key, normalised=normalised)
        return topology.grow(
            basis, after, basis.vectors, before.active, key=key, degree=how.degree, normalised=normalised
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EdgesCut:
    """Single edges are deleted, evenly spread over those between strongly joined voxels."""

    kind: Literal["edges"]
    count: int = Field(ge=1, le=4000)

    def graphs(self, lattice: Any, weights: "Weights", case: "Case") -> tuple[Any, Any]:  # noqa: ARG002
        """The graph before and after."""
        import numpy as np

        from rwalk import topology

        here, there = self.ends(lattice)
        return lattice, topology.with_edges(lattice, here, there, np.zeros(len(here)))

    def ends(self, lattice: Any) -> tuple["np.ndarray", "np.ndarray"]:
        """Flat indices of both ends of the edges."""
        import numpy as np

        first, offset = np.asarray(lattice.weights[0]), lattice.offsets[0]
        strong = np.argwhere(first > np.median(first[first > 0]))
        chosen = strong[:: max(len(strong) // self.count, 1)][: self.count]
        flat = [np.ravel_multi_index(tuple(place.T), lattice.shape) for place in (chosen, chosen + np.array(offset))]
        return flat[0], flat[1]

    def carry(self, basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:
        """The basis of the graph after."""
        return _cut(basis, before, after, how, key, normalised=normalised)


def far_part(mask: "np.ndarray", share: float) -> "np.ndarray":
    """The mask's voxels in the far `share` of its extent along the last axis."""
    import numpy as np

    there = np.flatnonzero(mask.any(tuple(range(mask.ndim - 1))))
    border = there[-1] + 1 - max(round(share * len(there)), 1)
    result = mask.copy()
    result[..., :border] = False
    return result


def _reweight(basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:  # noqa: ARG001
    from rwalk import update

    mode: Any = "stale" if how.mode == "woodbury" else how.mode
    return update.reweight(basis, before, after, mode=mode, degree=how.degree, normalised=normalised)


def _cut(basis: Any, before: Any, after: Any, how: "Updating", key: Any, *, normalised: bool) -> Any:
    from rwalk import topology

    if how.mode != "filtered":
        return _reweight(basis, before, after, how, key, normalised=normalised)
    return topology.restrict(basis, after, degree=how.degree, key=key, normalised=normalised)
