"""Bases kept on disk under a digest of graph and settings: what was computed once is opened, never computed again.

A basis is one orbax checkpoint, written under another name and moved into place, arrays of several devices in pieces;
orbax is imported when the first one is saved or opened.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk.checks import InputError
from rwalk.eigen import Basis

FORMAT = 1


class Kept(NamedTuple):
    """A basis from disk.

    Attributes:
        basis: the pairs.
        seconds: what it took to compute them.
        path: where it lies.
    """

    basis: Basis
    seconds: float
    path: Path


def digest(*parts: Any) -> str:
    """Sixteen hexadecimal digits that stand for arrays (type, shape, bytes) and plain values."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | jax.Array):
            array = np.ascontiguousarray(part)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            found.update(json.dumps(part, sort_keys=True, default=str).encode())
    return found.hexdigest()[:16]


def path_of(folder: Path, graph: str, settings: dict[str, Any]) -> Path:
    """Where the basis of a graph with these settings of the eigensolver is kept."""
    return Path(folder).absolute() / f"{graph}-{digest(settings)}"


def save(path: Path, basis: Basis, *, graph: str, settings: dict[str, Any], seconds: float) -> Path:
    """Keep a basis; the path exists when all of it is written, or not at all.

    Args:
        path: of the folder it becomes; what is there is replaced.
        basis: the pairs, on one device or spread over several.
        graph: digest of image, mask, spacing and weights.
        settings: of the eigensolver.
        seconds: what it took.

    Returns:
        The path.
    """
    import orbax.checkpoint as ocp

    path.parent.mkdir(parents=True, exist_ok=True)
    leaves = _leaves(basis)
    meta = {
        "format": FORMAT,
        "graph": graph,
        "settings": settings,
        "seconds": seconds,
        "leaves": {name: _described(leaf) for name, leaf in leaves.items()},
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        arguments = ocp.args.Composite(basis=ocp.args.StandardSave(leaves), meta=ocp.args.JsonSave(meta))
        writer.save(path, args=arguments, force=True)
    for left in path.parent.glob(f"{path.name}.orbax-checkpoint-tmp*"):  # of a run that was killed while it wrote
        shutil.rmtree(left, ignore_errors=True)
    return path


def _leaves(basis: Basis) -> dict[str, Any]:
    if jax.process_count() == 1:
        return {name: jnp.asarray(leaf) for name, leaf in basis._asdict().items()}
    everywhere = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.asarray(jax.devices()), ("all",)), jax.sharding.PartitionSpec()
    )

    def common(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        local = np.asarray(leaf)  # what each process holds for itself becomes one array that all hold
        return jax.make_array_from_callback(local.shape, everywhere, lambda index: local[index])

    return {name: common(leaf) for name, leaf in basis._asdict().items()}


def _described(leaf: jax.Array) -> dict[str, Any]:
    whole = leaf.is_fully_addressable or leaf.is_fully_replicated
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "digest": digest(leaf) if whole else None}


def load(path: Path, graph: str, *, place: Callable[..., Any] | None = None) -> Kept:
    """Open a basis.

    Args:
        path: its folder.
        graph: digest of the graph that it must belong to.
        place: spreads an array over the devices along its first axis; one device by default.

    Returns:
        The basis as it was saved.

    Raises:
        InputError: there is none, it is damaged, or it belongs to another image, mask or weights.
    """
    path = Path(path).absolute()  # orbax takes no other
    meta = read_meta(path)
    if meta["graph"] != graph:
        raise InputError(
            f"{path}: this basis belongs to another image, mask or weights; give the inputs it was computed from, or "
            "compute one for these with task=precompute"
        )
    import orbax.checkpoint as ocp

    # Without a place one device holds all of it: those that saved it may not be there.
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0]) if jax.process_count() == 1 else None
    like = {}
    for name, leaf in meta["leaves"].items():
        shape, dtype = tuple(leaf["shape"]), jnp.dtype(leaf["dtype"])
        sharding = _spread_like(place, shape) if name in ("vectors", "mass") else None
        like[name] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding or alone)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(path, args=ocp.args.Composite(basis=ocp.args.StandardRestore(like)))
        leaves = restored.basis
        wrong = [name for name, leaf in leaves.items() if meta["leaves"][name] != _described(leaf)]
    except Exception as fault:  # whatever a damaged file makes the reader raise, the remedy is the same
        raise InputError(f"{path}: damaged ({type(fault).__name__}); delete it and compute it again") from fault
    if wrong:
        raise InputError(f"{path}: damaged ({', '.join(wrong)} changed on disk); delete it and compute it again")
    return Kept(Basis(**leaves), float(meta["seconds"]), path)


def read_meta(path: Path) -> dict[str, Any]:
    """What is known of a kept basis without reading it: graph, settings, seconds, shapes.

    Raises:
        InputError: it is not a basis of ours.
    """
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((Path(path) / "meta" / "metadata").read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return found
    raise InputError(f"{path}: no basis is kept here; compute one with task=precompute")


def _spread_like(place: Callable[..., Any] | None, shape: tuple[int, ...]) -> Any:
    """The sharding of the first axis that `place` gives to an array of this length."""
    if place is None:
        return None
    placed = place(jnp.zeros(shape[:1], bool))
    sharding = getattr(placed, "sharding", None)
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return None
    spec = jax.sharding.PartitionSpec(*(tuple(sharding.spec) or (None,)), *(None for _ in shape[1:]))
    return jax.sharding.NamedSharding(sharding.mesh, spec)
