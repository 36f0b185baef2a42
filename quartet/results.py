"""The folder of one run: `status.json`, `config.yaml`, `metrics.jsonl`, `result.json`, each whole or absent."""

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from quartet.faults import UserFault, flatten

PACKAGES = ("quartet", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy", "scipy")


def plain(value: Any) -> Any:
    """Turn arrays and NumPy scalars into what JSON holds; NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return str(value)
    return plain(np.asarray(value).tolist())


def write_text(path: Path, text: str) -> Path:
    """Write under a temporary name, then rename: a reader sees the whole old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, whole or not at all."""
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or unreadable one is None, since an interrupted run leaves neither behind whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def commit(folder: Path | None = None) -> str | None:
    """Commit of the source tree that holds `folder` (this file by default), with `+` after it where it was edited."""
    folder = folder or Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def hardware() -> str:
    """One line that names the processor, its cores and memory."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def provenance() -> dict[str, Any]:
    """Versions, commit, machine and command; the device too where jax is loaded already."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    jax = sys.modules.get("jax")
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.name  # `python -m rwalk` is `rwalk`
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join([name, *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "device": ", ".join(sorted({d.device_kind for d in jax.devices()})) if jax else None,
        "python": platform.python_version(),
        "versions": versions,
    }


class RunFolder:
    """One run's folder. Only the `writer` process of several writes; the others keep quiet."""

    def __init__(self, path: Path, *, writer: bool = True) -> None:
        self.path = Path(path)
        self.writer = writer
        self.started = False

    @property
    def metrics(self) -> Path:
        """The rows, one JSON object a line."""
        return self.path / "metrics.jsonl"

    def write(self, name: str, value: Any) -> None:
        """Write `value` as JSON under `name`."""
        if self.writer:
            write_json(self.path / name, value)

    def standing(self, identity: dict[str, Any], inputs: dict[str, Any], identify: Any) -> str:
        """How far an earlier run in this folder went.

        Args:
            identity: what decides the numbers of the run that is about to start.
            inputs: absolute path of every input file, with what tells whether it changed.
            identify: from a recorded config to its identity.

        Returns:
            `finished`; `anew` where bad cases or changed inputs ask for another start; `open` for everything else.

        Raises:
            UserFault: the folder holds something else.
        """
        earlier = read_json(self.path / "config.json")
        remedy = "choose another run.folder, or start over with run.resume=false"
        if earlier is None:
            return "open"
        here, there = plain(identity), plain(identify(earlier["config"]))
        if here != there or sorted(inputs) != sorted(earlier["inputs"]):
            ours, theirs = (dict(flatten(each)) for each in (here, there))
            key = next((k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)), None)
            what = f"{key} is {theirs.get(key)} there, {ours.get(key)} here" if key else "of other files"
            message = f"run.folder: {self.path} holds another run ({what}); {remedy}"
            raise UserFault(message)
        if plain(inputs) != earlier["inputs"]:
            return "anew"
        state = (read_json(self.path / "status.json") or {}).get("state")
        if state == "done" and (self.path / "result.json").exists():
            return "finished"
        return "anew" if state == "partial" else "open"

    def result(self) -> dict[str, Any]:
        """The result of the finished run; its status is touched, so that a sweep sees the cell as its own."""
        os.utime(self.path / "status.json")
        return read_json(self.path / "result.json")

    def start(self, record: dict[str, Any], *, anew: bool) -> None:
        """Say that the run is under way; a status that still says so after the process ended means it was killed.

        Args:
            record: the resolved config and the inputs.
            anew: forget checkpoints and rows of an earlier run.

        Raises:
            UserFault: another process is writing here, or the folder holds checkpoints that are not ours.
        """
        if not self.writer:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")  # held until the process ends, however it ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"run.folder: another run is writing to {self.path}; wait for it or choose another folder"
            raise UserFault(message) from error
        if (self.path / "checkpoints").exists() and not (self.path / "config.json").exists():
            message = f"run.folder: {self.path} holds checkpoints of something else; choose another folder"
            raise UserFault(message)
        (self.path / "result.json").unlink(missing_ok=True)
        if anew:
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
            self.metrics.unlink(missing_ok=True)
        self.started = True
        self.write("status.json", {"state": "running", "pid": os.getpid(), "started": time.time()})
        self.write("config.json", record)

    def finish(self, result: dict[str, Any]) -> None:
        """Say that the run is done, or done in part where cases of it failed."""
        status = read_json(self.path / "status.json") or {}
        status |= {"state": "done", "ended": time.time()}
        if failed := result["failed"]:
            status |= {"state": "partial", "error": f"{len(failed)} bad cases, the first: {failed[0]}"}
        self.write("status.json", status)

    def fail(self, error: BaseException, line: str) -> None:
        """Say that the run failed, in one line and with the traceback; a finished run stays what it is."""
        status = read_json(self.path / "status.json") or {}
        if not self.started and status.get("state") in ("done", "partial", "running"):
            return
        started = status.get("started", time.time()) if self.started else time.time()
        trace = "".join(traceback.format_exception(error))
        self.write(
            "status.json",
            {"state": "failed", "started": started, "ended": time.time(), "error": line, "traceback": trace},
        )

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the rows after `step`, which a resumed run will write again, and return the others."""
        rows = read_rows(self.metrics)
        kept = [row for row in rows if row["step"] <= step]
        if self.writer and (rows != kept or not self.metrics.exists()):
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        return kept

    def adopt(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Begin with the rows of the run that this one starts from."""
        if self.writer:
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
