"""Rankers against their definitions in float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdrec import models
from tests.kdrec.worlds import spec, world

init = jax.jit(models.init, static_argnums=1)


@functools.partial(jax.jit, static_argnums=1)
def value_and_gradient(params, shape, ids, numbers):
    """Logits, and the gradient of the sum of their squares."""

    def loss(p):
        logits = models.apply(p, shape, ids, numbers).logits
        return (logits**2).sum(), logits

    gradient, logits = jax.grad(loss, has_aux=True)(params)
    return logits, gradient


@pytest.fixture(params=models.TRUNKS, scope="module")
def built(request):
    key = jax.random.key(0)
    shape = spec(world(), request.param, numeric=2)
    params = init(key, shape)
    ids = jnp.asarray(world().read(0, 7).ids)
    numbers = jax.random.normal(jax.random.fold_in(key, 9), (7, 2))
    return shape, params, ids, numbers


def exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def mlp(layers, x):
    for number in range(len(layers["layers"])):
        x = np.maximum(dense(layers["layers"][f"layer{number}"], x), 0)
    return x


def reference(shape, params, ids, numbers):
    """Float64, event by event."""
    p, rows = exact(params), []
    for event, number in zip(np.asarray(ids), np.asarray(numbers, np.float64), strict=True):
        embedded, trunk = p["embedding"][event], p["trunk"]
        flat = np.concatenate([embedded.ravel(), number])
        if shape.trunk == "mlp":
            hidden = [mlp(trunk["mlp"], flat)] * shape.tasks
        elif shape.trunk == "dlrm":
            vectors = [*embedded, dense(trunk["lower"], number)]
            dots = [vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i + 1, len(vectors))]
            hidden = [mlp(trunk["upper"], np.concatenate([*vectors, dots]))] * shape.tasks
        elif shape.trunk == "dcn":
            crossed = flat
            for i in range(shape.crosses):
                crossed = flat * dense(trunk["crosses"][f"cross{i}"], crossed) + crossed
            hidden = [np.concatenate([crossed, mlp(trunk["deep"], flat)])] * shape.tasks
        else:
            experts = np.stack([mlp(trunk["experts"][f"expert{i}"], flat) for i in range(shape.experts)])
            gates = np.exp(dense(trunk["gates"], flat).reshape(shape.tasks, shape.experts))
            hidden = list(gates / gates.sum(1, keepdims=True) @ experts)
        heads = [h @ p["heads"]["kernel"][k] + p["heads"]["bias"][k] for k, h in enumerate(hidden)]
        rows.append(np.array(heads) + p["biases"][event].sum(0))
    return np.stack(rows)


def test_a_ranker_equals_its_definition(built):
    shape, params, ids, numbers = built
    params = jax.tree.map(lambda x: x + 0.1, params)  # biases start at zero, where a lost one would not be seen
    logits, _ = value_and_gradient(params, shape, ids, numbers)
    np.testing.assert_allclose(logits, reference(shape, params, ids, numbers), rtol=2e-4, atol=2e-5)


def test_hidden_is_what_the_heads_read(built):
    shape, params, ids, numbers = built
    hidden = jax.eval_shape(lambda: models.apply(params, shape, ids, numbers)).hidden
    paths = shape.tasks if shape.trunk == "mmoe" else 1
    assert hidden.shape == (7, paths, models.width(shape))


def test_every_parameter_takes_part(built):
    shape, params, ids, numbers = built
    params = jax.tree.map(lambda x: x + 0.05, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value_and_gradient(params, shape, ids, numbers)[1]):
        assert np.any(leaf != 0), path


def test_counts_are_those_of_the_arrays(built):
    shape, params, *_ = built
    assert models.parameters(shape) == sum(leaf.size for leaf in jax.tree.leaves(params))
    wide = shape.scaled(2)
    assert (wide.embedding, wide.layers) == (8, (16, 16))
    assert models.parameters(wide) > models.parameters(shape)
    assert models.multiplications(wide) > 2 * models.multiplications(shape)


def test_multiplications_of_a_perceptron_by_hand():
    shape = models.Spec("mlp", 10, 3, 1, 2, embedding=4, layers=(5, 6), crosses=0, experts=0)
    assert models.multiplications(shape) == 13 * 5 + 5 * 6 + 6 * 2


def test_seeds_by_vmap_are_seeds_one_by_one(built, key):
    shape, _, ids, numbers = built
    keys = jax.random.split(key, 3)

    def logits(each):
        return models.apply(models.init(each, shape), shape, ids, numbers).logits

    together = jax.jit(jax.vmap(logits))(keys)
    for number, each in enumerate(keys):
        alone, _ = value_and_gradient(init(each, shape), shape, ids, numbers)
        np.testing.assert_allclose(together[number], alone, rtol=1e-4, atol=1e-5)


def test_misuse_says_what_is_allowed(key):
    with pytest.raises(ValueError, match="trunk must be one of mlp, dlrm, dcn, mmoe, got 'tree'"):
        models.init(key, spec(world(), "tree"))
    with pytest.raises(ValueError, match="layers must name at least one width"):
        models.init(key, spec(world(), layers=()))
