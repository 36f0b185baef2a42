"""Validated objects that the config of a registration builds. Nothing here imports jax when it is loaded."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rwalk.options import STRICT

if TYPE_CHECKING:
    from rwalk.data import Case
    from rwalk.pairs import Pair

LEAST = 6  # voxels that the shortest edge of a coarse image has


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Warped:
    """A moving image made from the fixed one by a random field that is known."""

    amplitude: float = Field(gt=0)
    smoothness: float = Field(gt=0)
    noise: float = Field(ge=0)
    seed: int = Field(ge=0)

    def pair(self, case: "Case") -> "Pair":
        """Make it."""
        from rwalk import pairs

        return pairs.warped(
            case, amplitude=self.amplitude, smoothness=self.smoothness, noise=self.noise, seed=self.seed
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Other:
    """The second brain of the public pair, for image=pair."""

    path: str | None
    which: Literal["A", "B"]
    pool: int = Field(ge=1)
    halvings: int | None = Field(ge=0, le=3)

    def pair(self, case: "Case") -> "Pair":
        """Read it."""
        from rwalk import data, pairs

        return pairs.of_cases(case, data.pair(self.path, self.which, self.pool * 2 ** (self.halvings or 0)))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MovingFile:
    """A moving image of the user's, with label maps of both images where there are any."""

    path: str | None
    labels: str | None
    reference: str | None

    def pair(self, case: "Case") -> "Pair":
        """Read it."""
        from rwalk import pairs

        return pairs.from_files(case, self.path, self.labels, self.reference)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Dissimilarity:
    """How unlike the images are under a displacement, and how much that counts."""

    kind: Literal["ssd", "ncc", "mind"]
    patch: int = Field(ge=0, le=8)
    alpha: float = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pyramid:
    """The levels from coarse to fine and how a level is solved."""

    estimate: Literal["expected", "map"]
    gamma: float = Field(gt=0)
    hold: float | None = Field(gt=0)
    levels: list[tuple[float, int, int]]

    @field_validator("levels")
    @classmethod
    def _descending(cls, levels: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
        edges = [edge for edge, _, _ in levels]
        if not levels or edges != sorted(set(edges), reverse=True) or any(min(level) <= 0 for level in levels):
            raise ValueError(
                f"must be lists [edge, radius, rounds] of positive numbers whose edges fall, such as [[4, 2, 3], "
                f"[2, 1, 4]]; got {levels}"
            )
        return levels

    def used(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[tuple[int, int, int]]:
        """Factor, radius and rounds of each level: cubes of whole voxels, no factor twice, images not too small."""
        found: dict[int, tuple[int, int, int]] = {}
        for edge, radius, rounds in self.levels:
            factor = max(round(edge / min(spacing)), 1)
            found[factor] = (factor, radius, rounds)
        enough = [level for factor, level in found.items() if min(shape) // factor >= LEAST]
        return enough or [(1, *self.levels[-1][1:])]
