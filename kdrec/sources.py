"""Validated objects that the config builds streams from. Nothing here imports jax when it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from kdrec.simulator import Simulator
    from kdrec.stream import Columns

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Simulated:
    """A drifting stream with known truth; see `kdrec.simulator.Simulator`."""

    events: int = Field(gt=0)
    users: int = Field(gt=1)
    items: int = Field(gt=0)
    birth: int = Field(gt=0)
    half_life: float = Field(gt=0)
    turn: float = Field(gt=0)
    dimension: int = Field(gt=0)
    strength: float = Field(ge=0)
    request: Literal[1, 2, 4, 8, 16, 32, 64]
    daily: int = Field(gt=0)
    watch: bool
    seed: int = Field(ge=0)
    segment: str
    group: str

    def stream(self) -> "Simulator":
        """The stream."""
        from kdrec.simulator import Simulator

        outside = ("segment", "group")
        values = {name: value for name, value in vars(self).items() if name not in outside and name[0] != "_"}
        return Simulator(**values)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Order:
    """What a stream must be like, and where it is kept once prepared."""

    sort: bool
    duplicates: Literal["refuse", "keep"]
    gaps: Literal["refuse", "keep"]
    buckets: int | None = Field(gt=0)
    cache: str | None
    segment: str
    group: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Public(Order):
    """A public stream that the user has on disk."""

    name: Literal[
        "movietweetings",
        "movielens_100k",
        "movielens_1m",
        "movielens_small",
        "kuairand",
        "kuairand_pure",
        "kuairand_1k",
    ]
    path: str | None
    unseen: Literal["refuse", "unknown"]
    values: bool

    def stream(self) -> "Columns":
        """The stream, prepared on first use."""
        from kdrec.corpus import public
        from kdrec.data import Rules

        rules = Rules(self.sort, self.duplicates, self.gaps, self.buckets)
        return public(self.name, self.path, self.unseen, rules, self.cache, values=self.values)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Table(Order):
    """A table of the user: which column plays which part."""

    path: str
    columns: tuple[str, ...] | None = Field(min_length=1)
    user: str | None
    item: str | None
    time: str | None
    unit: Literal["s", "ms", "us", "yymmddhh"]
    pace: float = Field(gt=0)
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    labels: dict[str, float] | None
    values: dict[str, Annotated[float, Field(gt=0)]] | None
    delimiter: str = Field(min_length=1)

    def stream(self) -> "Columns":
        """The stream, prepared on first use."""
        from kdrec.corpus import table
        from kdrec.data import Rules

        return table(
            Path(self.path).expanduser(),
            roles={"user": self.user, "item": self.item, "time": self.time},
            categories=self.categories,
            numbers=self.numbers,
            labels=self.labels or {},
            values=self.values or {},
            unit=self.unit,
            delimiter=self.delimiter,
            rules=Rules(self.sort, self.duplicates, self.gaps, self.buckets),
            cache=self.cache,
            columns=self.columns,
            pace=self.pace,
        )
