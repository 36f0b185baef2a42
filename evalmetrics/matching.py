"""Which region of the prediction belongs to which region of the reference.

Legend: K regions of the reference, K' of the prediction, n = max(K, K').
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax import lax

Method = Literal["hungarian", "scipy", "sinkhorn"]
METHODS = ("hungarian", "scipy", "sinkhorn")


def match(gain: Any, *, method: Method = "hungarian", checked: bool = True) -> jax.Array:
    """Permutation that maximises the total gain, sum_i gain[i, match_i].

    A matrix that is not square is padded with zeros: regions that are left over are matched to nothing. Where two
    regions can be exchanged at no loss, the lower index goes first, so that equal regions keep their order.

    Args:
        gain: `[K, K']`, larger is better, finite; scores of pairs, or minus their disagreement.
        method: `hungarian` runs inside jit and vmap; `scipy` on the host; `sinkhorn` takes the
            permutation of largest weight in the soft plan.
        checked: refuse NaN where the values are at hand; a NaN would give some permutation without a word.

    Returns:
        `[n]` int32, the prediction region of each reference slot; K' and above stand for none.

    Raises:
        ValueError: not a matrix, unknown method, NaN, or `scipy` on a traced array.

    Source: Kuhn 1955 (assignment).
    """
    gain = jnp.asarray(gain)
    if gain.ndim != 2:
        raise ValueError(f"gain must be a matrix [regions, regions], got shape {gain.shape}")
    if checked and not isinstance(gain, jax.core.Tracer):
        require_finite(np.asarray(gain), "the matrix to match")
    if method not in METHODS:
        raise ValueError(f"unknown matching {method!r}; choose one of {', '.join(METHODS)}")
    square = pad_square(gain)
    if method == "scipy":
        return _in_order(square, _on_host(square))
    return _match_jitted(square, method)


def require_finite(values: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity on the host.

    Raises:
        ValueError: there is one; names the first place.
    """
    if not np.isfinite(values).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(
            f"{what} is not finite at {place}: {values[place]}; look for NaN or infinity in the maps or the weights"
        )


def pad_square(matrix: jax.Array, value: float = 0.0) -> jax.Array:
    """Append rows or columns of `value` until the matrix is square."""
    size = max(matrix.shape)
    return jnp.pad(matrix, ((0, size - matrix.shape[0]), (0, size - matrix.shape[1])), constant_values=value)


def _on_host(square: jax.Array) -> jax.Array:
    if isinstance(square, jax.core.Tracer):
        raise ValueError(  # noqa: TRY004  (the option is at fault, not the type)
            "method='scipy' runs on the host and cannot be traced; use method='hungarian' inside jit"
        )
    columns = scipy.optimize.linear_sum_assignment(np.asarray(square), maximize=True)[1]
    return jnp.asarray(columns, jnp.int32)


@functools.partial(jax.jit, static_argnames="method")
def _match_jitted(square: jax.Array, method: Method) -> jax.Array:
    if method == "sinkhorn":
        return _in_order(square, round_plan(sinkhorn(square)))
    return _in_order(square, hungarian(square))


def hungarian(gain: jax.Array) -> jax.Array:
    """Permutation that maximises the total gain of a square matrix, by optax inside jit.

    Args:
        gain: `[n, n]`, finite.

    Returns:
        `[n]` int32.
    """
    from optax.assignment import hungarian_algorithm  # optax is slow to import

    if gain.shape[0] == 1:
        return jnp.zeros(1, jnp.int32)
    # optax keeps its dual variables in the default precision and does not cast to that of the costs.
    costs = -lax.stop_gradient(gain).astype(jnp.zeros(()).dtype)
    rows, columns = hungarian_algorithm(costs)
    return jnp.zeros(gain.shape[0], jnp.int32).at[rows].set(columns.astype(jnp.int32))


def _in_order(gain: jax.Array, match: jax.Array) -> jax.Array:
    """Exchange pairs of columns that are out of order as long as that loses nothing.

    Each exchange lowers the permutation in lexicographic order and does not lower its gain, so the loop ends; equal
    rows or columns give equal sums in floating point too, so ties are seen exactly.
    """
    size = gain.shape[0]
    earlier = jnp.arange(size)[:, None] < jnp.arange(size)[None, :]

    def exchangeable(match: jax.Array) -> jax.Array:
        crossed = gain[:, match]
        own = jnp.diagonal(crossed)
        loses_nothing = crossed + crossed.T >= own[:, None] + own[None, :]
        return (earlier & (match[:, None] > match[None, :]) & loses_nothing).reshape(-1)

    def exchange(match: jax.Array) -> jax.Array:
        first = jnp.argmax(exchangeable(match))
        i, k = first // size, first % size
        return match.at[i].set(match[k]).at[k].set(match[i])

    return lax.while_loop(lambda m: exchangeable(m).any(), exchange, match)


def sinkhorn(gain: jax.Array, *, temperature: float | jax.Array = 0.05, iterations: int = 200) -> jax.Array:
    """Soft matching: the doubly stochastic T that maximises sum T gain + temperature * entropy(T).

    T_ij = exp((gain_ij + f_i + g_j) / temperature), with f and g from alternating normalisation of rows and columns in
    the log domain. As the temperature falls, T approaches the best permutation; it is differentiable in the gain.

    Args:
        gain: `[n, n]`, finite.
        temperature: unit of the gain, positive.
        iterations: normalisations of rows and columns.

    Returns:
        `[n, n]`; columns sum to one, rows to one up to convergence.

    Raises:
        ValueError: the matrix is not square, or the temperature is a number that is not positive.

    Source: Cuturi 2013; Mena et al. 2018 for permutations.
    """
    if gain.ndim != 2 or gain.shape[0] != gain.shape[1]:
        raise ValueError(f"gain must be square, got shape {gain.shape}; pad it with empty regions")
    if isinstance(temperature, (int, float)) and temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")

    def normalise(logits: jax.Array, _: None) -> tuple[jax.Array, None]:
        logits = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
        return logits - jax.nn.logsumexp(logits, axis=0, keepdims=True), None

    return jnp.exp(lax.scan(normalise, gain / temperature, None, length=iterations)[0])


def round_plan(plan: jax.Array) -> jax.Array:
    """Permutation nearest to a soft plan: the one with the largest total weight.

    Args:
        plan: `[n, n]`, non-negative.

    Returns:
        `[n]` int32.
    """
    return hungarian(plan)
