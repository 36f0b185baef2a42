"""Small worlds for tests."""

import jax.numpy as jnp

from kdrec import distill, models, teach, train
from kdrec import plan as plans
from kdrec.simulator import Simulator

TASKS = 2


def world(**changes):
    values = {
        "events": 4096, "users": 50, "items": 40, "birth": 400, "half_life": 4000.0, "turn": 40000.0,
        "dimension": 4, "strength": 1.5, "request": 4, "daily": 2000, "watch": False, "seed": 0,
    }  # fmt: skip
    return Simulator(**(values | changes))


def spec(stream, trunk="mlp", **changes):
    sizes = (stream.vocabulary, len(stream.features), len(stream.numeric), len(stream.tasks))
    return models.Spec(trunk, *sizes, embedding=4, layers=(8, 8), crosses=2, experts=3)._replace(**changes)


def method(name="auxiliary", **changes):
    return distill.Method(name, (1.0,) * TASKS, "probability", "sigmoid")._replace(**changes)


def plan(stream, name="auxiliary", trunk="mlp", **changes):
    student = spec(stream, trunk)
    columns = tuple(range(student.features))
    return plans.Plan(student, student.scaled(2), method(name), 2, 4, 0, 64, columns)._replace(**changes)


def knobs(*, refresh=1, start=0, slope=1.0, shift=0.0, rate=0.01):
    faults = [jnp.float32(slope), jnp.full(4, shift, jnp.float32)]
    return teach.Knobs(jnp.float32(rate), jnp.int32(refresh), jnp.int32(start), *faults)


def dose(*weights, temperature=1.0, rate=0.01):
    return train.Dose(jnp.float32(rate), jnp.asarray(weights or (0.0, 1.0), jnp.float32), jnp.float32(temperature))
