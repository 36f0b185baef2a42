"""Compose a config, validate it, build the experiment and drive it: the command line of every package.

Nothing heavy is imported before a job starts, so that `--cfg job`, `--help` and the completion of a TAB stay quick.
"""

import hashlib
import os
import sys
import time
import traceback
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from quartet import __version__, faults
from quartet.faults import UserFault

CONFIGS = Path(str(files("quartet.configs")))
# Where a config may point with `_target_` unless `run.trusted` says more: a config must not be able to run anything.
OURS = (*(f"{path.parent.name}." for path in sorted(CONFIGS.glob("*/config.yaml"))), "quartet.settings.")
SWEEP = "QUARTET_SWEEP"


def register_resolvers() -> None:
    """Make `${configs:}`, `${unique:}` and `${hash:text}` known to OmegaConf."""
    OmegaConf.register_new_resolver("configs", lambda: str(CONFIGS), replace=True)
    OmegaConf.register_new_resolver("unique", lambda: os.urandom(3).hex(), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("hash", _short_hash, replace=True)


def _short_hash(text: str) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()[:10]


register_resolvers()


def launch(package: str) -> NoReturn:
    """Run the command line of `package` and end the process.

    The exit code is 0 on success; 1 where cells of a sweep failed or we are at fault, with a traceback; 2 for a fault
    of the user, in one line (`HYDRA_FULL_ERROR=1` shows the traceback of that too). A reader who has seen enough and
    closed the pipe, as `head` does, is no fault.
    """
    code = 0
    try:
        try:
            code = _command(package)
        finally:  # Hydra ends the process itself after its help
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _command(package: str) -> int:
    """Do what the command line says, and tell what went wrong; the exit code."""
    if "--version" in sys.argv[1:]:
        print(f"quartet {__version__}")
        return 0
    show_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions to us instead of printing them
    os.environ.setdefault("HYDRA_MAIN_MODULE", f"{package}.__main__")
    # Under `uv run` Ray would copy the working directory and leave the results of the cells in the copy.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # The same sweep asked for twice lands in the same folder, where its finished cells are skipped.
    os.environ.setdefault(SWEEP, _short_hash(" ".join(sorted(sys.argv[1:]))))
    run = hydra.main(config_path=str(CONFIGS / package), config_name="config", version_base="1.3")(job)
    start = time.time()
    try:
        run()
        if _outcome["error"] is not None:
            raise _outcome["error"]  # noqa: TRY301 - so that every fault is told below
    except KeyboardInterrupt:
        again = "" if _outcome["sweep"] else f" with run.folder={_outcome['folder']}"
        print(f"interrupted; the same command{again} continues it", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and error is not _outcome["error"]:
            raise  # nobody reads what is printed any more; within a job it may be another pipe
        line = faults.explain(error, CONFIGS / package, sys.argv[1:])
        if line is None or show_all:
            traceback.print_exc()
        if line is not None:
            print(line, file=sys.stderr)
        if _outcome["sweep"] is not None:  # a launcher that died: what its cells left behind is listed all the same
            _ending(start)
        return 1 if line is None else 2
    return _ending(start)


_outcome: dict[str, Any] = {"sweep": None, "folder": None, "failed": [], "error": None}


class Watch(Callback):
    """Notes the folder of a sweep in the launching process, whatever launcher runs the cells."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra before the first cell."""
        _outcome["sweep"] = str(config.hydra.sweep.dir)


def job(config: DictConfig) -> float | None:
    """Do one run: what Hydra calls once for a plain command and once per cell of a sweep."""
    from quartet.results import RunFolder

    settings_of_hydra = HydraConfig.get()
    sweeping = not OmegaConf.is_missing(settings_of_hydra.job, "num")
    folder = RunFolder(Path(settings_of_hydra.runtime.output_dir))
    _outcome["folder"] = folder.path
    try:
        _refuse_trust_from_a_file(config, list(settings_of_hydra.overrides.task))
        result, note = execute(config, folder)
    except Exception as error:
        line = faults.explain(error, CONFIGS / settings_of_hydra.job.name, list(settings_of_hydra.overrides.task))
        folder.fail(error, line or f"{type(error).__name__}: {error}")
        if not sweeping:  # kept for `launch`: Hydra would print a line of its own before it raised it again
            _outcome["error"] = error
        return None
    if sweeping:
        print(f"{folder.path}: {' '.join(settings_of_hydra.overrides.task)} ({note})", flush=True)
    else:
        _show(result, folder, note)
        _outcome["failed"] = result["failed"]
    return result["headline"]


def _refuse_trust_from_a_file(config: DictConfig, overrides: list[str]) -> None:
    """A config file that names what may be imported would trust itself; the command line alone may."""
    typed = any(override.lstrip("+").startswith("run.trusted=") for override in overrides)
    if OmegaConf.select(config, "run.trusted") and not typed:
        message = "run.trusted: set in a config file; give it on the command line"
        raise UserFault(message)


def execute(config: DictConfig, folder: Any) -> tuple[dict[str, Any], str]:
    """Build what `config` describes and drive it in `folder`, unless that was done before; result and a remark."""
    from quartet import build
    from quartet.settings import SHELL_KEYS, Settings

    resolved = build.resolve(config)
    build.check_targets(resolved, OURS, tuple(resolved["run"]["trusted"] or ()))
    settings = Settings(**{name: build.instantiate(config, name) for name in SHELL_KEYS})
    _prepare(settings)
    experiment = build.experiment(config, SHELL_KEYS, CONFIGS / str(config._target_).split(".")[0])
    import jax

    folder.writer = jax.process_index() == 0
    record = {"config": resolved, "inputs": experiment.inputs() if hasattr(experiment, "inputs") else {}}
    standing = "anew"
    if settings.run.resume:
        standing = folder.standing(build.identity(resolved), record["inputs"], build.identity)
    if standing == "finished":
        return folder.result(), "finished before, skipped"
    folder.start(record, anew=standing == "anew")
    from quartet.drive import drive

    result = drive(experiment, settings, folder, record)
    return result, f"{result['seconds']:.1f} s"


def _prepare(settings: Any) -> None:
    """Set what jax must know before its first array; each cell of a sweep says it anew."""
    import jax

    jax.config.update("jax_enable_x64", settings.run.precision == "float64")
    jax.config.update("jax_debug_nans", settings.run.nans)
    from quartet.devices import connect

    connect(settings.devices)


def _show(result: dict[str, Any], folder: Any, note: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in result["metrics"].items():
        if name != "step":
            table.add_row(name, f"{value:.6g}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"{folder.path} ({note})", highlight=False, markup=False)
    for page in sorted(folder.path.glob("*.html")):
        console.print(f"open {page}", highlight=False, markup=False)


def _ending(start: float) -> int:
    """Exit code of a command that came to its end, after naming what failed in it."""
    sweep = _outcome["sweep"]
    if sweep is None:
        return 2 if _outcome["failed"] else 0
    from quartet.collect import collect
    from quartet.results import read_json

    cells, failed = [], []
    for path in sorted(Path(sweep).glob("*/status.json")):
        if path.stat().st_mtime < start:
            continue  # of another sweep in this folder; a cell that was skipped is touched
        cells.append(path.parent)
        status = read_json(path) or {}
        if status.get("state") != "done":
            failed.append((path.parent, status.get("error", "was killed")))
    try:
        collect(Path(sweep), cells).show()
    except UserFault as fault:  # nothing finished
        print(fault, file=sys.stderr)
    for folder, line in failed:
        print(f"failed: {folder}: {line}", file=sys.stderr)
    return 1 if failed or not cells else 0
