"""Validated objects that the config builds. Nothing here imports jax when it is loaded."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    import numpy as np

    from rwalk.data import Case

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mni:
    """The MNI152 T1 brain that comes with nilearn, and its tissues as truth."""

    pool: int = Field(ge=1)
    plane: int | None = Field(ge=0)
    halvings: int | None = Field(ge=0, le=3)

    def case(self) -> "Case":
        """Read it."""
        from rwalk import data

        return data.mni(self.pool * 2 ** (self.halvings or 0), self.plane)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class File:
    """An image of the user's."""

    path: str | None
    mask: str | None
    truth: str | None
    pool: int = Field(ge=1)

    def case(self) -> "Case":
        """Read it."""
        from rwalk import data

        return data.from_file(self.path, self.mask, self.pool, self.truth)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Labels46:
    """The public T1 brain with 46 structures."""

    path: str | None
    detail: Literal["groups", "all"]
    pool: int = Field(ge=1)
    halvings: int | None = Field(ge=0, le=3)

    def case(self) -> "Case":
        """Read it."""
        from rwalk import data

        return data.labels46(self.path, self.pool * 2 ** (self.halvings or 0), grouped=self.detail == "groups")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pair:
    """One of the public pair of T1 brains."""

    path: str | None
    which: Literal["A", "B"]
    pool: int = Field(ge=1)
    halvings: int | None = Field(ge=0, le=3)

    def case(self) -> "Case":
        """Read it."""
        from rwalk import data

        return data.pair(self.path, self.which, self.pool * 2 ** (self.halvings or 0))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AutomaticSeeds:
    """Seeds placed by the image's intensities."""

    classes: int = Field(ge=2, le=16)
    every: float = Field(gt=0)
    pieces: Literal["refuse", "ignore"]

    def place(self, case: "Case") -> "np.ndarray":
        """Seeds `[*shape]`, -1 where there is none."""
        from rwalk import seeding

        return seeding.automatic(case.image, case.mask, classes=self.classes, every=self.every, spacing=case.spacing)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SeedFile:
    """Seeds that the user painted."""

    path: str | None
    pieces: Literal["refuse", "ignore"]

    def place(self, case: "Case") -> "np.ndarray":
        """Seeds `[*shape]`, -1 where there is none."""
        from rwalk import data
        from rwalk.checks import InputError

        if self.path is None:
            raise InputError("seeds.path: required; give seeds.path=FILE, or seeds=automatic")
        return data.read_seeds(self.path, case)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TruthSeeds:
    """Seeds placed by the truth: a user who knows."""

    every: float = Field(gt=0)
    pieces: Literal["refuse", "ignore"]

    def place(self, case: "Case") -> "np.ndarray":
        """Seeds `[*shape]`, -1 where there is none."""
        from rwalk import seeding
        from rwalk.checks import InputError

        if case.truth is None:
            raise InputError(f"{case.name}: no truth to take seeds from; give image.truth=FILE, or seeds=automatic")
        return seeding.from_truth(case.truth, case.mask, every=self.every, spacing=case.spacing)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Weights:
    """How differences of intensity become edge weights."""

    convention: Literal["gaussian", "skimage", "grady", "noise"]
    beta: float = Field(ge=0)
    scale: Literal["one", "max", "var", "mad"]
    eps: float = Field(gt=0)
    radius: int = Field(ge=0)
    diagonal: bool

    def graph(self, image: Any, mask: Any, spacing: tuple[float, ...]) -> Any:
        """The lattice of an image."""
        from rwalk import graph

        options = {"convention": self.convention, "scale": self.scale, "eps": self.eps, "radius": self.radius}
        return graph.build(image, beta=self.beta, mask=mask, spacing=spacing, diagonal=self.diagonal, **options)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Problem:
    """What the walker is told beside the image: seeds, priors, or both."""

    kind: Literal["seeds", "priors", "both"]
    gamma: float | None = Field(gt=0)
    path: str | None
    close: bool
    polish: int = Field(ge=0, le=200)
    error: float = Field(ge=0)
    residual: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _complete(self) -> "Problem":
        if self.kind != "seeds" and self.gamma is None:
            raise ValueError(f"gamma is needed where kind={self.kind}; give problem.gamma=0.01, say")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Eigen:
    """How the eigenvectors are computed."""

    method: Literal["lobpcg", "chebyshev", "lanczos", "scipy", "dense"]
    k: int = Field(ge=1)
    normalised: bool
    tol: float = Field(gt=0)
    residual: float = Field(gt=0)
    maximum: int = Field(gt=0)
    guards: int | None = Field(ge=0)

    def plan(self) -> dict[str, Any]:
        """What only this method understands."""
        return {}

    def basis(self, lattice: Any, key: Any, *, start: Any = None, steps: int | None = None) -> Any:
        """The smallest eigenpairs of a lattice, from vectors `[n, m]` if there are some, in so many steps at most."""
        from rwalk import eigen

        return eigen.smallest_eigenpairs(
            lattice,
            self.k,
            method=self.method,
            normalised=self.normalised,
            x0=start,
            tol=self.tol,
            residual=self.residual,
            maximum=self.maximum if steps is None else min(steps, self.maximum),
            guards=self.guards,
            key=key,
            **self.plan(),
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lanczos(Eigen):
    """Lanczos on a function of the operator."""

    operator: Literal["inverted", "filtered", "plain"]

    def plan(self) -> dict[str, Any]:
        """The function."""
        return {"operator": self.operator}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bases:
    """Where bases are kept, and in which portions they are computed."""

    folder: str | None
    write: bool
    path: str | None
    steps: int = Field(ge=8)  # the stopping rule needs six at least
    storage: Literal["bfloat16"] | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Exact:
    """The linear solve that the basis is compared to."""

    tol: float = Field(gt=0)
    rival: float = Field(gt=0)
    aggregates: Literal["cubes", "strong"]
    maximum: int = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Updating:
    """How a basis follows a change of its graph."""

    mode: Literal["stale", "first_order", "second_order", "ritz", "filtered", "woodbury"]
    degree: int = Field(ge=2, le=200)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Serving:
    """A page on which one user paints; `labels` is as many as there are colours at most."""

    port: int = Field(ge=0, le=65535)
    labels: int = Field(ge=2, le=7)
    first: float = Field(gt=0, lt=1)
    residual: float = Field(gt=0, lt=1)
    settle: float = Field(ge=0)
    seconds: float | None = Field(gt=0)
