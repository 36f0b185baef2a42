"""The page and its server: requests, files, a real browser."""

import json
import re
import shutil
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import nibabel
import numpy as np
import pytest

from rwalk import web
from rwalk.checks import InputError
from tests.rwalk.test_serve import AFFINE, SHAPE, exact, paint_two, session, told, wait_for  # noqa: F401 - fixtures
from tests.rwalk.test_smoke import files, inputs, run  # noqa: F401 - fixtures


@pytest.fixture
def site(session, tmp_path):  # noqa: F811
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


def test_bad_requests_get_one_clear_line(site, capfd):
    address, folder = site
    stroke = {"points": [[1, 2, 3]], "axis": 2, "radius": 1, "label": 1}
    for path, body, words in (
        ("paint", {**stroke, "points": [[1, 2]]}, "lists of 3 indices are needed"),
        ("paint", {**stroke, "label": 9}, "a label 0 to 3"),
        ("paint", {"axis": 1}, "points: missing"),
        ("paint", b"[1", "no JSON object"),
        ("paint", b"[" * 10**5, "no JSON object"),
        ("paint", {**stroke, "points": [[10**30, 2, 3]]}, "too large"),
        ("paint", {**stroke, "axis": float("inf")}, "infinity"),
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
    code, content = ask(f"{address}/undo", {}, **{"Content-Length": "abc"})
    assert code == 400
    assert re.search("JSON of 1 to", json.loads(content)["error"])
    assert not list(folder.iterdir())
    assert capfd.readouterr().err == ""


def test_a_page_that_goes_away_leaves_the_terminal_clean(site, session, capfd):  # noqa: F811
    before, port = set(threading.enumerate()), int(site[0].rsplit(":", 1)[1])
    # The lock holds the answer back until the other end has hung up.
    with session.lock, socket.create_connection((web.HOST, port)) as client:
        client.sendall(b"GET /state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        deadline = time.monotonic() + 60
        while not (asked := set(threading.enumerate()) - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, no farewell
    for thread in asked:
        thread.join(60)
    assert capfd.readouterr().err == ""
    assert ask(f"{site[0]}/state")[0] == 200


def test_what_is_saved_lies_on_the_grid_of_the_image(site, session):  # noqa: F811
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


def test_a_port_that_is_taken_is_told(session, site, tmp_path):  # noqa: F811
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
def test_a_browser_paints_sees_the_answer_takes_it_back_moves_beta_and_saves(browser, site, session):  # noqa: F811
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    address, folder = site
    session.start()
    browser.get(address)
    wait = WebDriverWait(browser, 120)

    def settled():
        """The pictures of the newest answer are drawn."""
        drawn = """return panels.every((p) => Number(p.canvas.dataset.version) === arguments[0]
                                            && p.canvas.dataset.kind === view.kind)"""
        wait.until(lambda _: browser.execute_script(drawn, session.version))  # the thread may answer again

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
