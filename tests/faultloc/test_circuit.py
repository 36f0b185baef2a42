"""Circuits against the sum over every assignment, and against golden values of a peer."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from faultloc import circuit, queries
from faultloc.circuit import Node


def leaf(variable, *table):
    return Node("leaf", variable=variable, table=table)


def bell(variable, mean, deviation):
    return Node("leaf", variable=variable, gaussian=(mean, deviation))


# Two binary variables, one of three values, one Gaussian; the second factor is shared by two products.
NODES = (
    leaf(0, 0.2, 0.8), leaf(0, 0.9, 0.1), leaf(1, 0.3, 0.7), leaf(1, 0.6, 0.4), leaf(2, 0.1, 0.2, 0.7),
    bell(3, 0.5, 1.0), bell(3, -2.0, 0.5),
    Node("sum", (5, 6), (0.25, 0.75)),
    Node("product", (4, 7)),
    Node("product", (0, 2, 8)), Node("product", (1, 3, 8)),
    Node("sum", (9, 10), (0.35, 0.65)),
)  # fmt: skip
VALUES = ((0, 1), (0, 1), (0, 1, 2))


@pytest.fixture(scope="module")
def built():
    return circuit.build(NODES)


def density(nodes, row):
    """By the definition, one node after the other; NaN is not observed."""
    values = []
    for node in nodes:
        x = row[node.variable] if node.kind == "leaf" else 0
        if node.kind == "leaf":
            if np.isnan(x):
                values.append(1.0)
            else:
                values.append(node.table[int(x)] if node.gaussian is None else norm.pdf(x, *node.gaussian))
        elif node.kind == "product":
            values.append(np.prod([values[c] for c in node.children]))
        else:
            values.append(sum(w * values[c] for w, c in zip(node.weights, node.children, strict=True)))
    return values[-1]


def test_every_marginal_is_the_sum_over_what_is_not_observed(built):
    nan = float("nan")
    rows = list(itertools.product((0, 1, nan), (0, 1, nan), (0, 1, 2, nan), (0.3, nan)))
    found = np.exp(np.asarray(circuit.log_density(built, np.array(rows))))
    for row, value in zip(rows, found, strict=True):
        free = [(x,) if not np.isnan(x) else VALUES[v] for v, x in enumerate(row[:3])]
        expected = sum(density(NODES, (*each, row[3])) for each in itertools.product(*free))
        assert value == pytest.approx(expected, rel=1e-5)
    assert found[-1] == pytest.approx(1, abs=1e-6)


def test_posteriors_of_all_variables_are_those_of_enumeration(built):
    rows = np.array([[np.nan, 1, np.nan, 0.3], [np.nan, np.nan, np.nan, np.nan], [0, np.nan, 2, -1.5]])
    found = queries.marginals(built, rows)
    for b, row in enumerate(rows):
        weight = {}
        for each in itertools.product(*[(x,) if not np.isnan(x) else VALUES[v] for v, x in enumerate(row[:3])]):
            weight[each] = density(NODES, (*each, row[3]))
        total = sum(weight.values())
        for v in range(3):
            for x in VALUES[v]:
                share = sum(w for each, w in weight.items() if each[v] == x) / total
                assert found.table[b, v, x] == pytest.approx(share, abs=1e-5)
    assert found.mean[1, 3] == pytest.approx(0.25 * 0.5 - 0.75 * 2, abs=1e-5)
    assert found.mean[0, 3] == pytest.approx(0.3)


def test_conditional_densities_are_quotients(built):
    nan = np.nan
    found = queries.log_conditional(built, [[1, nan, nan, nan]], [[nan, 0, nan, 0.3]])
    both, given = density(NODES, (1, 0, nan, 0.3)), density(NODES, (nan, 0, nan, 0.3))
    assert float(found[0]) == pytest.approx(np.log(both / given), abs=1e-5)
    with pytest.raises(ValueError, match="both asked for and observed"):
        queries.log_conditional(built, [[1, nan, nan, nan]], [[1, nan, nan, nan]])


def test_the_most_probable_values_of_a_selective_circuit_are_the_largest_of_all():
    # The value of variable 0 decides which term of the sum is not zero.
    nodes = (
        leaf(0, 1.0, 0.0), leaf(0, 0.0, 1.0), leaf(1, 0.3, 0.7), leaf(1, 0.9, 0.1), leaf(2, 0.5, 0.2, 0.3),
        Node("product", (0, 2, 4)), Node("product", (1, 3, 4)), Node("sum", (5, 6), (0.55, 0.45)),
    )  # fmt: skip
    built = circuit.build(nodes)
    rows = np.array(list(itertools.product((0, 1, np.nan), (0, 1, np.nan), (1, np.nan))))
    for row, best in zip(rows, queries.most_probable(built, rows), strict=True):
        free = [(x,) if not np.isnan(x) else VALUES[v] for v, x in enumerate(row)]
        every = {each: density(nodes, each) for each in itertools.product(*free)}
        top = circuit.log_density(built, row[None], semiring="max")
        assert float(jnp.exp(top[0])) == pytest.approx(max(every.values()))
        assert density(nodes, best) == pytest.approx(max(every.values()))
        assert (best[~np.isnan(row)] == row[~np.isnan(row)]).all()


def test_the_largest_density_takes_the_mode_of_every_leaf_that_is_not_observed():
    built = circuit.build((leaf(0, 0.2, 0.3, 0.5), leaf(1, 0.9, 0.1), bell(2, 1.0, 2.0), Node("product", (0, 1, 2))))
    nan, peak = np.nan, norm.pdf(0) / 2
    found = np.exp(circuit.log_density(built, [[nan, nan, nan], [0, nan, nan], [nan, 1, 3]], semiring="max"))
    np.testing.assert_allclose(found, [0.45 * peak, 0.18 * peak, 0.05 * norm.pdf(1) / 2], rtol=1e-6)


def test_a_value_that_a_table_does_not_hold_is_impossible(built):
    rows = np.array([[0, 0, x, 0.3] for x in (7, -1, 1.7, 3)])
    assert (np.asarray(circuit.log_density(built, rows)) == -np.inf).all()
    assert not queries.marginals(built, rows).table[:, 2].any()
    # Tables are padded to the longest: two is no value of a binary variable.
    assert float(circuit.log_density(built, [[2, 0, 0, 0.3]])[0]) == -np.inf


def test_samples_have_the_frequencies_of_the_joint_distribution(built, key):
    rows = np.full((20000, 4), np.nan)
    rows[:, 1] = 0
    drawn = queries.sample(built, rows, key)
    assert (drawn[:, 1] == 0).all()
    total = density(NODES, (np.nan, 0, np.nan, np.nan))
    for a, c in itertools.product((0, 1), (0, 1, 2)):
        share = density(NODES, (a, 0, c, np.nan)) / total
        assert np.mean((drawn[:, 0] == a) & (drawn[:, 2] == c)) == pytest.approx(share, abs=0.012)
    assert drawn[:, 3].mean() == pytest.approx(0.25 * 0.5 - 0.75 * 2, abs=0.05)
    np.testing.assert_array_equal(drawn, queries.sample(built, rows, key))


def test_derivatives_are_those_of_finite_differences(built):
    leaves = circuit.leaf_logs(built, jnp.asarray([[0, np.nan, 1, 0.2]], jnp.float32))
    total = lambda x: float(circuit.from_leaves(built, x)[0])  # noqa: E731
    slopes = jax.grad(lambda x: circuit.from_leaves(built, x)[0])(leaves)
    for i in range(len(leaves)):
        step = jnp.zeros_like(leaves).at[i].set(1e-2)
        assert float(slopes[i, 0]) == pytest.approx((total(leaves + step) - total(leaves - step)) / 2e-2, abs=1e-3)


def test_densities_are_those_of_deeprob_kit():
    """Golden values: `python scripts/bench.py faultloc --golden` lets the peer compute them again."""
    kept = json.loads((Path(__file__).parent / "peers.json").read_text())
    nodes, given = [], kept["inputs"]
    for i, kind in enumerate(given["kind"]):
        below = slice(*given["start"][i : i + 2])
        children, size = tuple(given["children"][below]), given["values"][i]
        if kind == 0:
            shape = (
                {"table": tuple(given["leaf_table"][i][:size])} if size else {"gaussian": tuple(given["gaussian"][i])}
            )
            nodes.append(Node("leaf", variable=given["variable"][i], **shape))
        else:
            nodes.append(Node(("product", "sum")[kind - 1], children, tuple(given["weights"][below]) * (kind == 2)))
    found = circuit.log_density(circuit.build(nodes), np.array(given["rows"]))
    np.testing.assert_allclose(found, kept["values"]["log_density"], atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((), "there is no node"),
        ((Node("sum", (1,), (1.0,)), leaf(0, 1.0)), "must come before it"),
        ((leaf(0, 0.5, 0.5), leaf(0, 0.1, 0.9), Node("product", (0, 1))), "disjoint variables"),
        ((leaf(0, 0.5, 0.5), leaf(1, 0.1, 0.9), Node("sum", (0, 1), (0.5, 0.5))), "the same variables"),
        ((leaf(0, 0.5, 0.5), leaf(0, 0.1, 0.9), Node("sum", (0, 1), (0.5, 0.6))), "add up to one"),
        ((leaf(0, 0.5, 0.6),), "the table of a leaf"),
        ((bell(0, 0.0, 0.0),), "greater than 0, got 0.0"),
        ((leaf(0, 1.0), Node("product")), "a product needs children"),
    ],
)
def test_what_is_not_a_distribution_is_refused(nodes, message):
    with pytest.raises(ValueError, match=message):
        circuit.build(nodes)


def test_nodes_that_the_root_does_not_use_are_left_out(built):
    grown = circuit.build(
        (leaf(7, 1.0), *(node._replace(children=tuple(c + 1 for c in node.children)) for node in NODES))
    )
    assert len(grown.nodes) == len(built.nodes)
    rows = np.array([[0, 1, 2, 0.1]])
    np.testing.assert_array_equal(circuit.log_density(grown, rows), circuit.log_density(built, rows))


def test_impossible_evidence_has_density_zero_and_finite_derivatives():
    built = circuit.build((leaf(0, 1.0, 0.0), leaf(1, 0.5, 0.5), Node("product", (0, 1))))
    assert float(circuit.log_density(built, [[1.0, 0.0]])[0]) == -np.inf
    assert np.isfinite(queries.marginals(built, [[np.nan, 0.0], [1.0, np.nan]]).table).all()
