import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalmetrics import pairs, scores, streaming
from tests.evalmetrics import definitions

SHAPE = (11, 6, 13)


def on_disk(folder, name, array, order):
    """Memory-map of a soft or label map stored channel-first in C order, channel-last in Fortran order, or neither."""
    soft = array.ndim == 4
    if order == "channel-first C":
        stored, layout = array, "C"
    else:
        stored = np.moveaxis(array, 0, -1) if soft else array
        layout = "F" if order == "channel-last F" else "C"
    mapped = np.memmap(folder / name, array.dtype, "w+", shape=stored.shape, order=layout)
    mapped[...] = stored
    mapped.flush()
    opened = np.memmap(folder / name, array.dtype, "r", shape=stored.shape, order=layout)
    return np.moveaxis(opened, -1, 0) if soft and order != "channel-first C" else opened


@pytest.mark.parametrize(
    "orders", [("channel-first C", "channel-last F"), ("channel-last F",) * 2, ("channel-last C",) * 2]
)
@pytest.mark.parametrize("crisp", [False, True])
def test_blocks_of_any_memory_order_sum_to_the_whole(tmp_path, orders, crisp):
    rng = np.random.default_rng(0)
    p, q = definitions.random_map(rng, 3, SHAPE), definitions.random_map(rng, 4, SHAPE)
    p = p.argmax(0).astype(np.int16) if crisp else p
    weights = rng.random(SHAPE).astype(">f4")
    maps = [on_disk(tmp_path, f"{i}", x, order) for i, (x, order) in enumerate(zip((p, q), orders, strict=True))]
    options = {"kernel": "ait", "weights": weights, "regions": (3, 4)}
    whole = pairs.pair_stats(p, q, **options)
    streamed = streaming.pair_stats_streamed(*maps, block=200, **options)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(streamed), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-6, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 300),
    st.randoms(use_true_random=False),
)
def test_boxes_cover_the_grid_once_and_keep_to_the_block(shape, block, random):
    orders = [tuple(random.sample(range(len(shape)), len(shape))) for _ in range(2)]
    count = np.zeros(shape, int)
    for index in streaming.cut(tuple(shape), orders, block):
        assert count[index].size <= block
        count[index] += 1
    assert (count == 1).all()


def test_blocks_follow_the_order_on_disk(tmp_path):
    array = on_disk(tmp_path, "a", np.zeros((2, *SHAPE), np.float32), "channel-last F")
    assert streaming.slowest_first(array, 1) == (2, 1, 0)
    boxes = list(streaming.cut(SHAPE, [(2, 1, 0)] * 2, 6 * 11 * 2))
    assert boxes[0] == (slice(0, 11), slice(0, 6), slice(0, 2))  # whole planes of the slowest axis


def test_nothing_is_computed_after_the_return():
    maps = [np.zeros((8, 64, 64, 64), np.float32)] * 2
    assert all(leaf.is_ready() for leaf in jax.tree.leaves(streaming.pair_stats_streamed(*maps, block=1 << 14)))


def test_changes_in_a_private_map_survive(tmp_path):
    np.zeros((2, 50), np.float32).tofile(tmp_path / "a")
    private = np.memmap(tmp_path / "a", np.float32, "c", shape=(2, 50))
    private[:] = 0.5
    stats = streaming.pair_stats_streamed(private, private, block=10)
    np.testing.assert_allclose(stats.reference_volume, 25)
    assert (private == 0.5).all()


MEMORY = """
import sys
import numpy as np
from evalmetrics import streaming

def peak(field):
    return int(next(l for l in open("/proc/self/status") if l.startswith(field)).split()[1]) * 1024

maps = [np.memmap(sys.argv[1], np.float32, "r", shape=(8, 192, 192, 192)) for _ in range(2)]
small = [np.zeros((8, 6, 192, 192), np.float32)] * 2
streaming.pair_stats_streamed(*small, block=1 << 15)  # compile first
before = peak("VmHWM")
streaming.pair_stats_streamed(*maps, block=1 << 15)
print(peak("VmHWM") - before)
"""


@pytest.mark.usefixtures("optimised")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_stays_flat(tmp_path):
    """Two views of one sparse file of 226 MB in blocks of 2 MB: the peak grows by a few blocks, not by the file."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(8 * 192**3 * 4)
    out = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 64 << 20


def test_large_arrays_on_the_host_are_streamed_by_the_public_verb(monkeypatch):
    rng = np.random.default_rng(1)
    p, q = (definitions.random_map(rng, k, (40, 30, 20)) for k in (3, 4))
    whole = scores.score(p, q, kernel="simplex_ait")
    monkeypatch.setattr(pairs, "STREAMED_BYTES", 1 << 16)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1 << 15)
    for a, b in zip(whole, scores.score(p, q, kernel="simplex_ait"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_misuse_is_refused_with_the_remedy():
    p = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match=r"pass regions=\(K, K'\)"):
        streaming.pair_stats_streamed(np.zeros(5, np.int32), p)
    with pytest.raises(ValueError, match="block must be at least 1"):
        streaming.pair_stats_streamed(p, p, block=0)
    with pytest.raises(ValueError, match="no voxels"):
        streaming.pair_stats_streamed(p[:, :0], p[:, :0])
