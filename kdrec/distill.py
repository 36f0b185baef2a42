"""Losses of a student: its labels, and a teacher's logits in one of seven ways.

Legend: B events of a batch, K tasks, H student width, J teacher width; f [B, K] served logits, y [B, K] labels,
q [B, K] teacher logits, g [B, K] auxiliary logits. What a method learns beside the ranker is dropped on export.

The paper (Khani et al., RecSys 2024) names the auxiliary task and what it is for; formulas here are a reconstruction
from its abstract and from the works named at each method.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from kdrec.losses import Real, huber, log_loss
from kdrec.losses import loss as loss_of
from kdrec.models import Heads, Output, Params, Spec, width

METHODS = ("none", "direct", "affine", "auxiliary", "pairwise", "listwise", "hidden")


class Method(NamedTuple):
    """What is static of a method.

    Attributes:
        name: one of `METHODS`.
        tasks: for each task what w is multiplied by; 0 is not distilled.
        space: `probability` (cross entropy with soft labels) or `logit` (squared error) of direct, affine, auxiliary.
        lists: `sigmoid` keeps probabilities, `softmax` does not, in `listwise`.
        form: `mixed` takes (1 - w) of the outcome's term in direct and affine, `added` all of it.
        real: for each task whether it is real, () where none is.
    """

    name: str
    tasks: tuple[float, ...]
    space: str
    lists: str
    form: str = "mixed"
    real: Real = ()


class Labels(NamedTuple):
    """What a student learns from.

    Attributes:
        hard: `[B, K]` y.
        soft: `[B, K]` q, already divided by the temperature.
        hidden: `[B, J]` the teacher's trunk, for `hidden`.
        published: `[B]` 1 where the teacher's label exists; elsewhere the event teaches by its label alone.
        valid: `[B]` 1 for events of the stream, 0 for fillers of the last batch.
        request: `[B]` events of one value were shown together; for `pairwise` and `listwise`.
    """

    hard: jax.Array
    soft: jax.Array
    hidden: jax.Array
    published: jax.Array
    valid: jax.Array
    request: jax.Array


def init(key: jax.Array, method: Method, student: Spec, teacher: Spec) -> Params:
    """Parameters that a method learns beside the ranker, from a key of their own so that the ranker's stay the same.

    Args:
        key: what they are drawn from.
        method: which.
        student: shape of the student.
        teacher: shape of the teacher.

    Returns:
        Nested dictionaries; empty where a method learns nothing more.

    Raises:
        ValueError: there is no such method, or it does not fit the student.
    """
    if method.name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method.name!r}")
    if len(method.tasks) != student.tasks:
        raise ValueError(f"tasks must give a weight for each of {student.tasks}, got {len(method.tasks)}")
    if method.name == "listwise" and any(w and yes for w, yes in zip(method.tasks, method.real, strict=False)):
        raise ValueError("listwise takes lists of probabilities, which a real task has not; give it a weight of 0")
    match method.name:
        case "auxiliary":
            return {"heads": nnx.to_pure_dict(nnx.state(Heads(key, student.tasks, width(student))))}
        case "affine":
            return {"slope": jnp.ones(student.tasks), "shift": jnp.zeros(student.tasks)}
        case "hidden":
            shape = (width(student), width(teacher))
            return {"projection": jax.random.normal(key, shape) * (1 / shape[0]) ** 0.5}
        case _:
            return {}


def loss(method: Method, extra: Params, output: Output, labels: Labels, weight: jax.Array) -> jax.Array:
    """Loss of a batch.

    With l the log loss and d the distance of the chosen space, both summed over tasks and averaged over events,

        none       l(f, y)
        direct     (1 - w) l(f, y) + w d(f, q)
        affine     (1 - w) l(f, y) + w d(a f + b, q), a and b learned
        auxiliary  l(f, y) + w d(g, q), g a head of its own on the student's trunk
        pairwise   l(f, y) + w RankNet: log loss of f_i - f_j against s(q_i - q_j), pairs of one request
        listwise   l(f, y) + w ListNet: cross entropy of two normalised lists of one request
        hidden     l(f, y) + w |h P - h_teacher|^2 / J

    with the terms of w over distilled tasks and published labels alone, w times the task's own weight. `added` direct
    and affine keep all of l(f, y). In a real task f, q and g are values, and both l and d the Huber loss.

    Args:
        method: static.
        extra: as of `init`.
        output: of the student.
        labels: what it learns from.
        weight: `[]` w.

    Returns:
        `[]`.

    Source: auxiliary after Khani et al. 2024 (reconstruction); RankNet Burges et al. 2005; ListNet Cao et al. 2007;
        lists of sigmoids Bai et al. 2023 (regression compatible); hidden Romero et al. 2015 (FitNets).
    """
    count = jnp.maximum(labels.valid.sum(), 1)
    chosen = jnp.asarray(method.tasks, output.logits.dtype)
    taught = labels.published[:, None] * chosen[None]  # [B, K]
    hard = loss_of(output.logits, labels.hard, method.real)
    if method.name in ("direct", "affine"):
        f = output.logits if method.name == "direct" else _affine(extra, output.logits)
        left = 1 - weight * taught if method.form == "mixed" else 1
        mixed = left * hard + weight * taught * distance(method.space, f, labels.soft, method.real)
        return (mixed * labels.valid[:, None]).sum() / count
    main = (hard * labels.valid[:, None]).sum() / count
    if method.name == "none":
        return main
    taught = taught * labels.valid[:, None]
    return main + weight * _term(method, extra, output, labels, taught) / count


def _affine(extra: Params, logits: jax.Array) -> jax.Array:
    slope, shift = extra["slope"], extra["shift"]
    return logits * slope[None] + shift[None]


def softened(method: Method, values: jax.Array, temperature: jax.Array) -> jax.Array:
    """Teacher logits `[..., K]` over the temperature; values of real tasks as they are."""
    soft = values / temperature
    return jnp.where(jnp.asarray(method.real), values, soft) if any(method.real) else soft


def distance(space: str, logits: jax.Array, soft: jax.Array, real: Real = ()) -> jax.Array:
    """Distance of student logits from teacher logits, elementwise.

    Args:
        space: `probability`: log loss against s(q); `logit`: (f - q)^2 / 2.
        logits: f, `[..., K]`.
        soft: q, the same shape.
        real: for each task whether it is real: Huber loss of f - q there, in either space.

    Returns:
        The same shape.

    Raises:
        ValueError: there is no such space.
    """
    if space in ("probability", "logit"):
        squared = space == "logit"
        each = (logits - soft) ** 2 / 2 if squared else log_loss(logits, jax.nn.sigmoid(soft))
        return jnp.where(jnp.asarray(real), huber(logits - soft), each) if any(real) else each
    raise ValueError(f"space must be probability or logit, got {space!r}")


def _term(method: Method, extra: Params, output: Output, labels: Labels, taught: jax.Array) -> jax.Array:
    """The teacher's term summed over the batch; `taught` `[B, K]` weighs it."""
    match method.name:
        case "auxiliary":
            g = auxiliary_logits(extra, output)
            return (distance(method.space, g, labels.soft, method.real) * taught).sum()
        case "pairwise":
            each = pairwise(output.logits, labels.soft, _mask(taught), labels.request)
            return (each * jnp.asarray(method.tasks, each.dtype)).sum()
        case "listwise":
            each = listwise(output.logits, labels.soft, _mask(taught), labels.request, method.lists)
            return (each * jnp.asarray(method.tasks, each.dtype)).sum()
        case _:
            projected = output.hidden.mean(1) @ extra["projection"]
            squared = ((projected - labels.hidden) ** 2).mean(-1)
            return (squared * labels.published * labels.valid).sum()


def _mask(taught: jax.Array) -> jax.Array:
    return (taught > 0).astype(taught.dtype)


def auxiliary_logits(extra: Params, output: Output) -> jax.Array:
    """`[B, K]` g: logits of the auxiliary heads."""
    kernel, bias = extra["heads"]["kernel"], extra["heads"]["bias"]
    hidden = output.hidden
    logits = hidden[:, 0] @ kernel.T if hidden.shape[1] == 1 else jnp.einsum("bkh,kh->bk", hidden, kernel)
    return logits + bias[None]


def pairwise(logits: jax.Array, soft: jax.Array, taught: jax.Array, request: jax.Array) -> jax.Array:
    """RankNet of the teacher's order inside each request, each event's pairs averaged, summed over events.

    Args:
        logits: `[B, K]` f.
        soft: `[B, K]` q.
        taught: `[B, K]` mask.
        request: `[B]`.

    Returns:
        `[K]`; 0 where no request shows two events.
    """
    same = ((request[:, None] == request[None]) & ~jnp.eye(len(request), dtype=bool)).astype(logits.dtype)
    pair = taught[:, None] * taught[None] * same[..., None]  # [B, B, K]
    f, q = (x[:, None] - x[None] for x in (logits, soft))
    per_event = (log_loss(f, jax.nn.sigmoid(q)) * pair).sum(1) / jnp.maximum(pair.sum(1), 1)
    return per_event.sum(0)


def listwise(logits: jax.Array, soft: jax.Array, taught: jax.Array, request: jax.Array, lists: str) -> jax.Array:
    """Cross entropy of the student's list against the teacher's inside each request, summed over requests.

    A list is s(x_i) / sum_j s(x_j) over the request with `sigmoid`, whose minimum is compatible with calibrated
    probabilities, and a softmax with `softmax`, whose minimum leaves the level of the logits open.

    Args:
        logits: `[B, K]` f.
        soft: `[B, K]` q.
        taught: `[B, K]` mask.
        request: `[B]`.
        lists: `sigmoid` or `softmax`.

    Returns:
        `[K]`.

    Raises:
        ValueError: there is no such form of list.
    """
    if lists not in ("sigmoid", "softmax"):
        raise ValueError(f"lists must be sigmoid or softmax, got {lists!r}")
    log = jax.nn.log_sigmoid if lists == "sigmoid" else (lambda x: x)
    same = (request[:, None] == request[None]).astype(logits.dtype)

    def normalised(x: jax.Array) -> jax.Array:
        """Log of each event's share of its request; the largest logit of the batch keeps the exponentials finite."""
        x = log(x)
        top = jax.lax.stop_gradient(x.max(0, keepdims=True))
        total = same @ (jnp.exp(x - top) * taught)
        return x - top - jnp.log(jnp.maximum(total, 1e-30))

    several = ((same @ taught) > 1.5).astype(logits.dtype)  # a list of one says nothing
    shares = jnp.exp(normalised(soft)) * taught * several
    return -(shares * normalised(logits)).sum(0)


def served(params: dict[str, Any]) -> Params:
    """The part of a student's parameters that serves: without what its method learned beside it."""
    return params["ranker"]
