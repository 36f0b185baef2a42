"""The served student as one self-contained artefact: StableHLO with its parameters, for a batch of any size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import export

from kdrec import models
from kdrec.models import Params, Spec


def serialise(ranker: Params, spec: Spec, platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")) -> bytearray:
    """Turn a ranker into bytes that need neither this package nor its parameters to run.

    Give `distill.served(params)`: what a method learned beside the ranker has no place in what is served.

    Args:
        ranker: parameters as of `kdrec.models.init`, without leading axes.
        spec: shape of the ranker.
        platforms: where the bytes shall run.

    Returns:
        The artefact; `load` reads it, and so does `jax.export.deserialize`.

    Raises:
        ValueError: parameters carry leading axes of seeds or weights.
    """
    if ranker["biases"].shape != (spec.vocabulary, spec.tasks):
        raise ValueError(
            f"parameters must be those of one ranker, with biases of shape {(spec.vocabulary, spec.tasks)}, got "
            f"{ranker['biases'].shape}; choose a seed and a weight first"
        )

    def logits(ids: jax.Array, numbers: jax.Array) -> jax.Array:
        return models.apply(ranker, spec, ids, numbers).logits

    (batch,) = export.symbolic_shape("batch")
    number = ranker["biases"].dtype
    shapes = (
        jax.ShapeDtypeStruct((batch, spec.features), jnp.int32),
        jax.ShapeDtypeStruct((batch, spec.numeric), number),
    )
    return export.export(jax.jit(logits), platforms=platforms)(*shapes).serialize()


def load(artefact: bytes | bytearray) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Read an artefact.

    Args:
        artefact: as of `serialise`.

    Returns:
        Ids `[batch, F]` int32 and numbers `[batch, M]` to logits `[batch, K]`, compiled once for each size of batch.
    """
    return jax.jit(export.deserialize(bytearray(artefact)).call)
