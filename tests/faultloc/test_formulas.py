"""Conformance of the formulas: a table worked by hand, the limits, and what any formula must obey."""

import warnings
from math import inf, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faultloc import formulas
from faultloc.spectrum import Counts

# Worked by hand from the definitions, F = 4 and P = 8. Columns: a suspect (ef 3, ep 2), the perfect suspect (4, 0), a
# line that all tests run (4, 8), one that none runs (0, 0), one that only passing tests run (0, 8).
EF, EP = [3, 4, 4, 0, 0], [2, 0, 8, 0, 8]
WORKED = {
    "tarantula": [3 / 4, 1, 1 / 2, 0, 0],
    "sbi": [3 / 5, 1, 1 / 3, 0, 0],
    "ochiai": [3 / sqrt(20), 1, 1 / sqrt(3), 0, 0],
    "dstar": [3, inf, 2, 0, 0],
    "dstar3": [9, inf, 8, 0, 0],
    "op1": [-1, 8, 0, -1, -1],
    "op2": [25 / 9, 4, 28 / 9, 0, -8 / 9],
    "barinel": [3 / 5, 1, 1 / 3, 0, 0],
    "jaccard": [1 / 2, 1, 1 / 3, 0, 0],
    "kulczynski2": [27 / 40, 1, 2 / 3, 0, 0],
    "ample": [1 / 2, 1, 0, 0, 1],
    "wong1": [3, 4, 4, 0, 0],
    "wong2": [1, 4, -4, 0, -8],
    "wong3": [1, 4, 1.4, 0, -2.6],
    "gp13": [24 / 7, 5, 4.2, 0, 0],
    "zoltar": [9 / 20018, 1, 1 / 3, 0, 0],
    "crosstab": [8 / 35, 1, 0, 0, -1],
}


def counts(ef, ep, failing, passing, array=np.float64):
    if array is jnp:
        return Counts(*(jnp.asarray(x, jnp.float32) for x in (ef, ep, failing, passing)))
    return Counts(*(np.asarray(x, array) for x in (ef, ep, failing, passing)))


def test_the_worked_table_names_every_formula():
    assert set(WORKED) - {"dstar3"} == set(formulas.FORMULAS)


@pytest.mark.parametrize("name", WORKED)
def test_equals_the_worked_table(name):
    np.testing.assert_allclose(formulas.get(name)(counts(EF, EP, 4, 8)), WORKED[name], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", WORKED)
def test_is_the_same_on_a_device_under_jit_and_vmap(name):
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), counts(EF, EP, 4, 8, jnp))
    for scores in (jax.jit(formulas.get(name))(batch), jax.vmap(formulas.get(name))(batch)):
        np.testing.assert_allclose(scores, [WORKED[name]] * 2, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", WORKED)
@pytest.mark.parametrize(("failing", "passing"), [(0, 0), (0, 3), (3, 0), (1, 1), (3, 3)])
def test_gives_every_possible_line_a_number_without_a_warning(name, failing, passing):
    ef, ep = (x.ravel() for x in np.meshgrid(np.arange(failing + 1), np.arange(passing + 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = formulas.get(name)(counts(ef, ep, failing, passing))
    assert scores.shape == ef.shape
    assert not np.isnan(scores).any()


@pytest.mark.parametrize(("ep", "expected"), [(2, 3), (3, 2.9), (10, 2.2), (11, 2.199), (1010, 1.2)])
def test_wong3_bends_at_two_and_at_ten_passing_tests(ep, expected):
    assert float(formulas.wong3(counts([5], [ep], 5, 2000))[0]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tarantula", "sbi", "ochiai", "barinel"])
def test_without_a_passing_test_a_line_that_failing_tests_run_is_a_full_suspect(name):
    scores = formulas.get(name)(counts([0, 2], [0, 0], 2, 0))
    assert scores.tolist() == [0, 1]


@pytest.mark.parametrize("name", sorted(set(WORKED) - {"op1", "ample", "wong2", "wong3", "wong1", "op2", "crosstab"}))
def test_without_a_failing_test_nothing_is_suspicious(name):
    assert not formulas.get(name)(counts([0, 0, 0], [0, 1, 2], 0, 2)).any()


@pytest.mark.parametrize("name", sorted(set(WORKED) - {"ample", "op1"}))
def test_more_failing_tests_never_lower_and_more_passing_ones_never_raise_the_score(name):
    ef, ep = np.meshgrid(np.arange(6), np.arange(8), indexing="ij")
    scores = formulas.get(name)(counts(ef.ravel(), ep.ravel(), 5, 7)).reshape(ef.shape)
    scores = np.where(np.isinf(scores), 1e9, scores)
    # The sign of crosstab follows the lean of a line; between equal leans it is the strength that orders.
    assert (np.diff(scores, axis=0) >= -1e-12).all()
    assert (np.diff(scores, axis=1) <= 1e-12).all()


@pytest.mark.parametrize("name", WORKED)
def test_whole_numbers_of_32_bits_do_not_overflow(name):
    given = [50, 100, 30000], [3000, 9000, 40000], 40000, 50000
    whole = Counts(*(jnp.asarray(x, jnp.int32) for x in given))
    np.testing.assert_allclose(formulas.get(name)(whole), formulas.get(name)(counts(*given)), rtol=1e-5)
    narrow = Counts(*(np.asarray(x, np.int32) for x in given))
    np.testing.assert_array_equal(formulas.get(name)(narrow), formulas.get(name)(counts(*given)))


def test_tarantula_and_sbi_rank_alike():
    rng = np.random.default_rng(0)
    given = counts(rng.integers(0, 9, 200), rng.integers(0, 40, 200), 8, 39)
    orders = [
        np.unique(np.round(formulas.get(name)(given), 12), return_inverse=True)[1] for name in ("tarantula", "sbi")
    ]
    np.testing.assert_array_equal(*orders)


def test_equal_evidence_gives_equal_floats():
    given = counts([1, 2, 3], [7, 14, 21], 3, 21)
    for name in ("tarantula", "sbi"):
        assert len(set(formulas.get(name)(given).tolist())) == 1


def test_an_unknown_formula_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no formula 'ochai'; there are tarantula, sbi, ochiai"):
        formulas.get("ochai")
