"""Peers of evalmetrics that run beside it: NumPy, SciPy, SimpleITK, MedPy, surface-distance, composition_stats, JAX.

A function takes the arrays (label maps `reference`, `prediction`: int32 `[x, y, z]`; soft maps `p`, `q`: float32
`[K, N]`), brings them into the form the library wants, and returns the callable to time. Single-threaded where the
library is.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "tests" / "evalmetrics"))  # reference.py

EPS = 0.01


def _regions(arrays):
    return int(max(arrays["reference"].max(), arrays["prediction"].max())) + 1


def bincount_dice(arrays):
    """One `np.bincount` of the joint label; the maps are given as `intp`, which it counts without a copy."""
    reference, prediction = (arrays[name].ravel().astype(np.intp) for name in ("reference", "prediction"))
    regions = _regions(arrays)

    def run():
        joint = np.bincount(reference * regions + prediction, minlength=regions**2).reshape(regions, regions)
        return 2 * joint.diagonal() / (joint.sum(1) + joint.sum(0))

    return run


def simpleitk_dice(arrays):
    """`LabelOverlapMeasuresImageFilter` on byte images; it gives no Dice of label 0, so labels start at 1."""
    import SimpleITK as sitk

    images = [sitk.GetImageFromArray((arrays[name] + 1).astype(np.uint8)) for name in ("reference", "prediction")]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    labels = range(1, _regions(arrays) + 1)

    def run():
        overlap.Execute(*images)
        return np.array([overlap.GetDiceCoefficient(label) for label in labels])

    return run


def medpy_dice(arrays):
    """`medpy.metric.dc` of the binary mask of each label; bytes compare fastest."""
    from medpy.metric import dc

    reference, prediction = (arrays[name].astype(np.uint8) for name in ("reference", "prediction"))
    labels = range(_regions(arrays))
    return lambda: np.array([dc(prediction == label, reference == label) for label in labels])


def surface_distance_dice(arrays):
    """`surface_distance.compute_dice_coefficient` of the binary mask of each label; bytes compare fastest."""
    from surface_distance import compute_dice_coefficient

    reference, prediction = (arrays[name].astype(np.uint8) for name in ("reference", "prediction"))
    labels = range(_regions(arrays))
    return lambda: np.array([compute_dice_coefficient(reference == label, prediction == label) for label in labels])


def numpy_abs(arrays):
    """Naive NumPy: the formula for each pair of regions in turn, with the volumes summed once."""
    p, q = arrays["p"], arrays["q"]

    def run():
        volumes = p.sum(1)[:, None] + q.sum(1)
        return 1 - np.array([[np.abs(x - y).sum() for y in q] for x in p]) / volumes

    return run


def numpy_min_chunked(arrays):
    """NumPy by someone who knows the cache: sums of minima over chunks, into one buffer."""
    p, q = arrays["p"], arrays["q"]
    chunk = 16384
    buffer = np.empty((len(q), chunk), p.dtype)

    def run():
        shared = np.zeros((len(p), len(q)), p.dtype)
        for start in range(0, p.shape[1], chunk):
            x, y = p[:, start : start + chunk], q[:, start : start + chunk]
            for i, row in enumerate(x):
                shared[i] += np.minimum(row, y, out=buffer[:, : row.size]).sum(1)
        return 2 * shared / (p.sum(1)[:, None] + q.sum(1))

    return run


def scipy_abs(arrays):
    """`scipy.spatial.distance.cdist` with the city-block metric; it works in float64, which it is given."""
    from scipy.spatial.distance import cdist

    p, q = (arrays[name].astype(np.float64) for name in "pq")
    return lambda: 1 - cdist(p, q, "cityblock") / (p.sum(1)[:, None] + q.sum(1))


def numpy_ait(arrays):
    """Naive NumPy: certainties once, then the weighted formula for each pair of regions in turn."""
    p, q = arrays["p"], arrays["q"]
    top = np.float32(np.log((1 - EPS) / EPS))

    def certainty(x):
        x = np.clip(x, np.float32(EPS), np.float32(1 - EPS))
        return (np.log(x / (1 - x)) + top) / (2 * top)

    def pair(x, y, m, n):
        weight = np.maximum(x, y)
        return 1 - (weight * np.abs(m - n)).sum() / (weight * (m + n)).sum()

    def run():
        m, n = certainty(p), certainty(q)
        return np.array([[pair(p[i], q[j], m[i], n[j]) for j in range(len(q))] for i in range(len(p))])

    return run


def composition_stats_distance(arrays):
    """`closure` and `clr` of the lifted maps, one composition a row as the library wants it, then the norm."""
    from composition_stats import closure, clr

    p, q = (np.ascontiguousarray(arrays[name].T) for name in "pq")
    lifted = np.float32(EPS)
    return lambda: np.linalg.norm(clr(closure(np.maximum(p, lifted))) - clr(closure(np.maximum(q, lifted))), axis=1)


def numpy_distance(arrays):
    """Hand-written NumPy: one logarithm a part, of the ratio, in place; the distance does not see the closing."""
    p, q = arrays["p"], arrays["q"]
    lifted, parts = np.float32(EPS), np.float32(len(p))

    def run():
        ratio = np.maximum(p, lifted)
        ratio /= np.maximum(q, lifted)
        np.log(ratio, out=ratio)
        total = ratio.sum(0)
        return np.sqrt(np.maximum(np.einsum("kn,kn->n", ratio, ratio) - total * total / parts, 0))

    return run


def autodiff_through_scan(arrays):
    """`jax.grad` of one minus the matched `abs` score, through a `lax.scan` over chunks of all pairs."""
    return _gradient(arrays, checkpoint=False)


def autodiff_with_checkpoints(arrays):
    """The same with `jax.checkpoint` around a step, so that no signs of all pairs are kept."""
    return _gradient(arrays, checkpoint=True)


def _gradient(arrays, checkpoint, chunk=8192):
    import jax
    import jax.numpy as jnp
    import optax
    from jax import lax

    p, q = jnp.asarray(arrays["p"]), jnp.asarray(arrays["q"])

    def apart(x, y):
        return jnp.abs(x[:, None] - y[None]).sum(-1)

    compare = jax.checkpoint(apart) if checkpoint else apart

    def loss(p, q):
        blocks = tuple(x.reshape(len(x), -1, min(chunk, x.shape[1])).swapaxes(0, 1) for x in (p, q))
        zero = jnp.zeros((len(p), len(q)), p.dtype)
        total, _ = lax.scan(lambda total, block: (total + compare(*block), None), zero, blocks)
        score = 1 - total / (p.sum(1)[:, None] + q.sum(1)[None])
        rows, columns = optax.assignment.hungarian_algorithm(lax.stop_gradient(1 - score))
        return 1 - score[rows, columns].mean()

    gradient = jax.jit(jax.grad(loss, argnums=1))
    return lambda: jax.block_until_ready(gradient(p, q))


def region_benchmark(arrays):
    """The straightforward NumPy version that the tests compare with: every threshold labelled and counted anew."""
    from reference import region_benchmark

    from evalmetrics.hierarchy import THRESHOLDS

    count = sum(name.startswith("ucm2_") for name in arrays)
    images = [
        (arrays[f"ucm2_{i}"], [array for name, array in arrays.items() if name.startswith(f"annotation_{i}_")])
        for i in range(count)
    ]

    def run():
        results = [region_benchmark(ucm2, annotations, THRESHOLDS) for ucm2, annotations in images]
        area = sum(result["area"] for result in results)
        means = [sum(result[name] for result in results) for name in ("covered", "rand", "information")]
        return np.stack([means[0] / area, means[1] / count, means[2] / count])

    return run
