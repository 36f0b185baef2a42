"""What the sums of teachers and students say together: gains paired by seed, leaks of bias, costs.

Legend: S seeds, W weights of which the first is 0, K tasks, G segments.
"""

from typing import Any, NamedTuple

import numpy as np

from kdrec import models
from kdrec.distill import Method
from kdrec.losses import Real
from kdrec.metrics import Metrics, Sums, metrics
from kdrec.plan import Plan


class Tally(NamedTuple):
    """Progressive sums.

    Attributes:
        labels: `[S]` of what teachers say, whether or not students get to know it.
        student: `[S, W]`.
    """

    labels: Sums
    student: Sums


def gains(totals: Tally, method: Method, weights: tuple[float, ...], value: tuple[float, ...]) -> dict[str, float]:
    """Compare students with the same students without a teacher, seed by seed.

    Args:
        totals: of the stretch that counts.
        method: the way of distilling.
        weights: `[W]`, the first one 0.
        value: `[K]` of the tasks in the proxy of E(LTV).

    Returns:
        For each task number k, means over seeds:
        `log_loss/k`, `ne/k`, `ne_recalibrated/k`, `auc/k`, `group_auc/k` of a binary task, `huber/k`, `ne/k`, `mae/k`,
        `xauc/k` of a real one, and `calibration/k` of the student;
        `change/k`, its loss against the student without a teacher, %, and `change_error/k`, the standard error;
        `leak/k`, its calibration minus that of the student without, and `segment_leak/k`, the largest of a segment;
        `identity/k`, the calibration that a calibrated optimum of the method has: 1 + w (mean q / mean y - 1) where
        direct, 1 where labels alone reach the served logit, absent where nothing exact is known;
        `transfer/k`, the student's gain over the teacher's;
        `teacher/change/k` and `teacher/calibration/k` of the labels.
        `log_loss` is the mean over binary tasks, over all where none is binary; `ltv_proxy` the sum of all losses
        times `value` and `ltv_proxy/change` its change, %. Of several weights each but the first has its own names,
        led by `weight=W/`.
    """
    student, labels = metrics(totals.student, method.real), metrics(totals.labels, method.real)
    row: dict[str, float] = {}
    asked = range(1, len(weights)) if len(weights) > 1 else range(1)
    for number in asked:
        lead = "" if number == asked[0] else f"weight={weights[number]:g}/"
        told = _student(student, labels, number, method, weights) | _proxy(student.log_loss, number, value)
        row |= {f"{lead}{name}": found for name, found in told.items()}
    for task in range(student.log_loss.shape[-1]):
        plain = student.log_loss[:, 0, task]
        row[f"teacher/change/{task + 1}"] = float(np.mean(100 * (labels.log_loss[:, task] / plain - 1)))
        row[f"teacher/calibration/{task + 1}"] = float(np.mean(labels.calibration[:, task]))
    return row


def _proxy(loss: np.ndarray, number: int, value: tuple[float, ...]) -> dict[str, float]:
    plain, own = (loss[:, which] @ np.asarray(value) for which in (0, number))
    with np.errstate(invalid="ignore"):
        return {"ltv_proxy": float(own.mean()), "ltv_proxy/change": float(np.mean(100 * (own / plain - 1)))}


BINARY = {"log_loss": "log_loss", "ne": "ne", "ne_recalibrated": "ne_recalibrated", "auc": "auc"}
BINARY |= {"group_auc": "group_auc", "calibration": "calibration"}
REAL = {"huber": "log_loss", "ne": "ne", "mae": "mae", "xauc": "xauc", "calibration": "calibration"}


def _student(
    student: Metrics, labels: Metrics, number: int, method: Method, weights: tuple[float, ...]
) -> dict[str, float]:
    seeds, _, tasks = student.log_loss.shape
    real = method.real or (False,) * tasks
    binary = [task for task in range(tasks) if not real[task]] or list(range(tasks))
    row = {"log_loss": float(student.log_loss[:, number][:, binary].mean())}
    for task in range(tasks):
        k = task + 1
        for name, field in (REAL if real[task] else BINARY).items():
            row[f"{name}/{k}"] = float(getattr(student, field)[:, number, task].mean())
        plain, own = student.log_loss[:, 0, task], student.log_loss[:, number, task]
        change = 100 * (own / plain - 1)
        row[f"change/{k}"] = float(change.mean())
        if seeds > 1:
            row[f"change_error/{k}"] = float(change.std(ddof=1) / np.sqrt(seeds))
        row[f"leak/{k}"] = float((student.calibration[:, number, task] - student.calibration[:, 0, task]).mean())
        segments = (student.by_segment[:, number, :, task] - student.by_segment[:, 0, :, task]).mean(0)
        if np.isfinite(segments).any():
            row[f"segment_leak/{k}"] = float(segments[np.nanargmax(np.abs(segments))])
        if method.name == "direct" and method.form == "mixed" and not real[task]:
            weight = weights[number] * method.tasks[task]
            row[f"identity/{k}"] = float(1 + weight * (labels.calibration[:, task].mean() - 1))
        elif method.name in ("none", "auxiliary") and not real[task]:
            row[f"identity/{k}"] = 1.0
        gain = float((plain - labels.log_loss[:, task]).mean())
        if number and gain > 0:
            row[f"transfer/{k}"] = float((plain - own).mean() / gain)
    return row


def window(sums: Tally, real: Real = ()) -> dict[str, Any]:
    """Metrics of one interval for the pictures, means over seeds; None where nothing was counted.

    Args:
        sums: of the interval.
        real: for each task whether it is real.

    Returns:
        `teacher` and `students` (one a weight), each with `ne` and `calibration` `[K]` and `by_segment` `[G, K]`.
    """
    teacher, student = metrics(sums.labels, real), metrics(sums.student, real)
    weights = student.log_loss.shape[1]
    return {
        "teacher": _shown(teacher, ()),
        "students": [_shown(student, (number,)) for number in range(weights)],
    }


def _shown(found: Metrics, index: tuple[int, ...]) -> dict[str, Any]:
    names = ("ne", "calibration", "by_segment")
    return {name: getattr(found, name)[(slice(None), *index)].mean(0).tolist() for name in names}


def costs(plan: Plan, steps: int, taught: int, batch: int) -> dict[str, float]:
    """The ledger of one teacher and one student.

    Args:
        plan: shapes.
        steps: of the students.
        taught: steps of the teacher.
        batch: events a step.

    Returns:
        `cost/student/parameters` and `cost/teacher/parameters`; `cost/ratio`, multiplications of the teacher's dense
        layers over the student's; `cost/student/gflop` and `cost/teacher/gflop`, of the dense layers over the stream of
        each: a multiplication is two operations, the backward pass costs twice the forward one, and a teacher that
        labels from a snapshot passes forward once more. An ensemble costs as much as its members.
    """
    student, teacher = models.multiplications(plan.student), models.multiplications(plan.teacher)
    return {
        "cost/student/parameters": models.parameters(plan.student),
        "cost/teacher/parameters": plan.members * models.parameters(plan.teacher),
        "cost/ratio": plan.members * teacher / student,
        "cost/student/gflop": 6e-9 * student * steps * batch,
        "cost/teacher/gflop": 2e-9 * (1 + 3 * plan.passes) * plan.members * teacher * taught * batch,
    }
