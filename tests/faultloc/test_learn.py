"""The learned posterior: its loss against the definition, its features against a small program worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from faultloc import accuracy, corpus, features, forest, gradient, learn, models, selection, tree
from faultloc.io import Recording
from faultloc.programs import Program
from faultloc.spectrum import pack

SOURCE = """\
import os

def f(x):
    if x > 1:
        return g(x.a, "s")
    return x[0]

def g(y, z):
    y += 1; z = 2
    return y
"""
LINES = [1, 3, 4, 5, 6, 8, 9, 10]
# Rows: a failing test through lines 4, 5, 9, 10; a passing one through 4, 6; a passing one through 9, 10.
COVERED = np.array([[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]], bool)


def program(shift=0):
    """The program, its lines pushed apart by blank ones after the second."""
    head, tail = SOURCE.split("\n", 2)[:2], SOURCE.split("\n", 2)[2]
    text = "\n".join([*head, *[""] * shift, tail])
    lines = np.array([LINES[0], *(line + shift for line in LINES[1:])])
    recording = Recording(pack(COVERED, [True, False, False]), ("a.py",), np.zeros(8, int), lines, ("a", "b", "c"))
    parsed, _ = tree.from_python({"a.py": text})
    return recording, tree.statements(parsed, recording.file, recording.lines)


def test_features_are_those_worked_by_hand():
    lines = features.describe(*program())
    table = {
        name: dict(zip(LINES, column, strict=True)) for name, column in zip(features.NAMES, lines.values.T, strict=True)
    }
    # Ochiai: line 5 has 1; lines 4, 9, 10 have 1/sqrt(2); the others 0, at ranks 1; 2 to 4; 5 to 8.
    ranks = {1: 6.5, 3: 6.5, 4: 3, 5: 1, 6: 6.5, 8: 6.5, 9: 3, 10: 3}
    assert table["log rank by ochiai"] == pytest.approx({line: -np.log(r) / np.log(8) for line, r in ranks.items()})
    assert table["highest Ochiai in function"] == pytest.approx(
        {1: 0, 3: 0, 4: 1, 5: 1, 6: 1, 8: 0, 9: 0.5**0.5, 10: 0.5**0.5}
    )
    assert table["share of function run by failures"] == pytest.approx(
        {1: 0, 3: 0, 8: 0, 4: 2 / 3, 5: 2 / 3, 6: 2 / 3, 9: 1, 10: 1}
    )
    # Module 0, its statements 1, those of a function 2, the return in the if 3.
    assert table["depth"] == {1: 1, 3: 1, 4: 2, 5: 3, 6: 2, 8: 1, 9: 2, 10: 2}
    assert table["leaf"] == {1: 1, 3: 0, 4: 0, 5: 1, 6: 1, 8: 0, 9: 1, 10: 1}
    assert table["calls"][5] == pytest.approx(np.log(2))
    assert table["names"][5] == pytest.approx(np.log(1 + 3))  # g, x.a and x
    assert table["assignments"][9] == pytest.approx(np.log(1 + 2))
    assert table["subscripts"][6] == pytest.approx(np.log(2))
    assert table["operators"][4] == pytest.approx(np.log(2))
    # If, Compare, Name, Gt, Constant.
    assert table["nodes"][4] == pytest.approx(np.log(1 + 5))
    assert table["size"][10] == pytest.approx(np.log(2))


def test_features_do_not_see_distances_between_lines():
    near, far = features.describe(*program()), features.describe(*program(shift=700))
    np.testing.assert_allclose(near.values, far.values)
    assert near.symbols == far.symbols


def examples(seed=0, bugs=5, kinds=3):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(bugs):
        size = int(rng.integers(5, 12))
        symbols = tuple(f"kind {k}" for k in rng.integers(0, kinds, size))
        faulty = rng.choice(size, int(rng.integers(1, 3)), replace=False)
        values = rng.normal(size=(size, 19))
        values[faulty, 0] += 3
        described = Program("python", symbols, np.arange(-1, size - 1), np.arange(size), values)
        made.append(forest.Example(described, faulty))
    return made


def by_definition(weights, offsets, given, mean, scale, number, ridge):
    """The loss of the docstring, in float64 and one bug after the other."""
    total = ridge / 2 * (weights @ weights + offsets @ offsets)
    for example in given:
        odds = (example.program.values - mean) / scale @ weights + offsets[[number[s] for s in example.program.kinds]]
        sound = np.setdiff1d(np.arange(len(odds)), example.faulty)
        target = np.logaddexp.reduce(odds[example.faulty])
        total += np.logaddexp.reduce(odds) - target
        total += 10 / len(odds) * np.logaddexp(0, odds[sound] - target).sum()
    return total


@pytest.fixture(scope="module")
def planted():
    """Five bugs; the models are three folds of them, the last without the last two."""
    given = examples()
    weight = np.ones((5, 3))
    weight[0, 1] = weight[3:, 2] = 0
    return given, forest.plant(given), weight


def flat(parameters, index):
    return np.asarray(parameters.weights, np.float64)[:, index], np.asarray(parameters.kinds, np.float64)[:, index]


def pieces(given, planted, weight):
    seen = [example for example, w in zip(given, weight, strict=True) if w]
    stacked = np.concatenate([example.program.values for example in seen])
    return seen, stacked.mean(0), stacked.std(0), {name: i for i, name in enumerate(planted.symbols)}


def test_losses_and_gradients_of_all_folds_are_those_of_the_definition(planted):
    given, planted, weight = planted
    rng = np.random.default_rng(1)
    first = gradient.start(planted, jax.random.key(0), 1, 3, rate=0.1, steps=5).parameters
    drawn = first._replace(
        weights=jnp.asarray(rng.normal(size=(19, 3)), "float32"), kinds=jnp.asarray(rng.normal(size=(3, 3)), "float32")
    )
    penalty = learn.Penalty(ridge=2.0)
    found = gradient.losses(drawn, planted, weight, penalty)
    mean, scale = planted.moments(weight)
    given32 = [jnp.asarray(each, "float32") for each in (weight, mean, scale)]
    slopes = jax.grad(lambda p: gradient._losses(p, planted.lines, *given32, gradient._device(penalty)).sum())(drawn)
    for g in range(3):
        seen, *rest = pieces(given, planted, weight[:, g])
        weights, offsets = flat(drawn, g)
        assert found[g] == pytest.approx(by_definition(weights, offsets, seen, *rest, 2), rel=1e-5)
        numeric = approx_fprime(weights, lambda w: by_definition(w, offsets, seen, *rest, 2), 1e-6)  # noqa: B023
        np.testing.assert_allclose(slopes.weights[:, g], numeric, rtol=1e-3, atol=2e-3)
        numeric = approx_fprime(offsets, lambda c: by_definition(weights, c, seen, *rest, 2), 1e-6)  # noqa: B023
        np.testing.assert_allclose(slopes.kinds[:, g], numeric, rtol=1e-3, atol=2e-3)


def test_learning_ends_where_another_optimiser_finds_no_way_down(planted):
    given, planted, weight = planted
    learned = learn.fit_folds(
        planted, weight, jax.random.key(0), subclasses=1, restarts=1, steps=400, rate=0.1, penalty=learn.Penalty(2.0)
    ).model
    for g, model in enumerate(learned):
        seen, *rest = pieces(given, planted, weight[:, g])
        value = lambda x: by_definition(x[:19], x[19:], seen, *rest, 2)  # noqa: B023, E731
        there = np.append(model.weights[0], model.offsets[:3, 0] - gradient.START)
        # With several faulty lines the loss may have several minima; this is one of them.
        assert value(there) == pytest.approx(minimize(value, there).fun, rel=1e-4)
        assert value(there) < value(np.zeros(22)) / 3
        np.testing.assert_allclose(model.mean, rest[0], rtol=1e-5)
        assert np.argmax(model.weights[0]) == 0


def test_what_a_fold_must_not_see_changes_nothing(planted):
    given, planted, weight = planted
    options = {"subclasses": 1, "restarts": 1, "steps": 400, "rate": 0.1, "penalty": learn.Penalty(2.0)}
    together = learn.fit_folds(planted, weight, jax.random.key(0), **options).model[2]
    alone = forest.plant(given[:3])
    (apart,) = learn.fit_folds(alone, np.ones((3, 1)), jax.random.key(0), **options).model
    for example in given:
        np.testing.assert_allclose(
            models.rank(together, example.program), models.rank(apart, example.program), atol=2e-3
        )


def test_subclasses_are_learned_and_the_best_of_the_restarts_is_kept(planted):
    given, planted, weight = planted
    options = {"subclasses": 2, "steps": 40, "rate": 0.1, "penalty": learn.Penalty(2.0)}
    kept = learn.fit_folds(planted, weight, jax.random.key(3), restarts=2, **options).model
    drawn = np.repeat(weight, 2, axis=1)
    first = gradient.start(planted, jax.random.key(3), 2, 6, rate=0.1, steps=40)
    ended = gradient.advance(first, planted, drawn, options["penalty"], 40, 0.1, 40).parameters
    before, after = (gradient.losses(p, planted, drawn, options["penalty"]) for p in (first.parameters, ended))
    assert (after < before).all()
    best = int(after[:2].argmin())
    np.testing.assert_allclose(
        kept[0].weights, learn.model(ended, planted, drawn, options["penalty"], best).weights, rtol=1e-5
    )
    # What was learned is what the exact posterior of the model says: the loss is that of `models.rank`.
    scores = [models.rank(kept[0], e.program) for e in given]
    listwise = -sum(np.logaddexp.reduce(s[e.faulty]) for s, e in zip(scores, given, strict=True))
    only = learn.Penalty(0.0, 1.0, 0.0)
    table = float(gradient._ridge_of_tables(ended)[best]) / 2
    assert gradient.losses(ended, planted, drawn, only)[best] - table == pytest.approx(listwise, rel=1e-4)


def test_learning_goes_on_where_it_stopped(planted):
    _, planted, weight = planted
    options = planted, weight, learn.Penalty(2.0)
    first = gradient.start(planted, jax.random.key(3), 1, 3, rate=0.1, steps=400)
    half = gradient.advance(first, *options, 200, 0.1, 400)
    whole, resumed = gradient.advance(first, *options, 400, 0.1, 400), gradient.advance(half, *options, 200, 0.1, 400)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_posterior_is_a_distribution_and_unknown_kinds_are_neutral():
    given = examples()
    model = learn.fit(given)
    strange = given[0].program._replace(symbols=("never seen",) * len(given[0].program.symbols))
    assert np.exp(models.rank(model, strange)).sum() == pytest.approx(1)
    expected = (strange.values - model.mean) / model.scale @ model.weights[0] + gradient.START
    np.testing.assert_allclose(models.log_odds(model, strange)[:, 0], expected)


def test_settings_are_chosen_by_the_loss_that_is_minimised():
    given = examples()
    planted, faulty = forest.plant(given), [example.faulty for example in given]
    learned = learn.fit_folds(
        planted, np.ones((planted.bugs, 1)), jax.random.key(0), subclasses=1, restarts=1, steps=5, rate=0.1,
        penalty=gradient.Penalty(ridge=0.0),
    )  # fmt: skip
    found = selection._scores(planted, faulty, list(range(planted.bugs)), learned.scores[:, 0, 0], "loss")
    assert -sum(found) == pytest.approx(learned.loss[0, 0], rel=1e-5)
    likelihood = selection._scores(planted, faulty, [0], learned.scores[:, 0, 0], "likelihood")
    assert likelihood[0] == pytest.approx(np.log(np.exp(learned.scores[planted.place[0], 0, 0][faulty[0]]).sum()))


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="no bug to learn from"):
        learn.fit([])


@pytest.mark.usefixtures("optimised")
@pytest.mark.slow
@pytest.mark.parametrize(("name", "least", "nll"), [("bugsinpy", 0.930, 3.8), ("sir", 0.926, 5.4)])
def test_held_out_programs_are_ranked_as_well_as_an_earlier_implementation_did(public_data, key, name, least, nll):
    bugs = corpus.load(name, public_data / "faultloc" / f"{name}_spectra")
    ranker = selection.Tflm([selection.Setting()], criterion="skipped", restarts=1, steps=80, rate=0.06, seed=0)
    source = accuracy.HeldOut(bugs, ranker, resamples=200, level=0.95)
    totals = source.totals()
    for index in range(len(source)):
        totals, row = source.score(index, totals, key=key, place=lambda array: array)
    assert all(row[f"fs/{ties}"] >= least for ties in ("strict", "mid", "best"))
    assert row["nll"] < nll
    # Calibration: the probability of the first ten lines against how often the fault is among them.
    assert row["mass/10"] == pytest.approx(row["top/10"], abs=0.03)
