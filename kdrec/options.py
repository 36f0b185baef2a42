"""Validated objects that the config builds. Nothing here imports jax when it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from kdrec.channel import Channel
    from kdrec.distill import Method
    from kdrec.labels import Store
    from kdrec.models import Spec
    from kdrec.simulator import Simulator
    from kdrec.stream import Columns, Stream

STRICT = ConfigDict(extra="forbid")
SHARDS = 64  # a table that is split by rows has a multiple of this many, so that usual numbers of devices divide it
Fraction = Annotated[float, Field(ge=0, lt=1)]


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

    name: Literal["movietweetings", "movielens_100k", "movielens_1m", "kuairand"]
    path: str | None
    unseen: Literal["refuse", "unknown"]

    def stream(self) -> "Columns":
        """The stream, prepared on first use."""
        from kdrec.corpus import public
        from kdrec.data import Rules

        rules = Rules(self.sort, self.duplicates, self.gaps, self.buckets)
        return public(self.name, self.path, self.unseen, rules, self.cache)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Table(Order):
    """A table of the user: which column plays which part."""

    path: str
    user: str
    item: str
    time: str
    unit: Literal["s", "ms", "us"]
    categories: tuple[str, ...]
    numbers: tuple[str, ...]
    labels: dict[str, float] = Field(min_length=1)
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
            labels=self.labels,
            unit=self.unit,
            delimiter=self.delimiter,
            rules=Rules(self.sort, self.duplicates, self.gaps, self.buckets),
            cache=self.cache,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """Shape of the student; the teacher's is this, scaled."""

    trunk: Literal["mlp", "dlrm", "dcn", "mmoe"]
    embedding: int = Field(gt=0)
    layers: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    crosses: int = Field(ge=0)
    experts: int = Field(ge=0)
    shard: bool

    def spec(self, stream: "Stream") -> "Spec":
        """The shape for a stream."""
        from kdrec.models import Spec

        rows = -(-stream.vocabulary // SHARDS) * SHARDS if self.shard else stream.vocabulary
        sizes = (rows, len(stream.features), len(stream.numeric), len(stream.tasks))
        return Spec(self.trunk, *sizes, self.embedding, self.layers, self.crosses, self.experts)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Teacher:
    """The teacher: how large, how fresh its labels, and what is wrong with them on purpose."""

    scale: float = Field(gt=0)
    rate: float = Field(gt=0)
    refresh: Annotated[int, Field(gt=0)] | Literal["never"]
    warmup: Fraction
    slope: float
    shift: float
    segment_shift: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Distill:
    """How a student learns from teacher labels; see `kdrec.distill.loss`."""

    method: Literal["none", "direct", "affine", "auxiliary", "pairwise", "listwise", "hidden"]
    weight: float | tuple[float, ...]
    tasks: tuple[str, ...] | None
    temperature: float = Field(gt=0)
    space: Literal["probability", "logit"]
    lists: Literal["sigmoid", "softmax"]

    def weights(self) -> tuple[float, ...]:
        """Weights of all students that train together: first that without a teacher, then those asked for."""
        if self.method == "none":
            return (0.0,)
        return (0.0, *(self.weight if isinstance(self.weight, tuple) else (self.weight,)))

    def static(self, tasks: tuple[str, ...]) -> "Method":
        """What is static of it, for the tasks of a stream.

        Raises:
            InputError: the stream has no such task.
        """
        from kdrec.distill import Method
        from kdrec.io import InputError

        for name in self.tasks or ():
            if name not in tasks:
                raise InputError(f"distill.tasks: no task {name!r}; the stream has {', '.join(tasks)}")
        chosen = tuple(self.tasks is None or name in self.tasks for name in tasks)
        return Method(self.method, chosen, self.space, self.lists)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Lockstep:
    """Labels go from teacher to student at once and are not kept."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Limits:
    """Beyond which a version of a teacher is bad; see `kdrec.labels.Gate`."""

    active: bool
    ne: float = Field(gt=0)
    calibration: float = Field(ge=1)
    coverage: float = Field(ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Labels:
    """Labels go through a store: who writes them, who may be read."""

    kind: Literal["memory", "delta"]
    path: str | None
    source: Literal["teacher", "stored"]
    teacher: str = Field(min_length=1)
    first: int = Field(ge=0)
    last: int | None = Field(ge=0)
    table: int | None = Field(ge=0)
    gate: Limits
    fault: Literal["none", "killed", "late", "duplicate", "missing", "bad"]
    checkpoint: int = Field(gt=0)
    retention: float | None = Field(gt=0)

    def open(self, tasks: tuple[str, ...], folder: Path | None) -> "Store":
        """The store, in a folder where `path` names no other.

        Raises:
            InputError: it cannot be opened, or keeps labels of other tasks.
        """
        from kdrec.io import InputError

        if self.kind == "memory":
            from kdrec.memory import Memory

            return Memory(tasks)
        from kdrec.delta import Delta

        path = folder if self.path is None else Path(self.path).expanduser()
        if path is None:
            raise InputError("labels.path: required; give the folder of the store, or labels=memory")
        if self.source == "stored" and not path.is_dir():
            raise InputError(f"labels.path: no store at {path}; give the folder that another run has written")
        return Delta(path, tasks, self.checkpoint)

    def channel(self, tasks: tuple[str, ...], seeds: int, run: str, folder: Path | None) -> "Channel":
        """The road of labels through the store; `run` tells the writers of different runs apart."""
        from kdrec.channel import Channel
        from kdrec.labels import Gate

        gate = Gate(self.gate.ne, self.gate.calibration, self.gate.coverage) if self.gate.active else None
        names = [f"{self.teacher}-{seed}" for seed in range(seeds)]
        return Channel(self.open(tasks, folder), f"{self.teacher}-{run}", names, gate, self.fault)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grid:
    """Teachers to choose from, and how; see `kdrec.search`."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    points: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    prune: bool
    budget: float | None = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sharing:
    """How many students one teacher has; see `kdrec.sharing`."""

    students: int = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Training:
    """One pass over the stream."""

    batch: int = Field(gt=0)
    interval: int = Field(gt=0)
    rate: float = Field(gt=0)
    start: Fraction
    skip: Fraction
    seeds: int = Field(gt=0)
    segments: int = Field(gt=0)
    bins: int = Field(gt=1)
    export: bool
    limit: int | None = Field(gt=0)
