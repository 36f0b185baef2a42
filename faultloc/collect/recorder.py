"""Watches which lines of a program run; stands alone on the standard library, as the plugin does.

Python 3.12 and later are watched by `sys.monitoring`, where a line costs once a test, earlier ones by `sys.settrace`.
"""

import os
import sys
import threading
from typing import Any

OPTIMIZED = 1  # flag of code that is the body of a function, not of a module or a class


class Program:
    """Knows which files belong to the program: those under its sources but tests, environments and generated code."""

    foreign = frozenset({"site-packages", "dist-packages", "node_modules", "tests", "test", "__pycache__"})

    def __init__(self, sources):
        self.sources = tuple(os.path.realpath(source) for source in sources)
        self.known: dict = {}
        self.tests: set = set()

    def leave_out(self, files):
        """Take files that hold tests for no part of the program, unless they are watched by their own name."""
        self.tests = {os.path.realpath(file) for file in files}.difference(self.sources)
        self.known.clear()

    def path(self, filename):
        """Absolute path of a file of the program; None for any other."""
        if filename not in self.known:
            self.known[filename] = self._find(filename)
        return self.known[filename]

    def files(self):
        """Every file of the program that is there, whether it runs or not."""
        for source in self.sources:
            if os.path.isfile(source):
                yield source
            for folder, inner, names in os.walk(source):
                above = [] if folder == source else os.path.relpath(folder, source).split(os.sep)
                inner[:] = sorted(name for name in inner if not self._is_foreign(source, [*above, name], ""))
                yield from filter(None, (self.path(os.path.join(folder, name)) for name in sorted(names)))

    def _find(self, filename):
        path = os.path.realpath(filename)
        if path in self.tests:
            return None
        for source in self.sources:
            if f"{path}{os.sep}".startswith(source + os.sep):
                folders = os.path.relpath(path, source).split(os.sep)[:-1]
                return path if path.endswith(".py") and not self._is_foreign(source, folders, path) else None
        return None

    def _is_foreign(self, source, folders, path):
        name = os.path.basename(path)
        if name in ("conftest.py", "setup.py", "tests.py") or name.startswith("test_") or name.endswith("_test.py"):
            return True
        if any(folder in self.foreign or folder.startswith(".") for folder in folders):
            return True
        above = source
        for folder in folders:
            above = os.path.join(above, folder)
            if os.path.exists(os.path.join(above, "pyvenv.cfg")):
                return True
        return False


class Recorder:
    """Collects lines of functions per test and, once for all, lines that ran outside functions or tests."""

    def __init__(self, program):
        self.program = program
        self.lines: set = set()
        self.outside: set = set()
        self.active = self.outside

    def begin(self):
        """A test begins."""
        self.lines.clear()
        self.active = self.lines

    def finish(self):
        """The test ended: its lines by file."""
        self.active = self.outside
        return self._by_file(self.lines)

    def imported(self):
        """Lines that ran outside functions or tests, by file."""
        return self._by_file(self.outside)

    def hit(self, code, line):
        """A line runs."""
        (self.active if code.co_flags & OPTIMIZED else self.outside).add((code.co_filename, line))

    def tell(self, say):
        """Until the test ends, say each new line at once, for a test that may not live to its end; None stops."""
        self.__dict__.pop("hit", None)
        if say is None:
            return
        hit = self.hit

        def aloud(code, line):
            hit(code, line)
            if code.co_flags & OPTIMIZED and (key := (code.co_filename, line)) not in told:
                told.add(key)
                if (path := self.program.path(code.co_filename)) is not None:
                    say(path, line)

        told: set = set()
        self.hit = aloud  # type: ignore[method-assign]

    def _by_file(self, hits):
        files: dict = {}
        for filename, line in hits:
            files.setdefault(self.program.path(filename), []).append(line)
        files.pop(None, None)  # of files that ran before they were known to hold tests
        return {path: sorted(set(lines)) for path, lines in files.items()}


class Monitor(Recorder):
    """Watches by `sys.monitoring`."""

    watch: Any = getattr(sys, "monitoring", None)

    def start(self):
        """Take a free number and watch every function that starts."""
        watch = self.watch
        self.number = next(number for number in (3, 4, 1, 2, 0) if watch.get_tool(number) is None)
        watch.use_tool_id(self.number, "faultloc")
        watch.register_callback(self.number, watch.events.PY_START, self._enter)
        watch.register_callback(self.number, watch.events.LINE, self._line)
        watch.restart_events()  # code that an earlier recorder of this process has watched
        watch.set_events(self.number, watch.events.PY_START)

    def _enter(self, code, offset):  # noqa: ARG002
        # Lines are asked for in code of the program alone: the rest runs at full speed after its first call in a test.
        if self.program.path(code.co_filename) is not None:
            self.watch.set_local_events(self.number, code, self.watch.events.LINE)
        return self.watch.DISABLE

    def _line(self, code, line):
        self.hit(code, line)
        return self.watch.DISABLE

    def begin(self):
        """A test begins: every line may report once more."""
        super().begin()
        self.watch.restart_events()

    def stop(self):
        """Give the number back."""
        self.watch.set_events(self.number, 0)
        self.watch.free_tool_id(self.number)


class Tracer(Recorder):
    """Watches by `sys.settrace`, in threads that start later as well.

    Each line of the program that runs costs a call of Python. So each piece of code has a set of its own for the
    numbers of its lines, and a trace function that does nothing but add to it; the sets are gathered once a test.
    """

    def __init__(self, program):
        super().__init__(program)
        self.watched: dict = {}  # by the identity of the code, which is kept alive: its hash would read all of it
        self.touched: list = []

    def start(self):
        """Watch every call."""
        watched, watch = self.watched, self._watch

        def call(frame, event, argument):  # noqa: ARG001
            code = frame.f_code
            found = watched.get(id(code)) or watch(code)
            return found[0]

        self._install(call)

    def _install(self, call):
        self.call = call
        threading.settrace(call)
        sys.settrace(call)

    def _watch(self, code):
        """The trace function of a piece of code, None where it is not of the program; and the code."""
        numbers: set = set()
        add = numbers.add

        def line(frame, event, argument):  # noqa: ARG001
            if event == "line":
                add(frame.f_lineno)
            return line

        ours = self.program.path(code.co_filename) is not None
        if ours:
            self.touched.append((code, numbers))
        self.watched[id(code)] = found = (line if ours else None, code)
        return found

    def _gather(self):
        """Hand what the sets hold to the test, or to what ran outside of tests."""
        for code, numbers in self.touched:
            if numbers:
                found = list(numbers)  # at once: a thread may add to it
                numbers.difference_update(found)
                for line in found:
                    self.hit(code, line)

    def begin(self):
        """A test begins; one before it may have taken the trace function away."""
        self._gather()
        super().begin()
        sys.settrace(self.call)

    def finish(self):
        """The test ended: its lines by file."""
        self._gather()
        return super().finish()

    def tell(self, say):
        """As for every recorder; every line then goes through `hit` when it runs."""
        super().tell(say)
        if say is None:
            return

        def line(frame, event, argument):  # noqa: ARG001
            if event == "line":
                self.hit(frame.f_code, frame.f_lineno)
            return line

        path = self.program.path
        sys.settrace(lambda frame, event, argument: line if path(frame.f_code.co_filename) else None)  # noqa: ARG005

    def stop(self):
        """Watch no longer."""
        self._gather()
        threading.settrace(None)
        sys.settrace(None)


def recorder(program):
    """The recorder for this Python; not yet started."""
    return (Monitor if hasattr(sys, "monitoring") else Tracer)(program)
