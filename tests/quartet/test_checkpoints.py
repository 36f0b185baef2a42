"""Checkpoints are sound, or are known not to be."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quartet.checkpoints import Checkpoints
from quartet.faults import UserFault
from quartet.settings import Checkpoint

EVERY = Checkpoint(every=1, seconds=None, keep=3)


def state_at(step):
    values = jax.random.normal(jax.random.key(step), (7, 5))
    return {
        "step": jnp.asarray(step),
        "key": jax.random.key(step),
        "half": values.astype(jnp.bfloat16),
        "values": values,
    }


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def save(folder, *steps):
    with Checkpoints(folder, EVERY) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step))


def restore(folder, like, said=None):
    with Checkpoints(folder, EVERY, (said if said is not None else []).append) as checkpoints:
        return checkpoints.restore(like)


def test_restores_typed_keys_and_every_dtype(tmp_path):
    save(tmp_path, 1, 2)
    assert_same(restore(tmp_path, state_at(0)), state_at(2))


def test_an_empty_folder_restores_nothing(tmp_path):
    assert restore(tmp_path / "none", state_at(0)) is None


def test_no_flipped_byte_anywhere_is_restored_as_sound(tmp_path):
    """Whichever file of the newest step is hit: either its values are still right, or the step before is used."""
    save(tmp_path / "original", 1, 2)
    files = [p.relative_to(tmp_path) for p in sorted((tmp_path / "original" / "2").rglob("*")) if p.is_file()]
    fallen_back = 0
    for index, file in enumerate(files):
        folder = tmp_path / f"copy{index}"
        shutil.copytree(tmp_path / "original", folder)
        victim = folder / file.relative_to("original")
        content = bytearray(victim.read_bytes())
        if not content:
            continue
        content[len(content) // 2] ^= 4
        victim.write_bytes(content)
        said = []
        found = restore(folder, state_at(0), said)
        step = int(found["step"])
        assert_same(found, state_at(step))
        assert (step == 1) == bool(said)
        fallen_back += step == 1
    assert fallen_back >= 2  # at least the data and the digests


def test_a_damaged_step_can_be_saved_again(tmp_path):
    save(tmp_path, 1, 2)
    for file in (tmp_path / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with Checkpoints(tmp_path, EVERY, lambda _: None) as checkpoints:
        assert_same(checkpoints.restore(state_at(0)), state_at(1))
        checkpoints.save(2, state_at(2))
    assert_same(restore(tmp_path, state_at(0)), state_at(2))


def test_saving_an_older_step_is_an_error_not_silence(tmp_path):
    save(tmp_path, 5)
    with Checkpoints(tmp_path, EVERY) as checkpoints, pytest.raises(RuntimeError, match="step 3 was not saved"):
        checkpoints.save(3, state_at(3))


def test_another_configuration_is_named_by_its_leaf(tmp_path):
    save(tmp_path, 1)
    like = {**state_at(0), "values": jnp.zeros((7, 6))}
    with pytest.raises(UserFault, match=r"holds \['values'\] as .*\[7, 5\].*needs .*\[7, 6\].*run\.resume=false"):
        restore(tmp_path, like)


def test_saves_by_intervals_and_by_time(tmp_path):
    with Checkpoints(tmp_path / "a", Checkpoint(every=3, seconds=None, keep=9)) as counted:
        assert [counted.maybe_save(step, state_at(step)) for step in range(1, 8)] == [False, False, True] * 2 + [False]
    with Checkpoints(tmp_path / "b", Checkpoint(every=None, seconds=1e-9, keep=9)) as timed:
        assert timed.maybe_save(1, state_at(1))
    with Checkpoints(tmp_path / "c", Checkpoint(every=None, seconds=1e9, keep=9)) as patient:
        assert not patient.maybe_save(1, state_at(1))
    assert not (tmp_path / "c").exists()


def test_restores_onto_a_mesh(tmp_path):
    from quartet.devices import placement
    from quartet.settings import Devices

    place = placement(Devices(layout="data"))
    values = place(jnp.arange(8.0))
    with Checkpoints(tmp_path, EVERY) as checkpoints:
        checkpoints.save(1, {"values": values})
    restored = restore(tmp_path, {"values": place(jnp.zeros(8))})
    assert restored["values"].sharding == values.sharding
    np.testing.assert_array_equal(restored["values"], values)
