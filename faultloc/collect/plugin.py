"""pytest plugin: with `--faultloc FOLDER`, record which lines of the program each test runs.

This file and `recorder.py` stand alone on pytest and the standard library, so that they can be lent to the interpreter
of any project.

Every process writes a file of its own, `FOLDER/<process>.jsonl`, one JSON object a line, flushed at once, so that what
was recorded survives a crash:

    {"start": test}                                                a test begins
    {"ran": [file, line]}                                          a line of a test that may not live to its end
    {"test": test, "outcome": ..., "lines": {file: [line, ...]}}   it ended; also "seconds", "message"
    {"imports": {file: [line, ...]}}                               lines outside functions, or run outside any test
    {"broken": name, "message": ...}                               a file of tests that could not be collected
    {"end": exit status}                                           the session ended by itself

Outcomes: passed | failed | error (in a fixture) | skipped (also expected failures) | timeout.
"""

import json
import os
import signal
import threading
import time

import pytest

from .recorder import Program, recorder


def pytest_addoption(parser):
    """Add the options."""
    group = parser.getgroup("faultloc", "record per-test coverage for fault localization")
    group.addoption("--faultloc", metavar="FOLDER", default=None, help="record which lines each test runs into FOLDER")
    group.addoption(
        "--faultloc-source", metavar="PATH", action="append", default=[], help="what to watch; default: the rootdir"
    )
    group.addoption("--faultloc-timeout", metavar="S", type=float, default=None, help="time limit of one test, seconds")
    group.addoption(
        "--faultloc-fragile", metavar="FILE", default=None, help="file of tests whose lines are written one by one"
    )
    group.addoption("--faultloc-skip", metavar="FILE", default=None, help="file of tests not to run, one name a line")


def pytest_configure(config):
    """Start to record, in the workers of xdist where there are any."""
    folder = config.getoption("faultloc")
    if folder is None:
        return
    config.option.faultloc = folder = os.path.abspath(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise pytest.UsageError(f"--faultloc: {folder} is a file; give a folder, which need not exist")
    spread = getattr(config.option, "numprocesses", None) or getattr(config.option, "dist", "no") != "no"
    if spread and not hasattr(config, "workerinput"):
        return
    os.makedirs(folder, exist_ok=True)
    sources = [os.path.abspath(path) for path in config.getoption("faultloc_source")] or [str(config.rootpath)]
    named = [_names(config.getoption(option)) for option in ("faultloc_skip", "faultloc_fragile")]
    config.pluginmanager.register(Collector(folder, sources, config.getoption("faultloc_timeout"), *named))


def _names(path):
    if path is None:
        return set()
    with open(path, encoding="utf-8") as file:
        return set(file.read().splitlines())


class Collector:
    """Writes down what the recorder saw, test by test."""

    def __init__(self, folder, sources, timeout, skipped, fragile):
        self.recorder = recorder(Program(sources))
        self.path = os.path.join(folder, f"{time.time_ns()}-{os.getpid()}.jsonl")
        self.timeout, self.skipped, self.fragile = timeout, skipped, fragile
        self.timed_out, self.reports = False, []
        self.recorder.start()

    def write(self, entry):
        """Append one line and hand it to the system at once."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items, config):
        """Watch no file of tests, whatever its name; leave out what an earlier, crashed session has run."""
        modules = {item.module for item in items if isinstance(item, pytest.Function)}  # a doctest is in the program
        self.recorder.program.leave_out(filter(None, (getattr(module, "__file__", None) for module in modules)))
        if left_out := [item for item in items if item.nodeid in self.skipped]:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item.nodeid not in self.skipped]

    def pytest_collectreport(self, report):
        """Note what could not be collected."""
        if report.failed:
            self.write({"broken": report.nodeid, "message": _message(report)})

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):  # noqa: ARG002
        """Record one test, its fixtures included."""
        self.write({"start": item.nodeid})
        self.reports, self.timed_out = [], False
        start = time.perf_counter()
        self.recorder.begin()
        if item.nodeid in self.fragile:
            self.recorder.tell(lambda path, line: self.write({"ran": [path, line]}))
        yield
        self.recorder.tell(None)
        lines = self.recorder.finish()
        failed = next((report for report in self.reports if report.failed), None)
        entry = {"test": item.nodeid, "outcome": self.outcome(), "seconds": time.perf_counter() - start, "lines": lines}
        if failed is not None:
            entry["message"] = _message(failed)
        self.write(entry)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        """Keep the reports of the test that runs."""
        self.reports.append(report)

    def outcome(self):
        """One word for the three phases of a test."""
        if self.timed_out:
            return "timeout"
        failed = [report.when for report in self.reports if report.failed]
        if failed:
            return "failed" if "call" in failed else "error"
        return "skipped" if any(report.skipped for report in self.reports) else "passed"

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item):  # noqa: ARG002
        """Limit the time of a fixture."""
        yield from self.limited()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):  # noqa: ARG002
        """Limit the time of a test."""
        yield from self.limited()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_teardown(self, item, nextitem):  # noqa: ARG002
        """Limit the time of cleaning up."""
        yield from self.limited()

    def limited(self):
        """Fail the phase that runs once its time is over; a hang that Python cannot interrupt stays one."""
        main = threading.current_thread() is threading.main_thread()
        if self.timeout is None or not main or not hasattr(signal, "setitimer"):
            yield
            return

        def stop(number, frame):  # noqa: ARG001
            self.timed_out = True
            pytest.fail(f"time limit of {self.timeout:g} s", pytrace=False)

        before = signal.signal(signal.SIGALRM, stop)
        # It rings again and again, as the program may swallow the first one in a bare `except`.
        signal.setitimer(signal.ITIMER_REAL, self.timeout, max(self.timeout / 4, 0.05))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus):
        """Stop to record."""
        self.recorder.stop()
        self.write({"imports": self.recorder.imported()})
        self.write({"end": int(exitstatus)})


def _message(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A test says what failed first, a file that cannot be collected last.
    return (lines[0] if crash is not None else lines[-1])[:300] if lines else ""
