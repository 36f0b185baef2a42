"""Fetch public event streams from their owners, check them, and lay them where `data.path=` finds them.

    python scripts/data.py                                  what there is, and from where
    python scripts/data.py kuairand_pure --to data          download, check, unpack
    python scripts/data.py movielens_1m --archive ml-1m.zip   the same from an archive that is here already

Checksums are those that owners publish beside their archives (GroupLens, Zenodo), that of MovieLens latest-small is the
one which TensorFlow Datasets keeps. An archive with another one is refused and removed.
"""

import argparse
import contextlib
import gzip
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

KUAIRAND = "https://zenodo.org/records/10439422/files/"
MOVIELENS = "https://files.grouplens.org/datasets/movielens/"
LOGS = ("log_standard_4_08_to_4_21_{}.csv", "log_standard_4_22_to_5_08_{}.csv", "user_features_{}.csv")


class UserError(Exception):
    """A fault of the user or of the network; shown as one line."""


class Archive(NamedTuple):
    """An archive of an owner.

    Attributes:
        url: where it lies.
        checksum: `md5:` or `sha256:` and hexadecimal digits.
        folder: that the files are laid into.
        members: names in the archive of the files that a stream is read from.
        licence: under which the owner lets it be used.
    """

    url: str
    checksum: str
    folder: str
    members: tuple[str, ...]
    licence: str


RESEARCH = "research use; no redistribution without leave of GroupLens"
ARCHIVES = {
    "movielens_100k": Archive(
        f"{MOVIELENS}ml-100k.zip", "md5:0e33842e24a9c977be4e0107933c0723", "ml-100k",
        ("ml-100k/u.data", "ml-100k/u.user", "ml-100k/u.item", "ml-100k/u.genre"), RESEARCH,
    ),
    "movielens_1m": Archive(
        f"{MOVIELENS}ml-1m.zip", "md5:c4d9eecfca2ab87c1945afe126590906", "ml-1m",
        ("ml-1m/ratings.dat", "ml-1m/users.dat", "ml-1m/movies.dat"), RESEARCH,
    ),
    "movielens_small": Archive(
        f"{MOVIELENS}ml-latest-small.zip",
        "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436", "ml-latest-small",
        ("ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"), RESEARCH,
    ),
    "kuairand_pure": Archive(
        f"{KUAIRAND}KuaiRand-Pure.tar.gz", "md5:0820331067a3784d9691136f772b35a7", "KuaiRand-Pure/data",
        tuple(f"KuaiRand-Pure/data/{name.format('pure')}" for name in LOGS), "CC BY-SA 4.0",
    ),
    "kuairand_1k": Archive(
        f"{KUAIRAND}KuaiRand-1K.tar.gz", "md5:6b0b9c8222d67fcd4c676218edca3f1f", "KuaiRand-1K/data",
        tuple(f"KuaiRand-1K/data/{name.format('1k')}" for name in LOGS), "CC BY-SA 4.0",
    ),
}  # fmt: skip
ELSEWHERE = {
    "criteo": "train.txt of the Criteo Display Advertising Challenge, whose owner asks for an account",
    "avazu": "train.csv of the Avazu click-through rate competition, whose owner asks for an account",
    "movietweetings": "ratings.dat and movies.dat of github.com/sidooms/MovieTweetings, gzipped; no checksums",
    "kuairand": "a k-core sample of the 27K set; kuairand_pure and kuairand_1k are whole",
}


def fetched(archive: Archive, folder: Path) -> Path:
    """The checked archive, downloaded unless it lies there.

    Raises:
        UserError: it cannot be reached, or is not what its owner published.
    """
    import pooch
    import requests

    name = archive.url.rsplit("/", 1)[1]
    try:
        return Path(pooch.retrieve(archive.url, archive.checksum, name, folder))
    except (requests.RequestException, OSError) as error:
        raise UserError(
            f"{archive.url} cannot be reached ({type(error).__name__}); fetch it by another way and give it with "
            f"--archive {name}"
        ) from error
    except ValueError as error:
        raise UserError(f"{archive.url}: its checksum is not {archive.checksum}; nothing was kept") from error


def checked(archive: Archive, path: Path) -> Path:
    """An archive of the user.

    Raises:
        UserError: it is absent, or is not what its owner published.
    """
    import pooch

    kind, wanted = archive.checksum.split(":")
    if not path.is_file():
        raise UserError(f"--archive: no file {path}; give {archive.url.rsplit('/', 1)[1]} of {archive.url}")
    found = pooch.file_hash(str(path), alg=kind)
    if found != wanted:
        raise UserError(f"{path}: its {kind} is {found}, that of {archive.url} is {wanted}; fetch it anew")
    return path


def unpacked(archive: Archive, path: Path, target: Path) -> Path:
    """Lay the files of an archive into a folder: all of them, or none.

    Raises:
        UserError: the archive lacks one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".data-", dir=target.parent))
    try:
        _extract(path, archive.members, making)
        if archive.folder == "ml-100k":
            atomic(making)
        if target.exists():
            shutil.rmtree(target)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def _extract(path: Path, members: tuple[str, ...], folder: Path) -> None:
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix == ".zip":
                read: Any = stack.enter_context(zipfile.ZipFile(path)).open
            else:
                read = stack.enter_context(tarfile.open(path)).extractfile
            for name in members:
                with read(name) as source, (folder / Path(name).name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; it should hold {', '.join(members)}") from error


def atomic(folder: Path) -> None:
    """Turn the files of MovieLens-100K into the atomic files of RecBole, which `data=movielens_100k` reads."""
    lines = {
        name: (folder / f"u.{name}").read_text("latin1").splitlines() for name in ("data", "user", "item", "genre")
    }
    genres = [line.split("|")[0] for line in lines["genre"] if line]
    inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *lines["data"]]
    user = ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
    user += [line.replace("|", "\t") for line in lines["user"]]
    item = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
    for line in lines["item"]:
        number, title, released, _, _, *flags = line.split("|")
        own = " ".join(name for name, flag in zip(genres, flags, strict=True) if flag == "1")
        item.append(f"{number}\t{title}\t{released[-4:]}\t{own}")
    for name, text in {"inter": inter, "user": user, "item": item}.items():
        with gzip.open(folder / f"ml-100k.{name}.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(text) + "\n")
    for name in lines:
        (folder / f"u.{name}").unlink()


def chosen(name: str) -> Archive:
    """The archive of a stream.

    Raises:
        UserError: its owner offers no download, or there is no such stream.
    """
    if name not in ARCHIVES:
        known = f"; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
        raise UserError(f"no download of {name!r}{known}; there are: {', '.join(ARCHIVES)}")
    return ARCHIVES[name]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help=f"one of: {', '.join(ARCHIVES)}; without it all are listed")
    parser.add_argument("--to", type=Path, default=os.environ.get("QUARTET_DATA", "data"), help="(QUARTET_DATA, data)")
    parser.add_argument("--archive", type=Path, help="take this archive instead of downloading it")
    options = parser.parse_args(arguments)
    if options.name is None:
        for name, archive in ARCHIVES.items():
            print(f"{name:16} {archive.url}  ({archive.licence})")
        for name, where in ELSEWHERE.items():
            print(f"{name:16} to be fetched by hand: {where}")
        return 0
    try:
        archive = chosen(options.name)
        downloads = Path(options.to) / "downloads"
        path = checked(archive, options.archive) if options.archive else fetched(archive, downloads)
        folder = unpacked(archive, path, Path(options.to) / archive.folder)
    except UserError as error:
        print(f"data: {error}", file=sys.stderr)
        return 2
    print(f"kdrec data={options.name} data.path={folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
