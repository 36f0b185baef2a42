"""Reading: public streams where they are at hand, a small twin of each that always runs, and faults in one line."""

import gzip

import numpy as np
import pytest

from kdrec import corpus, io
from kdrec.data import Rules
from kdrec.io import InputError

FREE = Rules(sort=True, duplicates="keep", gaps="keep", buckets=None)
STRICT = Rules(sort=False, duplicates="refuse", gaps="refuse", buckets=None)


def gz(folder, name, text, encoding="utf-8"):
    with gzip.open(folder / name, "wb") as file:
        file.write(text.encode(encoding))


def twin(name, folder):
    """Write a small data set in the form of a public one; returns time, labels and columns as they must be read."""
    folder.mkdir()
    if name == "movietweetings":
        gz(
            folder,
            "movies.dat.gz",
            "07::A :: not a separator? (1994)::Crime|Drama\n08::Été (2001)::\n".replace(" :: ", ": "),
        )
        gz(folder, "ratings.dat.gz", "u1::07::8::30\nu2::08::10::10\nu1::99::3::20\nu2::07::9::30\n")
        labels = [[1, 1], [0, 0], [1, 0], [1, 1]]
        return [10, 20, 30, 30], labels, ("user", "item", "year", "genres", "genre")
    if name == "movielens_100k":
        gz(
            folder,
            "ml-100k.user.gz",
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\tnone\t0\n",
        )
        gz(
            folder,
            "ml-100k.item.gz",
            'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n7\t"Quote\t1995\tDrama\n',
        )
        gz(
            folder,
            "ml-100k.inter.gz",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t5\t20\n1\t7\t4\t10\n",
        )
        return [10, 20], [[1, 0], [1, 1]], ("user", "item", "age", "gender", "occupation", "genres", "decade", "year")
    if name == "movielens_1m":
        gz(folder, "users.dat.gz", "1::F::1::10::48067\n")
        gz(folder, "movies.dat.gz", "3::Misérables, Les (1995)::Drama|Musical\n", "latin1")
        gz(folder, "ratings.dat.gz", "1::3::3::20\n1::3::5::10\n")
        return [10, 20], [[1, 1], [0, 0]], ("user", "item", "gender", "age", "occupation", "genres", "year")
    users = ["user_id", *corpus._ACTIVITY, *corpus._ONE_HOT]
    gz(
        folder,
        "user_features_pure.csv.gz",
        ",".join(users) + '\n4,full,"(0,10]",x,y,' + ",".join(map(str, range(12))) + "\n",
    )
    head = "user_id\tvideo_id\ttime_ms\thourmin\tduration_ms\tlong_view\tlabel\tplay_time_ms\n"
    gz(
        folder,
        "processed_standard_kcore_15.tsv.gz",
        head + "4\t9\t9500\t1700\t0\t1\t0\t1500\n4\t8\t3000\t1800\t45000\t0\t1\t60000\n",
    )
    return [3, 9], [[0, 1], [1, 0]], ("user", "item", "duration", "hour", *corpus._ACTIVITY, *corpus._ONE_HOT)


@pytest.mark.parametrize("name", ["kuairand", "movielens_100k", "movielens_1m", "movietweetings"])
def test_a_twin_of_a_public_stream_is_read_in_the_order_of_time(name, tmp_path):
    time, labels, columns = twin(name, tmp_path / "set")
    stream = corpus.public(name, str(tmp_path / "set"), "unknown", FREE, str(tmp_path / "cache"))
    assert stream.time.tolist() == time
    assert stream.labels.tolist() == labels
    assert stream.features == columns
    assert stream.ids.shape == (len(time), len(columns))
    assert stream.vocabulary == stream.ids.max() + 1
    again = corpus.public(name, str(tmp_path / "set"), "unknown", FREE, str(tmp_path / "cache"))
    np.testing.assert_array_equal(again.ids, stream.ids)
    assert isinstance(stream.ids, np.memmap)


@pytest.mark.parametrize(
    ("name", "events", "rates"),
    # Counted with awk in the files themselves.
    [
        pytest.param("movietweetings", 141_695, None, marks=pytest.mark.slow),
        pytest.param("movielens_100k", 100_000, None, marks=pytest.mark.slow),
        pytest.param("movielens_1m", 100_000, None, marks=pytest.mark.slow),
        ("kuairand", 41_828, (19_320 / 41_828, 33_745 / 41_828)),
    ],
)
def test_a_public_stream_is_read_whole(name, events, rates, public_data, tmp_path):
    if not (public_data / "kdrec" / corpus.PUBLIC[name][1]).is_dir():
        pytest.skip(f"no {name} under {public_data}")
    stream = corpus.public(name, str(public_data), "unknown", FREE, str(tmp_path))
    assert len(stream) == events
    assert np.all(np.diff(stream.time) >= 0)
    assert stream.vocabulary == stream.ids.max() + 1
    if rates:
        np.testing.assert_allclose(stream.labels.mean(0), rates, rtol=1e-6)


def own(path, rules=STRICT, **changes):
    values = {
        "roles": {"user": "who", "item": "what", "time": "when"}, "categories": ("place",), "numbers": ("price",),
        "labels": {"click": 1}, "values": {}, "unit": "s", "delimiter": ",", "rules": rules,
        "cache": str(path.parent / "cache"),
    }  # fmt: skip
    return corpus.table(path, **(values | changes))


HEAD = "who,what,when,place,price,click\n"
ROWS = "a,x,100,home,1.5,0\nb,x,100,,,1\na,y,200,work,-3,1\n"


def test_a_table_of_the_user_is_read_by_its_roles(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    stream = own(tmp_path / "t.csv")
    assert stream.features == ("user", "item", "place")
    assert stream.labels[:, 0].tolist() == [0, 1, 1]
    np.testing.assert_allclose(stream.numbers[:, 0], [np.log(2.5), 0, -np.log(4)], rtol=1e-6)
    # By hand: a row for each value as it is seen, column by column of the block; a missing value is one of its own.
    assert stream.ids.tolist() == [[0, 2, 4], [1, 2, 5], [0, 3, 6]]


def test_parquet_and_text_make_the_same_stream(tmp_path):
    import pyarrow.csv
    import pyarrow.parquet

    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    text, parquet = own(tmp_path / "t.csv"), own(tmp_path / "t.parquet")
    for name in ("time", "ids", "numbers", "labels"):
        np.testing.assert_array_equal(getattr(text, name), getattr(parquet, name))


def test_hashed_ids_stay_below_the_buckets(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + ROWS)
    stream = own(tmp_path / "t.csv", STRICT._replace(buckets=5))
    assert stream.vocabulary == 5
    assert stream.ids.max() < 5
    assert stream.ids[0, 0] == stream.ids[2, 0]


@pytest.mark.parametrize(
    ("text", "changes", "line"),
    [
        (HEAD + "a,x,200,h,1,0\na,x,100,h,1,0\n", {}, "event 1 of time 100 comes after one of time 200; sort the file"),
        (
            HEAD + "a,x,100,h,1,0\na,x,100,w,1,1\n",
            {},
            "event 1 repeats time 100, user and item of an earlier one; remove",
        ),
        (HEAD + "a,x,100,h,1,0\na,x,100,h,1,\n", {}, "event 1 has no label 'click'; fill it in"),
        (HEAD + "a,x,100,h,1,0\na,x,,h,1,1\n", {}, "event 1 has no time; fill it in"),
        (HEAD + "a,x,100,h,1,0\na,x,300000,h,1,1\n", {}, "1970-01-02 has no events; add them, or set data.gaps=keep"),
        (HEAD, {}, "holds no events"),
        ("", {}, "is empty"),
        (HEAD + ROWS, {"labels": {"like": 1}}, "no column 'like'; it has who, what, when, place, price, click"),
        (HEAD + "a,x,noon,h,1,0\n", {}, "cannot be read"),
        (HEAD + "a,x,100\n", {}, "cannot be read"),
    ],
)
def test_a_fault_of_a_table_is_one_line(text, changes, line, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        own(tmp_path / "t.csv", **changes)
    message = str(caught.value)
    assert line in message, message
    assert message.startswith(str(tmp_path / "t.csv"))
    assert "\n" not in message
    assert not list(tmp_path.glob("cache/*"))


def test_faults_that_are_allowed_pass(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "b,x,300000,h,1,1\na,x,100,h,1,0\na,x,100,h,1,1\n")
    stream = own(tmp_path / "t.csv", FREE)
    assert stream.time.tolist() == [100, 100, 300000]
    assert stream.labels[:, 0].tolist() == [0, 1, 1]  # stable: equal times keep the order of the file


def test_an_item_without_description_is_refused_with_its_name_or_taken_as_unknown(tmp_path):
    twin("movietweetings", tmp_path / "set")
    with pytest.raises(InputError, match=r"movie 99 is not among the 2 of its table .* set data.unseen=unknown"):
        corpus.public("movietweetings", str(tmp_path / "set"), "refuse", FREE, str(tmp_path / "cache"))


def test_a_data_set_that_is_not_there_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.delenv(io.ROOT, raising=False)
    with pytest.raises(InputError, match=r"data\.path: the data set .* was not given; pass data\.path=FOLDER"):
        corpus.public("movietweetings", None, "unknown", FREE, None)
    with pytest.raises(InputError, match=r"holds ratings\.dat\.gz"):
        corpus.public("movietweetings", str(tmp_path), "unknown", FREE, None)


def test_a_damaged_archive_is_one_line(tmp_path):
    twin("movietweetings", tmp_path / "set")
    whole = (tmp_path / "set" / "ratings.dat.gz").read_bytes()
    (tmp_path / "set" / "ratings.dat.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        corpus.public("movietweetings", str(tmp_path / "set"), "unknown", FREE, str(tmp_path / "cache"))
    (tmp_path / "t.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="is not a Parquet file"):
        own(tmp_path / "t.parquet")


def test_many_blocks_make_the_stream_of_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    lines = [f"u{rng.integers(9)},i{rng.integers(9)},{t},p{t % 3},{t},{t % 2}" for t in range(2000)]
    (tmp_path / "t.csv").write_text(HEAD + "\n".join(lines) + "\n")
    whole = own(tmp_path / "t.csv", cache=str(tmp_path / "whole"))
    monkeypatch.setattr(io, "BLOCK", 1500)
    parts = own(tmp_path / "t.csv", cache=str(tmp_path / "parts"))
    for name in ("time", "numbers", "labels"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    # Rows of the table may be numbered otherwise, but one for one.
    pairs = set(zip(whole.ids.ravel().tolist(), parts.ids.ravel().tolist(), strict=True))
    assert len(pairs) == whole.vocabulary == parts.vocabulary


@pytest.mark.parametrize(
    ("name", "task", "values"),
    [("movietweetings", "rating", [10, 3, 8, 9]), ("movielens_1m", "rating", [5, 3]), ("kuairand", "watch", [2, 0.05])],
)
def test_a_public_stream_has_a_real_task_where_it_is_asked_for(name, task, values, tmp_path):
    _, labels, _ = twin(name, tmp_path / "set")
    stream = corpus.public(name, str(tmp_path / "set"), "unknown", FREE, str(tmp_path / "cache"), values=True)
    assert (stream.tasks[2], stream.real) == (task, (False, False, True))
    np.testing.assert_allclose(stream.labels, np.column_stack([labels, values]))


def test_a_column_of_values_is_a_real_task(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "a,x,100,home,1.5,0\nb,x,100,,4,1\n")
    stream = own(tmp_path / "t.csv", values={"price": 2.0}, numbers=())
    assert (stream.tasks, stream.real) == (("click", "price"), (False, True))
    assert stream.labels.tolist() == [[0, 0.75], [1, 2]]
    (tmp_path / "t.csv").write_text(HEAD + "a,x,100,home,1.5,0\nb,x,100,,,1\n")
    with pytest.raises(InputError, match="event 1 has no label 'price'"):
        own(tmp_path / "t.csv", values={"price": 2.0}, numbers=())
    with pytest.raises(InputError, match=r"data.values: 'click' is in data.labels too"):
        own(tmp_path / "t.csv", values={"click": 1})
    with pytest.raises(InputError, match=r"data\.labels: no task; name a column"):
        own(tmp_path / "t.csv", labels={})
