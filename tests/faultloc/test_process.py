"""Sessions that do not end by themselves: they are ended, and what was recorded is kept."""

import os
import signal
import subprocess
import sys
import time

import pytest

from faultloc.collect import runner
from tests.faultloc.test_collect import make, no_other_plugins  # noqa: F401 - a fixture


def test_a_hang_that_nothing_interrupts_is_ended_and_the_tests_after_it_are_run(tmp_path):
    tests = (
        "import time\nfrom pkg import numbers\n\ndef test_first():\n    numbers.halve(2)\n\n"
        "def test_stubborn():\n    numbers.halve(3)\n    while True:\n        try:\n            time.sleep(0.1)\n"
        "        except BaseException:\n            pass\n\n"
        "def test_last():\n    assert numbers.halve(3) == 5\n"
    )
    session = runner.run(make(tmp_path, tests), test_timeout=0.5, timeout=100)
    found = {test.name.split("::")[1]: test for test in session.tests}
    assert {name: test.outcome for name, test in found.items()} == {
        "test_first": "passed", "test_stubborn": "timeout", "test_last": "failed",
    }  # fmt: skip
    assert list(found["test_stubborn"].lines.values()) == [[5, 6]]
    assert session.notes == ("tests/test_numbers.py::test_stubborn: fell silent, its process was ended",)


def test_a_run_that_python_cannot_interrupt_is_ended_and_what_was_recorded_is_kept(tmp_path):
    tests = (
        "import signal\nfrom pkg import numbers\n\ndef test_first():\n    numbers.halve(2)\n\n"
        "def test_stuck():\n    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n    signal.pause()\n"
    )
    session = runner.run(make(tmp_path, tests), test_timeout=1, timeout=4)
    assert [(test.name.split("::")[1], test.outcome) for test in session.tests] == [
        ("test_first", "passed"), ("test_stuck", "timeout"),
    ]  # fmt: skip
    assert session.notes[0] == "the run was stopped after 4 s: not all tests ran"


def test_a_request_to_terminate_ends_the_session_and_takes_its_folder_along(tmp_path):
    tests = (
        "import os, pathlib, time\n\ndef test_waits():\n    new = pathlib.Path('new')\n"
        "    new.write_text(str(os.getpid()))\n    new.rename('pid')\n    time.sleep(60)\n"
    )
    make(tmp_path / "project", tests)
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", "from faultloc.collect import runner; runner.run('.')"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "scratch")}
    asked = subprocess.Popen(command, cwd=tmp_path / "project", env=environment)
    try:
        while asked.poll() is None and not (tmp_path / "project" / "pid").exists():
            time.sleep(0.05)
        asked.terminate()
        assert asked.wait(30) == 128 + signal.SIGTERM
    finally:
        asked.kill()
    assert list((tmp_path / "scratch").glob("faultloc-*")) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "project" / "pid").read_text()), 0)
