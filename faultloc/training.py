"""Learn a model from a whole collection as an experiment: a killed run goes on where it was saved."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faultloc import forest, gradient, models
from faultloc.corpus import Bug
from faultloc.selection import Tflm


class Training:
    """Some steps of the gradient an interval; the model goes to `model.npz` in the folder of the run.

    Args:
        bugs: to learn from.
        ranker: with its one setting.
        every: steps an interval.
    """

    def __init__(self, bugs: Sequence[Bug], ranker: Tflm, *, every: int) -> None:
        self._task = ranker.task(bugs)
        self._every = min(every, self._task.steps)
        self._ended: gradient.Progress | None = None

    def __len__(self) -> int:
        return -(-self._task.steps // self._every)

    def totals(self) -> gradient.Progress:
        """Before the first step."""
        return self._task.start()

    def score(
        self,
        index: int,
        totals: gradient.Progress,
        *,
        key: jax.Array,  # noqa: ARG002
        place: Callable[..., Any],
    ) -> tuple[gradient.Progress, dict[str, Any]]:
        """Take the steps of an interval; the row has the loss of the best restart and of all."""
        self._task = self._task._replace(forest=forest.spread(self._task.forest, place))
        count = min(self._every, self._task.steps - index * self._every)
        self._ended = self._task.advance(totals, count)
        loss = self._task.losses(self._ended)
        row = {"loss": float(loss.min()), "loss/mean": float(loss.mean()), "loss/sd": float(loss.std())}
        return self._ended, row | {"steps": int(self._ended.step), "bugs": self._task.bugs}

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:  # noqa: ARG002
        """Write the model of the best restart."""
        if self._ended is not None:
            best = int(np.argmin(self._task.losses(self._ended)))
            print(models.save(folder / "model.npz", self._task.model(self._ended, best)))
