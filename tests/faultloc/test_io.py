import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultloc import io
from faultloc.io import InputError
from faultloc.writing import whole


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_what_is_written_is_read_back(tmp_path_factory, data):
    tests, files = data.draw(st.integers(1, 9)), data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    hits = {
        f"t{t}": {
            (f"f{i}.py", line) for i, n in enumerate(files) for line in range(1, n + 1) if data.draw(st.booleans())
        }
        for t in range(tests)
    }
    universe = {f"f{i}.py": list(range(1, n + 1)) for i, n in enumerate(files)}
    failed = {test: data.draw(st.booleans()) for test in hits}
    made = io.recording(hits, failed, universe=universe)
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    io.write_npz(path, made)
    found = io.read(path)
    assert found.files == made.files
    assert found.tests == made.tests
    for ours, theirs in ((found.file, made.file), (found.lines, made.lines)):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found.spectrum.covered(), made.spectrum.covered())
    np.testing.assert_array_equal(found.spectrum.failed, made.spectrum.failed)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"hello", "neither an .npz nor a coverage.py database"),
        (b"PK\x03\x04 cut", "cannot be read as an .npz"),
        (b"SQLite format 3\x00 cut", "cannot be read as a coverage.py database"),
    ],
)
def test_a_file_of_another_kind_is_explained(tmp_path, content, line):
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "outcomes.csv").write_text("a,passed\n")
    with pytest.raises(InputError, match=line):
        io.read(tmp_path / "x", tmp_path / "outcomes.csv")


def test_what_is_absent_or_empty_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        io.read(tmp_path / "absent")
    with pytest.raises(InputError, match="no test ran a line of the program"):
        io.recording({}, {})


def test_source_is_read_in_the_encoding_it_declares(tmp_path):
    (tmp_path / "a.py").write_bytes("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"))
    assert "é" in io.read_text(tmp_path / "a.py")
    assert io.read_text(tmp_path / "none.py") is None


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "new" / "suspects.csv"
    with whole(path) as file:
        file.write("first")
    with pytest.raises(ValueError, match="closed"), whole(path) as file:
        print("half of the second", file=file, flush=True) or file.close() or file.write("the rest")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
