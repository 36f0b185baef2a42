import gzip

import nibabel
import numpy as np
import pytest

from evalmetrics import checks, io
from evalmetrics.readers import ALLOWED
from evalmetrics.volumes import Volume


def volume(data, *, path="b.nii", matrix=None):
    data = np.asarray(data)
    soft = data.dtype.kind == "f" or data.dtype == bool
    parts = len(data) if soft else int(data.max()) + 1
    names = tuple(f"part {k}" for k in range(parts))
    ndim = data.ndim - soft
    return Volume(data, matrix, (1.0,) * ndim, names, None if soft else tuple(range(parts)), path)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return [rng.dirichlet(np.ones(3), (4, 5, 6)).astype(np.float32).transpose(3, 0, 1, 2).copy() for _ in range(2)]


def moved(x=0.0, y=0.0, scale=1.0):
    matrix = np.diag([scale, 1.0, 1.0, 1.0])
    matrix[:2, 3] = x, y
    return matrix


def save(path, data, matrix=None):
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if matrix is None else matrix), path)
    return path


def line_of(action, folder=None):
    """The one line of a fault, with the test's own folder taken out."""
    with pytest.raises(io.InputError) as fault:
        action()
    line = str(fault.value)
    assert "\n" not in line
    return line if folder is None else line.replace(f"{folder}/", "").replace(str(folder), "FOLDER")


def test_sound_pairs_pass_untouched(maps):
    first, second = volume(maps[0], matrix=moved()), volume(maps[1], matrix=moved(0.005))
    assert checks.checked(first, second, labels="ordered") == (first, second)
    labels = volume(maps[0].argmax(0))
    assert checks.checked(labels, second)[0] is labels


GOLDEN_PAIRS = {
    "shape": (
        lambda a, b: (volume(a, path="a.nii"), volume(b[:, :, :, :5])),
        "b.nii: axis 2 (z) has 5 voxels, but a.nii has 6 ((4, 5, 5) against (4, 5, 6)); both must lie on one grid: "
        "resample the prediction",
    ),
    "axes": (
        lambda a, b: (volume(a, path="a.nii"), volume(b[..., 0])),
        "b.nii: has 2 axes (4, 5), but a.nii has 3 (4, 5, 6); both must lie on one grid: resample it, or set kind",
    ),
    "affine": (
        lambda a, b: (volume(a, path="a.nii", matrix=moved()), volume(b, matrix=moved(0.1, -2.0))),
        "b.nii: lies 2 mm away from a.nii at voxel (0, 0, 0), most along axis 1 (y); allowed are 0.01 mm: resample the "
        "prediction, or raise the affine tolerance",
    ),
    "spacing": (
        lambda a, b: (volume(a, path="a.nii", matrix=moved()), volume(b, matrix=moved(scale=1.01))),
        "b.nii: lies 0.03 mm away from a.nii at voxel (3, 0, 0), most along axis 0 (x); allowed are 0.01 mm: resample "
        "the prediction, or raise the affine tolerance",
    ),
    "channels": (
        lambda a, b: (volume(a, path="a.nii"), volume(np.stack([b[0], b[1] + b[2]]))),
        "b.nii: axis 0 has 2 parts, but a.nii has 3; ordered labels need equal numbers: add the missing part, or say "
        "labels=unordered",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", GOLDEN_PAIRS)
def test_a_bad_pair_gets_one_line(maps, fault):
    build, line = GOLDEN_PAIRS[fault]
    assert line_of(lambda: checks.checked(*build(*maps), labels="ordered")) == line


def test_tolerances_are_the_users(maps):
    apart = volume(maps[0], matrix=moved()), volume(maps[1], matrix=moved(3.0))
    checks.checked(*apart, affine_tolerance=3.1)
    checks.checked(*apart, affine_tolerance=None)
    checks.checked(volume(maps[0], matrix=moved()), volume(maps[1]))
    checks.checked(volume(maps[0]), volume(maps[1] * np.float32(1.02)), sum_tolerance=0.05)
    checks.checked(volume(maps[0]), volume(maps[1][:2]), sums="any")


def put(index, value):
    def build(data):
        data[index] = value
        return data

    return build


GOLDEN_MAPS = {
    "nan": (
        put((1, 2, 3, 4), np.nan),
        "b.nii: NaN at index (1, 2, 3, 4) (part, voxel); a probability is a number in [0, 1]: replace it, e.g. by 0",
    ),
    "negative": (
        put((2, 0, 1, 0), -0.25),
        "b.nii: negative probability -0.25 at index (2, 0, 1, 0) (part, voxel); allowed is [0, 1]: clip the map",
    ),
    "sum": (
        put((slice(None), 3, 4, 5), [0.5, 0.5, 0.5]),
        "b.nii: the 3 parts of voxel (3, 4, 5) sum to 1.5; allowed is 1 within 0.01: normalise the map, or say "
        "sums=close (divide), rest (add a part) or any",
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 40, 1 << 21])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("fault", GOLDEN_MAPS)
def test_a_bad_probability_is_placed_whatever_the_slabs_and_the_layout(maps, fault, order, size, monkeypatch):
    build, line = GOLDEN_MAPS[fault]
    whole = checks.slabs
    monkeypatch.setattr(checks, "slabs", lambda data, *, lead=0: whole(data, lead=lead, size=size))
    bad = volume(np.asarray(build(maps[0]), order=order))
    assert line_of(lambda: checks.checked(volume(maps[1]), bad)) == line


def test_values_beyond_one_are_refused_where_sums_are_free(maps):
    bad = volume(put((0, 0, 0, 1), 1.5)(maps[0]))
    assert line_of(lambda: checks.checked(bad, bad, sums="any")) == (
        "b.nii: probability 1.5 at index (0, 0, 0, 1) (part, voxel); allowed is [0, 1]: normalise, or say sums=close"
    )


def test_closure_divides_by_the_sum(maps):
    tripled = volume(maps[0] * 3)
    closed, _ = checks.checked(tripled, volume(maps[1]), sums="close")
    np.testing.assert_allclose(closed.data, maps[0], rtol=1e-6)
    tripled.data[:, 1, 2, 3] = 0
    assert line_of(lambda: checks.checked(tripled, tripled, sums="close")) == (
        "b.nii: the parts of voxel (1, 2, 3) sum to 0 and cannot be closed; a sum above 0 is needed: say sums=rest to "
        "give the voxel to a further part"
    )


def test_rest_adds_a_part_only_where_something_is_left(maps):
    first, second = checks.checked(volume(maps[0][1:]), volume(maps[1]), sums="rest")
    np.testing.assert_allclose(first.data, maps[0], atol=1e-6)
    assert first.names == ("rest", "part 0", "part 1")
    assert second.names == ("part 0", "part 1", "part 2")


def test_crisp_channels_that_overlap_do_not_sum_to_one():
    masks = np.ones((2, 3, 3), bool)
    assert "sum to 2" in line_of(lambda: checks.checked(volume(masks), volume(masks)))
    checks.checked(volume(masks), volume(masks), sums="any")
    assert checks.checked(volume(masks), volume(masks), sums="close")[0].data.max() == 0.5


def test_an_unknown_way_with_sums_names_the_ways(maps):
    with pytest.raises(ValueError, match="allowed are strict, close, rest, any"):
        checks.checked(volume(maps[0]), volume(maps[1]), sums="divide")


def make_files(folder):
    labels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save(folder / "good.nii.gz", labels)
    (folder / "cut.nii.gz").write_bytes((folder / "good.nii.gz").read_bytes()[:-30])
    (folder / "fake.nii.gz").write_bytes(gzip.compress(b"no image at all" * 40))
    save(folder / "good.nii", labels)
    (folder / "cut.nii").write_bytes((folder / "good.nii").read_bytes()[:-10])
    save(folder / "negative.nii", -labels)
    np.save(folder / "fraction.npy", np.array([[0, 1.5], [2, 3]]))
    np.save(folder / "hole.npy", np.array([[0, 0.5], [np.nan, 1]]))
    np.save(folder / "words.npy", np.array([["a", "b"]]))
    np.save(folder / "channels.npy", np.arange(24).reshape(1, 2, 3, 4).repeat(2, 0))
    np.savez(folder / "two.npz", first=labels, second=labels)
    (folder / "picture.jpg").touch()
    (folder / "empty").mkdir()
    (folder / "text.nrrd").write_text("nothing")
    (folder / "text.png").write_text("nothing")
    (folder / "text.tif").write_text("nothing")


SOUND = f"allowed is a complete file of {ALLOWED}: it may be truncated, copy or export it again"
GOLDEN_FILES = {
    "gone.nii.gz": f"gone.nii.gz: no such file; give an existing file of {ALLOWED}, or a folder: check the path",
    "picture.jpg": f"picture.jpg: unsupported file type '.jpg'; supported are {ALLOWED}: convert the file",
    "cut.nii.gz": ("cut.nii.gz: not a sound .nii.gz file (", SOUND),
    "fake.nii.gz": ("fake.nii.gz: not a sound .nii.gz file (", SOUND),
    "cut.nii": ("cut.nii: not a sound .nii file (", SOUND),
    "text.nrrd": ("text.nrrd: not a sound .nrrd file (", SOUND),
    "text.png": ("text.png: not a sound .png file (", SOUND),
    "text.tif": ("text.tif: not a sound .tif file (", SOUND),
    "empty": f"empty: folder holds no readable file; supported are {ALLOWED}: check the path",
    "negative.nii": "negative.nii: label value -1 at voxel (0, 0, 1); labels are whole numbers from 0: "
    "relabel the region",
    "fraction.npy": "fraction.npy: value 1.5 at voxel (0, 1) is neither a label (a whole number) nor a probability "
    "(in [0, 1]): give one of the two, or say kind=labels or kind=probabilities",
    "hole.npy": "hole.npy: NaN at voxel (1, 0); allowed are labels or probabilities: replace it, e.g. by 0",
    "words.npy": "words.npy: holds data of type <U1; allowed are whole or real numbers: convert it",
    "channels.npy": "channels.npy: whole-numbered channels with values 0..23; channels are probabilities in [0, 1] or "
    "masks of 0 and 1: say kind=probabilities to divide by the type's largest value, or give fractions",
    "two.npz": "two.npz: cannot tell which array is meant of first, second: name it with key",
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_a_bad_file_gets_one_line(tmp_path, name):
    make_files(tmp_path)
    line = line_of(lambda: io.pair(tmp_path / "good.nii", tmp_path / name), tmp_path)
    wanted = GOLDEN_FILES[name]
    if isinstance(wanted, str):
        assert line == wanted
    else:  # the reason in the middle is the words of the format's library
        assert line.startswith(wanted[0])
        assert line.endswith(wanted[1])


def test_labels_asked_of_fractions_and_channels(tmp_path):
    make_files(tmp_path)
    assert line_of(lambda: io.load(tmp_path / "fraction.npy", kind="labels"), tmp_path) == (
        "fraction.npy: label value 1.5 at voxel (0, 1); labels are whole numbers from 0: round them, or say "
        "kind=probabilities"
    )
    assert line_of(lambda: io.load(tmp_path / "channels.npy", kind="labels"), tmp_path) == (
        "channels.npy: kind=labels, but axis 0 holds 2 channels; a label map has only axes of space: say kind=auto or "
        "give a label map"
    )


def test_ordered_labels_beyond_the_parts(tmp_path):
    np.save(tmp_path / "labels.npy", np.array([[0, 1], [5, 2]]))
    np.save(tmp_path / "parts.npy", np.full((3, 2, 2), 1 / 3))
    assert line_of(lambda: io.pair(tmp_path / "labels.npy", tmp_path / "parts.npy", labels="ordered"), tmp_path) == (
        "labels.npy: label value 5 has no part in parts.npy, which has 3 (0..2); ordered labels need one part per "
        "value: relabel, or say labels=unordered"
    )
    np.save(tmp_path / "labels.npy", np.array([[0, 0], [2, 2]]))
    first, second = io.pair(tmp_path / "labels.npy", tmp_path / "parts.npy", labels="ordered")
    assert len(first.names) == len(second.names) == 3
    assert np.array_equal(first.data, [[0, 0], [2, 2]])


def test_folders_report_what_has_no_partner_and_go_on(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for name in ("a/1.nii", "a/2.nii", "a/3.nii", "b/1.nii", "b/2.jpg", "b/4.nii.gz", "a/5.nii", "a/5.npy", "b/5.nii"):
        (tmp_path / name).touch()
    found = io.find_pairs(tmp_path / "a", tmp_path / "b")
    assert [case.name for case in found.cases] == ["1"]
    assert {row["case"]: row["error"].replace(f"{tmp_path}/", "") for row in found.faults} == {
        "2": f"b/2.jpg: unsupported file type '.jpg'; supported are {ALLOWED}: convert the file",
        "3": "a/3.nii: unpaired, b holds no '3'; names must agree: add it or set a pattern",
        "4": "b/4.nii.gz: unpaired, a holds no '4'; names must agree: add it or set a pattern",
        "5": "a/5.npy: second file of case '5' beside 5.nii: keep one, or set a pattern",
    }


def test_folders_without_a_case_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b" / "1.nii").touch()
    wanted = f"supported are {ALLOWED}: check the folder or the pattern"
    assert line_of(lambda: io.find_pairs(tmp_path / "a", tmp_path / "b"), tmp_path) == (
        f"a: no readable file matches the pattern '*' (it holds nothing); {wanted}"
    )
    assert line_of(lambda: io.find_pairs(tmp_path / "b", tmp_path / "b", "*_seg.nii"), tmp_path) == (
        f"b: no readable file matches the pattern '*_seg.nii' (it holds 1.nii); {wanted}"
    )
    assert line_of(lambda: io.find_pairs(tmp_path / "gone", tmp_path / "b"), tmp_path) == (
        "gone: no such file or folder; give an existing one: check the path"
    )


def test_a_mapped_pair_is_checked_without_being_loaded(tmp_path):
    import tracemalloc

    data = np.full((160, 160, 80, 2), 0.5, np.float32)
    paths = [save(tmp_path / name, data) for name in ("a.nii", "b.nii")]
    size = data.nbytes
    del data
    tracemalloc.start()
    checks.checked(*io.pair(*paths))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Two slabs with their sums and comparisons; the files hold 32 MB.
    assert size > 16e6
    assert peak < 24e6
