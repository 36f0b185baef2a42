"""What gives the lines of a program their scores: a formula, with or without the rule that functions lead, or a model.

A ranker has a `name`, `needs_tree` and `fit(bugs, key)`, which returns what scores. That has `scores(recording,
statements)`, `[L]`, higher is more suspicious; `formula`, where the scores are those of one; `reasons(recording,
statements)`, `[L]` what else speaks for each line; and `probabilistic`, whether the scores are log-probabilities.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from faultloc import corpus, formulas, learn, models, spectrum
from faultloc.io import InputError, Recording
from faultloc.metrics import DECIMALS
from faultloc.programs import Program, program
from faultloc.tree import Statements


class Formula:
    """A suspiciousness formula; learns nothing.

    Args:
        name: see `formulas.get`.
        inside_first: lines of functions come before those that only run at import time, each kind in the order of the
            formula. Half of the lines that Python tests run are of the second kind, and few bugs are.

    Raises:
        InputError: there is no such formula.
    """

    probabilistic = False

    def __init__(self, name: str, *, inside_first: bool = False) -> None:
        try:
            self.formula = formulas.get(name)
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
        steps: of the optimiser at most.
        train: collection to learn from where no bug is given.
        train_path: its folder; None looks under QUARTET_DATA.
    """

    name, needs_tree = "posterior", True

    def __init__(self, *, ridge: float, steps: int, train: str, train_path: str | None) -> None:
        self._ridge, self._steps, self._train, self._path = ridge, steps, train, train_path
        self._known: dict[str, learn.Example] = {}

    def fit(self, bugs: Sequence[corpus.Bug], key: Any) -> "Fitted":  # noqa: ARG002
        """Learn from bugs; the optimum is the only one there is in practice, so nothing is random."""
        bugs = bugs or corpus.load(self._train, self._path)
        return Fitted(learn.fit([self._example(bug) for bug in bugs], ridge=self._ridge, steps=self._steps))

    def _example(self, bug: corpus.Bug) -> learn.Example:
        if bug.name not in self._known:
            self._known[bug.name] = learn.Example(program(bug.recording, bug.statements()), bug.faulty)
        return self._known[bug.name]


class Fitted:
    """A learned posterior."""

    probabilistic, formula = True, None

    def __init__(self, model: models.Model) -> None:
        self.model = model

    def scores(self, recording: Recording, statements: Statements | None) -> np.ndarray:
        """`[L]` log-probability of the fault being at each line."""
        return models.rank(self.model, self._program(recording, statements))

    def reasons(self, recording: Recording, statements: Statements | None) -> list[str]:
        """`[L]` the features that raise the log-odds of each line most above those of the average line."""
        values = models.standardised(self.model, self._program(recording, statements))
        gains = values * self.model.weights.mean(0)
        best = np.argsort(-gains, axis=1)[:, :3]
        return [
            ", ".join(f"{self.model.features[i]} {gain[i]:+.2f}" for i in chosen if gain[i] > 0)
            for chosen, gain in zip(best, gains, strict=True)
        ]

    def _program(self, recording: Recording, statements: Statements | None) -> Program:
        if statements is None:
            raise InputError("ranker: learns from syntax trees, which this corpus does not have; rank by a formula")
        return program(recording, statements)
