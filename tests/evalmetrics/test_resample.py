import numpy as np
import pytest

from evalmetrics import resample


def affine_of(spacing, origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def test_the_same_grid_gives_the_same_volume():
    volume = np.random.default_rng(0).random((5, 6, 7))
    affine = affine_of((-1, 2, 0.5), (3, -4, 5))
    for order in (0, 1):
        np.testing.assert_allclose(resample.onto(volume, affine, volume.shape, affine, order=order), volume)


def test_linear_interpolation_is_exact_on_a_linear_field_of_world_coordinates():
    rng = np.random.default_rng(1)
    affine, target = affine_of((-1, 2, 0.5), (9, 0, 0)), affine_of((-0.7, 0.9, 0.3), (7.5, 1.2, 0.4))
    slope = rng.normal(size=3)
    world = np.stack(np.meshgrid(*map(np.arange, (10, 11, 12)), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]
    ours = resample.onto(world @ slope, affine, (4, 5, 6), target, order=1)
    there = np.stack(np.meshgrid(*map(np.arange, (4, 5, 6)), indexing="ij"), -1) @ target[:3, :3].T + target[:3, 3]
    np.testing.assert_allclose(ours, there @ slope, rtol=1e-10)


def test_nearest_takes_the_closest_voxel_and_marks_the_outside():
    labels = np.arange(4, dtype=np.int32).reshape(4, 1, 1)
    ours = resample.onto(labels, np.eye(4), (6, 1, 1), affine_of((1, 1, 1), (-0.6, 0, 0)), order=0, outside=-1)
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours.ravel(), [-1, 0, 1, 2, 3, -1])


def test_a_window_holds_all_of_the_other_grid():
    affine, target = affine_of((0.5, 0.5, 0.5), (-10, -10, -10)), affine_of((0.2, 0.2, 1), (-2, 1, -3))
    volume = np.random.default_rng(2).random((40, 41, 42))
    box = resample.window(volume.shape, affine, (9, 8, 7), target)
    assert volume[box].size < volume.size / 20
    cut = resample.onto(volume[box], resample.shift(affine, box), (9, 8, 7), target, order=1)
    np.testing.assert_allclose(cut, resample.onto(volume, affine, (9, 8, 7), target, order=1), rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda v, a: resample.onto(v, a, (2, 2), a, order=0), "three axes"),
        (lambda v, a: resample.onto(v, a, (2, 2, 2), a, order=3), "nearest"),
        (lambda v, a: resample.onto(v, a[:3], (2, 2, 2), a, order=0), "invertible"),
        (lambda v, a: resample.onto(v, a * 0, (2, 2, 2), a, order=0), "invertible"),
        (lambda v, a: resample.window(v.shape, a, (2, 2, 2), affine_of((1, 1, 1), (99, 0, 0))), "do not overlap"),
    ],
)
def test_misuse_is_refused_with_the_remedy(call, remedy):
    with pytest.raises(ValueError, match=remedy):
        call(np.zeros((3, 3, 3)), np.eye(4))
