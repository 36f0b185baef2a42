"""Environments of the peers, and the worker process that lives in one of them.

The worker (`scripts/peers/worker.py`) speaks JSON lines: it is told which function to prepare and in which files the
arrays lie, says `ready`, and then answers each `go` with the seconds it took and the file of its result.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
from harness.measure import Inputs, Peer

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "scripts" / "peers"
# Read by OpenMP (torch), OpenBLAS (NumPy) and ITK when they start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def python_of(environment: str | None) -> Path:
    """Interpreter of a peers' environment, whether or not it has been made; None is the one that runs this."""
    return ROOT / ".peers" / environment / "bin" / "python" if environment else Path(sys.executable)


def installed(peer: Peer) -> bool:
    """Whether a peer can be run here."""
    modules_there = all(importlib.util.find_spec(module) for module in peer.needs)
    return python_of(peer.environment).exists() and modules_there


def distributions(peer: Peer) -> list[str]:
    """Names of the distributions that a peer stands on: its modules here, or all pins of its environment."""
    if peer.environment is None:
        found = importlib.metadata.packages_distributions()
        return sorted({name for module in peer.needs for name in found.get(module, ())})
    return [pin.split("==")[0] for pin in pins(peer.environment)]


def pins(environment: str) -> list[str]:
    """Pinned requirements of an environment, in the order of its file."""
    lines = (PEERS / f"{environment}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def environments() -> list[str]:
    """Names of the peers' environments: one per requirements file."""
    return sorted(path.stem for path in PEERS.glob("*.txt"))


def set_up(environment: str) -> None:
    """Make an environment afresh and install its pinned requirements into it with pip.

    The first requirement is installed alone: it decides which build of a large framework the machine gets, before other
    packages ask for one.

    Raises:
        subprocess.CalledProcessError: pip refused.
    """
    venv.create(ROOT / ".peers" / environment, clear=True, symlinks=True, with_pip=True)
    pip = [str(python_of(environment)), "-m", "pip", "install", "--disable-pip-version-check"]
    subprocess.run([*pip, pins(environment)[0]], check=True)
    subprocess.run([*pip, *pins(environment)], check=True)


class Worker:
    """One process in a peers' environment; a context manager."""

    def __init__(self, environment: str | None, threads: int) -> None:
        """Start the process.

        Raises:
            FileNotFoundError: the environment has not been made.
        """
        python = python_of(environment)
        if not python.exists():
            raise FileNotFoundError(f"no environment {environment}: make it with --setup")
        self._folder = tempfile.TemporaryDirectory(prefix="peer-")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [str(python), str(PEERS / "worker.py"), self._folder.name],
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.versions: dict[str, str] = self._read()["versions"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the process."""
        self.close()

    def prepare(self, function: str, inputs: Inputs) -> None:
        """Let the worker load the arrays and build the callable `module:function` of them."""
        files = {}
        for name, array in inputs.items():
            files[name] = str(Path(self._folder.name, f"{name}.npy"))
            np.save(files[name], array)
        self._ask({"prepare": function, "inputs": files})
        for file in files.values():
            Path(file).unlink()

    def __call__(self) -> tuple[float, Any]:
        """Run what was prepared once; its seconds, measured by the worker, and its result."""
        answer = self._ask({"go": True})
        return answer["seconds"], np.load(answer["result"])

    def golden(self, module: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Let `module.golden` compute the values that the tests keep."""
        return self._ask({"golden": module, "inputs": inputs})["values"]

    def close(self) -> None:
        """End the process and remove its files; doing so twice is harmless."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # a dead process is reported by the reader, with its last words
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the peers' process ended: {last}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer
