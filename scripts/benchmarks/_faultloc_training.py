"""Benchmark of learning: every fold of BugsInPy with eight starts each, against its minimum in float64."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from harness.measure import Benchmark, Inputs, Run
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

RESTARTS, STEPS, RIDGE, PAIRWISE = 8, 80, 10.0, 10.0


def training(data: Path, size: int | None) -> Benchmark:
    """One project left out after the other; the answer is the loss of the first fold's best start."""

    @functools.cache
    def bugs() -> list[Any]:
        from faultloc import corpus

        return corpus.load("bugsinpy", data / "faultloc" / "bugsinpy_spectra", None if size is None else 3)

    @functools.cache
    def examples() -> list[Any]:
        from faultloc.forest import Example
        from faultloc.programs import program

        return [Example(program(bug.recording, bug.statements()), bug.faulty) for bug in bugs()]

    def inputs() -> Inputs:
        programs = sorted({bug.program for bug in bugs()})
        weight = np.array([[float(bug.program != name) for name in programs] for bug in bugs()])
        return {"weight": weight, "values": np.concatenate([e.program.values for e in examples()])}

    def ours(arrays: Inputs) -> Run:
        import jax

        from faultloc import forest, learn

        planted = forest.plant(examples())
        return lambda: learn.fit_folds(
            planted, arrays["weight"], jax.random.key(0), subclasses=1, restarts=RESTARTS, steps=STEPS,
            rate=learn.RATE, penalty=learn.Penalty(RIDGE, 1.0, PAIRWISE),
        ).loss  # fmt: skip

    def reference(arrays: Inputs) -> Any:
        seen = [example for example, use in zip(examples(), arrays["weight"][:, 0], strict=True) if use]
        return least_loss(seen)

    return Benchmark(
        "training", f"learning all folds of BugsInPy, {RESTARTS} starts each, one subclass", inputs, ours, reference,
        2e-3, answer=lambda loss: loss[0].min(), error=lambda a, b: float(abs(a - b) / b), seconds=60.0,
    )  # fmt: skip


def least_loss(examples: list[Any]) -> float:
    """Minimum of the loss of `faultloc.learn.fit` with one subclass, by SciPy's L-BFGS-B in float64."""
    kinds = sorted({kind for example in examples for kind in example.program.kinds})
    number = {kind: i for i, kind in enumerate(kinds)}
    whole = np.concatenate([example.program.values for example in examples])
    mean, deviation = whole.mean(0), np.where(whole.std(0) > 1e-6, whole.std(0), 1.0)
    lines = [
        ((e.program.values - mean) / deviation, np.array([number[kind] for kind in e.program.kinds]), e.faulty)
        for e in examples
    ]
    size = whole.shape[1]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offsets = parameters[:size], parameters[size:]
        total, slope = RIDGE / 2 * float(parameters @ parameters), RIDGE * parameters
        for x, kind, faulty in lines:
            score = x @ weights + offsets[kind]
            target = logsumexp(score[faulty])
            other = np.ones(len(score), bool)
            other[faulty] = False
            total += logsumexp(score) - target + PAIRWISE * np.logaddexp(0, score - target)[other].mean() * other.mean()
            above = PAIRWISE / len(score) * expit(score - target) * other
            by_score = np.exp(score - logsumexp(score)) + above
            by_score[faulty] -= (1 + above.sum()) * np.exp(score[faulty] - target)
            slope = slope + np.concatenate([by_score @ x, np.bincount(kind, by_score, len(offsets))])
        return total, slope

    found = minimize(loss, np.zeros(size + len(kinds)), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return float(found.fun)
