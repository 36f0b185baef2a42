import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import crisp


def label_maps(regions=(5, 5), shape=(24, 30), seed=0):
    """Two maps that agree in about three voxels out of four."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, regions[0], shape)
    noise = rng.integers(0, regions[1], shape)
    return reference, np.where(rng.random(shape) < 0.75, np.minimum(reference, regions[1] - 1), noise)


def count_by_loop(reference, prediction, regions, weights=None):
    """Reference: one voxel at a time in float64."""
    table = np.zeros(regions)
    for x in np.ndindex(reference.shape):
        table[reference[x], prediction[x]] += 1 if weights is None else weights[x]
    return table


def test_contingency_counts_every_voxel_once():
    reference, prediction = label_maps((4, 6))
    table = crisp.contingency(reference, prediction, (4, 6))
    assert table.dtype == jnp.int32
    np.testing.assert_array_equal(table, count_by_loop(reference, prediction, (4, 6)))


def test_contingency_infers_the_regions_on_the_host():
    table = crisp.contingency(np.array([0, 1, 1, 3]), np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(table, [[1, 0], [1, 1], [0, 0], [0, 1]])


@pytest.mark.parametrize("voxels", [1, 720, 40_000])
def test_contingency_weighs_voxels(voxels):
    rng = np.random.default_rng(1)
    reference, prediction = rng.integers(0, 3, voxels), rng.integers(0, 2, voxels)
    weights = rng.random(voxels).astype(np.float32)
    table = crisp.contingency(reference, prediction, (3, 2), weights=weights)
    np.testing.assert_allclose(table, count_by_loop(reference, prediction, (3, 2), weights), rtol=1e-6)


def test_a_mask_equals_counting_the_voxels_inside_it():
    reference, prediction = label_maps()
    mask = np.random.default_rng(2).random(reference.shape) < 0.4
    np.testing.assert_array_equal(
        crisp.contingency(reference.astype(np.uint8), prediction, (5, 5), weights=mask),
        crisp.contingency(reference[mask], prediction[mask], (5, 5)),
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
def test_labels_outside_the_regions_are_left_out(dtype):
    outside = np.iinfo(dtype).max if np.iinfo(dtype).min == 0 else -1
    reference = np.array([0, 1, outside, 1, 1], dtype)
    prediction = np.array([0, 1, 0, outside, 2], dtype)
    np.testing.assert_array_equal(crisp.contingency(reference, prediction, (2, 2)), [[1, 0], [0, 1]])


def test_more_regions_than_the_label_dtype_can_name():
    labels = np.array([0, 127], np.int8)
    assert crisp.contingency(labels, labels, (300, 300)).sum() == 2


def test_contingency_works_under_jit_and_does_not_compile_again():
    reference, prediction = label_maps()
    jitted = jax.jit(crisp.contingency, static_argnums=2)
    np.testing.assert_array_equal(
        jitted(reference, prediction, (5, 5)), crisp.contingency(reference, prediction, (5, 5))
    )
    compiled = crisp._count._cache_size()
    crisp.contingency(reference, prediction, (5, 5))
    assert crisp._count._cache_size() == compiled


@pytest.mark.parametrize(
    ("measure", "by_sets"),
    [
        (crisp.dice, lambda a, b: 2 * (a & b).sum() / (a.sum() + b.sum())),
        (crisp.iou, lambda a, b: (a & b).sum() / (a | b).sum()),
        (crisp.precision, lambda a, b: (a & b).sum() / b.sum()),
        (crisp.recall, lambda a, b: (a & b).sum() / a.sum()),
    ],
)
def test_overlap_measures_equal_the_sets(measure, by_sets):
    reference, prediction = label_maps((4, 6))
    expected = [[by_sets(reference == i, prediction == j) for j in range(6)] for i in range(4)]
    pairs = measure(crisp.contingency(reference, prediction, (4, 6)), pairs=True)
    np.testing.assert_allclose(pairs, expected, rtol=1e-6)
    square = crisp.contingency(reference, prediction, (6, 6))
    np.testing.assert_allclose(measure(square)[:4], np.diagonal(expected), rtol=1e-6)


@pytest.mark.parametrize(("empty", "value"), [("one", 1), ("zero", 0), ("nan", np.nan)])
@pytest.mark.parametrize("measure", [crisp.dice, crisp.iou, crisp.precision, crisp.recall])
def test_a_region_absent_on_both_sides_follows_the_policy(measure, empty, value):
    np.testing.assert_array_equal(measure(np.array([[3, 0], [0, 0]]), empty=empty), [1, value])


def rand_by_voxel_pairs(reference, prediction):
    pairs = list(itertools.combinations(range(reference.size), 2))
    agreed = sum((reference[x] == reference[y]) == (prediction[x] == prediction[y]) for x, y in pairs)
    return agreed / len(pairs)


def test_rand_counts_agreeing_voxel_pairs():
    reference, prediction = (x.ravel() for x in label_maps((3, 4), (8, 9)))
    np.testing.assert_allclose(
        crisp.rand(crisp.contingency(reference, prediction)), rand_by_voxel_pairs(reference, prediction), rtol=1e-6
    )


def test_rand_measures_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="peer scikit-learn is not installed")
    reference, prediction = label_maps((7, 4), (60, 50))
    table = crisp.contingency(reference, prediction)
    flat = reference.ravel(), prediction.ravel()
    np.testing.assert_allclose(crisp.rand(table), metrics.rand_score(*flat), rtol=1e-6)
    np.testing.assert_allclose(crisp.adjusted_rand(table), metrics.adjusted_rand_score(*flat), rtol=1e-5)


def test_rand_follows_from_the_adapted_rand_error_of_scikit_image():
    peer = pytest.importorskip("skimage.metrics", reason="peer scikit-image is not installed")
    reference, prediction = label_maps((7, 4), (60, 50))
    _, precision, recall = peer.adapted_rand_error(reference + 1, prediction + 1, ignore_labels=())
    joined = [(n * (n - 1) / 2).sum() for n in (np.bincount(reference.ravel()), np.bincount(prediction.ravel()))]
    together = precision * joined[0]
    np.testing.assert_allclose(together, recall * joined[1], rtol=1e-6)
    total = reference.size * (reference.size - 1) / 2
    expected = 1 - (joined[0] + joined[1] - 2 * together) / total
    np.testing.assert_allclose(crisp.rand(crisp.contingency(reference, prediction)), expected, rtol=1e-6)


def test_variation_of_information_equals_scikit_image():
    peer = pytest.importorskip("skimage.metrics", reason="peer scikit-image is not installed")
    reference, prediction = label_maps((7, 4), (60, 50))
    expected = sum(peer.variation_of_information(reference, prediction))
    np.testing.assert_allclose(
        crisp.variation_of_information(crisp.contingency(reference, prediction)), expected, rtol=1e-6
    )


def covering_by_masks(reference, prediction):
    total = 0.0
    for i in np.unique(reference):
        a = reference == i
        total += a.sum() * max((a & b).sum() / (a | b).sum() for b in (prediction == j for j in np.unique(prediction)))
    return total / reference.size


def test_covering_equals_the_definition():
    reference, prediction = label_maps((5, 3))
    np.testing.assert_allclose(
        crisp.covering(crisp.contingency(reference, prediction)), covering_by_masks(reference, prediction), rtol=1e-6
    )


WHOLE = [crisp.rand, crisp.adjusted_rand, crisp.variation_of_information, crisp.covering]


@pytest.mark.parametrize("measure", WHOLE)
def test_padding_and_renaming_change_nothing(measure):
    table = np.asarray(crisp.contingency(*label_maps((5, 4))))
    padded = np.pad(table, ((0, 3), (0, 7)))
    np.testing.assert_allclose(measure(padded), measure(table), rtol=1e-6)
    np.testing.assert_allclose(measure(table[::-1][:, [2, 0, 3, 1]]), measure(table), rtol=1e-6)


@pytest.mark.parametrize("measure", [*WHOLE, crisp.dice, crisp.iou])
def test_a_batch_of_padded_tables_equals_a_loop(measure):
    tables = jnp.stack([jnp.pad(crisp.contingency(*label_maps((k, k), seed=k)), (0, 6 - k)) for k in (3, 5, 6)])
    np.testing.assert_allclose(jax.vmap(measure)(tables), [measure(table) for table in tables], rtol=1e-6)


@pytest.mark.parametrize(("measure", "best"), [(crisp.rand, 1), (crisp.adjusted_rand, 1), (crisp.covering, 1)])
@pytest.mark.parametrize("table", [[[9]], [[4, 0], [0, 7]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1]]])
def test_a_map_against_itself(measure, best, table):
    np.testing.assert_allclose(measure(np.array(table)), best, rtol=1e-6)
    assert crisp.variation_of_information(np.array(table)) == 0


def test_large_tables_keep_their_digits():
    # 2**26 voxels, two halves of which a quarter is exchanged: exact values by hand.
    quarter = 2**26 // 8
    table = np.array([[3 * quarter, quarter], [quarter, 3 * quarter]])
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    np.testing.assert_allclose(crisp.variation_of_information(table), 2 * entropy, rtol=1e-6)
    np.testing.assert_allclose(crisp.rand(table), 0.625, rtol=1e-6)
    np.testing.assert_allclose(crisp.adjusted_rand(table), 0.25, rtol=1e-5)


@pytest.mark.parametrize("measure", WHOLE)
def test_an_empty_table_gives_a_number(measure):
    with jax.debug_nans(True):
        assert np.isfinite(measure(np.zeros((2, 3), int)))


def test_dice_equals_simpleitk():
    sitk = pytest.importorskip("SimpleITK", reason="peer SimpleITK is not installed")
    reference, prediction = label_maps((5, 5), (9, 20, 20))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(sitk.GetImageFromArray((x + 1).astype(np.int32)) for x in (reference, prediction)))
    table = crisp.contingency(reference, prediction)
    np.testing.assert_allclose(crisp.dice(table), [overlap.GetDiceCoefficient(k) for k in range(1, 6)], rtol=1e-6)
    np.testing.assert_allclose(crisp.iou(table), [overlap.GetJaccardCoefficient(k) for k in range(1, 6)], rtol=1e-6)


def test_overlap_equals_medpy():
    medpy = pytest.importorskip("medpy.metric.binary", reason="peer MedPy is not installed")
    reference, prediction = label_maps((5, 5), (9, 20, 20))
    table = crisp.contingency(reference, prediction)
    for ours, theirs in (
        (crisp.dice, medpy.dc),
        (crisp.iou, medpy.jc),
        (crisp.precision, medpy.precision),
        (crisp.recall, medpy.recall),
    ):
        expected = [theirs(prediction == k, reference == k) for k in range(5)]
        np.testing.assert_allclose(ours(table), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (lambda: crisp.contingency(np.zeros((2, 2)), np.zeros((2, 2), int)), TypeError, "argmax"),
        (lambda: crisp.contingency(np.zeros(4, int), np.zeros(5, int)), ValueError, "share a shape"),
        (lambda: crisp.contingency(np.zeros(4, int), np.zeros(4, int), (0, 1)), ValueError, "positive"),
        (lambda: crisp.contingency(*np.zeros((2, 4), int), weights=np.ones(3)), ValueError, "shape of the maps"),
        (lambda: crisp.contingency(*np.zeros((2, 4), int), weights=np.ones(4, int)), TypeError, "floating or boolean"),
        (lambda: jax.jit(crisp.contingency)(*np.zeros((2, 4), int)), ValueError, "needed under jit"),
        (lambda: crisp.dice(np.zeros((2, 3))), ValueError, "pairs=True"),
        (lambda: crisp.dice(np.zeros((2, 2)), empty="half"), ValueError, "one, zero, nan"),
        (lambda: crisp.rand(np.zeros((2, 2, 2))), ValueError, "jax.vmap"),
    ],
)
def test_misuse_is_refused_with_the_remedy(call, error, remedy):
    with pytest.raises(error, match=remedy):
        call()
