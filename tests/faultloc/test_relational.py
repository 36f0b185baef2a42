"""Grounded circuits against enumeration, and against the tree pass, which is an implementation of its own."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from faultloc import circuit, faults, models, queries, relational, tflm
from faultloc.relational import Attribute, Class, Exchangeable, Part, Thing
from tests.faultloc.test_models import made, program

RNG = np.random.default_rng(0)


def tables(*shape):
    return RNG.dirichlet(np.ones(shape[-1]), shape[:-1])


WORD = Class({"tag": Attribute("categorical", tables(3, 2))}, {})
HEAD = Class({"tag": Attribute("categorical", tables(2, 3))}, {})
PRIOR = tables(2)


@pytest.mark.parametrize("chained", [False, True])
def test_a_grounded_list_is_the_sum_over_all_subclasses(chained):
    first, head = tables(2, 3), tables(2, 2)
    chain, length = (tables(2, 3, 3) if chained else None), tables(2, 5)
    phrase = Class({}, {"head": Part("head", head), "words": Exchangeable("word", first, chain, length)})
    thing = Thing(
        "phrase", {"words/length": 4},
        {"head": Thing("head", {"tag": 0}, {}), "words": [Thing("word", {"tag": 1 + i}, {}) for i in range(3)]},
    )  # fmt: skip
    nodes = relational.ground({"phrase": phrase, "head": HEAD, "word": WORD}, PRIOR, thing)
    built = circuit.build(nodes)
    row = np.array([2, 1, 0, 1, 3])
    expected = 0.0
    for k, h, *words in itertools.product(range(2), range(2), *[range(3)] * 3):
        total = PRIOR[k] * length[k, 3] * head[k, h] * HEAD.attributes["tag"].parameters[h, 2]
        for i, w in enumerate(words):
            total *= first[k, w] if chain is None or i == 0 else chain[k, words[i - 1], w]
            total *= WORD.attributes["tag"].parameters[w, row[1 + i]]
        expected += total
    assert float(circuit.log_density(built, row[None])[0]) == pytest.approx(np.log(expected), abs=1e-5)
    assert float(circuit.log_density(built, np.full((1, 5), np.nan))[0]) == pytest.approx(0, abs=1e-5)


def test_a_variable_without_an_attribute_is_refused():
    with pytest.raises(ValueError, match="no attribute 'colour' in the class; there are tag"):
        relational.ground({"word": WORD}, tables(3), Thing("word", {"colour": 0}, {}))


@pytest.mark.parametrize("subclasses", [1, 3])
def test_the_grounded_program_and_the_tree_pass_agree(subclasses):
    model, given = made(subclasses), program()
    # A table holds the probability of the inner kind as well: its rows add up to less than one.
    model = model._replace(table=model.table - 0.7)
    nodes, row = relational.ground_program(model, given)
    built = circuit.build(nodes)
    found = models.potentials(model, given)
    order = tflm.schedule(given.parent, width=4)
    arrays = tflm.Tables(*(jnp.asarray(each, jnp.float32) for each in (model.prior, model.table)))
    relation, evidence = jnp.asarray(found.relation), jnp.asarray(found.evidence, jnp.float32)
    total = float(tflm.log_total(order, arrays, relation, evidence))
    assert float(circuit.log_density(built, row[None])[0]) == pytest.approx(total, abs=1e-5)
    odds = jnp.asarray(found.odds, jnp.float32)
    by_pass = np.asarray(faults.buggy(order, arrays, relation, evidence, odds))[given.owner]
    by_circuit = queries.marginals(built, row[None]).table[0, : len(given.owner), 1]
    np.testing.assert_allclose(by_pass, by_circuit, atol=1e-5)
    if subclasses == 1:
        np.testing.assert_allclose(by_pass, expit(models.log_odds(model, given)[:, 0]), atol=1e-6)
    # Exactly one fault: the density of each such row of the circuit.
    rows = np.repeat(row[None], len(given.owner), axis=0)
    rows[:, : len(given.owner)] = np.eye(len(given.owner))
    alone = np.asarray(circuit.log_density(built, rows), np.float64)
    np.testing.assert_allclose(models.rank(model, given), alone - np.logaddexp.reduce(alone), atol=2e-5)
