"""Validated objects for learned models. Nothing here imports jax when it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from faultloc.options import Collection, Display, Statistics, Task

if TYPE_CHECKING:
    from faultloc import selection

STRICT = ConfigDict(extra="forbid")
Learner = Literal["posterior", "hard_em", "soft_em"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tflm:
    """A tractable fault localization model, learned from bugs of other programs."""

    name: str
    inside_first: Literal[False]
    learner: Learner
    features: tuple[str, ...] = Field(min_length=1)
    subclasses: int = Field(gt=0, le=64)
    listwise: float = Field(ge=0)
    pairwise: float = Field(ge=0)
    ridge: float = Field(gt=0)
    generated: tuple[str, ...]
    tune: int = Field(ge=0)
    restarts: int = Field(gt=0)
    steps: int = Field(gt=0)
    rate: float = Field(gt=0)
    grid: tuple[dict[str, Any], ...]
    criterion: Literal["skipped", "likelihood", "loss"]
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _check(self) -> "Tflm":
        if self.listwise == self.pairwise == 0:
            raise ValueError("listwise and pairwise are both 0: nothing is left to minimise; raise one")
        if self.tune and self.learner == "posterior":
            raise ValueError(
                "tune: is for hard_em and soft_em; the posterior is learned by the gradient anyway, give 0"
            )
        known = {"learner", "features", "subclasses", "listwise", "pairwise", "ridge", "generated", "tune"}
        for entry in self.grid:
            strange = sorted(set(entry) - known)
            if strange:
                raise ValueError(f"grid: no key {strange[0]!r}; an entry may change {', '.join(sorted(known))}")
        return self

    def ranker(self) -> "selection.Tflm":
        """What gives lines their scores."""
        from faultloc import selection

        base = selection.Setting(
            self.learner,
            self.features,
            self.subclasses,
            self.listwise,
            self.pairwise,
            self.ridge,
            self.generated,
            self.tune,
        )
        # Lists of the config become tuples, as those of the base are.
        entries: list[Any] = [
            {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()} for entry in self.grid
        ]
        settings = [base._replace(**entry) for entry in entries] or [base]
        return selection.Tflm(
            settings, criterion=self.criterion, restarts=self.restarts, steps=self.steps, rate=self.rate, seed=self.seed
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Subjects(Collection):
    """The bugs of a collection, described instead of ranked."""

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> Any:  # noqa: ARG002
        """One interval for each program."""
        from faultloc import corpus, subjects

        return subjects.Subjects(corpus.load(self.name, self.path, self.limit))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Timing:
    """A program of a given size, timed instead of ranked."""

    way: Literal["tflm", "deeprob", "spflow"]
    size: int = Field(gt=1)
    subclasses: int = Field(gt=0, le=64)
    repetitions: int = Field(gt=0)
    peers: Path
    worker: Path
    timeout: float = Field(gt=0)
    limit: int | None = Field(gt=0)

    def source(self, ranker: Any, statistics: Statistics, display: Display, task: Task) -> Any:  # noqa: ARG002
        """One interval."""
        from faultloc import timing

        size = self.size if self.limit is None else min(self.size, 100 * self.limit)
        return timing.Timing(
            self.way, size, self.subclasses, repetitions=self.repetitions, peers=self.peers, worker=self.worker,
            timeout=self.timeout,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Training(Collection):
    """The bugs of a collection, to learn a model from and keep it."""

    every: int = Field(gt=0)

    def source(self, ranker: Tflm, statistics: Statistics, display: Display, task: Task) -> Any:  # noqa: ARG002
        """One interval for every few steps of learning."""
        from faultloc import corpus, training
        from faultloc.io import InputError

        if not isinstance(ranker, Tflm) or ranker.learner != "posterior" or ranker.grid:
            raise InputError(
                "ranker: corpus=training learns one setting by the gradient; choose ranker=tflm without a grid"
            )
        bugs = corpus.load(self.name, self.path, self.limit)
        return training.Training(bugs, ranker.ranker(), every=self.every)
