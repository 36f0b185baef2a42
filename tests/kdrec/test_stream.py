"""Order, batches, and a simulator whose truth is known."""

import numpy as np
import pytest

from kdrec import stream
from kdrec.simulator import BLOCK, EPOCH, Simulator
from tests.kdrec.worlds import world


def columns(time, users=None, items=None):
    n = len(time)
    ids = np.stack([users if users is not None else np.arange(n), items if items is not None else np.arange(n)], 1)
    empty = np.zeros((n, 0), np.float32)
    return stream.Columns(
        ("user", "item"), (), ("click",), (False,), n, np.asarray(time), ids, empty, np.zeros((n, 1), np.float32)
    )


def test_batches_walk_the_stream_once_and_fill_up_the_end():
    s = columns(np.arange(23))
    parts = [stream.batches(s, step, 2, 4, 23)[0] for step in range(0, stream.steps(23, 4), 2)]
    valid = np.concatenate([part.valid.ravel() for part in parts]).astype(bool)
    seen = np.concatenate([part.ids.reshape(-1, 2) for part in parts])[valid]
    assert seen[:, 0].tolist() == list(range(23))
    assert {part.ids.shape for part in parts} == {(2, 4, 2)}


def test_a_limit_hides_the_events_after_it():
    found, time = stream.batches(columns(np.arange(23)), 0, 3, 4, 10)
    assert found.valid.sum() == 10
    assert found.ids.max() == 9
    beyond, none = stream.batches(columns(np.arange(23)), 3, 2, 4, 10)
    assert (time.tolist(), none.tolist()) == (list(range(10)), [])
    assert beyond.valid.sum() == 0


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_disorder_names_the_first_event_of_each_kind(chunk):
    day = stream.DAY
    time = np.array([0, 1, 1, 1, 2, day, 3 * day, 3 * day])
    users, items = np.array([0, 1, 2, 1, 0, 0, 5, 5]), np.array([0, 1, 1, 1, 0, 0, 5, 5])
    found = stream.disorder(time, np.stack([users, items], 1), chunk)
    assert found == stream.Disorder(None, 3, 6)
    assert stream.disorder(time[[0, 2, 1, 4, 3]], np.zeros((5, 2), int), chunk).backwards == 4
    assert stream.disorder(np.arange(5), np.zeros((5, 2), int), chunk) == stream.Disorder(None, None, None)


def test_the_simulator_returns_the_same_events_however_they_are_asked_for():
    s = world(events=3 * BLOCK + 100)
    whole = s.read(0, len(s))
    assert len(whole.time) == len(s)
    for start, stop in ((0, 10), (BLOCK - 5, BLOCK + 5), (2 * BLOCK, 3 * BLOCK + 100), (5, 2 * BLOCK + 7)):
        for part, column in zip(s.read(start, stop), whole, strict=True):
            np.testing.assert_array_equal(part, column[start:stop])


def test_a_longer_stream_starts_like_a_shorter_one():
    short, long = world(events=500).read(0, 500), world(events=BLOCK + 9).read(0, 500)
    np.testing.assert_array_equal(short.labels, long.labels)
    np.testing.assert_array_equal(short.truth, long.truth)


def test_labels_are_drawn_from_the_truth():
    found = world(events=20 * BLOCK).read(0, 20 * BLOCK)
    p = 1 / (1 + np.exp(-found.truth.astype(np.float64)))
    # Differences of labels and probabilities have mean zero; five standard errors hold but once in a million.
    error = np.sqrt((p * (1 - p)).sum(0))
    assert np.all(np.abs((found.labels - p).sum(0)) < 5 * error)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
        inside = (p > low) & (p <= high)
        gap = (found.labels - p)[inside].sum()
        assert abs(gap) < 5 * np.sqrt((p * (1 - p))[inside].sum())


def test_time_never_goes_back_and_ids_stay_in_their_columns():
    s = world(events=5 * BLOCK)
    found = s.read(0, len(s))
    assert found.time[0] == EPOCH
    assert np.all(np.diff(found.time) >= 0)
    assert found.ids.min() >= 0
    assert found.ids.max() < s.vocabulary
    spans = np.stack([found.ids.min(0), found.ids.max(0)])
    assert np.all(spans[1][:-1] < spans[0][1:])


def test_items_are_born_and_fade():
    s = world(events=20 * BLOCK, birth=64, half_life=2000)
    found = s.read(0, len(s))
    early, late = (set(found.ids[part, 1].tolist()) for part in (slice(BLOCK), slice(-BLOCK, None)))
    assert len(early & late) < 0.1 * len(late)


def test_tastes_turn_around():
    s = world(events=8 * BLOCK, turn=8 * BLOCK, half_life=1e9, daily=BLOCK)
    start, half = s.read(0, BLOCK), s.read(4 * BLOCK, 5 * BLOCK)

    def same(events):
        return zip(map(tuple, events.ids[:, [0, 1, 4]].tolist()), events.truth[:, 0].tolist(), strict=True)

    before = dict(same(start))
    pairs = [(before[who], truth) for who, truth in same(half) if who in before]
    assert len(pairs) > 30
    assert np.corrcoef(np.array(pairs).T)[0, 1] < 0.2  # a static world has 1 here


def test_a_request_shows_one_user():
    found = world(events=BLOCK, request=8).read(0, BLOCK)
    users = found.ids[:, 0].reshape(-1, 8)
    assert np.all(users == users[:, :1])
    with pytest.raises(ValueError, match="take a power of two"):
        world(request=3)


def test_the_simulator_is_a_stream_of_the_protocol():
    s: stream.Stream = world()
    assert isinstance(s, Simulator)
    assert len(s.features) == s.read(0, 1).ids.shape[1]
    assert len(s.tasks) == s.read(0, 1).labels.shape[1]


def test_watching_has_the_mean_it_is_drawn_from_and_leaves_the_other_tasks_as_they_are():
    plain, both = world().read(0, 4096), world(watch=True)
    found = both.read(0, 4096)
    assert (both.tasks, both.real) == (("click", "like", "watch"), (False, False, True))
    np.testing.assert_array_equal(found.labels[:, :2], plain.labels)
    np.testing.assert_array_equal(found.ids, plain.ids)
    watched, mean = found.labels[:, 2], found.truth[:, 2]
    assert watched.min() >= 0
    assert watched.mean() == pytest.approx(mean.mean(), rel=0.08)
    ratio = watched / mean  # exponential with mean 1
    assert np.mean(ratio > 1) == pytest.approx(np.exp(-1), abs=0.03)
