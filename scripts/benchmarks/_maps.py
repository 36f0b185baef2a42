"""Maps to score, and their exact scores in float64."""

from typing import Any

import numpy as np
from harness.measure import Inputs, largest_difference
from peers import evalmetrics_local


def label_volumes(edge: int, regions: int = 8) -> Inputs:
    """Two label maps that agree in about four voxels of five."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, regions, (edge,) * 3, dtype=np.int32)
    prediction = np.where(rng.random(reference.shape) < 0.8, reference, np.roll(reference, 1, 0))
    return {"reference": reference, "prediction": prediction.astype(np.int32)}


def soft_maps(k: int, k_other: int, voxels: int) -> Inputs:
    """Two probability maps: sharpened noise, the second mixed with a shuffled first; every voxel sums to one."""
    rng = np.random.default_rng(0)

    def softmax(logits: np.ndarray) -> np.ndarray:
        np.exp(logits, out=logits)
        logits /= logits.sum(0)
        return logits

    p = rng.standard_normal((k, voxels), np.float32) * 3
    q = rng.standard_normal((k_other, voxels), np.float32) * 3
    q[: min(k, k_other)] += p[rng.permutation(k)[: min(k, k_other)]]
    return {"p": softmax(p), "q": softmax(q)}


def exact_dice(arrays: Inputs) -> np.ndarray:
    """Dice of each label, from counts."""
    reference, prediction = (arrays[name].ravel() for name in ("reference", "prediction"))
    labels = range(int(max(reference.max(), prediction.max())) + 1)
    shared = [np.count_nonzero((reference == label) & (prediction == label)) for label in labels]
    volumes = [np.count_nonzero(reference == label) + np.count_nonzero(prediction == label) for label in labels]
    return 2 * np.array(shared) / np.array(volumes)


def exact_abs(arrays: Inputs) -> np.ndarray:
    """2 sum min(p, q) / sum (p + q) of every pair; minima are exact in float32, sums are taken in float64."""
    p, q = arrays["p"], arrays["q"]
    shared = np.array([[np.minimum(x, y).sum(dtype=np.float64) for y in q] for x in p])
    return 2 * shared / (p.sum(1, dtype=np.float64)[:, None] + q.sum(1, dtype=np.float64))


def exact_ait(arrays: Inputs) -> np.ndarray:
    """The weighted `ait` formula of every pair in float64."""
    return evalmetrics_local.numpy_ait({name: array.astype(np.float64) for name, array in arrays.items()})()


def exact_distance(arrays: Inputs) -> np.ndarray:
    """Norm of the difference of the centred log-ratios of the closed, lifted maps, by the definition in float64."""
    logs = []
    for name in "pq":
        lifted = np.maximum(arrays[name].astype(np.float64), evalmetrics_local.EPS)
        log = np.log(lifted / lifted.sum(0))
        logs.append(log - log.mean(0))
    return np.linalg.norm(logs[0] - logs[1], axis=0)


def exact_gradient(arrays: Inputs) -> np.ndarray:
    """Derivative of one minus the mean matched `abs` score with respect to q, by hand; no ties in continuous maps."""
    from scipy.optimize import linear_sum_assignment

    p, q = arrays["p"], arrays["q"]
    score = exact_abs(arrays)
    rows, columns = linear_sum_assignment(score, maximize=True)
    volumes = p.sum(1, dtype=np.float64)[:, None] + q.sum(1, dtype=np.float64)
    out = np.empty(q.shape)
    for i, j in zip(rows, columns, strict=True):
        out[j] = -(2 * (q[j] < p[i]) - score[i, j]) / volumes[i, j] / len(p)
    return out


def relative_difference(result: Any, reference: Any) -> float:
    """Largest difference over the largest value of the reference, for results of an arbitrary scale."""
    return largest_difference(result, reference) / float(np.abs(reference).max())
