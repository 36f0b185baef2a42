import numpy as np
import pytest

from rwalk import seeding
from rwalk.checks import InputError


def test_classes_of_three_heaps_are_the_heaps(noise):
    values = np.concatenate([noise.normal(centre, 0.1, count) for centre, count in ((0, 300), (5, 50), (6, 100))])
    labels, centres = seeding.classes_of(values, 3)
    np.testing.assert_allclose(centres, [0, 5, 6], atol=0.1)
    np.testing.assert_array_equal(np.bincount(labels), [300, 50, 100])


def test_fewer_values_than_classes_are_told():
    image = np.kron([[0.0, 1], [1, 0]], np.ones((8, 8)))[None]
    inside = np.ones(image.shape[1:], bool)
    about = {"every": 8, "spacing": (1.0, 1.0)}
    with pytest.raises(InputError, match=r"seeds\.classes=3: the image has 2 values that can be told apart; lower"):
        seeding.automatic(image, inside, classes=3, **about)
    seeds = seeding.automatic(image, inside, classes=2, **about)
    np.testing.assert_array_equal(seeds[seeds >= 0], image[0][seeds >= 0])
    assert set(np.unique(seeds)) == {-1, 0, 1}


def test_seeds_lie_inside_their_class_one_to_a_cube(noise):
    truth = np.zeros((20, 24), int)
    truth[:, 12:] = 1
    image = (truth + noise.normal(0, 0.05, truth.shape))[None]
    seeds = seeding.automatic(image, np.ones(truth.shape, bool), classes=2, every=10, spacing=(1.0, 2.0))
    found = np.argwhere(seeds >= 0)
    assert len(found)
    for i, j in found:
        assert seeds[i, j] == truth[i, j]
    for top in range(0, 20, 10):  # cubes of 10 by 5 voxels
        for left in range(0, 24, 5):
            cube = seeds[top : top + 10, left : left + 5]
            assert max((cube == 0).sum(), (cube == 1).sum()) <= 1


def test_intensity_priors_are_the_posterior_of_normal_densities(noise):
    image = np.concatenate([noise.normal(0, 1, 5000), noise.normal(3, 1, 5000)])[None, None]
    seeds = np.repeat([0, 1], 5000)[None]
    p = seeding.intensity_priors(image, np.ones(seeds.shape, bool), seeds, 2)
    x = image[0]
    expected = 1 / (1 + np.exp(-3 * (x - 1.5)))  # by hand: equal variances of one, means 0 and 3
    assert np.abs(p[1] - expected).max() < 0.05
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_seed_is_enough_for_a_density(classes):
    image = np.linspace(0, 1, 16).reshape(1, 4, 4)
    seeds = np.full((4, 4), -1)
    seeds.flat[np.linspace(0, 15, classes).astype(int)] = range(classes)
    p = seeding.intensity_priors(image, np.ones((4, 4), bool), seeds, classes)
    assert np.isfinite(p).all()
    assert p[0, 0, 0] > 0.9
