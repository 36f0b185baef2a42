"""Result files, written so that no reader ever sees half of one."""

import csv
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np


def _finite(value: object) -> object:
    """Plain Python values; what JSON cannot say (NaN, infinity) becomes null."""
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def write_text(path: str | os.PathLike, write: Callable[[TextIO], object]) -> Path:
    """Write a text file under a temporary name and move it into place, so that no reader ever sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: str | os.PathLike, content: Any) -> Path:
    """Write JSON atomically; NumPy values become plain ones, NaN and infinities become null.

    Args:
        path: file to write, its folder is made.
        content: nested dictionaries, lists and numbers.

    Returns:
        The path.
    """
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path, lambda file: file.write(text + "\n"))


def write_csv(path: str | os.PathLike, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Path:
    """Write rows as CSV atomically.

    Args:
        path: file to write, its folder is made.
        rows: one dictionary per line; a missing key is an empty cell.
        columns: header, in order; other keys of the rows are left out.

    Returns:
        The path.
    """

    def write(file: TextIO) -> None:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if row.get(name) is None else row[name] for name in columns} for row in rows)

    return write_text(path, write)
