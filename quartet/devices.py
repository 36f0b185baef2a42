"""The one place that knows how many devices there are."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from quartet.faults import UserFault
from quartet.settings import Devices

AXIS = "data"

Place = Callable[..., Any]


def mesh(count: int | None = None) -> Mesh:
    """Build the mesh of one axis, `data`, over the first `count` devices (all of them by default).

    Raises:
        UserFault: there are fewer devices than asked for.
    """
    devices = jax.devices()
    if count is not None and count > len(devices):
        message = (
            f"devices.count: asked for {count}, found {len(devices)}; on a CPU simulate them with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
        raise UserFault(message)
    return Mesh(np.asarray(devices[:count]), (AXIS,), axis_types=(AxisType.Auto,))


def connect(settings: Devices) -> None:
    """Join the other processes of a `multihost` run; anywhere else there is nothing to do.

    Without a coordinator the cluster is asked (Slurm, Open MPI, cloud TPU and what else `jax.distributed` knows).
    """
    if settings.layout != "multihost" or jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if settings.coordinator is None:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(settings.coordinator, settings.processes, settings.process)
    except (ValueError, RuntimeError) as error:
        message = (
            f"devices=multihost: {' '.join(str(error).split())}; run it under srun or mpirun, or give "
            "devices.coordinator=host:port devices.processes=N devices.process=I"
        )
        raise UserFault(message) from error


def placement(settings: Devices) -> Place:
    """Return `place(array, axis=0)`: the identity on one device, else a `device_put` split along `axis`.

    An axis that the devices do not divide is placed whole on each of them: right, if slower.
    """
    if settings.layout == "single":
        return lambda array, axis=0: array  # noqa: ARG005
    spread = mesh(settings.count)

    def place(array: Any, axis: int = 0) -> jax.Array:
        names: list[str | None] = [None] * np.ndim(array)
        if names and np.shape(array)[axis] % spread.size == 0:
            names[axis] = AXIS
        return jax.device_put(array, NamedSharding(spread, PartitionSpec(*names)))

    return place
