"""Learn which lines are faulty from bugs whose lines are known: the exact posterior over the place of a single fault.

Legend: B bugs, L lines of all of them together, F features, S kinds of statements.

The log-odds of a line, o = w . x + c[kind], say how likely a fault is there; given that a program has exactly one, the
place of it has the distribution softmax(o) over the program's lines, which is the model of `faultloc.tflm` with one
latent subclass.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import models
from faultloc.programs import Program

PAIRWISE = 10.0
SMALLEST = 4096
TOLERANCE = 1e-6  # relative, of the loss: below it lie the rounding errors of float32


class Example(NamedTuple):
    """One bug to learn from.

    Attributes:
        program: with its coverage.
        faulty: indices of its faulty lines.
    """

    program: Program
    faulty: np.ndarray


class _Batch(NamedTuple):
    """All lines of all bugs, padded; padding belongs to one more bug that has no weight."""

    values: jax.Array
    kind: jax.Array
    bug: jax.Array
    faulty: jax.Array
    weight: jax.Array
    size: jax.Array


def fit(examples: Sequence[Example], *, ridge: float = 10.0, steps: int = 100) -> models.Model:
    """Learn the model of a collection, every bug counting alike.

    Minimises

        - log sum_{n in Y} P(n) + 10 / L_b sum_{n not in Y} softplus(o_n - log sum_{m in Y} exp o_m)

    plus ridge / 2 (|w|^2 + |c|^2): the first term wants the mass on the faulty lines Y, the second every other line
    below them.

    Args:
        examples: bugs of programs other than those that will be ranked.
        ridge: of weights and offsets.
        steps: of L-BFGS at most.

    Raises:
        ValueError: there is no example.

    Source: ours; the first term is the exact likelihood of a single fault under the model of `faultloc.tflm`.
    """
    from scipy.optimize import minimize

    if not examples:
        raise ValueError("no bug to learn from; give at least one whose faulty lines are known")
    stacked = np.concatenate([example.program.values for example in examples])
    mean, scale = stacked.mean(0), stacked.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    kinds = sorted({symbol for example in examples for symbol in example.program.kinds})
    batch = _batch(examples, (stacked - mean) / scale, {kind: i for i, kind in enumerate(kinds)})
    features, offsets = stacked.shape[1], _bucket(len(kinds), 64)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = jnp.asarray(flat[:features], jnp.float32), jnp.asarray(flat[features:], jnp.float32)
        loss, (weights, shifts) = _loss(parameters, batch, jnp.float32(ridge))
        return float(loss), np.concatenate([np.asarray(weights, np.float64), np.asarray(shifts, np.float64)])

    found = minimize(
        value, np.zeros(features + offsets), jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": TOLERANCE}
    )
    learned = found.x[features : features + len(kinds)]
    return models.linear(examples[0].program.language, tuple(kinds), mean, scale, found.x[:features], learned)


def _bucket(size: int, smallest: int) -> int:
    """The next eighth of a power of two: folds of one collection then share few compiled programs."""
    step = max(smallest, (1 << (size - 1).bit_length()) // 8)
    return -(-size // step) * step


def _batch(examples: Sequence[Example], values: np.ndarray, number: dict[str, int]) -> _Batch:
    sizes = np.array([len(example.program.owner) for example in examples])
    lines, bugs = _bucket(int(sizes.sum()), SMALLEST), _bucket(len(examples) + 1, 16)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    kind, bug, faulty = np.zeros(lines, np.int32), np.full(lines, bugs - 1, np.int32), np.zeros(lines, bool)
    for i, (example, start) in enumerate(zip(examples, starts, strict=True)):
        stop = start + sizes[i]
        kind[start:stop] = [number[symbol] for symbol in example.program.kinds]
        bug[start:stop] = i
        faulty[start + example.faulty] = True
    padded = np.zeros((lines, values.shape[1]), np.float32)
    padded[: len(values)] = values
    weight = (np.arange(bugs) < len(examples)).astype(np.float32)
    size = np.ones(bugs, np.float32)
    size[: len(sizes)] = sizes
    return _Batch(*map(jnp.asarray, (padded, kind, bug, faulty, weight, size)))


@jax.jit
@functools.partial(jax.value_and_grad)
def _loss(parameters: tuple[jax.Array, jax.Array], batch: _Batch, ridge: jax.Array) -> jax.Array:
    weights, offsets = parameters
    odds = batch.values @ weights + offsets[batch.kind]
    every = _logsumexp(odds, batch.bug, batch.weight.size)
    target = _logsumexp(jnp.where(batch.faulty, odds, -jnp.inf), batch.bug, batch.weight.size)
    # Padding has no faulty line and may have no line at all; its terms must be finite for their weight to remove them.
    every, target = (jnp.where(batch.weight > 0, each, 0) for each in (every, target))
    above = jnp.where(batch.faulty, 0, jax.nn.softplus(odds - target[batch.bug]))
    pairs = jnp.zeros_like(batch.weight).at[batch.bug].add(above) / batch.size
    data = (batch.weight * (every - target + PAIRWISE * pairs)).sum()
    return data + ridge / 2 * ((weights**2).sum() + (offsets**2).sum())


def _logsumexp(values: jax.Array, group: jax.Array, groups: int) -> jax.Array:
    """`[groups]`, and -inf where a group is empty; the gradient never meets the maximum."""
    highest = jax.lax.stop_gradient(jnp.full(groups, -jnp.inf, values.dtype).at[group].max(values))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    total = jnp.zeros(groups, values.dtype).at[group].add(jnp.exp(values - highest[group]))
    positive = total > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, total, 1)) + highest, -jnp.inf)
