"""Rows of a run go to `metrics.jsonl`, always, and to wandb where asked."""

import hashlib
import json
import os
from types import TracebackType
from typing import Any, Self

from quartet.results import RunFolder, plain
from quartet.settings import Tracking


class Tracker:
    """Appends each row to the run's `metrics.jsonl` and, if set, to a wandb run. Use as a context manager."""

    def __init__(self, settings: Tracking, folder: RunFolder, config: dict[str, Any]) -> None:
        self._settings, self._folder, self._config = settings, folder, config
        self._file: Any = None
        self._wandb: Any = None

    def __enter__(self) -> Self:
        if not self._folder.writer:
            return self
        self._file = self._folder.metrics.open("a", encoding="utf-8")
        if self._settings.wandb:
            import wandb  # 340 ms and 62 MB: only for those who ask

            mode: Any = os.environ.get("WANDB_MODE", self._settings.mode)
            self._wandb = wandb.init(
                project=self._settings.project,
                mode=mode,
                dir=str(self._folder.path),
                name=self._folder.path.name,
                id=hashlib.sha256(str(self._folder.path.absolute()).encode()).hexdigest()[:12],  # resumed with the run
                resume="allow",
                config=self._config,
            )
        return self

    def log(self, row: dict[str, Any]) -> None:
        """Append one row; it has reached the disk when this returns, so a later checkpoint never outruns it."""
        if self._file is not None:
            self._file.write(json.dumps(plain(row), allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._wandb is not None:
            self._wandb.log({k: v for k, v in plain(row).items() if isinstance(v, int | float)}, step=row["step"])

    def summarise(self, metrics: dict[str, float]) -> None:
        """Make the numbers of the whole run what wandb shows of it."""
        if self._wandb is not None:
            self._wandb.summary.update(metrics)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)
