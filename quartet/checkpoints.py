"""Checkpoints of a state: orbax, with a digest of every leaf, since orbax restores a flipped byte without a word."""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from quartet.faults import UserFault
from quartet.settings import Checkpoint

Say = Callable[[str], None]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _unwrap(state: Any) -> Any:
    """Typed keys become their words, which every storage layer knows."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)


def _rewrap(state: Any, like: Any) -> Any:
    def leaf(value: Any, template: Any) -> Any:
        if not _is_key(template):
            return value
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(template))

    return jax.tree.map(leaf, state, like)


def _agree(due: bool) -> bool:
    """What the first process says: clocks of several processes disagree."""
    if jax.process_count() == 1:
        return due
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(due)))


def _wide() -> AbstractContextManager:
    """Keep float64 leaves of the host as they are where they pass through arrays of all processes."""
    return jax.enable_x64(True) if jax.process_count() > 1 else nullcontext()


def _spread(state: Any) -> Any:
    """With several processes, what each holds for itself becomes one array that all hold: orbax saves no other."""
    if jax.process_count() == 1:
        return state
    everywhere = NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), PartitionSpec())

    def leaf(value: Any) -> Any:
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            return value
        local = np.asarray(value)
        return jax.make_array_from_callback(local.shape, everywhere, lambda index: local[index])

    return jax.tree.map(leaf, state)


def _gather(state: Any, like: Any) -> Any:
    """The inverse of `_spread`: leaves that each process held for itself are its own again."""

    def leaf(value: Any, template: Any) -> Any:
        if jax.process_count() == 1 or (isinstance(template, jax.Array) and not template.is_fully_addressable):
            return value
        local = np.asarray(value.addressable_data(0))
        return jnp.asarray(local) if isinstance(template, jax.Array) else local

    return jax.tree.map(leaf, state, like)


def _digest(leaf: Any) -> str:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable and not leaf.is_fully_replicated:
        from jax.experimental import multihost_utils

        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()


def _describe(state: Any, *, digests: bool) -> dict[str, dict[str, Any]]:
    """Shape, dtype and, if asked, digest of each leaf, by its path in the tree."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        entry: dict[str, Any] = {"shape": list(np.shape(leaf)), "dtype": str(leaf.dtype)}
        if digests:
            entry["sha256"] = _digest(leaf)
        described[jax.tree_util.keystr(path)] = entry
    return described


class Checkpoints:
    """Saves and restores the state of one run under `folder`. Use as a context manager.

    Nothing of orbax is imported before the first save or restore: a run shorter than its first interval of saving
    never pays for it.
    """

    def __init__(self, folder: Path, settings: Checkpoint, say: Say = print) -> None:
        self._folder, self._settings, self._say = Path(folder).absolute(), settings, say
        self._manager: Any = None
        self._saved_at = time.monotonic()
        self._since = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._manager is not None:
            self._manager.close()

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._settings.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager

    def maybe_save(self, step: int, state: Any) -> bool:
        """Save if the settings say that it is time; the state is on disk when this returns True."""
        self._since += 1
        due = self._settings.every is not None and self._since >= self._settings.every
        waited = time.monotonic() - self._saved_at
        if not due and self._settings.seconds is not None:
            due = _agree(waited >= self._settings.seconds)
        if due:
            self.save(step, state)
        return due

    def save(self, step: int, state: Any) -> None:
        """Save `state` under `step`.

        Raises:
            RuntimeError: orbax kept nothing, as it does without a word for a step that is not newer than its latest.
        """
        import orbax.checkpoint as ocp

        with _wide():
            state = _spread(_unwrap(state))
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave({"leaves": _describe(state, digests=True)})
            )
            saved = self._open().save(step, args=arguments)
        if not saved:
            message = f"{self._folder}: step {step} was not saved; latest there is {self._manager.latest_step()}"
            raise RuntimeError(message)
        self._saved_at, self._since = time.monotonic(), 0

    def restore(self, like: Any, *, discard: bool = True) -> Any | None:
        """Restore the newest sound step into the structure and placement of `like`; None if there is none.

        A step whose leaves cannot be read or do not have the digests they were saved with is named, passed over and,
        with `discard`, set aside, so that the resumed run can save that step again.

        Raises:
            UserFault: the newest readable step has other leaves than `like`.
        """
        if not self._folder.is_dir():
            return None
        manager = self._open()
        for step in sorted(manager.all_steps(), reverse=True):
            with _wide():
                state, fault = self._read(step, _spread(_unwrap(like)))
                gathered = _gather(state, _unwrap(like)) if fault is None else None
            if fault is None:
                return _rewrap(gathered, like)
            self._say(f"{self._folder}: step {step} is damaged ({fault}); trying the one before")
            if discard:
                self._set_aside(step)
        return None

    def forget(self) -> None:
        """Delete every step."""
        for step in self._open().all_steps():
            self._manager.delete(step)

    def _set_aside(self, step: int) -> None:
        """Move a damaged step out of the way: its number is needed again, its bytes may still help somebody."""
        aside = self._folder.with_name("checkpoints-damaged")
        aside.mkdir(exist_ok=True)
        (self._folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
        self._manager.reload()

    def _read(self, step: int, like: Any) -> tuple[Any, str | None]:
        import orbax.checkpoint as ocp

        try:
            saved = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta["leaves"]
        except Exception as error:  # whatever a damaged file makes the reader raise, the remedy is the same
            return None, f"metadata: {type(error).__name__}"
        expected = _describe(like, digests=False)
        shapes = {path: {k: entry[k] for k in ("shape", "dtype")} for path, entry in saved.items()}
        if shapes != expected:
            path = next(p for p in sorted({*shapes, *expected}) if shapes.get(p) != expected.get(p))
            message = (
                f"{self._folder}: step {step} holds {path} as {shapes.get(path)}, this configuration needs "
                f"{expected.get(path)}; choose another run.folder, or start over with run.resume=false"
            )
            raise UserFault(message)
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
        except Exception as error:  # as above
            return None, f"data: {type(error).__name__}"
        found = _describe(restored.state, digests=True)
        damaged = [path for path in found if found[path]["sha256"] != saved[path]["sha256"]]
        return restored.state, f"digest of {damaged[0]} differs" if damaged else None
