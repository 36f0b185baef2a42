"""Data sets in the form in which their owners publish them, written small: names, order and kinds of the columns."""

import gzip

import numpy as np
import pytest

from kdrec import corpus, io
from kdrec.data import Rules
from kdrec.io import InputError
from tests.kdrec.test_experiment import build

FREE = Rules(sort=True, duplicates="keep", gaps="keep", buckets=None)
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,"
    "register_days_range," + ",".join(f"onehot_feat{i}" for i in range(18)) + "\n"
)
ONE_USER = '3,full_active,0,0,1,514,500+,150,"[100,1k)",34,"[30,60)",799,730+,1,1,29,949,1.0,' + "0," * 12 + "0.0\n"
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)


def public(name, folder):
    return corpus.public(name, str(folder), "unknown", FREE, str(folder / "cache"), values=True)


def test_movielens_latest_small(tmp_path):
    """`ratings.csv` by user and movie, half stars; titles with commas stand in quotation marks."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.5,847434962\n")
    movies = 'movieId,title,genres\n1,Toy Story (1995),Adventure|Comedy\n3,"American President, The (1995)",Drama\n'
    (tmp_path / "movies.csv").write_text(movies)
    stream = public("movielens_small", tmp_path)
    assert stream.features == ("user", "item", "year", "genres", "genre")
    assert stream.time.tolist() == [847434962, 964982703]
    assert stream.labels.tolist() == [[1, 0, 4.5], [1, 0, 4]]
    assert stream.ids[0, 0] == stream.ids[1, 0]
    assert stream.ids[0, 2] == stream.ids[1, 2]  # both of 1995
    assert stream.ids[0, 4] != stream.ids[1, 4]


@pytest.mark.parametrize(("name", "size"), [("kuairand_pure", "pure"), ("kuairand_1k", "1k")])
def test_kuairand_as_published(name, size, tmp_path):
    """Two logs of the recommender and the users, in `data` of the folder; the log of random videos is not read."""
    folder = tmp_path / corpus.PUBLIC[name][1]
    folder.mkdir(parents=True)
    row = "3,{},20220{},1600,{},1,0,0,0,0,0,{},{},87433,0,0,0,{},1\n"
    first, second = (folder / f"log_standard_{days}_{size}.csv" for days in ("4_08_to_4_21", "4_22_to_5_08"))
    first.write_text(LOG + row.format(71, 408, 1649408076860, 1, 60000, 0) + row.format(5, 408, 1649400000000, 0, 0, 0))
    second.write_text(LOG + row.format(71, 422, 1650600000000, 0, 3000, 0))
    (folder / f"log_random_4_22_to_5_08_{size}.csv").write_text(LOG + row.format(9, 422, 1650600000001, 1, 1, 1))
    (folder / f"user_features_{size}.csv").write_text(USERS + ONE_USER)
    stream = public(name, tmp_path)
    assert (stream.tasks, stream.real) == (("click", "long view", "like", "watch"), (False, False, False, True))
    assert stream.time.tolist() == [1649400000, 1649408076, 1650600000]
    assert stream.labels.tolist() == [[1, 0, 0, 0], [1, 1, 0, 2], [1, 0, 0, np.float32(0.1)]]
    assert stream.features[:5] == ("user", "item", "duration", "hour", "tab")
    assert stream.ids[1, 1] == stream.ids[2, 1] != stream.ids[0, 1]
    second.unlink()
    with pytest.raises(InputError, match=f"needs log_standard_4_22_to_5_08_{size}.csv.gz too"):
        public(name, tmp_path)


def criteo(lines):
    """Rows of `train.txt`: the label, 13 integers and 26 words of 8 hexadecimal digits, any of them missing."""
    rng = np.random.default_rng(0)
    for label in lines:
        numbers = [str(n) if n > -3 else "" for n in rng.integers(-4, 900, 13)]
        words = [f"{n:08x}" if n % 9 else "" for n in rng.integers(0, 2**32, 26)]
        yield "\t".join([str(label), *numbers, *words])


def test_criteo_is_read_without_a_line_of_names(tmp_path):
    lines = list(criteo([0, 1, 1]))
    with gzip.open(tmp_path / "train.txt.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    path = [f"data.path={tmp_path / 'train.txt.gz'}", f"data.cache={tmp_path}"]
    experiment, _ = build("run.folder=unused", "data=criteo", "data.pace=2", *path, small=False)
    stream = experiment.stream
    assert stream.features == tuple(f"C{i}" for i in range(1, 27))
    assert stream.numeric == tuple(f"I{i}" for i in range(1, 14))
    assert stream.labels[:, 0].tolist() == [0, 1, 1]
    assert stream.time.tolist() == [0, 0, 1]  # two rows a second, in their order
    given = np.array([[float(cell or 0) for cell in line.split("\t")[1:14]] for line in lines])
    np.testing.assert_allclose(stream.numbers, np.sign(given) * np.log1p(abs(given)), rtol=1e-6)
    assert stream.vocabulary == 100_000
    assert stream.ids.max() < 100_000
    whole = build("run.folder=unused", "data=criteo", "data.buckets=null", *path, small=False)[0].stream
    words = {(i, word) for line in lines for i, word in enumerate(line.split("\t")[14:])}
    assert whole.vocabulary == len(words)


def test_criteo_in_parquet_is_the_same_stream(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    (tmp_path / "train.txt").write_text("\n".join(criteo([0, 1])) + "\n")
    names = ["click", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    kinds = dict.fromkeys(names[:14], "number") | dict.fromkeys(names[14:], "text")
    (block,) = io.read(tmp_path / "train.txt", kinds, names=names, delimiter="\t")
    pyarrow.parquet.write_table(pa.table(block), tmp_path / "train.parquet")
    text, parquet = (
        build("run.folder=unused", "data=criteo", f"data.path={tmp_path / name}", f"data.cache={tmp_path}", small=False)
        for name in ("train.txt", "train.parquet")
    )
    for name in ("time", "ids", "numbers", "labels"):
        np.testing.assert_array_equal(getattr(text[0].stream, name), getattr(parquet[0].stream, name))


def avazu(folder, *rows):
    cells = (
        "1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,a99f214a,{ip},44956a24,1,2,{ad},320,50,1722,0,35,-1,79"
    )
    text = [f"{number},{click},{hour},1005,0,{cells}" for number, (click, hour, *_) in enumerate(rows)]
    text = [line.format(ip=ip, ad=ad) for line, (_, _, ip, ad) in zip(text, rows, strict=True)]
    (folder / "train.csv").write_text(AVAZU + "\n".join(text) + "\n")
    path = [f"data.path={folder / 'train.csv'}", f"data.cache={folder}"]
    return build("run.folder=unused", "data=avazu", *path, small=False)[0]


def test_avazu_tells_hours_of_the_calendar(tmp_path):
    stream = avazu(tmp_path, (0, 14102100, "aa", 7), (1, 14102123, "bb", 7), (1, 14110100, "aa", 8)).stream
    hours = np.array(["2014-10-21T00", "2014-10-21T23", "2014-11-01T00"], "datetime64[h]")
    np.testing.assert_array_equal(stream.time, hours.astype("datetime64[s]").astype(np.int64))
    assert stream.labels[:, 0].tolist() == [0, 1, 1]
    assert stream.features[:3] == ("user", "item", "C1")
    assert stream.ids[0, 0] == stream.ids[2, 0] != stream.ids[1, 0]
    assert stream.ids[0, 1] == stream.ids[1, 1] != stream.ids[2, 1]


def test_what_is_not_in_the_published_form_is_told(tmp_path):
    with pytest.raises(InputError, match="time 14132100 is not of the form YYMMDDHH"):
        avazu(tmp_path, (0, 14132100, "aa", 7)).stream  # noqa: B018
    (tmp_path / "test.txt").write_text("\t".join(["1"] * 39) + "\n")  # without labels, as the file to be predicted
    path = [f"data.path={tmp_path / 'test.txt'}", f"data.cache={tmp_path}"]
    with pytest.raises(InputError, match="Expected 40 columns, got 39"):
        build("run.folder=unused", "data=criteo", *path, small=False)[0].stream  # noqa: B018
    with pytest.raises(InputError, match=r"data\.duplicates: repeated events show by user and item"):
        build("run.folder=unused", "data=criteo", "data.duplicates=refuse", *path, small=False)[0].stream  # noqa: B018
    nothing = ["data.categories=[]", *path]
    with pytest.raises(InputError, match=r"data\.categories: nothing to learn from"):
        build("run.folder=unused", "data=criteo", *nothing, small=False)[0].stream  # noqa: B018


def test_hashes_that_are_forgotten_come_again(monkeypatch):
    from kdrec import data

    rows = data._Rows("c", iter(()), 50)
    first = [rows[value] for value in range(200)]
    monkeypatch.setattr(data, "HASHES", 8)
    few = data._Rows("c", iter(()), 50)
    assert [few[value] for value in range(200)] == first
    assert len(few) <= 8
