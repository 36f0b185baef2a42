"""Benchmarks of evalmetrics: volumes of 128^3 voxels and 8 regions in float32 and int32, unless a row says otherwise.

Ours and the peers get the same arrays; what form they bring them into before the clock starts is said by each peer.
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _hierarchies, _maps
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings
from peers import evalmetrics_local

EPS = evalmetrics_local.EPS
LOCAL, TORCH = "evalmetrics_local", "evalmetrics_torch"
GOLDEN_ENVIRONMENT, GOLDEN_MODULE, GOLDEN_VERSIONS = "torch", TORCH, ("torch", "monai", "torchmetrics")
MEMORY = 64  # megabytes beyond the inputs
SHARPNESS = 3.1  # of the golden soft maps: chosen so that products of probabilities give such a map 0.71 with itself


def benchmarks(settings: Settings) -> list[Benchmark]:
    """All benchmarks of the package."""
    edge = settings.size or 128
    soft = functools.partial(_maps.soft_maps, 8, 8, edge**3)
    return [
        label_maps(edge),
        soft_pairs(soft),
        many_regions(37, 50, 960 * 1024 if settings.size is None else edge**3),
        ait_pairs(soft),
        aitchison_map(soft),
        gradient(soft),
        streaming(functools.partial(_maps.soft_maps, 8, 8, 2 * edge**3)),
        region_benchmark(settings),
    ]


def label_maps(edge: int) -> Benchmark:
    """Crisp Dice of every label."""

    def ours(arrays: Inputs) -> Run:
        import jax
        import jax.numpy as jnp

        from evalmetrics import crisp

        reference, prediction = jnp.asarray(arrays["reference"]), jnp.asarray(arrays["prediction"])
        count = jax.jit(lambda a, b: crisp.contingency(a, b, (8, 8)))
        dice = jax.jit(crisp.dice)
        return lambda: dice(count(reference, prediction))

    return Benchmark(
        "label_maps", f"Dice of 8 labels, {edge}^3 voxels",
        functools.partial(_maps.label_volumes, edge), ours, _maps.exact_dice,
        tolerance=1e-6,
        peers=(
            Peer("MONAI DiceHelper", f"{TORCH}:monai_dice", 40, environment="torch"),
            Peer("torchmetrics dice_score", f"{TORCH}:torchmetrics_dice", 40, environment="torch"),
            Peer("torchmetrics multiclass_f1_score", f"{TORCH}:torchmetrics_f1", environment="torch"),
            Peer("SimpleITK LabelOverlapMeasures", f"{LOCAL}:simpleitk_dice", 3, needs=("SimpleITK",)),
            Peer("NumPy bincount", f"{LOCAL}:bincount_dice", 1.5),
            Peer("MedPy dc", f"{LOCAL}:medpy_dice", needs=("medpy",)),
            Peer("surface-distance dice", f"{LOCAL}:surface_distance_dice", needs=("surface_distance",)),
        ),
        memory_mb=MEMORY,
    )  # fmt: skip


def _score_of(kernel: str) -> Callable[[Inputs], Run]:
    """The verb itself, matching included, although the peers stop at the table of pairs."""

    def ours(arrays: Inputs) -> Run:
        import jax.numpy as jnp

        from evalmetrics import scores

        p, q = jnp.asarray(arrays["p"]), jnp.asarray(arrays["q"])
        return lambda: scores.score(p, q, kernel=kernel, eps=EPS)

    return ours


def _pairs(result: Any) -> Any:
    return result.pairs


def soft_pairs(inputs: Callable[[], Inputs]) -> Benchmark:
    """All pairs of regions, kernel `abs`."""
    return Benchmark(
        "soft_pairs", "all 8 x 8 pairs of two soft maps, kernel abs", inputs, _score_of("abs"), _maps.exact_abs,
        tolerance=1e-6, answer=_pairs, memory_mb=MEMORY,
        peers=(
            Peer("NumPy, naive", f"{LOCAL}:numpy_abs", 10),
            Peer("torch.cdist", f"{TORCH}:cdist_abs", 2.5, environment="torch"),
            Peer("torch, hand-written loop", f"{TORCH}:loop_abs", 1.3, environment="torch"),
            Peer("NumPy, chunked", f"{LOCAL}:numpy_min_chunked"),
            Peer("SciPy cdist", f"{LOCAL}:scipy_abs"),
        ),
    )  # fmt: skip


def many_regions(k: int, k_other: int, voxels: int) -> Benchmark:
    """All pairs of regions of two atlases, kernel `abs`."""
    return Benchmark(
        "many_regions", f"all {k} x {k_other} pairs on {voxels:,} voxels, kernel abs",
        functools.partial(_maps.soft_maps, k, k_other, voxels), _score_of("abs"), _maps.exact_abs,
        tolerance=1e-6, answer=_pairs, memory_mb=MEMORY,
        peers=(
            Peer("NumPy, naive", f"{LOCAL}:numpy_abs", 10),
            Peer("torch, hand-written loop", f"{TORCH}:loop_abs", environment="torch"),
        ),
    )  # fmt: skip


def ait_pairs(inputs: Callable[[], Inputs]) -> Benchmark:
    """All pairs of regions, kernel `ait`."""
    return Benchmark(
        "ait_pairs", "all 8 x 8 pairs of two soft maps, kernel ait", inputs, _score_of("ait"), _maps.exact_ait,
        tolerance=1e-6, answer=_pairs, memory_mb=MEMORY,
        peers=(Peer("NumPy, naive", f"{LOCAL}:numpy_ait", 5),),
    )  # fmt: skip


def aitchison_map(inputs: Callable[[], Inputs]) -> Benchmark:
    """Aitchison distance at every voxel."""

    def ours(arrays: Inputs) -> Run:
        import jax.numpy as jnp

        from evalmetrics import simplex

        p, q = jnp.asarray(arrays["p"]), jnp.asarray(arrays["q"])
        return lambda: simplex.distance_map(p, q, eps=EPS)

    return Benchmark(
        "aitchison_map", "Aitchison distance of two soft maps at each voxel", inputs, ours, _maps.exact_distance,
        tolerance=1e-5, memory_mb=MEMORY,
        peers=(
            Peer("composition_stats", f"{LOCAL}:composition_stats_distance", 20, needs=("composition_stats",)),
            Peer("NumPy, hand-written", f"{LOCAL}:numpy_distance", 3),
        ),
    )  # fmt: skip


def gradient(inputs: Callable[[], Inputs]) -> Benchmark:
    """Gradient of the matched loss with respect to the prediction."""

    def ours(arrays: Inputs) -> Run:
        import jax
        import jax.numpy as jnp

        from evalmetrics import losses

        p, q = jnp.asarray(arrays["p"]), jnp.asarray(arrays["q"])
        derivative = jax.jit(jax.grad(losses.matched_dice, argnums=1))
        return lambda: derivative(p, q)

    return Benchmark(
        "gradient", "gradient of the matched loss, kernel abs", inputs, ours, _maps.exact_gradient,
        tolerance=1e-5, error=_maps.relative_difference,
        peers=(
            Peer("autodiff through the scan", f"{LOCAL}:autodiff_through_scan", 8),
            Peer("the same, recomputing each chunk", f"{LOCAL}:autodiff_with_checkpoints"),
        ),
    )  # fmt: skip


def streaming(inputs: Callable[[], Inputs]) -> Benchmark:
    """All pairs from memory-mapped files of twice the size, block by block."""

    def ours(arrays: Inputs) -> Run:
        from evalmetrics import io, scores, streaming

        folder = tempfile.TemporaryDirectory(prefix="bench-")
        for name in "pq":
            np.save(Path(folder.name, name), arrays[name].reshape(len(arrays[name]), 64, -1))

        def run() -> scores.Scores:
            volumes = [io.load(Path(folder.name, f"{name}.npy")) for name in "pq"]
            return scores.from_stats(streaming.pair_stats_streamed(*(volume.data for volume in volumes)))

        return run

    return Benchmark(
        "streaming", "all 8 x 8 pairs from memory-mapped files of twice the size", inputs, ours, _maps.exact_abs,
        tolerance=1e-6, answer=_pairs, memory_mb=MEMORY,
    )  # fmt: skip


def region_benchmark(settings: Settings) -> Benchmark:
    """BSDS500 region benchmark of a few images at 99 thresholds."""
    count, size = (4, (321, 481)) if settings.size is None else (1, (settings.size, settings.size))
    inputs = functools.partial(_hierarchies.images, settings.data, count, size)

    def ours(arrays: Inputs) -> Run:
        from evalmetrics import hierarchy

        images = _hierarchies.unpack(arrays)

        def run() -> np.ndarray:
            total = hierarchy.empty()
            for ucm2, annotations in images:
                total = hierarchy.add(total, hierarchy.tally(ucm2, annotations))
            return np.stack([total.covered / total.area, total.rand / count, total.information / count])

        return run

    def reference(arrays: Inputs) -> np.ndarray:
        return evalmetrics_local.region_benchmark(arrays)()

    return Benchmark(
        "region_benchmark", f"{count} images against their annotators at 99 thresholds", inputs, ours, reference,
        tolerance=1e-9, peers=(Peer("NumPy, straightforward", f"{LOCAL}:region_benchmark", 8),),
    )  # fmt: skip


def golden_inputs() -> dict[str, Any]:
    """Small seeded maps: labels in 0..3 and soft maps of 4 regions, `[8, 9]` pixels, as plain lists."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 4, (8, 9))
    prediction = np.where(rng.random(reference.shape) < 0.7, reference, rng.integers(0, 4, reference.shape))
    soft = [np.exp(SHARPNESS * rng.standard_normal((4, 8, 9))) for _ in range(2)]
    soft = [np.round(x / x.sum(0), 6) for x in soft]
    p, q = (x / x.sum(0) for x in soft)
    arrays = {"reference": reference, "prediction": prediction, "p": p, "q": q}
    return {"regions": 4} | {name: array.tolist() for name, array in arrays.items()}
