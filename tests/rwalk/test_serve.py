"""Painting: answers equal those of the solvers, requests are told what is wrong, and a real browser paints."""

import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from rwalk import data, deflate, eigen, paint, seeding, solve, web
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


@pytest.mark.slow
def test_seeds_alone_keep_their_certificate_until_one_is_erased(told):
    alone = Problem(kind="seeds", gamma=None, path=None, close=False, polish=0, error=0.0, residual=0.0)
    session = Session(replace(told, problem=alone))
    session.start()
    try:
        assert paint_two(session)["error"] is None  # not known at once: nothing certifies yet
        wait_for(session, "improved")
        assert 0 < session.state()["error"] < 0.05
        assert session.stroke(np.array([[2, 9, 7]]), 2, 1, 3)["error"] is not None
        lattice, seeds = told.lattice, session.seeds.reshape(session.shape)
        right = solve.random_walker(lattice, regions=3, seeds=jnp.asarray(seeds), tol=1e-6).x.reshape(3, -1)
        with session.lock:
            active, error = session.active, session.state()["error"]
            assert np.abs(np.asarray(session.x) - right)[:, active].max() <= error + 1e-5
        assert session.stroke(np.array([[2, 9, 7]]), 2, 1, 0)["error"] is None
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


def wait_for(session, stage):
    deadline = time.monotonic() + 120
    while session.state()["stage"] != stage:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(session, tmp_path):
    """The address of a server of the session, and the folder it saves in."""
    server = web.listen(session, 0, tmp_path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://{web.HOST}:{server.server_port}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


def ask(url, body=None, **headers):
    """Status and content of a request; a body is sent as JSON."""
    given = None if body is None else json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url, given, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as fault:
        with fault:
            return fault.code, fault.read()


def test_bad_requests_get_one_clear_line(site):
    address, folder = site
    stroke = {"points": [[1, 2, 3]], "axis": 2, "radius": 1, "label": 1}
    for path, body, words in (
        ("paint", {**stroke, "points": [[1, 2]]}, "lists of 3 indices are needed"),
        ("paint", {**stroke, "label": 9}, "a label 0 to 3"),
        ("paint", {"axis": 1}, "points: missing"),
        ("paint", b"[1", "no JSON object"),
        ("graph", {"factor": 0}, r"0\.05 to 20"),
        ("graph", {"factor": "x"}, "could not convert"),
        ("save", {}, "paint seeds of two labels first"),
        ("slice?axis=7&index=0", None, "no such slice"),
        ("overlay?axis=0&index=0&kind=probability&label=4", None, "allowed are 1 to 3"),
        ("nothing", None, "known are /about"),
    ):
        if "probability" in path:
            for label, at in ((1, [1, 1, 4]), (2, [6, 5, 4])):
                ask(f"{address}/paint", {**stroke, "points": [at], "label": label})
        code, content = ask(f"{address}/{path}", body)
        line = json.loads(content)["error"]
        assert code in (400, 404)
        assert re.search(words, line)
        assert "\n" not in line
    assert ask(f"{address}/state", Host="elsewhere.org")[0] == 403
    assert ask(f"{address}/undo", {}, **{"Content-Type": "text/plain"})[0] == 400
    assert not list(folder.iterdir())


def test_what_is_saved_lies_on_the_grid_of_the_image(site, session):
    address, folder = site
    paint_two(session)
    _, content = ask(f"{address}/save", {})
    assert sorted(json.loads(content)["files"]) == sorted(str(path) for path in folder.iterdir())
    held = {path.name.split(".")[0]: nibabel.load(path) for path in folder.iterdir()}
    assert set(held) == {"labels", "probabilities", "entropy", "margin", "seeds"}
    for image in held.values():
        np.testing.assert_array_equal(image.affine, AFFINE)
        assert image.shape[:3] == SHAPE
    labels, seeds = (np.asarray(held[name].dataobj) for name in ("labels", "seeds"))
    assert (labels[:, :, 0] == 0).all()
    np.testing.assert_array_equal(labels[seeds > 0], seeds[seeds > 0])
    np.testing.assert_allclose(np.asarray(held["probabilities"].dataobj)[:, :, 1:].sum(-1), 1, atol=1e-5)


def test_a_port_that_is_taken_is_told(session, site, tmp_path):
    port = int(site[0].rsplit(":", 1)[1])
    with pytest.raises(InputError, match=rf"serve\.port={port}: .* 0 picks one that is free"):
        web.listen(session, port, tmp_path)


@pytest.mark.slow
def test_the_command_serves_and_ends_by_itself(files, tmp_path, capsys):  # noqa: F811
    result = run(
        tmp_path / "run", "task=serve", *inputs(files), "serve.port=0", "serve.seconds=0.2", "serve.labels=2"
    )  # fmt: skip
    assert re.search(r"open http://127\.0\.0\.1:\d+/ in a browser; Ctrl-C ends it", capsys.readouterr().out)
    assert result["metrics"]["interactions"] == 0
    assert result["metrics"]["pairs/converged"] == 1


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver")
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver here: scripts/system.sh installs them")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync",
                 "disable-component-update", "no-first-run", "window-size=1360,1080",
                 f"user-data-dir={tmp_path}/profile"):  # fmt: skip
        options.add_argument(f"--{flag}")
    window = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    window.set_script_timeout(60)
    yield window
    window.quit()


PIXEL = """
const canvas = document.querySelector(`canvas[data-axis="${arguments[0]}"]`);
const [x, y] = [arguments[1] * canvas.width, arguments[2] * canvas.height];
return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
"""


@pytest.mark.slow
def test_a_browser_paints_sees_the_answer_takes_it_back_moves_beta_and_saves(browser, site, session):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    address, folder = site
    session.start()
    browser.get(address)
    wait = WebDriverWait(browser, 120)

    def settled():
        """The pictures of the newest answer are drawn."""
        version, kind = session.version, browser.execute_script("return view.kind")
        drawn = "return panels.every((p) => [p.canvas.dataset.version, p.canvas.dataset.kind].join() == arguments[0])"
        wait.until(lambda _: browser.execute_script(drawn, f"{version},{kind}"))

    def drag(start, end, axis=2):
        """Paint with the mouse from one point of a slice to another, both as shares of its width and height."""
        canvas = browser.find_element(By.CSS_SELECTOR, f'canvas[data-axis="{axis}"]')
        wide, high = canvas.size["width"], canvas.size["height"]
        (x0, y0), (x1, y1) = ((wide * (x - 0.5), high * (y - 0.5)) for x, y in (start, end))
        ActionChains(browser, duration=50).move_to_element_with_offset(
            canvas, x0, y0
        ).click_and_hold().move_to_element_with_offset(canvas, x1, y1).release().perform()

    try:
        wait.until(lambda _: browser.execute_script("return document.body.dataset.ready"))
        grey = browser.execute_script(PIXEL, 2, 0.3, 0.2)
        assert max(grey[:3]) - min(grey[:3]) < 3
        drag((0.1, 0.9), (0.3, 0.92))
        wait.until(lambda _: session.state()["seeds"][0] > 3)
        browser.find_element(By.TAG_NAME, "body").send_keys("2")
        drag((0.45, 0.5), (0.6, 0.52))
        wait.until(lambda _: session.shown is not None)
        wait_for(session, "improved")
        settled()
        spots = (0.58, 0.3), (0.9, 0.15)  # in the box and outside of it, without a seed
        inside, outside = (browser.execute_script(PIXEL, 2, *at) for at in spots)
        assert inside[2] > inside[0] + 20  # the second colour is blue, the first orange
        assert outside[0] > outside[2] + 20
        assert browser.find_element(By.ID, "error").text.startswith("≤ ")
        browser.find_element(By.CSS_SELECTOR, '[data-kind="probability"]').click()
        settled()
        assert browser.execute_script(PIXEL, 2, *spots[0])[:3] != inside[:3]
        browser.find_element(By.CSS_SELECTOR, '[data-kind="labels"]').click()
        slider, before = browser.find_element(By.ID, "beta"), session.ready
        slider.send_keys(Keys.ARROW_RIGHT * 5)
        wait.until(lambda _: abs(session.state()["beta"] / 30 - 2**0.5) < 1e-6)
        assert session.ready is not before
        browser.find_element(By.ID, "save").click()
        wait.until(lambda _: "labels.nii.gz" in browser.find_element(By.ID, "saved").text)
        labels = np.asarray(nibabel.load(folder / "labels.nii.gz").dataobj)
        assert labels[7, 6, 4] == 2
        assert labels[1, 1, 4] == 1
        before = session.state()["seeds"]
        browser.find_element(By.ID, "undo").click()
        wait.until(lambda _: session.state()["seeds"] == [before[0], 0, 0])
        settled()
        after = browser.execute_script(PIXEL, 2, *spots[1])
        assert max(after[:3]) - min(after[:3]) < 3
        errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert errors == []
    finally:
        session.stop()
