"""Bugs made by mutation: the tests of an installed package run on each mutant, and what they ran and said.

Always labelled synthetic; a collection of real bugs never holds one.
"""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from faultloc import grammars, mutate, tree
from faultloc.collect.runner import FAILURES, Test
from faultloc.collect.suite import Suite
from faultloc.corpus import Bug
from faultloc.io import InputError, Recording, read_text, recording
from faultloc.spectrum import Spectrum

KIND = "synthetic"
LEAST = 0.05  # share of the tests that must still pass: a program that fails everywhere tells nothing about its lines


class Killed(NamedTuple):
    """A mutant that some test noticed.

    Attributes:
        number: of the mutant in the order of `mutate.mutants`.
        mutant: what was changed.
        bits: `[T, ceil(L / 8)]` coverage of the tests.
        failed: `[T]`.
    """

    number: int
    mutant: mutate.Mutant
    bits: np.ndarray
    failed: np.ndarray


class Workshop:
    """Makes the mutants of one package, each known by its number.

    Args:
        package: installed, pure Python, with its tests.
        seed: of the order of mutants.
        limit: of one test, seconds of the processor.

    Raises:
        InputError: it is not installed, has no test, or none of its tests passes.
    """

    def __init__(self, package: str, seed: int, limit: float) -> None:
        self.package, self.suite = package, Suite(package, limit)
        base = self.suite.run({})
        self.notes = [f"{name} is left out" for name in base.broken]
        passing = {name: test for name, test in base.tests.items() if test.outcome == "passed"}
        if not passing:
            raise InputError(f"corpus.package: {package} ships no test that passes without arguments; try toolz")
        if len(passing) < len(base.tests):
            self.notes.append(f"{len(base.tests) - len(passing)} tests do not pass by themselves and are left out")
        self.root = self.suite.folder.parent
        files = sorted({file for test in passing.values() for file in test.lines} | set(base.imports))
        texts = {file: text for file in files if (text := read_text(file)) is not None}
        self.texts = {self._short(file): text for file, text in texts.items()}
        self._trees = {file: tree.from_python({file: text})[0] for file, text in self.texts.items()}
        self._universe = {file: tree.executable(text, file) for file, text in self.texts.items()}
        self._base = {name: self._pairs(test) for name, test in passing.items()}
        sound = dict.fromkeys(self._base, False)
        self.recording = recording(self._base, sound, universe=self._universe)
        # A line that runs while modules are imported would break every test; one that no test runs would break none.
        run: dict[str, set[int]] = {}
        for file, line in set().union(*self._base.values()):
            run.setdefault(file, set()).add(line)
        for file, lines in base.imports.items():
            run.get(self._short(file), set()).difference_update(lines)
        self._order = mutate.mutants(self.texts, run, seed)
        self._made: list[mutate.Mutant] = []
        self._killed: dict[int, Killed | None] = {}

    def _short(self, file: str) -> str:
        return Path(file).relative_to(self.root).as_posix()

    def _pairs(self, test: Test) -> set[tuple[str, int]]:
        return {(self._short(file), line) for file, lines in test.lines.items() for line in lines}

    def mutant(self, number: int) -> mutate.Mutant | None:
        """The mutant of a number; None past the last one."""
        self._made += itertools.islice(self._order, max(number + 1 - len(self._made), 0))
        return self._made[number] if number < len(self._made) else None

    def after(self, number: int) -> Killed | None:
        """The first mutant from `number` on that a test notices; None if there is none."""
        while (mutant := self.mutant(number)) is not None:
            if number not in self._killed:
                self._killed[number] = self._run(number, mutant)
            found = self._killed[number]
            if found is not None:
                return found
            number += 1
        return None

    def _run(self, number: int, mutant: mutate.Mutant) -> Killed | None:
        """Run the tests that reach the line; the others cannot tell the mutant from the program."""
        place = (mutant.path, mutant.line)
        reaching = [name for name, pairs in self._base.items() if place in pairs]
        answer = self.suite.run({str(self.root / mutant.path): mutant.text}, reaching)
        failed = {name: name in answer.tests and answer.tests[name].outcome in FAILURES for name in self._base}
        few = sum(failed.values()) > (1 - LEAST) * len(failed)
        if answer.hangs or not any(failed.values()) or few:
            return None
        hits = self._base | {name: self._pairs(answer.tests[name]) for name in answer.tests}
        if not any(place in hits[name] for name in failed if failed[name]):
            return None  # it failed for another reason, such as a test that depends on those before it
        spectrum = recording(hits, failed, universe=self._universe).spectrum
        return Killed(number, mutant, np.asarray(spectrum.bits), np.asarray(spectrum.failed))

    def bug(self, number: int, bits: np.ndarray, failed: np.ndarray) -> Bug:
        """A killed mutant as a bug with its place; its program, the unit that is held out, is the mutated file."""
        mutant = self.mutant(number)
        if mutant is None:
            raise ValueError(f"{self.package} has fewer than {number + 1} mutants with this seed")
        changed, _ = tree.from_python({mutant.path: mutant.text})
        parsed = grammars.joined([changed if path == mutant.path else self._trees[path] for path in self.texts])
        given = self.recording
        found = Recording(Spectrum(bits, failed, given.spectrum.size), *given[1:])
        place = (np.array(given.files)[given.file] == mutant.path) & (given.lines == mutant.line)
        name = f"{mutant.path}:{mutant.line}:{mutant.operator}:{number}"
        return Bug(name, mutant.path, mutant.path, found, np.flatnonzero(place), KIND, parsed)


@functools.lru_cache(maxsize=2)
def workshop(package: str, seed: int, limit: float) -> Workshop:
    """The workshop of a package; the cells of a sweep share it, and what it has run so far."""
    return Workshop(package, seed, limit)


def bugs(package: str, count: int, seed: int, limit: float) -> Iterator[Bug]:
    """The first `count` mutants that tests notice."""
    made, number = workshop(package, seed, limit), 0
    for _ in range(count):
        found = made.after(number)
        if found is None:
            return
        yield made.bug(found.number, found.bits, found.failed)
        number = found.number + 1
