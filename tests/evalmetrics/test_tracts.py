import numpy as np
import pytest

from evalmetrics import data, tracts


def make_case(seed=0):
    """Soft maps around labels in another order, two labels to the last map, one map without a partner."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(-1, 5), 30).reshape(6, 30).astype(np.int32)
    order = [3, 0, 4, 1]
    maps = np.stack([(labels == j) * 0.8 for j in order] + [(labels == -1) * 0.5]).astype(np.float32)
    maps[3] += (labels == 2) * np.float32(0.3)
    noise = rng.random(maps.shape).astype(np.float32) * 0.1
    return maps + noise, labels, [frozenset({3}), {0}, {4}, {1, 2}, set()]


@pytest.mark.parametrize("objective", ["macro", "micro"])
def test_matching_recovers_the_names(objective):
    maps, labels, partners = make_case()
    ours = tracts.tract_recovery(maps, labels, partners, objective=objective)
    np.testing.assert_array_equal(ours.match[:4], [3, 0, 4, 1])
    np.testing.assert_array_equal(ours.recovered, [True, True, True, True, False])
    assert ours.scores.pairs.shape == (5, 5)


def test_voxels_without_a_label_count_against_the_maps():
    maps, labels, partners = make_case()
    ours = tracts.tract_recovery(maps, labels, partners)
    shared = 2 * np.minimum(maps[0], labels == 3).sum()
    np.testing.assert_allclose(ours.scores.pairs[0, 3], shared / (maps[0].sum() + (labels == 3).sum()), rtol=1e-5)


def test_a_list_of_partners_of_another_length_is_refused():
    maps, labels, partners = make_case()
    with pytest.raises(ValueError, match="per map, 5, got 4"):
        tracts.tract_recovery(maps, labels, partners[:4])


@pytest.mark.usefixtures("optimised")
@pytest.mark.slow
@pytest.mark.parametrize("onto", ["maps", "labels"])
def test_tracts_of_pam50_in_amu7t(public_data, onto):
    """Counts of an earlier program, on either grid."""
    cord = data.spinal_cord(public_data, onto=onto)
    found = [
        tracts.tract_recovery(cord.maps, cord.labels, cord.partners, objective=objective).recovered.sum()
        for objective in ("macro", "micro")
    ]
    assert found == [28, 27]
