"""Fetching of public streams: from a server on this machine, from an archive, and what goes wrong."""

import functools
import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from kdrec import corpus
from kdrec.data import Rules
from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

import data

FREE = Rules(sort=True, duplicates="keep", gaps="keep", buckets=None)
SMALL = {
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,30\n",
    "ml-latest-small/movies.csv": "movieId,title,genres\n1,A (1995),Drama\n",
    "ml-latest-small/README.txt": "not wanted",
}
FLAGS = "|".join("1" if number in (5, 8) else "0" for number in range(19))
HUNDRED = {
    "ml-100k/u.data": "1\t7\t5\t20\n1\t7\t4\t10\n",
    "ml-100k/u.user": "1|24|M|none|85711\n",
    "ml-100k/u.item": f"7|Misérables, Les (1995)|01-Jan-1995||http://x|{FLAGS}\n",
    "ml-100k/u.genre": "".join(f"g{number}|{number}\n" for number in range(19)) + "\n",
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with HTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def packed(path, files, encoding="utf-8"):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text.encode(encoding))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode(encoding)))
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def known(monkeypatch, name, **changes):
    monkeypatch.setitem(data.ARCHIVES, name, data.ARCHIVES[name]._replace(**changes))


def test_a_stream_is_fetched_checked_and_read(server, tmp_path, monkeypatch, capsys):
    folder, url = server
    checksum = packed(folder / "ml-latest-small.zip", SMALL)
    known(monkeypatch, "movielens_small", url=f"{url}/ml-latest-small.zip", checksum=checksum)
    assert data.main(["movielens_small", "--to", str(tmp_path / "data")]) == 0
    target = tmp_path / "data" / "ml-latest-small"
    assert capsys.readouterr().out == f"kdrec data=movielens_small data.path={target}\n"
    assert sorted(path.name for path in target.iterdir()) == ["movies.csv", "ratings.csv"]
    stream = corpus.public("movielens_small", str(tmp_path / "data"), "refuse", FREE, str(tmp_path / "cache"))
    assert stream.labels.tolist() == [[1, 0]]


def test_what_is_not_what_its_owner_published_is_refused(server, tmp_path, monkeypatch, capsys):
    folder, url = server
    packed(folder / "ml-latest-small.zip", SMALL)
    known(monkeypatch, "movielens_small", url=f"{url}/ml-latest-small.zip")
    assert data.main(["movielens_small", "--to", str(tmp_path / "data")]) == 2
    told = capsys.readouterr()
    assert "its checksum is not sha256:696d65a3dfce" in told.err.splitlines()[-1]
    assert not told.out
    assert not list((tmp_path / "data").glob("**/*.*"))
    archive = ["--archive", str(folder / "ml-latest-small.zip")]
    assert data.main(["movielens_small", "--to", str(tmp_path / "data"), *archive]) == 2
    assert "its sha256 is" in capsys.readouterr().err
    assert not (tmp_path / "data" / "ml-latest-small").exists()


def test_an_owner_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch, capsys):
    known(monkeypatch, "kuairand_pure", url="http://127.0.0.1:9/KuaiRand-Pure.tar.gz")  # nobody listens there
    assert data.main(["kuairand_pure", "--to", str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "data: http://127.0.0.1:9/KuaiRand-Pure.tar.gz cannot be reached (ConnectionError); fetch it"
    )
    assert line.endswith("--archive KuaiRand-Pure.tar.gz")


def test_an_archive_at_hand_is_laid_out_as_the_stream_wants_it(tmp_path, monkeypatch):
    names = data.ARCHIVES["kuairand_pure"].members
    checksum = packed(tmp_path / "KuaiRand-Pure.tar.gz", dict.fromkeys(names, "x\n"))
    known(monkeypatch, "kuairand_pure", checksum=checksum)
    archive = ["--archive", str(tmp_path / "KuaiRand-Pure.tar.gz")]
    assert data.main(["kuairand_pure", "--to", str(tmp_path), *archive]) == 0
    folder, files = corpus.PUBLIC["kuairand_pure"][1:]
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(files)
    known(monkeypatch, "kuairand_pure", members=("KuaiRand-Pure/data/other.csv",))
    assert data.main(["kuairand_pure", "--to", str(tmp_path), *archive]) == 2
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == sorted(files)  # as they were


def test_movielens_100k_becomes_atomic_files(tmp_path, monkeypatch):
    checksum = packed(tmp_path / "ml-100k.zip", HUNDRED, "latin1")
    known(monkeypatch, "movielens_100k", checksum=checksum)
    assert data.main(["movielens_100k", "--to", str(tmp_path), "--archive", str(tmp_path / "ml-100k.zip")]) == 0
    stream = corpus.public("movielens_100k", str(tmp_path), "refuse", FREE, str(tmp_path / "cache"))
    assert stream.labels.tolist() == [[1, 0], [1, 1]]
    assert stream.vocabulary == 8  # one value a column


def test_all_are_listed_and_a_name_that_is_not_is_told(capsys):
    assert data.main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*data.ARCHIVES, *data.ELSEWHERE))
    assert data.main(["criteo"]) == 2
    assert "no download of 'criteo'; train.txt of the Criteo" in capsys.readouterr().err
