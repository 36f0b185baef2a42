"""The one run loop: restore, iterate, log, save, result."""

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import jax

from quartet import devices, progress
from quartet.checkpoints import Checkpoints
from quartet.faults import UserFault
from quartet.results import RunFolder, plain, provenance
from quartet.settings import Settings
from quartet.tracking import Tracker


class Experiment(Protocol):
    """What a package hands to the shell; see `docs/architecture.md`.

    A row of `run` may carry `error`, one line of text, where a case of a batch was bad: it is reported, the others
    go on, and the command ends with exit code 2. The last row may carry `summary`, the numbers of the whole run, where
    those of its last interval are not what a table should show. An experiment with a method `keep_in(folder)` is told
    the folder of its run before `init`, for what it keeps beside its state.
    """

    def length(self) -> int:
        """Number of intervals."""

    def init(self, key: jax.Array) -> Any:
        """State before the first interval: a NamedTuple with `step` and `key` among its leaves."""

    def run(self, state: Any, *, place: devices.Place) -> Any:
        """Iterate `(state, metrics)` from `state.step` on."""

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write pictures and pages of a finished run."""


def drive(experiment: Experiment, settings: Settings, folder: RunFolder, record: dict[str, Any]) -> dict[str, Any]:
    """Run an experiment from where its checkpoints left off to its end, and keep the result.

    Args:
        experiment: see `Experiment`.
        settings: the shell's part of the config.
        folder: where everything goes.
        record: the resolved config (`config`) and the files that were read (`inputs`), kept with the result.

    Returns:
        What `result.json` holds: `metrics` (the numbers of the last row, or of its summary), `failed` (one line per
        bad case), `headline`, `seconds`, `provenance` and the record.
    """
    start = time.perf_counter()
    place = devices.placement(settings.devices)
    if hasattr(experiment, "keep_in"):
        experiment.keep_in(folder.path)
    fresh = experiment.init(jax.random.key(settings.run.seed))
    with Checkpoints(folder.path / "checkpoints", settings.checkpoint, progress.say) as checkpoints:
        state, rows = _start(fresh, settings, folder, checkpoints)
        with (
            _profile(settings, folder),
            Tracker(settings.tracking, folder, record["config"]) as tracker,
            progress.bar(folder.path.name, experiment.length(), int(state.step)) as bar,
        ):
            for state, metrics in experiment.run(state, place=place):  # noqa: B020 - the loop is the state's life
                row = plain({"step": int(state.step), **metrics})
                rows.append(row)
                tracker.log(row)
                if "error" in row:
                    bar.say(row["error"])
                if settings.checkpoint.enabled and int(state.step) < experiment.length():
                    checkpoints.maybe_save(int(state.step), state)
                bar.advance(row.get("case", ""))
            metrics = _numbers(rows[-1].get("summary", rows[-1])) if rows else {}
            tracker.summarise(metrics)
    result = {
        "metrics": metrics,
        "headline": metrics.get(settings.run.headline) if settings.run.headline else _first(metrics),
        "failed": [row["error"] for row in rows if "error" in row],
        "seconds": time.perf_counter() - start,
        "provenance": provenance(),
        **record,
    }
    folder.write("result.json", result)  # whatever the report or the headline runs into, the numbers are kept
    if folder.writer and hasattr(experiment, "report"):
        experiment.report(rows, folder.path)
    if settings.run.headline and settings.run.headline not in metrics:
        message = f"run.headline: no metric {settings.run.headline!r}; this run has {', '.join(metrics)}"
        raise UserFault(message)
    folder.finish(result)
    return result


def _start(fresh: Any, settings: Settings, folder: RunFolder, checkpoints: Checkpoints) -> tuple[Any, list]:
    """State and rows of an interrupted run of this folder, else those of `run.restore`, else the fresh ones."""
    restored = checkpoints.restore(fresh)
    if restored is not None:
        rows = folder.rewind(int(restored.step))
        if len(rows) == int(restored.step) or not folder.writer:
            progress.say(f"resumed at step {int(restored.step)}")
            return restored, rows
        progress.say(f"{folder.metrics} does not hold the rows up to step {int(restored.step)}; starting over")
        checkpoints.forget()
    if settings.run.restore is None:
        return fresh, folder.rewind(0)
    other = RunFolder(Path(settings.run.restore), writer=False)
    with Checkpoints(other.path / "checkpoints", settings.checkpoint, progress.say) as others:
        restored = others.restore(fresh, discard=False)
    if restored is None:
        message = f"run.restore: no sound checkpoint under {settings.run.restore}"
        raise UserFault(message)
    return restored, folder.adopt(other.rewind(int(restored.step)))


def _profile(settings: Settings, folder: RunFolder) -> AbstractContextManager:
    return jax.profiler.trace(str(folder.path / "profile")) if settings.run.profile else nullcontext()


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The scalar numbers of a row: what a table can show."""
    return {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _first(metrics: dict[str, float]) -> float | None:
    return next((value for name, value in metrics.items() if name != "step"), None)
