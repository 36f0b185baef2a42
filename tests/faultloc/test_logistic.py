"""The logistic regression ends where another optimiser does, and is a formula like the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from faultloc import logistic
from faultloc.corpus import Bug
from faultloc.io import InputError
from faultloc.spectrum import Counts, counts
from tests.faultloc import shop


def test_weights_are_those_that_another_optimiser_finds():
    rng = np.random.default_rng(0)
    values = rng.random((400, 3)) * [1.0, 5.0, 0.2]
    faulty = rng.random(400) < 1 / (1 + np.exp(3 - 4 * values[:, 0]))
    weights, offset = logistic.regress(values, faulty)
    scale = values.std(0)

    def loss(found):
        odds = values @ found[:3] + found[3]
        return (
            np.logaddexp(0, np.where(faulty, -odds, odds)).sum() + logistic.RIDGE / 2 * ((found[:3] * scale) ** 2).sum()
        )

    best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    np.testing.assert_allclose([*weights, offset], best.x, atol=1e-3)


def test_what_was_learned_is_the_same_formula_on_a_device_and_ranks_the_planted_line_first(key):
    given = shop.case().recording
    planted = np.flatnonzero(given.lines == shop.PLANTED)
    ranker = logistic.Logistic("logistic")
    learned = ranker.fit([Bug("shop", "shop", "shop", given, planted, "changed", None)], key)
    scores = learned.scores(given, None)
    assert scores.argmax() == planted
    seen = Counts(*(jnp.asarray(x, jnp.float32) for x in counts(given.spectrum)))
    np.testing.assert_allclose(jax.jit(learned.formula)(seen), scores, rtol=1e-4)
    twice = Counts(*(jnp.stack([x, x]) for x in seen))
    np.testing.assert_allclose(jax.vmap(learned.formula)(twice)[1], scores, rtol=1e-4)


def test_nothing_to_learn_from_is_refused(key):
    with pytest.raises(InputError, match="learns from bugs whose lines are known, and there are none here"):
        logistic.Logistic("logistic").fit((), key)
