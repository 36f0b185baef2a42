import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalmetrics import chunks, onepass, pairs
from tests.evalmetrics import definitions

SHAPE = (5, 6, 7)
ELEMENTWISE = ("abs", "ait", "simplex_tv")


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return definitions.random_map(rng, 3, SHAPE), definitions.random_map(rng, 4, SHAPE, sharp=0.3)


@pytest.fixture
def weights():
    return np.random.default_rng(1).random(SHAPE).astype(np.float32)


def layouts(p, q):
    """The same crisp or soft content in each layout, with the soft maps it stands for."""
    crisp_p, crisp_q = p.argmax(0), q.argmax(0)
    hot_p, hot_q = definitions.one_hot(crisp_p, len(p)), definitions.one_hot(crisp_q, len(q))
    return {
        "soft soft": (p, q, p, q),
        "label soft": (crisp_p, q, hot_p, q),
        "soft label": (p, crisp_q, p, hot_q),
        "label label": (crisp_p, crisp_q, hot_p, hot_q),
        "bool soft": (hot_p.astype(bool), q, hot_p, q),
    }


@pytest.mark.parametrize("kernel", ELEMENTWISE)
@pytest.mark.parametrize("layout", ["soft soft", "label soft", "soft label", "label label", "bool soft"])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_definition_in_every_layout(maps, weights, kernel, layout, weighted):
    reference, prediction, p, q = layouts(*maps)[layout]
    w = weights if weighted else None
    stats = pairs.pair_stats(reference, prediction, kernel=kernel, weights=w, regions=(3, 4), chunk=64)
    num, den = definitions.pair_tables(kernel, p, q, weights=w)
    np.testing.assert_allclose(stats.disagreement, num, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(stats.mass, den, rtol=2e-6, atol=2e-5)
    flat, ones = definitions.flatten(p, w)
    np.testing.assert_allclose(stats.reference_volume, (flat * ones).sum(1), rtol=2e-6)
    np.testing.assert_allclose(stats.voxels, ones.sum(), rtol=2e-6)
    empty = definitions.pair_tables(kernel, p, np.zeros_like(p[:1]), weights=w)[0][:, 0]
    np.testing.assert_allclose(stats.reference_alone, empty, rtol=2e-6)


@pytest.mark.parametrize("kernel", [*ELEMENTWISE, "simplex_ait"])
@pytest.mark.parametrize("layout", ["soft soft", "label soft", "soft label", "label label"])
def test_ordered_is_the_diagonal_and_crisp_layouts_agree(maps, weights, kernel, layout):
    reference, prediction, p, q = layouts(maps[1], maps[1][[2, 0, 1, 3]])[layout]
    options = {"kernel": kernel, "weights": weights, "labels": "ordered", "chunk": 64}
    stats = pairs.pair_stats(reference, prediction, **options, regions=(4, 4))
    soft = pairs.pair_stats(p.astype(np.float32), q.astype(np.float32), **options)
    for name in ("disagreement", "mass", "reference_alone", "prediction_volume"):
        np.testing.assert_allclose(getattr(stats, name), getattr(soft, name), rtol=3e-6, atol=3e-5)
    if kernel != "simplex_ait":
        num, den = definitions.pair_tables(kernel, p, q, weights=weights)
        np.testing.assert_allclose(stats.disagreement, np.diagonal(num), rtol=2e-6, atol=2e-5)
        np.testing.assert_allclose(stats.mass, np.diagonal(den), rtol=2e-6)


@pytest.mark.parametrize("layout", ["soft soft", "label soft", "label label"])
def test_matching_cost_of_aitchison_is_that_of_centred_log_ratios(maps, weights, layout):
    reference, prediction, p, q = layouts(*maps)[layout]
    stats = pairs.pair_stats(reference, prediction, kernel="simplex_ait", weights=weights, regions=(3, 4), chunk=64)
    (a, w), (b, _) = definitions.flatten(p, weights), definitions.flatten(q, None)
    a, b = definitions.clr(a, 0.01, 4), definitions.clr(b, 0.01, 4)
    wanted = [[(w * (x - y) ** 2).sum() for y in b] for x in a]
    np.testing.assert_allclose(stats.disagreement, wanted, rtol=1e-4, atol=1e-3)


def test_moments_are_inner_products(maps, weights):
    p, q = maps
    for name in ("soft soft", "label soft", "label label"):
        reference, prediction, a, b = layouts(p, q)[name]
        found = pairs.pair_stats(reference, prediction, weights=weights, regions=(3, 4), moments=True, chunk=64).moments
        (a, w), (b, _) = definitions.flatten(a, weights), definitions.flatten(b, None)
        np.testing.assert_allclose(found.cross, (a * w) @ b.T, rtol=3e-6)
        np.testing.assert_allclose(found.reference, (a * a) @ w, rtol=3e-6)
        np.testing.assert_allclose(found.prediction, (b * b) @ w, rtol=3e-6)


def test_match_reorders_and_pads_the_prediction(maps):
    p, q = maps
    match = np.array([2, 4, 0, 1])  # 4: none
    stats = pairs.pair_stats(p, q, match=match, moments=True)
    crisp = pairs.pair_stats(p.argmax(0), q.argmax(0), match=match, regions=(3, 4), moments=True)
    hot = [definitions.one_hot(x.argmax(0), len(x)) for x in (p, q)]
    for a, b in zip(
        jax.tree.leaves(crisp), jax.tree.leaves(pairs.pair_stats(*hot, match=match, moments=True)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    taken = np.concatenate([q, np.zeros_like(q[:1])])[match]
    num, den = definitions.pair_tables("abs", definitions.pad(p, 4), taken)
    np.testing.assert_allclose(stats.disagreement, np.diagonal(num), rtol=2e-6)
    np.testing.assert_allclose(stats.mass, np.diagonal(den), rtol=2e-6)
    np.testing.assert_allclose(stats.moments.cross[:3], (p * taken[:3]).sum((1, 2, 3)), rtol=2e-6)


@pytest.mark.parametrize("sizes", [(40, 33), (3, 40)])
def test_many_regions_are_tiled(sizes):
    rng = np.random.default_rng(2)
    p, q = (definitions.random_map(rng, k, (150,)) for k in sizes)
    for kernel in ("abs", "ait"):
        stats = pairs.pair_stats(p, q, kernel=kernel)
        num, den = definitions.pair_tables(kernel, p, q)
        np.testing.assert_allclose(stats.disagreement, num, rtol=3e-6)
        np.testing.assert_allclose(stats.mass, den, rtol=3e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.sampled_from([("ait", False), ("simplex_tv", True), ("simplex_ait", False)]))
def test_merging_parts_is_scoring_the_whole(seed, case):
    kernel, crisp = case
    rng = np.random.default_rng(seed)
    p, q = (definitions.random_map(rng, k, (90,)) for k in (3, 4))
    q = q.argmax(0) if crisp else q
    options = {"kernel": kernel, "regions": (3, 4), "chunk": 16}
    whole = pairs.pair_stats(p, q, **options)
    first = pairs.pair_stats(p[:, :25], q[..., :25], **options)
    merged = pairs.update(first, p[:, 25:], q[..., 25:], chunk=16)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-6, atol=1e-4)


def test_labels_outside_the_range_belong_to_no_region():
    a = np.array([0, 1, -1, 7, 1, 0])
    b = np.array([0, 1, 1, 0, -5, 9])
    crisp = pairs.pair_stats(a, b, regions=(2, 2))
    soft = pairs.pair_stats(definitions.one_hot(a, 2), definitions.one_hot(b, 2))
    for x, y in zip(jax.tree.leaves(crisp), jax.tree.leaves(soft), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(pairs.pair_stats(a, definitions.one_hot(b, 2), regions=(2, 2)).mass, soft.mass)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_label_dtypes(dtype):
    a, b = np.random.default_rng(3).integers(0, 5, (2, 999)).astype(dtype)
    np.testing.assert_array_equal(
        pairs.pair_stats(a, b).disagreement, pairs.pair_stats(a.astype(np.int32), b.astype(np.int32)).disagreement
    )


def test_half_precision_maps_are_summed_in_single(maps):
    p, q = (jnp.asarray(x, jnp.bfloat16) for x in maps)
    stats = pairs.pair_stats(p, q)
    num, _ = definitions.pair_tables("abs", np.asarray(p, np.float64), np.asarray(q, np.float64))
    assert stats.disagreement.dtype == jnp.float32
    np.testing.assert_allclose(stats.disagreement, num, rtol=2e-6)


def test_double_precision_is_kept(maps):
    with jax.enable_x64(True):
        p, q = (x.astype(np.float64) for x in maps)
        stats = pairs.pair_stats(p, q, kernel="ait", chunk=50)
        num, _ = definitions.pair_tables("ait", p, q)
        np.testing.assert_allclose(stats.disagreement, num, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["abs", "ait"])
def test_jit_and_vmap_equal_the_loop(maps, kernel):
    batch = [jnp.stack([jnp.asarray(x), jnp.asarray(x)[::-1]]) for x in maps]
    loop = [pairs.pair_stats(batch[0][i], batch[1][i], kernel=kernel, chunk=64).disagreement for i in range(2)]
    mapped = jax.jit(jax.vmap(lambda a, b: pairs.pair_stats(a, b, kernel=kernel, chunk=64).disagreement))(*batch)
    np.testing.assert_allclose(mapped, jnp.stack(loop), rtol=1e-6)


def test_second_call_does_not_compile_again(maps):
    pairs.pair_stats(*maps)
    compiled = onepass.stats_jitted._cache_size()
    pairs.pair_stats(*maps, eps=0.02)
    assert onepass.stats_jitted._cache_size() == compiled


def test_sums_of_many_voxels_keep_single_precision():
    """2^22 equal terms: a sequential float32 sum is off in the fifth digit."""
    value = jnp.full((1, 1 << 22), 0.1, jnp.float32)
    total = chunks.sum_chunks(lambda x: x.sum(-1), value, 1 << 10)
    np.testing.assert_allclose(total, (1 << 22) * np.float64(np.float32(0.1)), rtol=5e-7)


def test_no_voxels_sum_to_nothing():
    stats = pairs.pair_stats(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.float32))
    assert (stats.mass == 0).all()


@pytest.mark.parametrize("kernel", ["abs", "ait", "simplex_tv", "simplex_ait"])
def test_empty_and_crisp_maps_raise_no_nan(kernel):
    crisp = np.eye(3, dtype=np.float32)[:, :2]  # the third region is empty
    with jax.debug_nans(True):
        pairs.pair_stats(crisp, crisp, kernel=kernel)
        pairs.pair_stats(crisp, crisp, kernel=kernel, labels="ordered")
        pairs.pair_stats(crisp.argmax(0), crisp.argmax(0), kernel=kernel, regions=(3, 3))


def test_misuse_is_refused_with_the_remedy(maps):
    p, q = maps
    with pytest.raises(ValueError, match=r"one voxel grid.*resample"):
        pairs.pair_stats(p, q[:, 1:])
    with pytest.raises(ValueError, match=r"needs axes \[regions, \*spatial\].*integer dtype"):
        pairs.pair_stats(p[0, 0, 0], q[0, 0, 0])
    with pytest.raises(ValueError, match="weights must have the voxel grid"):
        pairs.pair_stats(p, q, weights=np.ones(3))
    with pytest.raises(ValueError, match="equal numbers of regions, got 3 and 4; use labels='unordered'"):
        pairs.pair_stats(p, q, labels="ordered")
    with pytest.raises(ValueError, match="labels must be"):
        pairs.pair_stats(p, q, labels="sorted")
    with pytest.raises(ValueError, match="match must have one entry for each of 4"):
        pairs.pair_stats(p, q, match=np.arange(3))
    with pytest.raises(ValueError, match="reference has 3 channels but regions says 5"):
        pairs.pair_stats(p, q, regions=(5, 4))
    with pytest.raises(ValueError, match=r"pass the numbers of regions, regions=\(K, K'\)"):
        jax.jit(pairs.pair_stats)(p.argmax(0), q)
    with pytest.raises(TypeError, match="complex"):
        pairs.pair_stats(p + 1j, q)
    with pytest.raises(TypeError, match="reference must be an array"):
        pairs.pair_stats("p.nii", q)
    with pytest.raises(ValueError, match=r"kernel 'abs'.*kernel 'ait'"):
        pairs.merge(pairs.pair_stats(p, q), pairs.pair_stats(p, q, kernel="ait"))
    with pytest.raises(ValueError, match=r"same regions, got \(3, 4\) and \(4, 4\)"):
        pairs.merge(pairs.pair_stats(p, q), pairs.pair_stats(q, q))
