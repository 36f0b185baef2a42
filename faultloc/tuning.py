"""Fine-tune a model that EM has learned by the gradient on the place of the fault.

Legend: see `faultloc.em`.

EM fits what the subclasses generate, and the regression of each to the faults of its own statements; no round of it
looks at the ranking of a program. Here the slopes and intercepts of the regressions follow the gradient of

    - sum_b log P(a faulty line of b | tree, features) + ridge / 2 (|w - w_EM|^2 + |c - c_EM|^2)

while the distribution of trees and of what is generated stays as EM left it: the model remains what it was, a joint
distribution with its subclasses, and moves only in what it predicts.

Source: reconstruction from the abstract of Nath, Domingos 2016; the objective is ours.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faultloc import em
from faultloc import forest as forests
from faultloc.forest import Lines
from faultloc.gradient import optimiser

RATE = 0.05  # of the first step: what EM has learned is close already


@functools.partial(jax.jit, static_argnames=("generated", "steps", "rate"))
def tune(
    parameters: em.Parameters, lines: Lines, given: Any, generated: tuple[int, ...], steps: int, rate: float = RATE
) -> tuple[em.Parameters, jax.Array]:
    """Take `steps` steps of Adam from what EM has learned.

    Args:
        parameters: of EM.
        lines: of the forest it learned from.
        given: weights of the bugs and standardisation of each model, see `em.Given`.
        generated: places of the features that the subclasses generate.
        steps: of the gradient.
        rate: the first, falling to zero along a cosine.

    Returns:
        The new parameters, and `[steps + 1, G]` the objective before each step and after the last.
    """
    descent = optimiser(rate, steps)

    def loss(moved: tuple[jax.Array, jax.Array]) -> jax.Array:
        """`[G]`."""
        weights, offsets = moved
        p = parameters._replace(weights=weights * given.use[:, None, None], offsets=offsets)
        found = forests.log_sum_of_faulty(em.log_posteriors(p, lines, given, generated), lines)
        away = ((weights - parameters.weights) ** 2).sum((0, 1)) + ((offsets - parameters.offsets) ** 2).sum((0, 1))
        return -(given.weight * found).sum(0) + given.ridge / 2 * away

    def step(carry: tuple[Any, Any], _: None) -> tuple[Any, jax.Array]:
        moved, state = carry
        now, back = jax.vjp(loss, moved)
        (slopes,) = back(jnp.ones_like(now))
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates, state = descent.update(slopes, state, moved)
        return (optax.apply_updates(moved, updates), state), now

    first = parameters.weights, parameters.offsets
    (moved, _), past = jax.lax.scan(step, (first, descent.init(first)), None, length=steps)
    ended = parameters._replace(weights=moved[0] * given.use[:, None, None], offsets=moved[1])
    return ended, jnp.concatenate([past, loss(moved)[None]])
