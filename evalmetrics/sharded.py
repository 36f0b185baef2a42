"""Statistics of maps that are spread over several devices along their voxel axes.

Each device sums its own voxels and one `psum` adds K x K' numbers; no voxel moves.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evalmetrics import arrays


class Layout(NamedTuple):
    """Where the voxels are.

    Attributes:
        mesh: devices.
        voxels: partition of the spatial axes, one entry per axis.
    """

    mesh: Mesh
    voxels: tuple[Any, ...]


def voxel_sharding(reference: jax.Array, prediction: jax.Array) -> Layout | None:
    """Partition of the voxel axes over devices, or None if both maps lie on one device.

    Args:
        reference: soft map or label map.
        prediction: soft map or label map.

    Returns:
        Layout of the first of the two that is partitioned, or None. A traced array has no known place: inside jit,
        call `pair_stats` under your own `shard_map` and add the results with `jax.lax.psum`.

    Raises:
        ValueError: the regions axis of a soft map is partitioned.
    """
    for name, array in (("reference", reference), ("prediction", prediction)):
        if isinstance(array, jax.core.Tracer) or not isinstance(array.sharding, NamedSharding):
            continue
        spec = tuple(array.sharding.spec) + (None,) * (array.ndim - len(array.sharding.spec))
        if not arrays.is_label_map(array):
            if _axes(spec[:1]):
                raise ValueError(
                    f"{name} is partitioned over its regions axis, {array.sharding.spec}; partition voxel axes instead"
                )
            spec = spec[1:]
        if _axes(spec):
            mesh: Any = array.sharding.mesh
            return Layout(mesh, spec)
    return None


def _axes(spec: tuple[Any, ...]) -> tuple[str, ...]:
    """Mesh axes that a partition uses."""
    names: list[str] = []
    for entry in spec:
        names.extend(entry if isinstance(entry, tuple) else () if entry is None else (entry,))
    return tuple(names)


def sum_over_devices(
    stats: Callable[..., Any],
    layout: Layout,
    reference: jax.Array,
    prediction: jax.Array,
    weights: jax.Array | None,
    match: jax.Array | None,
    eps: Any,
    plan: Any,
) -> Any:
    """Call `stats` on the voxels of each device and add the results.

    Args:
        stats: additive statistics of local arrays, `stats(reference, prediction, weights, match, eps, plan)`.
        layout: where the voxels are; the other map and the weights are brought there.
        reference: soft map or label map.
        prediction: soft map or label map.
        weights: `[*spatial]` or None.
        match: `[n]` or None.
        eps: number.
        plan: static options.

    Returns:
        What `stats` returns, the same on every device.
    """
    placed = [jax.device_put(x, NamedSharding(layout.mesh, _spec(x, layout))) for x in (reference, prediction)]
    if weights is not None:
        weights = jax.device_put(weights, NamedSharding(layout.mesh, PartitionSpec(*layout.voxels)))
    return _summed(stats, layout, *placed, weights, match, eps, plan)


def _spec(array: jax.Array, layout: Layout) -> PartitionSpec:
    return PartitionSpec(*layout.voxels) if arrays.is_label_map(array) else PartitionSpec(None, *layout.voxels)


@functools.partial(jax.jit, static_argnames=("stats", "layout", "plan"))
def _summed(
    stats: Callable[..., Any],
    layout: Layout,
    reference: jax.Array,
    prediction: jax.Array,
    weights: jax.Array | None,
    match: jax.Array | None,
    eps: Any,
    plan: Any,
) -> Any:
    def local(*inputs: Any) -> Any:
        return jax.lax.psum(stats(*inputs, plan), _axes(layout.voxels))

    everywhere = PartitionSpec()
    specs = (
        _spec(reference, layout),
        _spec(prediction, layout),
        None if weights is None else PartitionSpec(*layout.voxels),
        None if match is None else everywhere,
        everywhere,
    )
    # The sums start from zeros that no device owns, which the check of varying axes would refuse inside the scan.
    mapped = jax.shard_map(local, mesh=layout.mesh, in_specs=specs, out_specs=everywhere, check_vma=False)
    return mapped(reference, prediction, weights, match, eps)
