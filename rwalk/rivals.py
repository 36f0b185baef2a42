"""Validated objects of the comparisons with peers; like `rwalk.options`, without jax."""

from typing import Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rwalk.options import STRICT

SMOKE = 20  # edge of a lattice where the run is only to show that it works


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Resampled:
    """The MNI T1 brain resampled to a lattice, so that times are those of a size."""

    shape: str
    noise: float = Field(ge=0)
    small: int | None
    seconds: float = Field(gt=0)

    @field_validator("shape", mode="before")
    @classmethod
    def _two_or_three_edges(cls, text: object) -> str:
        parts = (text := str(text)).split("x")
        if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) > 3 for part in parts):
            raise ValueError(f"give two or three edges of at least 4 voxels, as 256x256 or 64x64x64, got {text}")
        return text

    def edges(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        full = tuple(int(part) for part in self.shape.split("x"))
        return full if self.small is None else tuple(min(SMOKE, size) for size in full)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rival:
    """Who computes the eigenpairs where it is not `eigen`."""

    name: Literal["shift_invert", "lobpcg_pyamg"] | None
    maximum: int = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Way:
    """How probabilities of seeds are computed; `cg_j`, `cg_mg` and `bf` are scikit-image's modes.

    `online` is the basis alone, `prepared` goes on to a residual that labels need, `cold` and `warm` to a small one.
    """

    name: Literal["online", "prepared", "cold", "warm", "cg_j", "cg_mg", "bf"]
    classes: int = Field(ge=2)
    every: float = Field(gt=0)
