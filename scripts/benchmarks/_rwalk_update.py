"""Benchmark of rwalk's updates: a basis carried to another beta, beside the basis computed anew."""

from typing import Any

import numpy as np
from harness.measure import Benchmark, Inputs, Peer, Run

NOISE, BEFORE, FACTOR, GAMMA = 0.02, 30.0, 1.5, 1e-3
CLASSES, EVERY = 3, 32.0
BAR, WORSE = 10, 1.2  # times as fast as computing it anew, at an error of the answer so many times as large


def update(name: str, shape: tuple[int, ...], k: int) -> Benchmark:
    """The default update after a change of beta; its error is that of the answer over that of a new basis."""

    def inputs() -> Inputs:
        from rwalk import comparison, seeding

        image, mask = comparison.brain(shape, NOISE), np.ones(shape, bool)
        every = min(EVERY, max(shape) / 2)
        seeds = seeding.automatic(image[None], mask, classes=CLASSES, every=every, spacing=(1.0,) * len(shape))
        priors = seeding.intensity_priors(image[None], mask, seeds, CLASSES)
        return {"image": image, "priors": priors.astype(np.float32), "k": np.asarray(k),
                "betas": np.asarray([BEFORE, FACTOR * BEFORE])}  # fmt: skip

    def ours(arrays: Inputs) -> Run:
        from peers import rwalk_local

        from rwalk import eigen
        from rwalk import update as updates

        before, after = rwalk_local.before_and_after(arrays)
        basis = eigen.smallest_eigenpairs(before, int(arrays["k"]))
        return lambda: rwalk_local.answer_of(arrays, after, updates.reweight(basis, before, after))

    def reference(arrays: Inputs) -> np.ndarray:
        from peers import rwalk_local

        from rwalk import solve

        _, after = rwalk_local.before_and_after(arrays)
        given = {"regions": CLASSES, "priors": arrays["priors"], "gamma": GAMMA, "tol": 1e-6}
        exact = np.asarray(solve.random_walker(after, **given).x).reshape(CLASSES, -1)
        return np.stack([exact, np.asarray(rwalk_local.recomputed(arrays)())])

    return Benchmark(
        name, f"{'x'.join(map(str, shape))}, K={k}: the basis after beta x {FACTOR:g}, and one answer from it",
        inputs, ours, reference,
        tolerance=WORSE,
        peers=(Peer("the basis computed anew", "rwalk_local:recomputed", BAR),),
        error=_ratio,
    )  # fmt: skip


def _ratio(found: Any, right: Any) -> float:
    """Distance from the exact answer, over that of the answer from a new basis."""
    exact, anew = np.asarray(right, np.float64)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(anew - exact))
