"""What a user may set about the shell, as validated objects that the config builds. Loads neither jax nor hydra."""

from dataclasses import fields
from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Run:
    """What belongs to a run as such: seed, precision, folder, resumption."""

    seed: int = Field(ge=0)
    precision: Literal["float32", "float64"]
    folder: str = Field(min_length=1)
    resume: bool
    restore: str | None
    limit: int | None = Field(gt=0)
    headline: str | None
    nans: bool
    profile: bool
    trusted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tracking:
    """Where metrics go beside `metrics.jsonl`, which is always written."""

    wandb: bool
    project: str | None = None
    mode: Literal["offline", "online", "disabled"] = "offline"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Checkpoint:
    """When the state is saved: after `every` intervals, or once `seconds` have passed since the last time."""

    every: int | None = Field(gt=0)
    seconds: float | None = Field(gt=0)
    keep: int = Field(gt=0)

    @property
    def enabled(self) -> bool:
        """Whether anything is ever saved."""
        return self.every is not None or self.seconds is not None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Devices:
    """Over what the work is spread. `processes` and what follows matter to `multihost` alone."""

    layout: Literal["single", "data", "multihost"]
    count: int | None = Field(default=None, gt=0)
    coordinator: str | None = None
    processes: int | None = Field(default=None, gt=0)
    process: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "Devices":
        given = [value is not None for value in (self.coordinator, self.processes, self.process)]
        if self.process is not None and self.processes is not None and self.process >= self.processes:
            message = f"process must be below processes={self.processes}, got {self.process}"
            raise ValueError(message)
        if any(given) and not all(given):
            message = "coordinator, processes and process go together; leave out all three under Slurm"
            raise ValueError(message)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings:
    """All of the shell's settings; its field names are the top-level keys that belong to the shell."""

    run: Run
    tracking: Tracking
    checkpoint: Checkpoint
    devices: Devices


SHELL_KEYS = tuple(field.name for field in fields(Settings))
