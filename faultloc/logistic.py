"""Logistic regression on five numbers of each line: the plain learner that others are held against.

Every line of every bug is an example of its own, faulty or not, whatever stands beside it in its program.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from faultloc import formulas, rankers, spectrum
from faultloc.corpus import Bug
from faultloc.spectrum import Counts

RIDGE = 1.0  # on squared weights of the standardised features, the intercept free
FIRST = -6.0  # intercept to start from: one line in some hundreds is faulty
LONGEST = 2.0  # of a step of Newton's method in any weight
ROUNDS = 100
ENOUGH = 1e-9  # change of the weights that ends it


class Logistic:
    """A ranker; see `faultloc.rankers`.

    Args:
        name: under which it stands in tables.
    """

    needs_tree, learns = False, True

    def __init__(self, name: str) -> None:
        self.name = name

    def fit(self, bugs: Sequence[Bug], key: Any) -> rankers.Formula:  # noqa: ARG002
        """Learn the weights; what comes out is a formula like the others.

        Raises:
            InputError: there is no bug.
        """
        rankers.demand(bugs)
        values = np.concatenate([np.stack(look(spectrum.counts(bug.recording.spectrum)), axis=1) for bug in bugs])
        faulty = np.concatenate([np.isin(np.arange(bug.recording.spectrum.size), bug.faulty) for bug in bugs])
        weights, offset = regress(values, faulty)
        slopes = weights.tolist()

        def log_odds(counts: Counts) -> Any:
            return sum(slope * value for slope, value in zip(slopes, look(counts), strict=True)) + offset

        return rankers.Formula(self.name, formula=log_odds)


def look(counts: Counts) -> list[Any]:
    """`[..., L]` each: Tarantula, Ochiai, ef/F, ep/P and whether any failing test ran the line."""
    failing, passing = (counts.ef * 0 + total for total in formulas.totals(counts))
    return [
        formulas.tarantula(counts), formulas.ochiai(counts), formulas.ratio(counts.ef, failing),
        formulas.ratio(counts.ep, passing), (counts.ef > 0).astype(counts.ef.dtype),
    ]  # fmt: skip


def regress(values: np.ndarray, faulty: np.ndarray) -> tuple[np.ndarray, float]:
    """Minimise the logistic loss of all lines plus `RIDGE` / 2 times the squared weights, by Newton's method.

    Args:
        values: `[n, F]`.
        faulty: `[n]` bool.

    Returns:
        Weights of the values as they are, `[F]`, and the intercept.
    """
    mean, scale = values.mean(0), np.where(values.std(0) > 1e-12, values.std(0), 1.0)
    x = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    ridge = np.append(np.full(values.shape[1], RIDGE), 0.0)
    found = np.append(np.zeros(values.shape[1]), FIRST)
    for _ in range(ROUNDS):
        chance = expit(x @ found)
        slope = x.T @ (chance - faulty) + ridge * found
        curve = (x * (chance * (1 - chance))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        found = found - step / max(1.0, np.abs(step).max() / LONGEST)
        if np.abs(step).max() < ENOUGH:
            break
    weights = found[:-1] / scale
    return weights, float(found[-1] - mean @ weights)
