"""Runs the tests of an installed package again and again in one process, each time with one of its files replaced.

`python -m faultloc.collect.worker PACKAGE` reads one JSON object a line from its input and answers on its output:

    {"replace": {path: text}, "tests": [name, ...] or null for all, "limit": seconds of processor time of a test}
    {"start": name}, {"test": name, "outcome": ..., "seconds": ..., "lines": {path: [line, ...]}, "message": ...}, ...
    {"broken": name, "message": ...}                 a file of tests that cannot be imported
    {"done": true, "imports": {path: [line, ...]}, "hangs": whether it was given up}   the request is answered

For every request the package is imported anew: its modules, and those of the other packages of its distribution, leave
`sys.modules` and come back from code that is compiled once. Tests are functions `test*` without arguments, at the top
level of a file `test_*.py` or in a class `Test*`; others are not run.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from faultloc.collect.recorder import Program, recorder

PATIENCE = 3  # tests out of time after which the others of a request are not run
MEMORY = 4 << 30  # bytes of addresses: what eats more is a failing test, not a machine without memory


class TimeIsUp(BaseException):
    """No `except Exception` of a program catches it."""


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from compiled code that is kept, or from replaced text."""

    kept: dict[str, CodeType] = {}  # noqa: RUF012 - one for the process
    replaced: dict[str, str] = {}  # noqa: RUF012

    def get_code(self, fullname: str) -> CodeType | None:
        """Code of the module."""
        path = self.get_filename(fullname)
        if path in self.replaced:
            return compile(self.replaced[path], path, "exec", dont_inherit=True)
        if path not in self.kept:
            self.kept[path] = compile(self.get_data(path), path, "exec", dont_inherit=True)
        return self.kept[path]


class Finder:
    """Finds the modules of the packages that are imported anew."""

    def __init__(self, roots: set[str]) -> None:
        self.roots = roots

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        """As every finder."""
        if name.split(".")[0] not in self.roots:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader) and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


class Package:
    """An installed package with its tests."""

    def __init__(self, name: str) -> None:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no package {name}")
        self.name, self.folder = name, Path(spec.origin).parent
        self.roots = _together(name)
        self.finders = [Finder(self.roots), *sys.meta_path]
        self.files = sorted(self.folder.rglob("test_*.py"))
        self.program = Program([str(self.folder)])

    def forget(self) -> None:
        """Take every module of the distribution out of `sys.modules`, and the finders that it put in."""
        for name in [name for name in sys.modules if name.split(".")[0] in self.roots]:
            del sys.modules[name]
        sys.meta_path[:] = self.finders

    def tests(self, answer: Callable[[dict[str, Any]], None]) -> dict[str, Callable[[], Any]]:
        """Import the files of tests; what to call by name."""
        found: dict[str, Callable[[], Any]] = {}
        for file in self.files:
            inner = file.relative_to(self.folder).with_suffix("").parts
            try:
                module = importlib.import_module(".".join((self.name, *inner)))
            except (
                BaseException
            ) as error:  # a broken file, or one that asks to be skipped, must not take the rest along
                answer({"broken": "/".join(inner) + ".py", "message": _message(error)})
                continue
            for name, call in _callables(module):
                found[f"{'/'.join(inner)}.py::{name}"] = call
        return found


def _together(name: str) -> set[str]:
    """Top-level packages of the distribution that has this one."""
    owners = importlib.metadata.packages_distributions()
    mine = set(owners.get(name, ()))
    return {name} | {
        package for package, others in owners.items() if mine & set(others) and not package.startswith("_")
    }


def _callables(module: ModuleType) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, value in list(vars(module).items()):
        if inspect.isfunction(value) and name.startswith("test") and _is_plain(value, 0):
            yield name, value
        elif inspect.isclass(value) and name.startswith("Test") and value.__init__ is object.__init__:
            for part in dir(value):
                method = getattr(value, part)
                if part.startswith("test") and inspect.isfunction(method) and _is_plain(method, 1):
                    yield f"{name}::{part}", _bound(value, part)


def _is_plain(function: Callable[..., Any], arguments: int) -> bool:
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return len(needed) == arguments and not getattr(function, "pytestmark", None)


def _bound(kind: type, method: str) -> Callable[[], Any]:
    def call() -> None:
        instance = kind()
        setup = getattr(instance, "setup_method", None)
        if setup is not None:
            setup() if not inspect.signature(setup).parameters else setup(getattr(instance, method))
        getattr(instance, method)()
        getattr(instance, "teardown_method", lambda: None)()

    return call


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:  # noqa: ARG001
        raise TimeIsUp

    # Time of the processor, so that a busy machine changes no outcome; it rings again and again, as the program may
    # swallow the first one in a bare `except`. What sleeps, or loops in C, is ended by whom sent the request.
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, max(seconds / 4, 0.05))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _outcome(call: Callable[[], Any], limit: float) -> tuple[str, str]:
    try:
        with _limited(limit):
            call()
    except TimeIsUp:
        return "timeout", f"time limit of {limit:g} s"
    except BaseException as error:  # a test may end by SystemExit, or skip by an exception of its own kind
        if type(error).__name__ in ("Skipped", "SkipTest"):
            return "skipped", str(error)
        return "failed", _message(error)
    return "passed", ""


def _message(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(": ")


def serve(package: Package, request: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer one request."""
    Loader.replaced = request["replace"]
    package.forget()
    watch = recorder(package.program)
    watch.start()
    try:
        with _limited(10 * request["limit"]):
            calls = package.tests(answer)
        over = 0
        for name in calls if request["tests"] is None else request["tests"]:
            if over == PATIENCE:
                break
            answer({"start": name})
            start = time.perf_counter()
            watch.begin()
            if name in calls:
                outcome, message = _outcome(calls[name], request["limit"])
            else:
                outcome, message = "failed", "its file can no longer be imported"
            lines = watch.finish()
            seconds = time.perf_counter() - start
            over += outcome == "timeout"
            answer({"test": name, "outcome": outcome, "seconds": seconds, "lines": lines, "message": message})
    finally:
        watch.stop()
    answer({"done": True, "imports": watch.imported(), "hangs": over == PATIENCE})


def main(name: str) -> None:
    """Serve until the input ends."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # What the tests print must not mix with the answers, and they must not eat the requests.
    package = Package(name)  # before standard error is gone: what is wrong with the package is told there
    output, requests = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - for the life of the process

    def answer(entry: dict[str, Any]) -> None:
        output.write(json.dumps(entry) + "\n")
        output.flush()

    answer({"ready": str(package.folder)})
    for line in requests:
        try:
            serve(package, json.loads(line), answer)
        except TimeIsUp:
            answer({"done": True, "imports": {}, "hangs": True})


if __name__ == "__main__":
    main(sys.argv[1])
