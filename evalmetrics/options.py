"""Validated objects that the config builds. Nothing here imports jax when it is loaded."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from evalmetrics import benchmarks

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Kernel:
    """Score of one region against another; a name in `evalmetrics.kernels`."""

    name: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Zeros:
    """How zero probabilities are lifted before logarithms."""

    method: Literal["clip", "multiplicative", "additive"]
    eps: float = Field(gt=0, lt=0.5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Match:
    """Which region of the prediction answers for which of the reference."""

    method: Literal["hungarian", "sinkhorn", "ordered"]
    objective: Literal["macro", "micro"]
    temperature: float | None = Field(default=None, gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Regions:
    """Which regions count, and what an empty one is worth."""

    background: int | None
    empty: Literal["one", "zero", "skip"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Statistics:
    """What is computed beside the scores."""

    resamples: int = Field(ge=100)
    level: float = Field(gt=0, lt=1)
    eps_sweep: tuple[Annotated[float, Field(gt=0, lt=0.5)], ...]
    surface: bool
    surface_tolerance: float = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pairs:
    """Files of the user: one reference and one prediction, or two folders paired by name."""

    reference: str | tuple[str, ...] | None
    prediction: str | tuple[str, ...] | None
    pattern: str | tuple[str, str]
    kind: Literal["auto", "labels", "probabilities"]
    names: str | None
    sums: Literal["strict", "close", "rest", "any"]
    tolerance: float | None = Field(ge=0)
    stream: int = Field(gt=0)
    limit: int | None = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bsds500:
    """Region benchmark of a hierarchy against the annotators of BSDS500."""

    path: str | None
    limit: int | None = Field(gt=0)

    def source(self, scoring: "Scoring") -> "benchmarks.RegionBenchmark":  # noqa: ARG002
        """The cases, read one at a time."""
        from evalmetrics import benchmarks

        return benchmarks.RegionBenchmark(self.path, self.limit)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Annotators:
    """Agreement of the annotators of BSDS500 among themselves and with the levels of a hierarchy."""

    path: str | None
    limit: int | None = Field(gt=0)

    def source(self, scoring: "Scoring") -> "benchmarks.AnnotatorAgreement":  # noqa: ARG002
        """The cases, read one at a time."""
        from evalmetrics import benchmarks

        return benchmarks.AnnotatorAgreement(self.path, self.limit)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tracts:
    """Soft tract maps of PAM50 against the labels of AMU7T."""

    path: str | None
    onto: Literal["maps", "labels"]

    def source(self, scoring: "Scoring") -> "benchmarks.TractRecovery":
        """One case."""
        from evalmetrics import benchmarks

        return benchmarks.TractRecovery(self.path, self.onto, scoring)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tissues:
    """Classes of a Gaussian mixture against the tissue maps of the MNI brain."""

    classes: int = Field(ge=1, le=16)
    tolerance: float = Field(gt=0)
    iterations: int = Field(gt=0)

    def source(self, scoring: "Scoring") -> "benchmarks.TissueMixture":
        """One case."""
        from evalmetrics import benchmarks

        return benchmarks.TissueMixture(self.classes, self.tolerance, self.iterations, scoring)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Similarity:
    """The tissue maps of the MNI brain against themselves."""

    def source(self, scoring: "Scoring") -> "benchmarks.SelfSimilarity":  # noqa: ARG002
        """One case."""
        from evalmetrics import benchmarks

        return benchmarks.SelfSimilarity()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """How any two maps are scored: what the groups `kernel`, `zeros`, `match`, `regions`, `statistics` say together."""

    kernel: Kernel
    zeros: Zeros
    match: Match
    regions: Regions
    statistics: Statistics
