import itertools

import numpy as np
import pytest

from evalmetrics import annotators, data, hierarchy, scores


def make_annotations(count=3, shape=(12, 15), seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, shape)
    return [np.where(rng.random(shape) < 0.3, rng.integers(0, 4 + g, shape), truth) for g in range(count)]


def by_permutations(table):
    """Best macro and micro Dice over all matchings, one by one."""
    size = max(table.shape)
    padded = np.zeros((size, size))
    padded[: table.shape[0], : table.shape[1]] = table
    area = padded.sum(1)[:, None] + padded.sum(0)[None, :]
    dice = 2 * padded / np.maximum(area, 1)
    orders = [list(order) for order in itertools.permutations(range(size))]
    rows = np.arange(size)
    return max(dice[rows, o].sum() for o in orders) / size, max(padded[rows, o].sum() for o in orders) / table.sum()


@pytest.mark.parametrize("shape", [(3, 3), (2, 6), (6, 4), (1, 3)])
def test_matched_dice_is_the_best_over_all_matchings(shape):
    table = np.random.default_rng(0).integers(1, 50, shape)
    np.testing.assert_allclose(annotators.matched_dice(table), by_permutations(table), rtol=1e-12)


def test_matched_dice_equals_the_scores_of_the_maps():
    first, second = make_annotations(2)
    ours = annotators.annotator_agreement([first, second])
    for objective in ("macro", "micro"):
        score = scores.score(first, second, objective=objective)
        np.testing.assert_allclose(getattr(ours, objective), getattr(score, objective), rtol=1e-6)


def test_every_pair_of_annotators_counts_once_and_agreements_add_up():
    annotations = make_annotations(4)
    ours = annotators.annotator_agreement(annotations)
    total = annotators.empty()
    for a, b in itertools.combinations(annotations, 2):
        total = annotators.add(total, annotators.annotator_agreement([b, a]))
    assert ours.pairs == 6
    np.testing.assert_allclose(annotators.mean(ours), annotators.mean(total), rtol=1e-12)


def test_levels_of_a_hierarchy_are_scored_against_every_annotator():
    annotations = make_annotations(3)
    ucm2 = np.random.default_rng(1).random((25, 31))
    ucm2[1::2, 1::2] = 0
    ours = annotators.hierarchy_agreement(ucm2, annotations, (0.2, 0.6))
    for t, threshold in enumerate((0.2, 0.6)):
        level = hierarchy.segment(ucm2, threshold)
        expected = [annotators.annotator_agreement([labels, level]) for labels in annotations]
        np.testing.assert_allclose(ours.macro[t], sum(e.macro for e in expected))
        np.testing.assert_allclose(ours.micro[t], sum(e.micro for e in expected))
    np.testing.assert_array_equal(ours.pairs, [3, 3])
    total = annotators.add(annotators.empty((2,)), ours)
    np.testing.assert_array_equal(annotators.mean(total), annotators.mean(ours))


def test_unused_labels_are_no_regions():
    first, second = make_annotations(2)
    np.testing.assert_allclose(
        annotators.annotator_agreement([first * 7 + 2, second]), annotators.annotator_agreement([first, second])
    )


def test_an_annotator_alone_agrees_with_nobody():
    alone = annotators.annotator_agreement(make_annotations(1))
    assert alone.pairs == 0
    with pytest.raises(ValueError, match="two annotators"):
        annotators.mean(alone)


def test_maps_of_different_size_are_refused():
    with pytest.raises(ValueError, match="share a shape"):
        annotators.annotator_agreement([np.zeros((3, 4), int), np.zeros((4, 3), int)])


def test_annotators_of_bsds500(public_data):
    """First 60 test images: humans among themselves, and gPb-owt-ucm at five levels; figures of an earlier program."""
    images = data.Bsds500(public_data)
    humans, levels = annotators.empty(), annotators.empty((5,))
    for name in images.names[:60]:
        annotations = images.annotations(name)
        humans = annotators.add(humans, annotators.annotator_agreement(annotations))
        levels = annotators.add(levels, annotators.hierarchy_agreement(images.ucm2(name), annotations))
    macro, micro = annotators.mean(humans)
    np.testing.assert_allclose([micro, macro], [0.7839, 0.3567], atol=5e-5)
    np.testing.assert_allclose(annotators.mean(levels)[1], [0.3805, 0.5883, 0.6700, 0.6701, 0.6370], atol=5e-5)
