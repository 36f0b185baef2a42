"""Painting: answers equal those of the solvers, requests are told what is wrong, and a real browser paints."""

import threading
import time
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from rwalk import data, deflate, eigen, paint, seeding, serve, solve
from rwalk.checks import InputError
from rwalk.io import Volume
from rwalk.options import Problem, Serving, Weights
from rwalk.session import Session, Told
from tests.rwalk.test_smoke import files, inputs, run  # noqa: F401 - fixtures

SHAPE, K = (14, 12, 10), 12
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
WEIGHTS = Weights(convention="gaussian", beta=30.0, scale="max", eps=1e-4, radius=0, diagonal=False)
BOTH = Problem(kind="both", gamma=0.1, path=None, close=False, polish=10, error=0.0, residual=0.0)
SERVING = Serving(port=0, labels=3, first=0.02, residual=1e-5, settle=0.0, seconds=None)


@pytest.fixture(scope="module")
def told():
    """A bright box in a volume whose first plane is left out."""
    image = np.random.default_rng(0).normal(0, 0.15, (1, *SHAPE)).astype(np.float32)
    image[0, 4:10, 3:9, 2:8] += 1
    mask = np.ones(SHAPE, bool)
    mask[:, :, 0] = False
    case = data.make_case(Volume(image, (2.0, 2.0, 3.0), AFFINE, "box"), mask, "box")
    lattice = WEIGHTS.graph(jnp.asarray(case.image), jnp.asarray(case.mask), case.spacing)
    basis = eigen.smallest_eigenpairs(lattice, K, method="dense")
    return Told(case, lattice, basis, WEIGHTS, BOTH, SERVING, True, None)


@pytest.fixture
def session(told):
    return Session(told)


def paint_two(session):
    session.stroke(np.array([[1, 1, 4], [12, 10, 4]]), 2, 1, 1)
    return session.stroke(np.array([[6, 5, 4], [7, 5, 4]]), 2, 1, 2)


def exact(session):
    """The solve that the page's answer stands for, `[L, n]`."""
    told = session.told
    seeds = session.seeds[: session.n]
    p = seeding.intensity_priors(told.case.image, told.case.mask, seeds.reshape(told.case.mask.shape), 3)
    return solve.random_walker(
        told.lattice, regions=3, seeds=jnp.asarray(seeds.reshape(told.case.mask.shape)), priors=jnp.asarray(p),
        gamma=0.1, tol=1e-6,
    ).x.reshape(3, -1)  # fmt: skip


def test_a_stroke_is_answered_within_the_error_that_is_told(session):
    told = session.told
    state = paint_two(session)
    seeds = session.seeds
    assert state["seeds"] == [int((seeds == label).sum()) for label in range(3)] == [10, 8, 0]
    places = np.flatnonzero(seeds >= 0)
    at = deflate.padded(places, seeds[places], seeds.size)
    p = paint.densities(session.image, session.first.active, *at, 3)
    known = seeding.intensity_priors(told.case.image, told.case.mask, seeds.reshape(told.case.mask.shape), 3)
    np.testing.assert_allclose(p, known.reshape(3, -1), atol=1e-4)
    active = np.asarray(told.lattice.active).ravel()
    off = np.abs(np.asarray(session.x) - exact(session))[:, active].max()
    assert 1e-6 < off <= state["error"] < 0.2
    assert (session.shown.labels.ravel()[~active] == -1).all()
    np.testing.assert_allclose(session.shown.x.reshape(3, -1)[:, active].sum(0), 1, atol=1e-5)


def test_what_is_shown_of_an_answer_follows_from_its_error():
    x = jnp.asarray([[0.7, 0.4, 0.5, 0.0, 1.3], [0.3, 0.6, 0.5, 0.0, -0.3]])
    active = jnp.asarray([True, True, True, False, True])
    found, labels, error, share = paint.shown(x, jnp.asarray([0.1, 0.3, 0.0, np.inf, 0.4]), active)
    np.testing.assert_array_equal(labels, [0, 1, 0, -1, 0])
    np.testing.assert_allclose(found[:, 4], [1, 0])
    np.testing.assert_allclose([float(error), float(share)], [0.4, 0.5], rtol=1e-6)


ALONE = Problem(kind="seeds", gamma=None, path=None, close=False, polish=0, error=0.0, residual=0.0)


def within_its_error(session, told):
    """The figure of the improved answer, which the exact one keeps."""
    lattice, seeds = told.lattice, session.seeds.reshape(session.shape)
    right = solve.random_walker(lattice, regions=3, seeds=jnp.asarray(seeds), tol=1e-6).x.reshape(3, -1)
    with session.lock:
        active, error = session.active, session.state()["error"]
        assert np.abs(np.asarray(session.x) - right)[:, active].max() <= error + 1e-5
    return error


@pytest.mark.slow
def test_seeds_alone_in_a_plane_keep_their_certificate_until_one_is_erased(told):
    image = np.asarray(told.case.image)[..., 5]
    case = data.make_case(Volume(image, (2.0, 2.0), np.eye(4), "plane"), np.ones(SHAPE[:2], bool), "plane")
    lattice = WEIGHTS.graph(jnp.asarray(case.image), jnp.asarray(case.mask), case.spacing)
    plane = replace(told, case=case, lattice=lattice, basis=eigen.smallest_eigenpairs(lattice, K, method="dense"))
    session = Session(replace(plane, problem=ALONE))
    session.start()
    try:
        session.stroke(np.array([[1, 1], [12, 10]]), 2, 1, 1)
        assert session.stroke(np.array([[6, 5]]), 2, 1, 2)["error"] is None  # not known at once
        wait_for(session, "improved")
        assert 0 < session.state()["error"] < 0.05
        assert session.stroke(np.array([[2, 9]]), 2, 1, 3)["error"] is not None
        assert within_its_error(session, plane) is not None
        assert session.stroke(np.array([[2, 9]]), 2, 1, 0)["error"] is None
    finally:
        session.stop()


@pytest.mark.slow
def test_seeds_alone_in_a_volume_are_certified_when_they_are_improved(told):
    session = Session(replace(told, problem=ALONE))
    session.worker.start()  # `start` would compile what is not asked here
    try:
        assert paint_two(session)["error"] is None
        wait_for(session, "improved")
        assert 0 < within_its_error(session, told) < 0.01
        assert session.stroke(np.array([[2, 9, 7]]), 2, 1, 3)["error"] is None  # until it is improved as well
    finally:
        session.stop()


def test_strokes_are_discs_in_their_slice_and_can_be_taken_back(session):
    session.stroke(np.array([[6, 6, 4]]), 2, 2, 1)
    painted = np.argwhere(session.seeds[: session.n].reshape(session.shape) == 0)
    assert len(painted) == 13
    assert set(painted[:, 2]) == {4}
    session.stroke(np.array([[6, 6, 4]]), 2, 0, 0)
    assert session.state()["seeds"] == [12, 0, 0]
    session.stroke(np.array([[6, 6, 4]]), 0, 1, 3)
    assert session.state()["seeds"] == [10, 0, 5]
    session.clear()
    assert session.state()["seeds"] == [0, 0, 0]
    for expected in ([10, 0, 5], [12, 0, 0], [13, 0, 0], [0, 0, 0], [0, 0, 0]):
        assert session.undo()["seeds"] == expected


def test_beta_and_region_update_the_basis_and_the_answer_gets_better_behind_the_page(session):
    session.start()
    try:
        paint_two(session)
        rough = session.x
        wait_for(session, "improved")
        active = np.asarray(session.told.lattice.active).ravel()
        assert session.state()["error"] < 1e-2
        reference = exact(session)
        off = [np.abs(np.asarray(x)[:, : session.n] - reference)[:, active].max() for x in (rough, session.x)]
        assert off[1] <= min(session.state()["error"], off[0])
        state = session.change(2.0, paint.Region((7, 6, 4), 4))
        assert state["beta"] == 60
        wait_for(session, "improved")
        lattice = session.lattice
        assert not np.asarray(lattice.active)[:3].any()
        assert (session.shown.labels[:3] == -1).all()
        assert session.shown.labels[7, 6, 3] == 1
        own = eigen.smallest_eigenpairs(lattice, K, method="dense")
        np.testing.assert_allclose(session.basis.values.sum(), own.values.sum(), rtol=0.02)
        session.change(1.0, None)
        np.testing.assert_array_equal(session.basis.values, session.told.basis.values)
    finally:
        session.stop()
    with pytest.raises(InputError, match=r"beta: a factor of 0\.05 to 20 is allowed, got 1000"):
        session.change(1000, None)
    with pytest.raises(InputError, match="hold no voxel of the mask; draw it inside"):
        session.change(1, paint.Region((100, 6, 4), 2))


def test_a_region_of_one_voxel_is_left_as_it_is(session):
    session.change(1.0, paint.Region((-1, -1, -1), 1))
    assert int(session.active.sum()) == 1
    assert session._filter(session.graph, 0) == session.graph


def test_nothing_is_begun_behind_a_page_that_is_closed(told, monkeypatch):
    session, begun = Session(replace(told, serving=replace(SERVING, settle=2.0))), threading.Event()
    monkeypatch.setattr(session, "_improved", lambda *_: begun.set())
    session.worker.start()
    paint_two(session)
    session.stop()
    assert not session.worker.is_alive()
    assert not begun.is_set()


def test_the_end_by_the_keyboard_is_told_before_it_is_waited_for(session, capsys):
    class Interrupted:
        """Ctrl-C where the page waits for its end."""

        port = 0

        @property
        def seconds(self):
            raise KeyboardInterrupt

    serve.Server(None, None, None, None, None, Interrupted())._until_the_end(session)
    assert "an answer that is being improved is finished first" in capsys.readouterr().out


def wait_for(session, stage):
    deadline = time.monotonic() + 120
    while session.state()["stage"] != stage:
        assert time.monotonic() < deadline
        time.sleep(0.05)
