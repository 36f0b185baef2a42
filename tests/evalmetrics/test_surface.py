import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from evalmetrics import surface


def blob(shape, seed, share=0.25):
    """Label map of a random smooth region 1 on background 0."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return (field > np.quantile(field, 1 - share)).astype(np.int32)


def corners(mask):
    """Grid corners whose surrounding pixels or voxels are partly inside, and their pattern of inside neighbours."""
    padded = np.pad(mask, 1)
    shape = [n - 1 for n in padded.shape]
    around = np.stack(
        [
            padded[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
            for offset in np.ndindex(*[2] * mask.ndim)
        ],
        axis=-1,
    )
    mixed = around.any(-1) & ~around.all(-1)
    return np.argwhere(mixed), around[mixed]


def contour_lengths(patterns, spacing):
    """Length of the contour through a corner of four pixels (order 00, 01, 10, 11), piece by piece."""
    diagonal = np.hypot(*spacing) / 2
    lengths = []
    for a, b, c, d in patterns.astype(int):
        inside = a + b + c + d
        if inside in (1, 3):
            lengths.append(diagonal)
        elif a == d:  # two opposite pixels: two pieces
            lengths.append(2 * diagonal)
        else:  # a straight line: along the second axis if the rows differ
            lengths.append(spacing[1] if a == b else spacing[0])
    return np.array(lengths)


def percentile_by_area(distances, areas, percent):
    order = np.argsort(distances)
    covered = np.cumsum(areas[order]) / areas.sum()
    return distances[order][np.searchsorted(covered, percent / 100)]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_contours_equal_brute_force(spacing, seed):
    reference, prediction = blob((40, 46), seed), blob((40, 46), seed + 10)
    ours = surface.surface_scores(reference, prediction, spacing=spacing, tolerance=1.5)
    for region in (0, 1):
        (x, a), (y, b) = corners(reference == region), corners(prediction == region)
        between = cdist(x * spacing, y * spacing)
        near, far = between.min(1), between.min(0)
        lengths = contour_lengths(a, spacing), contour_lengths(b, spacing)
        total = lengths[0].sum() + lengths[1].sum()
        hausdorff = max(percentile_by_area(near, lengths[0], 95), percentile_by_area(far, lengths[1], 95))
        average = ((near * lengths[0]).sum() + (far * lengths[1]).sum()) / total
        within = (lengths[0][near <= 1.5].sum() + lengths[1][far <= 1.5].sum()) / total
        np.testing.assert_allclose(
            [ours.hausdorff[region], ours.average[region], ours.dice[region]], [hausdorff, average, within], rtol=1e-9
        )


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7)])
def test_surfaces_in_space_equal_brute_force(spacing):
    reference, prediction = blob((14, 18, 16), 0), blob((14, 18, 16), 5)
    ours = surface.surface_scores(reference, prediction, spacing=spacing, tolerance=1, percent=100)
    (x, _), (y, _) = corners(reference == 1), corners(prediction == 1)
    between = cdist(x * spacing, y * spacing)
    expected = max(between.min(1).max(), between.min(0).max())
    np.testing.assert_allclose(ours.hausdorff[1], expected, rtol=1e-9)


def hausdorff_of_simpleitk(first, second, spacing):
    sitk = pytest.importorskip("SimpleITK", reason="peer SimpleITK is not installed")
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (first, second)]
    for image in images:
        image.SetSpacing(tuple(spacing[::-1]))
    peer = sitk.HausdorffDistanceImageFilter()
    peer.Execute(*images)
    return peer.GetHausdorffDistance()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shifted_box_is_as_far_as_its_shift_and_as_simpleitk_says(axis):
    spacing = (2.0, 1.0, 0.5)
    box = np.zeros((20, 20, 20), np.int32)
    box[4:12, 5:12, 6:12] = 1
    ours = surface.surface_scores(box, np.roll(box, 3, axis), spacing=spacing, tolerance=3 * spacing[axis], percent=100)
    np.testing.assert_allclose(ours.hausdorff[1], 3 * spacing[axis])
    np.testing.assert_allclose(hausdorff_of_simpleitk(box, np.roll(box, 3, axis), spacing), 3 * spacing[axis])
    assert ours.dice[1] == 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_hausdorff_distance_is_within_a_voxel_of_simpleitk(seed):
    """SimpleITK measures between voxel centres, the library between surfaces: they differ by at most a diagonal."""
    spacing = (2.0, 1.0, 0.5)
    reference, prediction = blob((18, 24, 20), seed), blob((18, 24, 20), seed + 20)
    ours = surface.surface_scores(reference, prediction, spacing=spacing, tolerance=1, percent=100)
    assert abs(ours.hausdorff[1] - hausdorff_of_simpleitk(reference, prediction, spacing)) <= np.hypot.reduce(spacing)


def test_a_map_against_itself_is_perfect_in_every_region():
    labels = blob((20, 20), 0) + 2 * blob((20, 20), 1)
    ours = surface.surface_scores(labels, labels, spacing=(1, 1), tolerance=0)
    np.testing.assert_array_equal(np.stack(ours), [[0] * 4, [0] * 4, [1] * 4])


def test_matched_regions_are_compared_with_each_other():
    labels = blob((20, 20), 0)
    ours = surface.surface_scores(labels, 1 - labels, spacing=(1, 1), tolerance=0, match=np.array([1, 0]))
    np.testing.assert_array_equal(ours.dice, 1)


@pytest.mark.parametrize(
    ("empty", "row"), [("one", (0, 0, 1)), ("zero", (np.inf, np.inf, 0)), ("nan", (np.nan, np.nan, np.nan))]
)
def test_empty_regions_follow_the_policy(empty, row):
    reference, prediction = blob((16, 16), 0), np.zeros((16, 16), int)
    prediction[3:5, 3:5] = 3
    ours = np.stack(surface.surface_scores(reference, prediction, spacing=(1, 1), tolerance=1, empty=empty)).T
    np.testing.assert_array_equal(ours[2], row)
    np.testing.assert_array_equal(ours[[1, 3]], [(np.inf, np.inf, 0)] * 2)


def test_an_unmatched_region_is_as_far_as_can_be():
    reference = blob((16, 16), 0)
    ours = surface.surface_scores(reference, np.zeros_like(reference), spacing=(1, 1), tolerance=1, regions=(2, 1))
    assert ours.hausdorff[1] == np.inf


def test_labels_outside_the_regions_belong_to_none():
    labels = blob((16, 16), 0)
    masked = np.where(labels == 1, labels, -1)
    ours = surface.surface_scores(masked, labels, spacing=(1, 1), tolerance=0, regions=(2, 2))
    np.testing.assert_array_equal(ours.dice, [0, 1])


@pytest.mark.parametrize(
    ("change", "error", "remedy"),
    [
        ({"spacing": (1, 1, 1)}, ValueError, "2 positive numbers"),
        ({"spacing": (1, 0)}, ValueError, "positive"),
        ({"tolerance": -1}, ValueError, "at least 0"),
        ({"percent": 0}, ValueError, r"\(0, 100\]"),
        ({"empty": "half"}, ValueError, "one, zero, nan"),
        ({"match": np.array([0])}, ValueError, "each of 2 regions"),
        ({"prediction": np.zeros((4, 5), int)}, ValueError, "share a shape"),
        ({"reference": np.zeros((4, 4))}, TypeError, "argmax"),
    ],
)
def test_misuse_is_refused_with_the_remedy(change, error, remedy):
    labels = np.eye(4, dtype=int)
    given = {"reference": labels, "prediction": labels, "spacing": (1, 1), "tolerance": 1} | change
    with pytest.raises(error, match=remedy):
        surface.surface_scores(**given)
