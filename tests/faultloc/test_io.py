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


SPECTRUM = {
    "M": np.array([[0b10100000], [0b11000000]], np.uint8), "shape": np.array([2, 3]),
    "fail": np.array([1, 0], np.uint8), "lines": np.array([1, 2, 4]), "files": np.array(["a.py"] * 3),
    "tests": np.array(["s", "t"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"shape": np.array(2)}, "shape is 2; it has to hold the numbers of tests and lines"),
        ({"shape": np.array([2, 3, 4])}, r"shape is \[2, 3, 4\]; it has to hold"),
        ({"shape": np.array(["2", "3"])}, "shape holds <U1; it has to hold integers"),
        ({"shape": np.array([2, -3])}, "shape says 2 tests and -3 lines, but M is"),
        ({"lines": np.array(["1", "2", "4"])}, "lines holds <U1; it has to hold integers"),
        ({"lines": np.array([0, 2, 4])}, "lines holds 0; lines count from 1"),
        ({"files": np.array(["a.py"])}, r"but files is \(1,\)"),
        ({"files": np.array([1, 2, 3])}, "files holds int64; it has to hold text"),
        ({"tests": np.array(["s"])}, r"but tests is \(1,\)"),
        ({"M": SPECTRUM["M"].astype(np.uint16)}, "M holds uint16; it has to hold uint8"),
        ({"M": SPECTRUM["M"].astype(float)}, "M holds float64; it has to hold uint8"),
        ({"fail": np.array(["no", "yes"])}, "fail holds <U3; it has to hold 0 and 1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, line):
    np.savez(tmp_path / "x.npz", **SPECTRUM)
    assert io.read(tmp_path / "x.npz").tests == ("s", "t")
    np.savez(tmp_path / "x.npz", **SPECTRUM | changes)
    with pytest.raises(InputError, match=line):
        io.read(tmp_path / "x.npz")


def test_a_damaged_byte_is_told_wherever_it_is(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", **SPECTRUM)
    content = (tmp_path / "whole.npz").read_bytes()
    refused = 0
    for place in range(4, len(content), 3):
        (tmp_path / "x.npz").write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            io.read(tmp_path / "x.npz")  # a byte of a date harms nothing
        except InputError:
            refused += 1
    assert refused > len(content) / 6


def test_what_is_absent_or_empty_is_said(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        io.read(tmp_path / "absent")
    with pytest.raises(InputError, match="no test ran a line of the program"):
        io.recording({}, {})
    with pytest.raises(InputError, match=r"corpus\.watch=FOLDER\)\. Noted: 0; 1; 2; 3; 4; and 2 more$"):
        io.recording({}, {}, tuple("0123456"))


def test_source_is_read_in_the_encoding_it_declares(tmp_path):
    (tmp_path / "a.py").write_bytes("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"))
    assert "é" in io.read_text(tmp_path / "a.py")
    assert io.read_text(tmp_path / "none.py") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_source_that_declares_no_encoding_is_read_in_utf8_or_latin1(tmp_path, encoding):
    for name in ("a.c", "a.h", "A.java"):
        (tmp_path / name).write_bytes("/* Käse */\r\nint a;\n".encode(encoding))
        assert io.read_text(tmp_path / name) == "/* Käse */\nint a;\n"
    assert io.read_text(tmp_path / "none.c") is None


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "new" / "suspects.csv"
    with whole(path) as file:
        file.write("first")
    with pytest.raises(ValueError, match="closed"), whole(path) as file:
        print("half of the second", file=file, flush=True) or file.close() or file.write("the rest")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
