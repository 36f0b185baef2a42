"""What gives the lines of a program their scores: a formula, with or without the rule that functions lead, or a model.

A ranker has a `name`, `needs_tree`, `learns` (whether `fit` learns from the bugs it is given) and `fit(bugs, key)`,
which returns what scores. That has `scores(recording, statements)`, `[L]`, higher is more suspicious; `formula`, where
the scores are those of one; `reasons(recording, statements)`, `[L]` what else speaks for each line; and
`probabilistic`, whether the scores are log-probabilities.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faultloc import corpus, features, forest, formulas, intervals, learn, models, spectrum, synthetic
from faultloc.io import InputError, Recording
from faultloc.metrics import DECIMALS
from faultloc.programs import Program, program
from faultloc.tree import Statements

MOVING = (*features.GROUPS["formulas"], *features.GROUPS["function"])  # features that coverage moves; they come first
PAIR = 400  # entries of the coverage matrix that are counted while a tree pass goes through a pair of subclasses
WEIGHTS = Path(__file__).with_name("weights")
MUTANTS = ("toolz", 0, 2.0)  # to learn from: package, seed, limit of a test


def demand(bugs: Sequence[corpus.Bug]) -> None:
    """Refuse to learn from nothing.

    Raises:
        InputError: there is no bug.
    """
    if not bugs:
        raise InputError(
            "ranker: learns from bugs whose lines are known, and there are none here; rank by ranker=posterior, "
            "which has a model that ships, or with ranker.model=FILE of one that corpus=training has learned"
        )


class Formula:
    """A suspiciousness formula; learns nothing.

    Args:
        name: see `formulas.get`.
        inside_first: lines of functions come before those that only run at import time, each kind in the order of the
            formula. Half of the lines that Python tests run are of the second kind, and few bugs are.
        formula: what scores, from the counts; None looks it up by its name.

    Raises:
        InputError: there is no such formula.
    """

    probabilistic, learns = False, False

    def __init__(self, name: str, *, inside_first: bool = False, formula: formulas.Formula | None = None) -> None:
        try:
            self.formula = formula or formulas.get(name)
        except ValueError as error:
            raise InputError(f"ranker.name: {error}") from error
        self.name, self.needs_tree = name, inside_first

    def fit(self, bugs: Sequence[Any], key: Any) -> "Formula":  # noqa: ARG002
        """Nothing to learn."""
        return self

    def reasons(self, recording: Recording, statements: Statements | None) -> list[str]:  # noqa: ARG002
        """Nothing beyond the counts."""
        return [""] * recording.spectrum.size

    def scores(self, recording: Recording, statements: Statements | None) -> np.ndarray:
        """`[L]` of the formula; with `inside_first` the place of each score, those of functions above all others."""
        scores = np.asarray(self.formula(spectrum.counts(recording.spectrum)), np.float64)
        if not self.needs_tree:
            return scores
        if statements is None:
            raise InputError("ranker.inside_first: needs syntax trees, which this corpus does not have")
        _, place = np.unique(np.round(scores, DECIMALS), return_inverse=True)
        return place + statements.inside * float(len(scores))


class Posterior:
    """The place of the one fault by its exact posterior, learned from bugs of other programs; see `faultloc.learn`.

    Args:
        ridge: penalty of weights and offsets.
        steps: of the optimiser.
        held_out: learn from the bugs that `fit` is given, where it is given some.
        train: else from this collection, or from `mutants` of toolz; None takes a saved model.
        train_path: folder of the collection; None looks under QUARTET_DATA.
        model: file of a saved model; None takes the one that ships for the language of the program.
        mutants: how many to learn from.
        name: under which it stands in tables.
    """

    needs_tree = True

    def __init__(
        self,
        *,
        ridge: float,
        steps: int,
        held_out: bool = True,
        train: str | None = None,
        train_path: str | None = None,
        model: str | None = None,
        mutants: int = 120,
        name: str = "posterior",
    ) -> None:
        self.name, self._ridge, self._steps, self.learns = name, ridge, steps, held_out
        self._train, self._path, self._model, self._mutants = train, train_path, model, mutants
        self._known: dict[str, learn.Example] = {}

    def fit(self, bugs: Sequence[corpus.Bug], key: Any) -> "Fitted":  # noqa: ARG002
        """Learn from bugs, from zero, so that nothing is random; or take what was learned before."""
        if bugs and self.learns:
            return Fitted(self._learned(bugs))
        if self._train is not None:
            return Fitted(_trained(self._train, self._path, self._mutants, self._ridge, self._steps))
        return Fitted(None if self._model is None else models.load(self._model))

    def fit_folds(self, bugs: Sequence[corpus.Bug], place: Callable[..., Any]) -> dict[str, "Fitted"]:
        """What `fit` learns from all bugs but those of each program; all folds are learned together.

        Args:
            bugs: of two programs or more.
            place: see `forest.spread`.
        """
        programs = sorted({bug.program for bug in bugs})
        if not self.learns:
            return dict.fromkeys(programs, self.fit(bugs, None))
        grown = forest.spread(forest.plant([self._example(bug) for bug in bugs]), place)
        weight = np.array([[float(bug.program != name) for name in programs] for bug in bugs])
        learned = learn.fit_folds(
            grown, weight, jax.random.key(0), subclasses=1, restarts=1, steps=self._steps, rate=learn.RATE,
            penalty=learn.Penalty(ridge=self._ridge),
        )  # fmt: skip
        return {name: Fitted(model) for name, model in zip(programs, learned.model, strict=True)}

    def _learned(self, bugs: Sequence[corpus.Bug]) -> models.Model:
        return learn.fit([self._example(bug) for bug in bugs], ridge=self._ridge, steps=self._steps)

    def _example(self, bug: corpus.Bug) -> learn.Example:
        if bug.name not in self._known:
            self._known[bug.name] = learn.Example(program(bug.recording, bug.statements()), bug.faulty)
        return self._known[bug.name]


@functools.lru_cache(maxsize=2)
def _trained(collection: str, path: str | None, mutants: int, ridge: float, steps: int) -> models.Model:
    """A model of a whole collection; the folds and cells of a sweep share it."""
    package, seed, limit = MUTANTS
    made = collection == "mutants"
    bugs = synthetic.bugs(package, mutants, seed, limit) if made else corpus.load(collection, path)
    examples = [learn.Example(program(bug.recording, bug.statements()), bug.faulty) for bug in bugs]
    return learn.fit(examples, ridge=ridge, steps=steps)


@functools.lru_cache(maxsize=4)
def shipped(language: str) -> models.Model:
    """The model that comes with the package; made by `scripts/weights.py`.

    Raises:
        InputError: there is none of this language.
    """
    path = WEIGHTS / f"{language}.npz"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in WEIGHTS.glob("*.npz")))
        raise InputError(
            f"ranker.model: no model of {language} comes with this package (there are {known}); name one, or rank by a "
            "formula such as ranker=ochiai"
        )
    return models.load(path)


class Fitted:
    """A learned posterior; None stands for the model that ships."""

    probabilistic, formula = True, None

    def __init__(self, model: models.Model | None) -> None:
        self._model = model

    def model(self, given: Program) -> models.Model:
        """The model that ranks a program."""
        return shipped(given.language) if self._model is None else self._model

    def scores(self, recording: Recording, statements: Statements | None) -> np.ndarray:
        """`[L]` log-probability of the fault being at each line."""
        return self.scorer(recording, statements)((), ())

    def scorer(
        self, recording: Recording, statements: Statements | None
    ) -> Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray]:
        """`scores` as a function of the lines that are known to be clean and to be buggy, described once for all."""
        given = self.program(recording, statements)
        model = self.model(given)
        return lambda clean, buggy: models.rank(model, given, clean=clean, buggy=buggy)

    def reasons(self, recording: Recording, statements: Statements | None) -> list[str]:
        """`[L]` the features that raise the log-odds of each line most above those of the average line."""
        given = self.program(recording, statements)
        model = self.model(given)
        gains = models.standardised(model, given) * model.weights.mean(0)
        best = np.argsort(-gains, axis=1)[:, :3]
        return [
            ", ".join(f"{model.features[i]} {gain[i]:+.2f}" for i in chosen if gain[i] > 0)
            for chosen, gain in zip(best, gains, strict=True)
        ]

    def bounds(
        self, recording: Recording, statements: Statements | None, key: Any, samples: int, level: float
    ) -> intervals.Bounds:
        """Intervals of the ranks when the tests are drawn anew."""
        given = self.program(recording, statements)
        model = self.model(given)
        assert statements is not None  # `program` has refused it
        _, function = np.unique(statements.function, return_inverse=True)
        if model.subclasses > 1:
            latent = models.latent(model, given, MOVING, function)
            return intervals.latent_intervals(recording.spectrum, latent, key, samples=samples, level=level)
        fixed, slope = models.moving(model, given, MOVING)
        odds = intervals.Linear(fixed[:, 0], slope[:, 0], function)
        return intervals.learned_intervals(recording.spectrum, odds, key, samples=samples, level=level)

    def work(self, recording: Recording, statements: Statements | None) -> int:
        """What a draw of the tests costs beside counting, in entries of the coverage matrix."""
        given = self.program(recording, statements)
        subclasses = self.model(given).subclasses
        return 0 if subclasses == 1 else PAIR * len(given.symbols) * subclasses**2

    def program(self, recording: Recording, statements: Statements | None) -> Program:
        """A program as the model sees it."""
        if statements is None:
            raise InputError("ranker: learns from syntax trees, which this corpus does not have; rank by a formula")
        return program(recording, statements)
