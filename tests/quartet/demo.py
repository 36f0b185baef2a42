"""An experiment small enough for the shell's own tests, with an optimiser and a key in its state."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from quartet.drive import drive
from quartet.results import RunFolder
from quartet.settings import Checkpoint, Devices, Run, Settings, Tracking


class State(NamedTuple):
    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: optax.OptState


@dataclass(frozen=True)
class Regression:
    """Fit a line to noise that depends on (seed, step) alone."""

    steps: int = 40
    inner: int = 5

    def length(self):
        return self.steps

    def init(self, key):
        params = {"slope": jnp.zeros(3), "bias": jnp.zeros(())}
        return State(jnp.zeros((), jnp.int32), key, params, optax.adam(0.1).init(params))

    def run(self, state, *, place):  # noqa: ARG002
        while int(state.step) < self.steps:
            state, loss = _interval(state, self.inner)
            yield state, {"loss": loss, "slope": state.params["slope"]}


@jax.jit
def _step(state):
    x = jax.random.normal(jax.random.fold_in(state.key, state.step), (16, 3))

    def loss(params):
        return jnp.mean((x @ params["slope"] + params["bias"] - x.sum(1)) ** 2)

    value, grads = jax.value_and_grad(loss)(state.params)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32 and decays in float32
        updates, opt_state = optax.adam(0.1).update(grads, state.opt_state)
    return State(state.step, state.key, optax.apply_updates(state.params, updates), opt_state), value


def _interval(state, inner):
    for _ in range(inner):
        state, value = _step(state)
    return state._replace(step=state.step + 1), value


def settings(folder, **checkpoint):
    run = Run(
        seed=0,
        precision="float32",
        folder=str(folder),
        resume=True,
        restore=None,
        limit=None,
        headline="loss",
        nans=False,
        profile=False,
        trusted=(),
    )
    saving = Checkpoint(**{"every": 1, "seconds": None, "keep": 3, **checkpoint})
    return Settings(run=run, tracking=Tracking(wandb=False), checkpoint=saving, devices=Devices(layout="single"))


def run(folder, steps, **checkpoint):
    return drive(
        Regression(steps),
        settings(folder, **checkpoint),
        RunFolder(Path(folder)),
        {"config": {"steps": steps}, "inputs": {}},
    )


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
