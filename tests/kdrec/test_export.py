"""The served artefact: equal logits in a process that has never seen the package, and nothing of the teacher in it."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdrec import distill, export, models, serving
from tests.kdrec.worlds import method, spec, world

init = jax.jit(models.init, static_argnums=1)
FRESH = """
import sys, numpy as np, jax
from jax import export
call = jax.jit(export.deserialize(bytearray(open(sys.argv[1], "rb").read())).call)
given = np.load(sys.argv[2])
np.savez(sys.argv[3], *[np.asarray(call(given["ids"][:n], given["numbers"][:n])) for n in (1, 7, 64)])
assert not [name for name in sys.modules if name.startswith(("kdrec", "flax"))]
"""


@pytest.mark.parametrize("trunk", models.TRUNKS)
def test_a_fresh_process_serves_the_same_logits_at_any_size_of_batch(trunk, key, tmp_path):
    shape = spec(world(), trunk, numeric=2)
    ranker = init(key, shape)
    ids = world().read(0, 64).ids
    numbers = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    (tmp_path / "student").write_bytes(export.serialise(ranker, shape))
    np.savez(tmp_path / "given.npz", ids=ids, numbers=numbers)
    if trunk == "mlp":  # one process is enough: the others take the same road
        command = [sys.executable, "-c", FRESH, tmp_path / "student", tmp_path / "given.npz", tmp_path / "out.npz"]
        subprocess.run(command, check=True, cwd=tmp_path)
        served = list(np.load(tmp_path / "out.npz").values())
    else:
        call = export.load((tmp_path / "student").read_bytes())
        served = [call(ids[:n], numbers[:n]) for n in (7, 64)]
    direct = jax.jit(models.apply, static_argnums=1)(ranker, shape, jnp.asarray(ids), jnp.asarray(numbers)).logits
    for logits in served:
        np.testing.assert_allclose(logits, direct[: len(logits)], rtol=1e-5, atol=1e-6)


def test_what_was_learned_beside_the_ranker_is_not_in_the_artefact(key):
    shape = spec(world())
    params = {"ranker": init(key, shape), "extra": distill.init(key, method("auxiliary"), shape, shape)}
    artefact = bytes(export.serialise(distill.served(params), shape))
    heads = np.asarray(params["extra"]["heads"]["kernel"]).tobytes()
    assert heads not in artefact
    assert np.asarray(params["ranker"]["heads"]["kernel"]).tobytes() in artefact


def test_parameters_of_several_seeds_are_refused(key):
    shape = spec(world())
    several = jax.tree.map(lambda x: x[None], init(key, shape))
    with pytest.raises(ValueError, match="choose a seed and a weight first"):
        export.serialise(several, shape)


def test_latency_is_told_for_each_size_of_batch(key):
    shape = spec(world())
    found = serving.latency(export.serialise(init(key, shape), shape), world(), (0, 1, 2, 3, 4, 5), sizes=(1, 7))
    assert list(found) == [1, 7]
    assert all(0 < half <= most < 1 for half, most in found.values())
