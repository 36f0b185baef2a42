import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faultloc import features, formulas, intervals, metrics, models, programs, rankers, spectrum, tree
from faultloc.io import Recording
from tests.faultloc.test_models import made


@pytest.fixture
def program():
    rng = np.random.default_rng(0)
    return spectrum.pack(rng.random((12, 17)) < 0.5, np.arange(12) % 4 == 0)


def test_each_kind_of_test_keeps_its_number(program):
    failed = np.asarray(program.failed)
    for seed in range(20):
        weights = np.asarray(intervals._weights(jax.numpy.asarray(failed), jax.random.key(seed)))
        assert weights[failed].sum() == failed.sum()
        assert weights[~failed].sum() == (~failed).sum()


def test_bounds_are_quantiles_of_ranks_counted_one_draw_after_the_other(program, key):
    samples = 40
    found = intervals.rank_intervals(program, formulas.ochiai, key, samples=samples, level=0.8)
    draws = []
    for each in jax.random.split(key, samples):
        weights = np.asarray(intervals._weights(jax.numpy.asarray(program.failed), each)).astype(int)
        rows = np.repeat(np.arange(12), weights)
        again = spectrum.pack(program.covered()[rows], program.failed[rows])
        draws.append(metrics.mid_ranks(formulas.ochiai(spectrum.counts(again))))
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found.low, low, atol=1e-4)
    np.testing.assert_allclose(found.high, high, atol=1e-4)


def test_tests_that_are_all_alike_leave_no_doubt(key):
    program = spectrum.pack(np.array([[1, 1, 0]] * 3 + [[0, 1, 1]] * 5), np.arange(8) < 3)
    low, high = intervals.rank_intervals(program, formulas.ochiai, key, samples=50)
    np.testing.assert_array_equal(low, [1, 2, 3])
    np.testing.assert_array_equal(high, [1, 2, 3])


def test_leading_lines_stay_ahead(program, key):
    leading = np.arange(17) % 3 == 0
    low, high = intervals.rank_intervals(program, formulas.ochiai, key, leading=leading, samples=50)
    assert high[leading].max() <= leading.sum() < low[~leading].min()


def test_it_works_without_a_passing_test(key):
    low, high = intervals.rank_intervals(spectrum.pack(np.eye(2), [True, True]), formulas.op2, key, samples=20)
    assert (low >= 1).all()
    assert (high <= 2).all()


def test_a_level_outside_the_unit_interval_is_refused(program, key):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        intervals.rank_intervals(program, formulas.ochiai, key, level=95)


def test_what_coverage_moves_is_computed_as_for_learning():
    rng = np.random.default_rng(3)
    parsed, _ = tree.from_python({"m.py": "".join(f"def f{i}(x):\n    x = {i}\n    return x + 1\n" for i in range(4))})
    lines = np.array([n for i in range(4) for n in (3 * i + 2, 3 * i + 3)])
    found = tree.statements(parsed, np.zeros(8, int), lines)
    covered = rng.random((9, 8)) < 0.6
    recording = Recording(spectrum.pack(covered, np.arange(9) < 3), ("m.py",), np.zeros(8, np.int32), lines, ("t",) * 9)
    expected = features.describe(recording, found).values[:, :7]
    assert features.NAMES[:7] == rankers.MOVING
    _, function = np.unique(found.function, return_inverse=True)
    counted = spectrum.counts(jax.tree.map(jnp.asarray, recording.spectrum))
    np.testing.assert_allclose(intervals.dynamic(counted, jnp.asarray(function), 4), expected, atol=1e-5)


def test_intervals_of_a_model_that_only_looks_at_ochiai_are_those_of_ochiai(key):
    rng = np.random.default_rng(4)
    given = spectrum.pack(rng.random((12, 6)) < 0.5, np.arange(12) < 4)
    slope = np.array([1.0, 0, 0, 0, 0, 0, 0])
    odds = intervals.Linear(np.zeros(6), slope, np.zeros(6, int))
    ours = intervals.learned_intervals(given, odds, key, samples=64, level=0.9)
    theirs = intervals.rank_intervals(given, formulas.ochiai, key, samples=64, level=0.9)
    np.testing.assert_array_equal(ours.low, theirs.low)
    np.testing.assert_array_equal(ours.high, theirs.high)


@pytest.fixture(scope="module")
def grown():
    """Twelve tests of a program of three functions with its tree, and a model of two subclasses that generates two."""
    rng = np.random.default_rng(5)
    parsed, _ = tree.from_python({"m.py": "".join(f"def f{i}(x):\n    x = {i}\n    return x + 1\n" for i in range(3))})
    lines = np.array([n for i in range(3) for n in (3 * i + 2, 3 * i + 3)])
    statements = tree.statements(parsed, np.zeros(6, int), lines)
    names = tuple(f"t{i}" for i in range(12))
    covered = spectrum.pack(rng.random((12, 6)) < 0.6, np.arange(12) < 4)
    recording = Recording(covered, ("m.py",), np.zeros(6, np.int32), lines, names)
    model = made(2)._replace(symbols=tuple(sorted(set(statements.symbols)))[:3])
    return recording, statements, model


def test_intervals_of_several_subclasses_are_those_of_the_model_on_each_draw(grown, key):
    recording, statements, model = grown
    samples, given = 32, recording.spectrum
    found = rankers.Fitted(model).bounds(recording, statements, key, samples, 0.8)
    draws = []
    for each in jax.random.split(key, samples):
        weights = np.asarray(intervals._weights(jax.numpy.asarray(given.failed), each)).astype(int)
        rows = np.repeat(np.arange(12), weights)
        again = recording._replace(spectrum=spectrum.pack(given.covered()[rows], given.failed[rows]))
        draws.append(metrics.mid_ranks(models.rank(model, programs.program(again, statements))))
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found.low, low, atol=1e-4)
    np.testing.assert_allclose(found.high, high, atol=1e-4)
    assert (found.high - found.low).max() > 1


def test_a_draw_of_several_subclasses_counts_for_its_pass(grown):
    recording, statements, model = grown
    assert rankers.Fitted(model).work(recording, statements) == rankers.PAIR * len(statements.symbols) * 4
