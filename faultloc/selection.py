"""Rank with a model learned from bugs of other programs; settings are chosen inside the training folds.

For every program that is left out, each setting is tried on the training programs alone, one of them left out after the
other; the best is learned again from all of them. A model that leaves out two programs serves both, so all of them are
learned in one pass.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from faultloc import em, gradient, learn, metrics, models
from faultloc import forest as forests
from faultloc.corpus import Bug
from faultloc.features import GROUPS, NAMES
from faultloc.forest import Example, Forest
from faultloc.io import InputError
from faultloc.programs import program
from faultloc.rankers import Fitted, demand

Criterion = Literal["skipped", "likelihood", "loss"]


class Setting(NamedTuple):
    """What can be chosen.

    Attributes:
        learner: posterior (the gradient on the place of the fault) | hard_em | soft_em.
        features: names of groups, see `features.GROUPS`, or of single features; one with a minus is taken out.
        subclasses: K.
        listwise, pairwise: weights of the terms of the loss of `learn.fit`.
        ridge: see `learn.Penalty`.
        generated: features that the subclasses of EM also generate; likewise.
        tune: steps of the gradient after EM, see `faultloc.tuning`.
    """

    learner: Literal["posterior", "hard_em", "soft_em"] = "posterior"
    features: tuple[str, ...] = tuple(GROUPS)
    subclasses: int = 1
    listwise: float = 1.0
    pairwise: float = 10.0
    ridge: float = 10.0
    generated: tuple[str, ...] = ()
    tune: int = 0


class Tflm:
    """A ranker; see `faultloc.rankers`.

    Args:
        settings: to choose from; the first wins ties.
        criterion: fraction skipped with ties against us, log-probability of the faulty lines, or the loss that is
            minimised, with both of its terms as a `Setting` has them by default, less its penalty.
        restarts: of the model that is learned with the chosen setting; the choice itself is made without.
        steps: of the gradient, or rounds of EM.
        rate: of the gradient.
        seed: of the starts.
    """

    name, needs_tree, learns = "tflm", True, True

    def __init__(
        self, settings: Sequence[Setting], *, criterion: Criterion, restarts: int, steps: int, rate: float, seed: int
    ) -> None:
        self._settings, self._criterion = tuple(settings), criterion
        self._restarts, self._steps, self._rate, self._key = restarts, steps, rate, jax.random.key(seed)
        self.found: dict[str, Any] = {}

    def fit(self, bugs: Sequence[Bug], key: jax.Array) -> Fitted:  # noqa: ARG002
        """Learn one model from all bugs, its setting chosen with one program left out after the other.

        Raises:
            InputError: there is no bug.
        """
        demand(bugs)
        forest, groups = self._plant(bugs)
        chosen = self._choose(forest, groups, [()])[0]
        return Fitted(self._learn(forest, np.ones((forest.bugs, 1)), self._settings[chosen], self._restarts).model[0])

    def fit_folds(self, bugs: Sequence[Bug], place: Callable[..., Any]) -> dict[str, Fitted]:
        """Learn one model for every program, from the bugs of the others; `found` says what was chosen.

        Args:
            bugs: of two programs or more.
            place: see `forest.spread`.
        """
        forest, groups = self._plant(bugs)
        forest = forests.spread(forest, place)
        programs = sorted(set(groups))
        chosen = self._choose(forest, groups, [(name,) for name in programs])
        weight = np.array([[float(group != name) for name in programs] for group in groups])
        fitted: dict[str, Fitted] = {}
        skipped = np.zeros((forest.bugs, self._restarts))
        for index in sorted(set(chosen)):
            learned = self._learn(forest, weight, self._settings[index], self._restarts)
            for fold, name in enumerate(programs):
                if chosen[fold] == index:
                    fitted[name] = Fitted(learned.model[fold])
                    here = [i for i, group in enumerate(groups) if group == name]
                    for r in range(self._restarts):
                        skipped[here, r] = _scores(forest, self._faulty, here, learned.scores[:, fold, r], "skipped")
        by_restart = skipped.mean(0)
        self.found = {"restarts/mean": float(by_restart.mean()), "restarts/sd": float(by_restart.std())}
        self.found |= {"settings": len(self._settings)}
        self.found |= {f"chosen/{i}": float(np.mean(np.array(chosen) == i)) for i in range(len(self._settings))}
        return fitted

    def task(self, bugs: Sequence[Bug]) -> "Task":
        """Learning from all bugs with the first setting, in pieces."""
        forest, _ = self._plant(bugs)
        setting = self._settings[0]
        use = _places(setting.features)[:, None]
        penalty = learn.Penalty(setting.ridge, setting.listwise, setting.pairwise, use)
        weight = np.ones((forest.bugs, self._restarts))
        return Task(forest, weight, self._key, penalty, setting.subclasses, self._steps, self._rate)

    def _plant(self, bugs: Sequence[Bug]) -> tuple[Forest, list[str]]:
        self._faulty = [bug.faulty for bug in bugs]
        examples = [Example(program(bug.recording, bug.statements()), bug.faulty) for bug in bugs]
        return forests.plant(examples), [bug.program for bug in bugs]

    def _choose(self, forest: Forest, groups: list[str], left_out: list[tuple[str, ...]]) -> list[int]:
        """The setting for each set of programs left out, by leaving out one more."""
        if len(self._settings) == 1 or len(set(groups)) < 2 + len(left_out[0]):
            return [0] * len(left_out)  # nothing to choose, or too few programs to leave out one more
        columns = sorted(
            {frozenset((*out, name)) for out, name in itertools.product(left_out, set(groups))}, key=sorted
        )
        weight = np.array([[float(group not in column) for column in columns] for group in groups])
        table = np.zeros((len(left_out), len(self._settings)))
        for s, setting in enumerate(self._settings):
            scores = self._learn(forest, weight, setting, 1).scores[:, :, 0]
            for row, out in enumerate(left_out):
                every = []
                for name in set(groups) - set(out):
                    here = [i for i, group in enumerate(groups) if group == name]
                    column = columns.index(frozenset((*out, name)))
                    every += _scores(forest, self._faulty, here, scores[:, column], self._criterion)
                table[row, s] = np.mean(every)
        return [int(best) for best in table.argmax(1)]

    def _learn(self, forest: Forest, weight: np.ndarray, setting: Setting, restarts: int) -> learn.Learned:
        use = _places(setting.features)
        if setting.learner == "posterior":
            penalty = learn.Penalty(setting.ridge, setting.listwise, setting.pairwise, use[:, None])
            return learn.fit_folds(
                forest, weight, self._key, subclasses=setting.subclasses, restarts=restarts, steps=self._steps,
                rate=self._rate, penalty=penalty,
            )  # fmt: skip
        return em.fit_folds(
            forest, weight, self._key, subclasses=setting.subclasses, restarts=restarts, rounds=self._steps,
            hard=setting.learner == "hard_em", generated=np.flatnonzero(_places(setting.generated)), use=use,
            ridge=setting.ridge, tune=setting.tune,
        )  # fmt: skip


class Task(NamedTuple):
    """One model to learn, with its restarts side by side; see `learn` for the fields."""

    forest: Forest
    weight: np.ndarray
    key: jax.Array
    penalty: learn.Penalty
    subclasses: int
    steps: int
    rate: float

    @property
    def bugs(self) -> int:
        """B."""
        return self.forest.bugs

    def start(self) -> gradient.Progress:
        """Before the first step."""
        count = self.weight.shape[1]
        return gradient.start(
            self.forest, self.key, self.subclasses, count, rate=self.rate, steps=self.steps, restarts=count
        )  # fmt: skip

    def advance(self, progress: gradient.Progress, count: int) -> gradient.Progress:
        """After `count` more steps."""
        return gradient.advance(progress, self.forest, self.weight, self.penalty, count, self.rate, self.steps)

    def losses(self, progress: gradient.Progress) -> np.ndarray:
        """`[restarts]`."""
        return gradient.losses(progress.parameters, self.forest, self.weight, self.penalty)

    def model(self, progress: gradient.Progress, index: int) -> models.Model:
        """One of the restarts as a model."""
        return learn.model(progress.parameters, self.forest, self.weight, self.penalty, index)


def _places(names: Sequence[str]) -> np.ndarray:
    """`[F]` one for the features that are named.

    Raises:
        InputError: a name is neither a group nor a feature.
    """
    use = np.zeros(len(NAMES), np.float32)
    for name in names:
        plain = name.removeprefix("-")
        members = GROUPS.get(plain, (plain,))
        if not set(members) <= set(NAMES):
            known = f"the groups {', '.join(GROUPS)} and {', '.join(NAMES)}"
            raise InputError(f"ranker.features: no feature {plain!r}; there are {known}")
        use[[NAMES.index(member) for member in members]] = plain == name
    return use


def _scores(
    forest: Forest, faulty: list[np.ndarray], bugs: list[int], scores: np.ndarray, criterion: Criterion
) -> list[float]:
    """How well one model ranks each of some bugs, higher is better."""
    lines = [scores[forest.place[i]].astype(np.float64) for i in bugs]
    if criterion == "skipped":
        bands = [metrics.band(s, faulty[i]) for s, i in zip(lines, bugs, strict=True)]
        return [metrics.fraction_skipped(band, "strict") for band in bands]
    found = [float(np.logaddexp.reduce(s[faulty[i]])) for s, i in zip(lines, bugs, strict=True)]
    if criterion == "likelihood":
        return found
    both = Setting()
    above = [
        np.logaddexp(0, np.delete(s, faulty[i]) - f).sum() / len(s) for s, f, i in zip(lines, found, bugs, strict=True)
    ]
    return [both.listwise * f - both.pairwise * float(a) for f, a in zip(found, above, strict=True)]
