"""EM: every estimate of the M-step against counting by hand, the regression against another optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from faultloc import em, forest, gradient, models, tuning
from faultloc.gradient import START
from quartet.devices import placement
from quartet.settings import Devices
from tests.faultloc.test_learn import examples

KINDS, K = 3, 2


@pytest.fixture(scope="module")
def planted():
    """Five bugs and two folds, the second without the first bug."""
    given = examples()
    weight = np.ones((5, 2))
    weight[0, 1] = 0
    grown = forest.plant(given)
    mean, scale = grown.moments(weight)
    use = np.ones(19)
    use[5] = 0
    arrays = em.Given(*(jnp.asarray(each, jnp.float32) for each in (weight, mean, scale, use, 2.0)))
    return given, grown, weight, arrays


@pytest.fixture(scope="module", params=[True, False], ids=["hard", "soft"])
def learned(request, planted):
    _, grown, weight, _ = planted
    return em.fit_folds(
        grown, weight, jax.random.key(0), subclasses=K, restarts=2, rounds=8, hard=request.param,
        generated=np.array([0, 2]), use=np.ones(19), ridge=2.0,
    )  # fmt: skip


def test_counts_are_those_of_a_count_by_hand(planted):
    _, grown, _, _ = planted
    lines, rng = grown.lines, np.random.default_rng(0)
    size = len(lines.symbol)
    parent = np.concatenate([np.arange(-1, n - 1) for n in np.bincount(lines.tree)])
    z = rng.integers(0, K, size)
    found = jnp.asarray(np.eye(K)[z][:, :, None], jnp.float32)
    pairs = np.zeros((len(lines.pairs) + 1, K, K, 1), np.float32)
    inner = np.flatnonzero(np.asarray(parent) >= 0)
    starts = np.cumsum([0, *np.bincount(lines.tree)[:-1]])[np.asarray(lines.tree)]
    above = parent + starts
    for n in inner:
        pairs[int(lines.relation[n]), z[above[n]], z[n], 0] += 1
    prior = np.bincount(z[parent < 0], minlength=K)[:, None]
    counts = em.tflm.Tables(jnp.asarray(prior, jnp.float32), jnp.asarray(pairs))
    found_prior, table = (np.exp(np.asarray(each)) for each in em._tables(counts, lines, KINDS))
    np.testing.assert_allclose(found_prior[:, 0], (prior[:, 0] + 1) / (prior.sum() + K), rtol=1e-5)
    symbol, stay = np.asarray(lines.symbol), np.ones((K, K))
    for n in inner:
        stay[z[above[n]], z[n]] += 1
    stay /= stay.sum(1, keepdims=True)
    for row, (outer, kind) in enumerate(np.asarray(lines.pairs)):
        from_outer = [n for n in inner if symbol[above[n]] == outer]
        distinct = sum(int(o == outer) for o, _ in np.asarray(lines.pairs))
        share = (sum(symbol[n] == kind for n in from_outer) + 0.5) / (len(from_outer) + 0.5 * distinct)
        for k in range(K):
            total = sum(z[above[n]] == k for n in from_outer)
            for j in range(K):
                mine = sum(z[above[n]] == k and z[n] == j and symbol[n] == kind for n in from_outer)
                assert table[row, k, j, 0] == pytest.approx((mine + 10 * share * stay[k, j]) / (total + 10), rel=1e-4)
    more = np.asarray(em._branching(lines, found, KINDS))[..., 0]
    children = np.asarray(lines.children)
    for k in range(K):
        alone = (children[z == k].sum() + 1) / (children[z == k].sum() + (z == k).sum() + 2)
        assert more[KINDS, k] == pytest.approx(alone, rel=1e-5)
        here = (z == k) & (symbol == 1)
        expected = (children[here].sum() + 10 * alone) / (children[here].sum() + here.sum() + 10)
        assert more[1, k] == pytest.approx(expected, rel=1e-5)


def test_moments_of_generated_features_are_shrunk_to_those_of_the_subclass(planted):
    _, grown, _, given = planted
    lines = grown.lines
    real, kind = np.asarray(lines.real), np.asarray(lines.kind)
    z = np.random.default_rng(1).integers(0, K, len(kind))
    found = jnp.asarray((np.eye(K)[z] * real[:, None])[:, :, None] * np.ones(2), jnp.float32)
    centre, spread = (np.asarray(each) for each in em._gaussian(lines, given, found, (3,), KINDS))
    x = np.asarray(em._standardised(lines, given, 3))
    for g, k in ((0, 0), (1, 1)):
        mine = x[real & (z == k), g]
        mean, variance = mine.sum() / (len(mine) + 1), ((mine**2).sum() + 1) / (len(mine) + 1)
        variance -= mean**2
        assert centre[KINDS, k, 0, g] == pytest.approx(mean, abs=1e-5)
        own = x[real & (z == k) & (kind == 2), g]
        expected = (own.sum() + 10 * mean) / (len(own) + 10)
        assert centre[2, k, 0, g] == pytest.approx(expected, abs=1e-5)
        about = (((own - expected) ** 2).sum() + 10 * variance) / (len(own) + 10)
        assert spread[2, k, 0, g] == pytest.approx(np.sqrt(about), rel=1e-4)


def test_newton_ends_at_the_regression_that_another_optimiser_finds(planted):
    _, grown, _, given = planted
    lines = grown.lines
    q = np.random.default_rng(2).dirichlet(np.ones(K), len(lines.kind)) * np.asarray(lines.real)[:, None]
    found = jnp.asarray(q[:, :, None] * np.ones(2), jnp.float32)
    p = em.start(grown, jax.random.key(1), K, 2, 0)
    step = jax.jit(lambda p: p._replace(**dict(zip(("weights", "offsets"), em._newton(
        p, lines, given, em._odds(p, lines, given), found), strict=True))))  # fmt: skip
    for _ in range(60):
        p = step(p)
    x = np.stack([np.asarray(em._standardised(lines, given, f))[:, 1] for f in range(19)], axis=1)
    y = np.zeros(len(x))
    y[np.asarray(lines.faulty)] = 1

    def loss(flat, k):
        """The common intercept `flat[19]` has no kind of its own to hold; its penalty is 0.1 to the start."""
        odds = x @ (flat[:19] * np.asarray(given.use)) + flat[19] + flat[20:][np.asarray(lines.kind)]
        data = (q[:, k] * (np.logaddexp(0, odds) - y * odds)).sum()
        return data + (flat[:19] ** 2).sum() + (flat[20:] ** 2).sum() + 0.05 * (flat[19] - START) ** 2

    for k in range(K):
        best = minimize(loss, np.append(np.zeros(19), [START, 0, 0, 0]), (k,))
        ours = np.concatenate([
            np.asarray(p.weights)[:, k, 1], [float(p.offsets[-1, k, 1])],
            np.asarray(p.offsets)[:-1, k, 1] - float(p.offsets[-1, k, 1]),
        ])  # fmt: skip
        assert loss(ours, k) == pytest.approx(best.fun, rel=2e-3)
        assert ours[5] == 0


def test_what_was_learned_scores_as_its_model_does(planted, learned):
    given, grown, _, _ = planted
    best = learned.loss.argmin(1)
    for fold, model in enumerate(learned.model):
        assert model.subclasses == K
        for example, place in zip(given, grown.place, strict=True):
            np.testing.assert_allclose(
                learned.scores[place, fold, best[fold]], models.rank(model, example.program), atol=2e-3
            )


def test_rounds_raise_the_likelihood(planted):
    _, grown, _, given = planted
    p = em.start(grown, jax.random.key(0), K, 2, 2)
    totals = []
    for _ in range(8):
        p, total = em.advance(p, grown.lines, given, 1, False, (0, 2))
        totals.append(np.asarray(total))
    assert (totals[-1] > totals[0] + 1).all()
    assert np.isfinite(np.asarray(p.table)).all()


def test_fine_tuning_raises_the_probability_of_the_faulty_lines_and_moves_nothing_else(planted):
    examples, grown, weight, _ = planted
    options = {"subclasses": K, "restarts": 2, "rounds": 8, "generated": np.array([0, 2]), "use": np.ones(19)}
    options |= {"ridge": 2.0, "hard": False}
    before, after = (em.fit_folds(grown, weight, jax.random.key(0), **options, tune=tune) for tune in (0, 30))
    drawn = np.repeat(weight, 2, axis=1)

    def surprise(learned):
        """By the model of every fold that is kept, one bug after the other, on the host."""
        every = [[models.rank(model, e.program) for e in examples] for model in learned.model]
        found = [[-np.logaddexp.reduce(s[e.faulty]) for s, e in zip(of, examples, strict=True)] for of in every]
        return (np.array(found).T * weight).sum(0)

    assert (surprise(after) < surprise(before)).all()
    for old, new, loss in zip(before.model, after.model, after.loss, strict=True):
        assert new.learner == "soft EM, fine-tuned"
        best = after.loss.tolist().index(loss.tolist())
        moved = ((new.weights - old.weights) ** 2).sum() + ((new.offsets - old.offsets) ** 2).sum()
        if before.loss[best].argmin() == loss.argmin():  # the same start is kept
            np.testing.assert_array_equal(new.table, old.table)
            assert surprise(after)[best] + moved == pytest.approx(loss.min(), rel=1e-3)
    mean, scale = grown.moments(drawn)
    arrays = em.Given(*(jnp.asarray(each, jnp.float32) for each in (drawn, mean, scale, np.ones(19), 2.0)))
    p = em.start(grown, jax.random.key(0), K, 4, 2)
    _, past = tuning.tune(p, grown.lines, arrays, (0, 2), 30)
    assert past.shape == (31, 4)
    assert (np.asarray(past)[-1] < np.asarray(past)[0]).all()


@pytest.mark.parametrize("learned", [False], indirect=True, ids=["soft"])
def test_counts_over_lines_divided_among_devices_are_added_up(planted, learned):
    _, grown, weight, given = planted
    place = placement(Devices(layout="data", count=2))
    divided = forest.spread(grown, place)
    assert {len(leaf.sharding.device_set) for leaf in (divided.lines.values, divided.lines.block)} == {2}
    assert not divided.lines.values.sharding.is_fully_replicated
    again = em.fit_folds(
        divided, weight, jax.random.key(0), subclasses=K, restarts=2, rounds=8, hard=False,
        generated=np.array([0, 2]), use=np.ones(19), ridge=2.0,
    )  # fmt: skip
    np.testing.assert_allclose(again.loss, learned.loss, rtol=1e-4)
    real = np.asarray(grown.lines.real)
    np.testing.assert_allclose(again.scores[real], learned.scores[real], atol=2e-3)
    first = em.start(divided, jax.random.key(0), K, 2, 2)
    compiled = em.advance.lower(first, divided.lines, given, 1, False, (0, 2)).compile().as_text()
    assert "all-reduce" in compiled


def test_gradients_over_lines_divided_among_devices_are_added_up(planted):
    _, grown, weight, _ = planted
    divided = forest.spread(grown, placement(Devices(layout="data", count=2)))
    first = gradient.start(grown, jax.random.key(1), 1, 2, rate=0.2, steps=3)
    alone, apart = (gradient.advance(first, each, weight, gradient.Penalty(), 3, 0.2, 3) for each in (grown, divided))
    for one, other in zip(alone.parameters, apart.parameters, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
