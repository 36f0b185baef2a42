"""Programs that run in processes of their own, on one device, four, or in two processes: what they print."""

import os
import subprocess
import sys

from tests.conftest import REPOSITORY, devices
from tests.quartet.test_devices import two_processes


def printed(program: str, *, count: int = 1) -> str:
    """The last line of a program on so many devices."""
    environment = os.environ | devices(count)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def numbers(line: str) -> list[float]:
    return [float(number) for number in line.split()]


def numbers_of_two(program: str, *arguments: str) -> list[list[float]]:
    """The numbers on the last line of each of two processes that share a lattice."""
    return [numbers(line) for line in two_processes(program, *arguments)]
