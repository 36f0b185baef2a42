"""What the verbs accept: arrays of any library, soft maps or label maps, and the checks of their shapes.

Legend: a soft map is floating or boolean, `[K, *spatial]`; a label map is an integer array `[*spatial]` of region
indices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_jax(array: Any, name: str = "array") -> jax.Array:
    """Take an array of NumPy, JAX, or of any library that speaks DLPack, without a copy where the layout allows it.

    Args:
        array: array; a tensor that requires gradients must be detached first.
        name: what to call it in an error.

    Returns:
        JAX array; it may share memory with `array`, which must not change until the result is computed.

    Raises:
        TypeError: not an array, or an array that cannot be exported.
    """
    if isinstance(array, jax.Array):
        return array
    if isinstance(array, np.ndarray):
        return _from_numpy(array, name)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, name)
    if isinstance(array, (np.generic, list, tuple)) or hasattr(array, "__array__"):
        return _from_numpy(np.asarray(array), name)
    raise TypeError(f"{name} must be an array of NumPy, JAX or a DLPack library, got {type(array).__name__}")


def keep_host(array: Any, name: str = "array") -> Any:
    """As `to_jax`, but a NumPy array, which may be mapped from a file, stays where it is."""
    return array if isinstance(array, np.ndarray) else to_jax(array, name)


def _from_numpy(array: np.ndarray, name: str) -> jax.Array:
    if array.dtype.kind not in "fbiuV":  # V: bfloat16 of ml_dtypes
        raise TypeError(f"{name} must hold real numbers, integers or booleans, got dtype {array.dtype}")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if native.dtype.itemsize <= 4 and native.dtype.kind in "fiu" and native.flags.writeable and native.size:
        return jax.dlpack.from_dlpack(native)  # jnp.asarray would copy the volume
    return jnp.asarray(native)


def _from_dlpack(array: Any, name: str) -> jax.Array:
    try:
        return jax.dlpack.from_dlpack(array)
    except Exception as failure:  # each library raises its own kind
        try:
            return _from_numpy(np.asarray(array), name)  # strides or types that DLPack import does not know
        except Exception:
            raise TypeError(
                f"{name}: this {type(array).__name__} cannot be exported ({failure}); detach it from gradients and "
                "move it to a device that JAX sees"
            ) from failure


def is_label_map(array: Any) -> bool:
    """Whether an array holds region indices rather than probabilities."""
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def spatial_shape(array: Any) -> tuple[int, ...]:
    """Shape of the voxel grid: all axes of a label map, all but the first of a soft map."""
    return tuple(array.shape) if is_label_map(array) else tuple(array.shape[1:])


def check_layout(reference: Any, prediction: Any, weights: Any = None) -> None:
    """Refuse maps that do not lie on one grid.

    Raises:
        ValueError: the grids differ, or a soft map has no voxel axis.
        TypeError: complex numbers.
    """
    for name, array in (("reference", reference), ("prediction", prediction)):
        if not is_label_map(array) and not jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != jnp.bool_:
            raise TypeError(f"{name} must hold real numbers, integers or booleans, got dtype {array.dtype}")
        if not is_label_map(array) and array.ndim < 2:
            raise ValueError(
                f"{name} is a soft map and needs axes [regions, *spatial], got shape {tuple(array.shape)}; "
                "a label map must have an integer dtype"
            )
    grids = spatial_shape(reference), spatial_shape(prediction)
    if grids[0] != grids[1]:
        raise ValueError(
            f"reference and prediction must lie on one voxel grid, got {grids[0]} and {grids[1]}; resample one of "
            "them, or put regions on axis 0 of a soft map (use jax.vmap for a batch)"
        )
    if weights is not None and tuple(weights.shape) != grids[0]:
        raise ValueError(f"weights must have the voxel grid {grids[0]} of the maps, got {tuple(weights.shape)}")


def count_regions(reference: Any, prediction: Any, regions: tuple[int, int] | None) -> tuple[int, int]:
    """Numbers of regions of both sides: channels of a soft map, largest index + 1 of a label map.

    Args:
        reference: soft map or label map.
        prediction: soft map or label map.
        regions: numbers given by the caller; needed for label maps whose values are not at hand.

    Returns:
        (K, K').

    Raises:
        ValueError: a label map is traced and `regions` is None, or `regions` contradicts the channels of a soft map.
    """
    if regions is not None and (len(regions) != 2 or min(regions) < 1):
        raise ValueError(f"regions must be two positive numbers (reference, prediction), got {regions}")
    found = []
    for side, (name, array) in enumerate((("reference", reference), ("prediction", prediction))):
        given = None if regions is None else int(regions[side])
        if not is_label_map(array):
            if given is not None and given != array.shape[0]:
                raise ValueError(f"{name} has {array.shape[0]} channels but regions says {given}; drop regions")
            found.append(int(array.shape[0]))
        elif given is not None:
            found.append(given)
        elif isinstance(array, jax.core.Tracer):
            raise ValueError(
                f"{name} is a label map inside a transformation: pass the numbers of regions, regions=(K, K')"
            )
        else:
            found.append(int(array.max()) + 1 if array.size else 1)
    return found[0], found[1]
