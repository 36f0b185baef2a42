"""Guards of a store on disk: what its folder holds, who may write, and how a commit that cannot be made is told."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from kdrec.io import InputError

SPARE = 1 << 16  # bytes of the log and of what is about the rows of a commit
_FULL = "no space is left for a commit; free some and run the same command again: of this batch nothing was kept"


def check_folder(path: Path) -> None:
    """See that a folder is a store or may become one.

    Raises:
        InputError: it is a file, or holds other things.
    """
    if path.is_file():
        raise InputError(f"labels.path: {path} is a file; give the folder of a label store, or one that is not there")
    if path.is_dir() and {entry.name for entry in path.iterdir()} - {"labels", "versions", "writers"}:
        raise InputError(f"labels.path: {path} holds other things than a label store; give an empty folder")


@contextlib.contextmanager
def only(path: Path, writer: str) -> Iterator[None]:
    """Hold the lock of a writer's name; it goes with the process, however that ends.

    Raises:
        InputError: another process holds it.
    """
    import fcntl

    folder = path / "writers"
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W", "_", writer)
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"labels: another process writes to {path} as {writer!r}; give another name") from error
        yield


@contextlib.contextmanager
def faults(where: Path) -> Iterator[None]:
    """Tell a full disk or a table that cannot be written in one line.

    Raises:
        InputError: with what to do.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError:
        raise
    except (OSError, DeltaError) as error:
        text = " ".join(str(error).split())
        full = any(sign in text.lower() for sign in ("no space left", "file too large", "quota"))
        failed = (
            f"a commit failed ({text[:200]}); check it and run the same command again: of this batch nothing was kept"
        )
        raise InputError(f"{where}: {_FULL if full else failed}") from error


def check_room(where: Path, size: int) -> None:
    """See that a disk has room for a commit, before a library meets the end of it in the middle of a file.

    Args:
        where: the table.
        size: bytes of the rows, which take less once they are packed.

    Raises:
        InputError: it has not.
    """
    if shutil.disk_usage(where).free < size + SPARE:
        raise InputError(f"{where}: {_FULL}")
