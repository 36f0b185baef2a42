"""Saved models: what is written is read back, what cannot be used is refused in one line."""

import json
import re

import numpy as np
import pytest
from scipy.special import log_softmax

from faultloc import features, models
from faultloc.io import InputError
from faultloc.programs import Program
from tests.faultloc import reference


def made(subclasses=2, seed=0, generated=(0, 2)):
    """A model of three kinds with every parameter in use."""
    rng = np.random.default_rng(seed)
    size, width = 3, len(features.NAMES)
    return models.Model(
        "python", "drawn", ("a", "b", "c"), features.NAMES, rng.normal(size=width), rng.uniform(0.5, 2, width),
        rng.normal(size=(subclasses, width)) / 3, rng.normal(size=(size + 1, subclasses)) - 2,
        log_softmax(rng.normal(size=subclasses)), np.array([[0, 1], [0, 2], [2, 1]]),
        log_softmax(rng.normal(size=(4, subclasses, subclasses)) * 2, axis=-1), np.array(generated, int),
        rng.normal(size=(size + 1, subclasses, len(generated))),
        rng.uniform(0.5, 2, (size + 1, subclasses, len(generated))), rng.uniform(0.2, 0.8, (size + 1, subclasses)),
    )  # fmt: skip


def program(seed=0):
    """Six statements of which four answer for lines; `d` and the pair (b, a) are not in the model."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, len(features.NAMES)))
    return Program("python", tuple("abcdab"), np.array([-1, 0, 0, 1, 1, 2]), np.array([1, 3, 5, 4]), values)


def test_a_model_comes_back_as_it_was_saved(tmp_path):
    model = made()
    path = models.save(tmp_path / "new" / "model", model)
    assert path.name == "model.npz"
    found = models.load(path)
    for name, value in model._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
    np.testing.assert_array_equal(models.rank(found, program()), models.rank(model, program()))
    assert [file.name for file in path.parent.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("subclasses", [1, 2])
@pytest.mark.parametrize("buggy", [(), (2,)])
def test_the_posterior_equals_enumeration_of_subclasses_and_faults(subclasses, buggy):
    model = made(subclasses)
    expected = reference.single_fault(model, program(), buggy)
    np.testing.assert_allclose(np.exp(models.rank(model, program(), buggy=buggy)), expected, atol=1e-5)


def test_known_lines_have_no_probability_and_the_others_share_it():
    model = made()
    free, held = np.exp(models.rank(model, program())), np.exp(models.rank(model, program(), clean=(0, 3)))
    assert held[[0, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(held[[1, 2]], free[[1, 2]] / free[[1, 2]].sum(), rtol=1e-6)
    with pytest.raises(InputError, match="nothing left to rank"):
        models.rank(model, program(), clean=(0, 1), buggy=(2, 3))


def test_a_program_in_another_language_is_refused():
    with pytest.raises(InputError, match=r"learned from python programs, the program is in c; choose or train"):
        models.rank(made(), program()._replace(language="c"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99 of the format, this program reads 1"),
        ({"features": ["weather"]}, "does not measure weather; train the model again"),
        ({"language": None}, "the header of the model lacks language; the file is damaged, train it again"),
        ({"features": 3, "symbols": [1]}, "the header of the model lacks symbols, features; the file is damaged"),
    ],
)
def test_files_of_other_versions_are_refused(change, message, tmp_path):
    path = models.save(tmp_path / "model.npz", made())
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header"))) | change
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(InputError, match=message):
        models.load(path)


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        models.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "spectrum.npz", M=np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    whole = models.save(tmp_path / "whole.npz", made()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "list.npz", header=np.array("[]"))
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    for name in ("spectrum", "text", "cut", "list", "single"):
        with pytest.raises(InputError, match=re.escape(f"{name}.npz: not a saved model, or a damaged one")):
            models.load(tmp_path / f"{name}.npz")


def test_a_damaged_byte_is_told_wherever_it_is(tmp_path):
    whole = models.save(tmp_path / "whole.npz", made()).read_bytes()
    path = tmp_path / "x.npz"
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            models.load(path)  # a byte of a date harms nothing
        except InputError:
            refused += 1
    assert refused > len(whole) / 14
