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
    from kdrec.stream import Stream

STRICT = ConfigDict(extra="forbid")
SHARDS = 64  # a table that is split by rows has a multiple of this many, so that usual numbers of devices divide it
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """Shape of the student; the teacher's is this, scaled."""

    trunk: Literal["mlp", "dlrm", "dcn", "mmoe"]
    embedding: int = Field(gt=0)
    layers: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    crosses: int = Field(ge=0)
    experts: int = Field(ge=0)
    shard: bool
    without: tuple[str, ...]

    def columns(self, features: tuple[str, ...]) -> tuple[int, ...]:
        """Numbers of the columns that the student sees.

        Raises:
            InputError: the stream has no such column, or none is left.
        """
        from kdrec.io import InputError

        for name in self.without:
            if name not in features:
                raise InputError(f"model.without: no column {name!r}; the stream has {', '.join(features)}")
        left = tuple(number for number, name in enumerate(features) if name not in self.without)
        if not left:
            raise InputError("model.without: no column is left for the student; take one off the list")
        return left

    def spec(self, stream: "Stream") -> "Spec":
        """The shape of the student for a stream."""
        from kdrec.models import Spec

        rows = -(-stream.vocabulary // SHARDS) * SHARDS if self.shard else stream.vocabulary
        sizes = (rows, len(self.columns(stream.features)), len(stream.numeric), len(stream.tasks))
        return Spec(self.trunk, *sizes, self.embedding, self.layers, self.crosses, self.experts)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Teacher:
    """The teacher: how large, how fresh its labels, and what is wrong with them on purpose."""

    scale: float = Field(gt=0)
    layers: tuple[Annotated[int, Field(gt=0)], ...] | None = Field(min_length=1)
    members: int = Field(gt=0)
    passes: int = Field(gt=0)
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
    form: Literal["mixed", "added"]
    tasks: tuple[str, ...] | dict[str, Annotated[float, Field(ge=0)]] | None
    temperature: float = Field(gt=0)
    space: Literal["probability", "logit"]
    lists: Literal["sigmoid", "softmax"]

    def weights(self) -> tuple[float, ...]:
        """Weights of all students that train together: first that without a teacher, then those asked for."""
        if self.method == "none":
            return (0.0,)
        return (0.0, *(self.weight if isinstance(self.weight, tuple) else (self.weight,)))

    def static(self, tasks: tuple[str, ...], real: tuple[bool, ...]) -> "Method":
        """What is static of it, for the tasks of a stream and whether each is real.

        Raises:
            InputError: the stream has no such task, or the method cannot teach it.
        """
        from kdrec.distill import Method
        from kdrec.io import InputError

        for name in self.tasks or ():
            if name not in tasks:
                raise InputError(f"distill.tasks: no task {name!r}; the stream has {', '.join(tasks)}")
        given = dict.fromkeys(tasks if self.tasks is None else self.tasks, 1.0)
        given |= self.tasks if isinstance(self.tasks, dict) else {}
        chosen = tuple(given.get(name, 0.0) for name in tasks)
        most = max(self.weights()) * max(chosen, default=0)
        if self.method in ("direct", "affine") and self.form == "mixed" and most > 1:
            raise InputError(f"distill.weight: a mixed term takes at most 1, got {most:g}; or give distill.form=added")
        wrong = [name for name, yes, weight in zip(tasks, real, chosen, strict=True) if yes and weight]
        if self.method == "listwise" and wrong:
            others = ", ".join(name for name, yes in zip(tasks, real, strict=True) if not yes) or "none"
            raise InputError(
                f"distill=listwise: task {wrong[0]!r} has values and no probabilities; give distill.tasks, of {others}"
            )
        return Method(self.method, chosen, self.space, self.lists, self.form, real)


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
    source: Literal["teacher", "backfill", "stored"]
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
        if self.source != "teacher" and not path.is_dir():
            raise InputError(f"labels.path: no store at {path}; give the folder that another run has written")
        return Delta(path, tasks, self.checkpoint)

    def channel(self, stream: "Stream", seeds: int, run: str, folder: Path | None) -> "Channel":
        """The road of labels through the store; `run` tells the writers of different runs apart."""
        from kdrec.channel import Channel
        from kdrec.labels import Gate

        gate = Gate(self.gate.ne, self.gate.calibration, self.gate.coverage) if self.gate.active else None
        names = [f"{self.teacher}-{seed}" for seed in range(seeds)]
        store, fill = self.open(stream.tasks, folder), self.source == "backfill"
        writer = f"{self.teacher}-{run}" + "-backfill" * fill
        return Channel(store, writer, names, gate, self.fault, real=tuple(stream.real), fill=fill)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Grid:
    """Teachers to choose from, and how; see `kdrec.search`."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    members: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1)
    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    points: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    prune: bool
    budget: float | None = Field(gt=0)
    seconds: float | None = Field(gt=0)


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
    groups: int = Field(gt=0)
    segments: int = Field(gt=0)
    bins: int = Field(gt=1)
    value: dict[str, float] | None
    export: bool
    limit: int | None = Field(gt=0)
