import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalmetrics import pairs, scores
from tests.evalmetrics import definitions

SHAPE = (6, 7, 8)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return definitions.random_map(rng, 3, SHAPE, sharp=0.5), definitions.random_map(rng, 5, SHAPE, sharp=0.5)


@pytest.mark.parametrize("kernel", ["abs", "ait"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("objective", ["macro", "micro"])
def test_equals_the_definition_with_brute_force_matching(maps, kernel, turned, objective):
    p, q = maps[::-1] if turned else maps
    found = scores.score(p, q, kernel=kernel, objective=objective)
    matrix, num, den = definitions.region_scores(kernel, p, q)
    match, _ = definitions.best_permutation(matrix if objective == "macro" else -num)
    region, num, den = (x[np.arange(5), list(match)] for x in (matrix, num, den))
    volume = p.astype(np.float64).sum((1, 2, 3))
    k = len(p)
    wanted = {
        "region": region,
        "match": match,
        "pairs": matrix[: len(p), : len(q)],
        "macro": region.mean(),
        "macro_reference": region[:k].mean(),
        "micro": 1 - num.sum() / den.sum(),
        "volume_weighted": (region[:k] * volume).sum() / volume.sum(),
        "crum": 1 - (num[:k] / volume).sum() / (den[:k] / volume).sum(),
        "reference_volume": volume,
        "prediction_volume": q.astype(np.float64).sum((1, 2, 3)),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_whole_map_aitchison_equals_the_definition(maps, weighted, turned):
    p, q = maps[::-1] if turned else maps
    weights = np.random.default_rng(4).random(SHAPE).astype(np.float32) if weighted else None
    found = scores.score(p, q, kernel="simplex_ait", weights=weights)
    wanted, match = definitions.whole_map_aitchison(p, q, weights=weights)
    np.testing.assert_allclose(found.macro, wanted, rtol=1e-5)
    np.testing.assert_array_equal(found.match, match)
    np.testing.assert_allclose(1 - (1 - found.region).sum(), wanted, rtol=1e-5)


def test_whole_map_total_variation_is_the_best_over_permutations(maps):
    p, q = maps
    num, den = definitions.pair_tables("simplex_tv", definitions.pad(p, 5), q)
    found = scores.score(p, q, kernel="simplex_tv")
    np.testing.assert_allclose(found.macro, 1 + definitions.best_permutation(-num)[1] / den[0, 0], rtol=1e-5)
    assert found.macro == found.micro == found.volume_weighted


@settings(deadline=None, max_examples=12)
@given(st.permutations(range(4)), st.integers(0, 99), st.sampled_from(["abs", "ait", "simplex_tv", "simplex_ait"]))
def test_score_lies_in_the_unit_interval_and_ignores_the_names_of_regions(order, seed, kernel):
    rng = np.random.default_rng(seed)
    p, q = (definitions.random_map(rng, 4, (60,), sharp=0.4) for _ in range(2))
    found, renamed = scores.score(p, q, kernel=kernel), scores.score(p, q[list(order)], kernel=kernel)
    assert 0 <= found.macro <= 1
    np.testing.assert_allclose(found.macro, renamed.macro, atol=2e-6)
    own = scores.score(p, p[list(order)], kernel=kernel)
    np.testing.assert_allclose(own.macro, 1, atol=2e-6)
    np.testing.assert_array_equal(np.asarray(order)[np.asarray(own.match)], range(4))


@pytest.mark.parametrize("crisp", [False, True])
def test_excluding_the_background_is_scoring_without_it(maps, crisp):
    p, q = maps
    found = scores.score(p.argmax(0) if crisp else p, q, background=(0, 2), regions=(3, 5))
    p = definitions.one_hot(p.argmax(0), 3).astype(np.float32) if crisp else p
    wanted = scores.score(p[1:], q[[0, 1, 3, 4]])
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_ordered_labels_are_not_matched(maps):
    q = maps[1]
    found = scores.score(q, q[[1, 0, 2, 3, 4]], labels="ordered")
    np.testing.assert_array_equal(found.match, range(5))
    np.testing.assert_allclose(found.region[2:], 1, rtol=1e-6)
    assert found.region[0] < 0.9
    assert np.isnan(found.pairs[0, 1])
    assert found.pairs[0, 0] == found.region[0]
    without = scores.score(q, q, labels="ordered", background=(1, 1))
    assert without.region.shape == (4,)


@pytest.mark.parametrize(
    ("empty", "region", "macro"),
    [("one", 1, 2.5 / 3), ("zero", 0, 0.5), ("nan", np.nan, np.nan), ("skip", np.nan, 0.75)],
)
@pytest.mark.parametrize("labels", ["ordered", "unordered"])
def test_policy_for_regions_that_are_empty_on_both_sides(empty, region, macro, labels):
    """By hand: disagreement 0, 1, 0 of masses 4, 2, 0, hence scores 1, 1/2 and 0/0, micro 1 - 1/6."""
    p = np.array([[1, 1, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0]], np.float32)
    q = np.array([[1, 1, 0, 0, 0], [0, 0, 0.5, 0, 0.5], [0, 0, 0, 0, 0]], np.float32)
    found = scores.score(p, q, labels=labels, empty=empty)
    np.testing.assert_allclose(found.region, [1, 0.5, region], rtol=1e-6)
    np.testing.assert_allclose(found.macro, macro, rtol=1e-6)
    np.testing.assert_allclose(found.micro, 1 - 1 / 6, rtol=1e-6)


def test_nothing_at_all_follows_the_policy():
    nothing = np.zeros((2, 10), np.float32)
    for empty, wanted in (("one", 1), ("zero", 0), ("skip", np.nan)):
        found = scores.score(nothing, nothing, empty=empty)
        np.testing.assert_array_equal([found.macro, found.micro, found.volume_weighted, found.crum], [wanted] * 4)


def test_soft_matching_tends_to_the_best(maps):
    p, q = maps
    hard = scores.score(p, q)
    soft = scores.score(p, q, method="sinkhorn", temperature=2e-3)
    np.testing.assert_allclose(soft.macro, hard.macro, atol=5e-3)
    assert scores.score(p, q, method="sinkhorn", temperature=1.0).macro < hard.macro


def test_methods_agree(maps):
    for objective in ("macro", "micro"):
        a, b = (scores.score(*maps, objective=objective, method=m) for m in ("hungarian", "scipy"))
        np.testing.assert_array_equal(a.match, b.match)


def test_batches_come_from_vmap_and_jit_equals_eager(maps):
    p, q = (jnp.stack([jnp.asarray(x), jnp.asarray(x)[:, ::-1]]) for x in maps)
    for kernel in ("abs", "simplex_ait"):
        mapped = jax.jit(jax.vmap(lambda a, b, k=kernel: scores.score(a, b, kernel=k)))(p, q)
        for case in range(2):
            single = scores.score(p[case], q[case], kernel=kernel)
            for a, b in zip(mapped, single, strict=True):
                np.testing.assert_allclose(a[case], b, rtol=1e-5, atol=1e-6)


def test_label_maps_inside_jit_need_the_numbers_of_regions(maps):
    a, b = (jnp.asarray(x.argmax(0)) for x in maps)
    inside = jax.jit(lambda x, y: scores.score(x, y, regions=(3, 5)).macro)(a, b)
    np.testing.assert_allclose(inside, scores.score(a, b).macro, rtol=1e-6)


def test_merged_statistics_score_the_union(maps):
    p, q = maps
    parts = [pairs.pair_stats(p[:, :2], q[:, :2]), pairs.pair_stats(p[:, 2:], q[:, 2:])]
    np.testing.assert_allclose(scores.from_stats(pairs.merge(*parts)).macro, scores.score(p, q).macro, rtol=1e-6)


class Foreign:
    """A tensor of another library: nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_tensors_of_other_libraries_are_taken_without_a_copy():
    from evalmetrics import arrays

    buffer = np.zeros((3, 1 << 12), np.float32)
    start = -buffer.ctypes.data % 64 // 4  # XLA takes buffers aligned to 64 bytes as they are
    aligned = buffer.reshape(-1)[start : start + 8192].reshape(2, 4096)
    taken = arrays.to_jax(Foreign(aligned))
    assert taken.unsafe_buffer_pointer() == aligned.ctypes.data
    aligned[0] = 1
    assert scores.score(Foreign(aligned), Foreign(aligned), checked=True).macro == 1


def test_inputs_that_share_no_layout_with_jax_are_copied(maps):
    p, q = maps
    wanted = scores.score(p, q).macro
    for x, y in ((np.asfortranarray(p), q[:]), (p.astype(">f4"), q), (p.tolist(), q)):
        np.testing.assert_allclose(scores.score(x, y).macro, wanted, rtol=1e-6)
    p.flags.writeable = False
    np.testing.assert_allclose(scores.score(p, q).macro, wanted, rtol=1e-6)


def test_misuse_is_refused_with_the_remedy(maps):
    p, q = maps
    broken = p.copy()
    broken[1, 0, 0, 0] = np.nan
    for kernel in ("abs", "simplex_ait"):
        with pytest.raises(ValueError, match=r"not finite.*look for NaN"):
            scores.score(broken, q, kernel=kernel)
    for option in ("objective", "method", "empty"):
        with pytest.raises(ValueError, match=f"unknown {option} 'best'; choose one of"):
            scores.score(p, q, **{option: "best"})
    with pytest.raises(ValueError, match="background must be a region index"):
        scores.score(p, q, background=(3, 0))
    with pytest.raises(ValueError, match="exclude one index on both sides"):
        scores.score(p, p, background=(1, 0), labels="ordered")
    with pytest.raises(ValueError, match="has no background"):
        scores.score(p, q, background=(0, 0), kernel="simplex_tv")
    with pytest.raises(ValueError, match="use score, or pair_stats with match="):
        scores.from_stats(pairs.pair_stats(p, q, kernel="simplex_ait"))
    with pytest.raises(ValueError, match="use method='hungarian' or 'scipy'"):
        scores.score(p, q, kernel="simplex_ait", method="sinkhorn")
