"""Kernels: how much two regions disagree at a voxel, and the registry that makes them pluggable.

Legend: K parts (regions) of the reference, K' of the prediction, C voxels of a chunk. A kernel is elementwise, so the
same two functions serve all pairs, matched pairs and label maps; the sums over voxels are taken in `contraction.py`.

The per-region score is D = 1 - sum_x disagreement / sum_x mass with 0/0 := 1. Source of `abs` and `ait`: Andrews and
Hamarneh, arXiv 1509.07244; reconstruction from the abstract, which names an extension of the Dice coefficient by
absolute differences and one by the Aitchison distance. No formula of the paper is claimed.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from evalmetrics import simplex

Features = tuple[jax.Array, ...]
EPS = 1e-2


class Kernel(NamedTuple):
    """A way to compare regions.

    Attributes:
        name: key in the registry.
        features: `(chunk [K, C], eps, zeros) -> tuple of [K, C]`, computed once per map and chunk.
        compare: `(features, features) -> (disagreement, mass)`, elementwise and broadcasting. Against the features of
            an empty region the two must agree, so that an unmatched region scores 0.
        mass: `pair` when mass depends on both regions; `separable` when it is the sum of each region's mass against an
            empty one, which spares the pairs; `voxel` when the score is of the whole map and mass is the weight of the
            voxels; `joint` when the score is of the whole map and needs all parts at once, see `joint`.
        joint: `(features, features) -> (share [K, C], mass [C])`; shares add to the disagreement of the voxel. Only for
            `mass="joint"`, where `features` is one array whose squared differences are the cost that matching minimises
            and the score takes a second pass over the matched regions.
        overlap: optional faster form of the sums of all pairs: `(features, features) -> terms`, elementwise and
            broadcasting, whose sums `from_overlap` turns into disagreement and mass.
        from_overlap: `(sums of terms [K, K'], alone [K, 1], alone [1, K']) -> (disagreement, mass)`, linear, where
            alone is the disagreement of a region with an empty one.
        extensive: with `overlap`, the features that carry the weight of a voxel: scaling them scales every term.
        alone: optional shorter form of the disagreement of features with those of an empty region.
        chunk: voxels per step on a CPU for up to 8 regions a side.
    """

    name: str
    features: Callable[[jax.Array, Any, simplex.Zeros], Features]
    compare: Callable[[Features, Features], tuple[jax.Array, jax.Array]]
    mass: Literal["pair", "separable", "voxel", "joint"] = "pair"
    joint: Callable[[Features, Features], tuple[jax.Array, jax.Array]] | None = None
    overlap: Callable[[Features, Features], Features] | None = None
    from_overlap: Callable[[Features, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    extensive: tuple[int, ...] = ()
    alone: Callable[[Features], jax.Array] | None = None
    chunk: int = 1 << 14

    @property
    def whole_map(self) -> bool:
        """Whether the score is of the whole map, rather than a mean over regions."""
        return self.mass in ("voxel", "joint")


def _probabilities(x: jax.Array, eps: Any, zeros: simplex.Zeros) -> Features:  # noqa: ARG001
    return (x,)


def _distance(p: jax.Array, q: jax.Array) -> jax.Array:
    """|p - q| with slope 0 at ties, the middle of its slopes on both sides, where jnp.abs takes one of them."""
    return (p - q) * lax.stop_gradient(jnp.sign(p - q))


def _absolute(p: Features, q: Features) -> tuple[jax.Array, jax.Array]:
    """|p - q| over p + q: the Dice coefficient on crisp masks, 2 sum min(p, q) / sum (p + q) on soft ones."""
    return _distance(p[0], q[0]), p[0] + q[0]


def _smaller(p: Features, q: Features) -> Features:
    return (jnp.minimum(p[0], q[0]),)


def _apart(overlap: Features, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """|p - q| = p + q - 2 min(p, q): one operation less for each pair and voxel."""
    return left + right - 2 * overlap[0], left + right


def membership(x: jax.Array, eps: Any, zeros: simplex.Zeros = "clip") -> jax.Array:
    """Two-part Aitchison distance from "certainly outside", scaled to [0, 1].

    m(p) = (logit(p') + L) / (2 L) with p' the lifted probability and L the logit of a lifted certainty; for `clip`,
    p' = clip(p, eps, 1 - eps) and L = ln((1 - eps) / eps).

    Args:
        x: `[...]` probabilities.
        eps: see `simplex.replace_zeros`, in (0, 1/2).
        zeros: see `simplex.replace_zeros`. Lifting zeros alone breaks the order near them, so `multiplicative` equals
            `clip` here.

    Returns:
        `[...]` in [0, 1]; 0 at 0, 1 at 1, 1/2 at 1/2.

    Raises:
        ValueError: unknown zero replacement, or a number eps outside (0, 1/2).

    Source: reconstruction from the abstract of arXiv 1509.07244.
    """
    if isinstance(eps, (int, float)) and not 0 < eps < 0.5:
        raise ValueError(f"eps must lie in (0, 1/2), got {eps}")
    if zeros == "additive":
        lifted, top = (x + eps) / (1 + 2 * eps), jnp.log((1 + eps) / jnp.asarray(eps, x.dtype))
    elif zeros in simplex.ZEROS:
        lifted, top = jnp.clip(x, eps, 1 - eps), jnp.log((1 - eps) / jnp.asarray(eps, x.dtype))
    else:
        raise ValueError(f"unknown zero replacement {zeros!r}; choose one of {', '.join(simplex.ZEROS)}")
    return jnp.clip(jnp.log(lifted / (1 - lifted)) * (0.5 / top) + 0.5, 0, 1)


def _with_membership(x: jax.Array, eps: Any, zeros: simplex.Zeros) -> Features:
    m = lax.optimization_barrier(membership(x, eps, zeros))  # keep XLA from recomputing the logarithm for each pair
    return x, m, x * m


def _aitchison(p: Features, q: Features) -> tuple[jax.Array, jax.Array]:
    """|m(p) - m(q)| over m(p) + m(q), weighted by max(p, q) so that the background cannot dilute it."""
    weight = jnp.maximum(p[0], q[0])
    return weight * _distance(p[1], q[1]), weight * (p[1] + q[1])


def _larger(p: Features, q: Features) -> Features:
    return jnp.maximum(p[2], q[2]), jnp.maximum(p[0], q[0]) * jnp.minimum(p[1], q[1])


def _between(overlap: Features, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:  # noqa: ARG001
    """As m grows with p, max(p, q) max(m, n) = max(p m, q n); |m - n| and m + n are max -+ min of m and n."""
    return overlap[0] - overlap[1], overlap[0] + overlap[1]


def _half_absolute(p: Features, q: Features) -> tuple[jax.Array, jax.Array]:
    """Half of |p - q|; over regions it adds to the total variation of the compositions at the voxel."""
    half = _distance(p[0], q[0]) / 2
    return half, half


def _halves(overlap: Features, left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
    """|p - q| / 2 from the halves of p and q."""
    return left + right - overlap[0], left + right


def _centred(x: jax.Array, eps: Any, zeros: simplex.Zeros) -> Features:
    # Closing would shift all logarithms alike, which centring removes.
    lifted = jnp.maximum(x, eps) if zeros == "clip" else simplex.replace_zeros(x, eps, zeros)
    logs = jnp.log(lifted)
    return (logs - simplex.sum_parts(logs) / x.shape[0],)


def _squared(p: Features, q: Features) -> tuple[jax.Array, jax.Array]:
    """(clr p - clr q)^2, at most 2 (clr p)^2 + 2 (clr q)^2; over regions it adds to the squared Aitchison distance."""
    return (p[0] - q[0]) ** 2, 2 * (p[0] ** 2 + q[0] ** 2)


def _triangle(p: Features, q: Features) -> tuple[jax.Array, jax.Array]:
    """Aitchison distance, split over the parts by their squares, against the sum of the two norms."""
    squares = (p[0] - q[0]) ** 2
    total = simplex.sum_parts(squares)[0]
    apart = total > 0
    # The inner guard keeps the unused branch finite, so that derivatives and NaN checks are clean where p equals q.
    inverse = jnp.where(apart, 1 / jnp.sqrt(jnp.where(apart, total, 1)), 0)
    return squares * inverse[None], _norm(p[0]) + _norm(q[0])


def _norm(centred: jax.Array) -> jax.Array:
    squared = simplex.sum_parts(centred**2)[0]
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


_REGISTRY: dict[str, Kernel] = {}


def register(kernel: Kernel) -> Kernel:
    """Make a kernel available under its name to every verb that takes `kernel=`.

    Args:
        kernel: see `Kernel`.

    Returns:
        The kernel.

    Raises:
        ValueError: the name is taken by another kernel, or the fields contradict each other.
    """
    if _REGISTRY.get(kernel.name, kernel) != kernel:
        raise ValueError(f"kernel {kernel.name!r} is already registered; choose another name")
    if (kernel.mass == "joint") != (kernel.joint is not None):
        raise ValueError(f"kernel {kernel.name!r}: mass='joint' and the function `joint` need each other")
    if (kernel.overlap is None) != (kernel.from_overlap is None):
        raise ValueError(f"kernel {kernel.name!r}: `overlap` and `from_overlap` need each other")
    _REGISTRY[kernel.name] = kernel
    return kernel


def get(kernel: str | Kernel) -> Kernel:
    """Kernel of the given name; a `Kernel` is returned as it is.

    Raises:
        ValueError: no kernel has this name.
    """
    if isinstance(kernel, Kernel):
        return kernel
    if kernel not in _REGISTRY:
        raise ValueError(f"unknown kernel {kernel!r}; choose one of {', '.join(names())} or register your own")
    return _REGISTRY[kernel]


def names() -> tuple[str, ...]:
    """Names of the registered kernels."""
    return tuple(_REGISTRY)


register(
    Kernel(
        "abs",
        _probabilities,
        _absolute,
        mass="separable",
        overlap=_smaller,
        from_overlap=_apart,
        extensive=(0,),
        alone=lambda f: f[0],
    )
)
register(
    Kernel(
        "ait",
        _with_membership,
        _aitchison,
        mass="pair",
        overlap=_larger,
        from_overlap=_between,
        extensive=(0, 2),
        alone=lambda f: f[2],
    )
)
register(
    Kernel(
        "simplex_tv",
        _probabilities,
        _half_absolute,
        mass="voxel",
        overlap=_smaller,
        from_overlap=_halves,
        extensive=(0,),
        alone=lambda f: f[0] / 2,
    )
)
register(Kernel("simplex_ait", _centred, _squared, mass="joint", joint=_triangle, chunk=1 << 15))
