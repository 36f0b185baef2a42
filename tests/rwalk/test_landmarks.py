"""Landmarks by hand: a corner is found where it is, and distances are those that were put in."""

import numpy as np

from rwalk import landmarks


def test_the_corner_of_a_square_is_the_landmark_of_its_cube(noise):
    image = np.zeros((24, 24))
    image[:9, :9] = 1
    image += noise.normal(0, 1e-3, image.shape)
    found = landmarks.corners(image, np.ones(image.shape, bool), every=12, spacing=(1.0, 1.0))
    assert np.abs(found - 8.5).max(1).min() <= 1.5
    assert len(found) <= 4
    none = landmarks.corners(image, np.zeros(image.shape, bool), every=12, spacing=(1.0, 1.0))
    assert none.shape == (0, 2)


def test_distances_are_in_millimetres_and_vanish_under_the_true_field(noise):
    image = noise.normal(size=(20, 18, 10))
    truth = np.stack([np.full(image.shape, shift) for shift in (1.0, -0.5, 2.0)])
    spacing = (2.0, 1.0, 3.0)
    x, y = landmarks.with_truth(image, np.ones(image.shape, bool), truth, spacing)
    np.testing.assert_allclose(landmarks.distances((x, y), spacing), np.sqrt(2**2 + 0.5**2 + 6**2))
    np.testing.assert_allclose(landmarks.distances((x + landmarks.along(truth, x), y), spacing), 0, atol=1e-12)


def test_centres_of_shared_labels_by_hand():
    fixed, moved = np.zeros((6, 4), int), np.zeros((6, 4), int)
    fixed[1:3, 1], fixed[5, 3] = 1, 2
    moved[3:5, 1], moved[0, 0] = 1, 3
    first, second = landmarks.centres(fixed, moved)
    np.testing.assert_array_equal(first, [[1.5, 1]])
    np.testing.assert_array_equal(second, [[3.5, 1]])
