"""Adam with a learning rate that is traced."""

from typing import Any, NamedTuple

import jax
import optax

from kdrec.models import Params

ADAM = optax.scale_by_adam()


class Learner(NamedTuple):
    """Parameters and the state of their optimiser."""

    params: Params
    moments: Any


def fresh(params: Params) -> Learner:
    """A learner that has not learned yet."""
    return Learner(params, ADAM.init(params))


def learn(learner: Learner, gradient: Params, rate: jax.Array) -> Learner:
    """One step of Adam (Kingma and Ba 2015) down a gradient."""
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        updates, moments = ADAM.update(gradient, learner.moments)
    return Learner(jax.tree.map(lambda p, u: p - rate * u, learner.params, updates), moments)
