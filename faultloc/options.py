"""Validated objects that the config builds. Nothing here imports jax when it is loaded."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from faultloc import accuracy, exercise, localize, logistic, rankers

STRICT = ConfigDict(extra="forbid")


def few(mutants: int, limit: int | None) -> int:
    """How many mutants are made: five for each unit of a limit."""
    return mutants if limit is None else min(mutants, 5 * limit)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Statistics:
    """What is computed beside the figures."""

    resamples: int = Field(ge=100)
    level: float = Field(gt=0, lt=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Display:
    """What of a ranking is shown."""

    top: int = Field(gt=0)
    context: int = Field(ge=0)
    beside: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Task:
    """What is done with a ranked program, and what is known of it before."""

    name: Literal["rank", "triage"]
    clean: tuple[str, ...]
    buggy: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Formula:
    """A suspiciousness formula; a name in `faultloc.formulas`."""

    name: str
    inside_first: bool

    def ranker(self) -> "rankers.Formula":
        """What gives lines their scores."""
        from faultloc import rankers

        return rankers.Formula(self.name, inside_first=self.inside_first)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Logistic:
    """Logistic regression on five numbers of each line, learned from bugs of other programs."""

    name: str
    inside_first: Literal[False]

    def ranker(self) -> "logistic.Logistic":
        """What gives lines their scores."""
        from faultloc import logistic

        return logistic.Logistic(self.name)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Posterior:
    """The exact posterior over the place of a single fault, learned from bugs of other programs."""

    name: str
    inside_first: Literal[False]
    ridge: float = Field(gt=0)
    steps: int = Field(gt=0)
    held_out: bool
    train: Literal["bugsinpy", "sir", "mutants"] | None
    train_path: str | None
    model: str | None
    mutants: int = Field(gt=0)
    limit: int | None = Field(gt=0)

    def ranker(self) -> "rankers.Posterior":
        """What gives lines their scores."""
        from faultloc import rankers

        return rankers.Posterior(
            ridge=self.ridge, steps=self.steps, held_out=self.held_out, train=self.train, train_path=self.train_path,
            model=self.model, name=self.name, mutants=few(self.mutants, self.limit),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Collection:
    """Bugs whose faulty lines are known."""

    name: Literal["bugsinpy", "sir", "quixbugs", "own"]
    path: str | None
    limit: int | None = Field(gt=0)

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> "accuracy.HeldOut":  # noqa: ARG002
        """One interval for each program that is held out."""
        from faultloc import accuracy, corpus

        bugs = corpus.load(self.name, self.path, self.limit)
        return accuracy.HeldOut(bugs, ranker.ranker(), resamples=statistics.resamples, level=statistics.level)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mutants:
    """Synthetic bugs, made of an installed package that ships its tests."""

    name: Literal["mutants"]
    package: str
    mutants: int = Field(ge=2)
    limit: int | None = Field(gt=0)
    seed: int
    test_timeout: float = Field(gt=0)

    @property
    def count(self) -> int:
        """How many mutants are made."""
        return few(self.mutants, self.limit)

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> "exercise.Exercise":
        """One interval for each mutant, one for what is learned from them."""
        from faultloc import exercise

        return exercise.Exercise(self, ranker.ranker(), display, statistics, task)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Project:
    """A Python project of the user whose tests fail."""

    path: str
    watch: tuple[str, ...]
    arguments: tuple[str, ...]
    python: str | None
    imports: Literal["drop", "every"]
    test_timeout: float | None = Field(gt=0)
    timeout: float | None = Field(gt=0)

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> "localize.Localizer":
        """One interval: run the tests, rank the lines."""
        from faultloc import localize

        return localize.Localizer(lambda: localize.from_project(self), ranker.ranker(), display, statistics, task)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CProgram:
    """A C program of the user, built for gcov, some of whose tests fail."""

    path: str
    tests: str
    build: str | None
    watch: tuple[str, ...]
    gcov: str
    test_timeout: float = Field(gt=0)

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> "localize.Localizer":
        """One interval: build, run the tests, rank the lines."""
        from faultloc import localize

        return localize.Localizer(lambda: localize.from_c(self), ranker.ranker(), display, statistics, task)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spectrum:
    """A spectrum that another tool left."""

    path: str | None
    outcomes: str | None
    root: str

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> "localize.Localizer":
        """One interval: read it, rank the lines."""
        from faultloc import localize

        return localize.Localizer(lambda: localize.from_spectrum(self), ranker.ranker(), display, statistics, task)
