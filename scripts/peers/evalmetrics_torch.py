"""PyTorch-based peers of evalmetrics, each written the way a good user of the library would, on the CPU.

A function takes the arrays (label maps `reference`, `prediction`: int32 `[x, y, z]`; soft maps `p`, `q`: float32
`[K, N]`), turns them into tensors of the form and type the library is fastest with, and returns the callable to time.
"""

import time

import monai.losses
import monai.metrics
import numpy as np
import torch
import torchmetrics.functional.classification
import torchmetrics.functional.segmentation
from torchmetrics.functional.segmentation import dice_score


def _labels(arrays, dtype):
    regions = int(max(arrays["reference"].max(), arrays["prediction"].max())) + 1
    return (torch.from_numpy(arrays[name]).to(dtype) for name in ("reference", "prediction")), regions


def monai_dice(arrays):
    """`DiceHelper` on label maps with `num_classes`: 120 ms where one-hot maps and `compute_dice` take 165.

    Bytes, which it compares fastest.
    """
    (reference, prediction), regions = _labels(arrays, torch.uint8)
    helper = monai.metrics.DiceHelper(
        include_background=True, num_classes=regions, reduction="none", get_not_nans=False, ignore_empty=False
    )
    return lambda: helper(prediction[None, None], reference[None, None])[0].numpy()


def torchmetrics_dice(arrays):
    """`dice_score` on index maps, the library's Dice for segmentations."""
    (reference, prediction), regions = _labels(arrays, torch.int64)
    return lambda: dice_score(
        prediction[None], reference[None], num_classes=regions, average="none", input_format="index"
    )[0].numpy()


def torchmetrics_f1(arrays):
    """`multiclass_f1_score` without its argument checks: Dice by its name among classifiers, and fast."""
    (reference, prediction), regions = _labels(arrays, torch.int64)
    score = torchmetrics.functional.classification.multiclass_f1_score
    return lambda: score(prediction.ravel(), reference.ravel(), regions, average="none", validate_args=False).numpy()


def cdist_abs(arrays):
    """`torch.cdist` with p=1: the sum of absolute differences of every pair of rows is all that Dice needs."""
    p, q = (torch.from_numpy(arrays[name]) for name in "pq")
    return lambda: (1 - torch.cdist(p, q, p=1) / (p.sum(1)[:, None] + q.sum(1))).numpy()


def loop_abs(arrays):
    """Loop over chunks with the one-operation form, sum of minima; the chunk is tuned on these arrays first.

    Tried are chunks whose table of all pairs takes 2 to 16 MB, which is where a second-level cache ends.
    """
    p, q = (torch.from_numpy(arrays[name]) for name in "pq")

    def run(chunk):
        shared = torch.zeros(len(p), len(q))
        for x, y in zip(p.split(chunk, 1), q.split(chunk, 1), strict=True):
            shared += torch.minimum(x[:, None], y).sum(-1)
        return (2 * shared / (p.sum(1)[:, None] + q.sum(1))).numpy()

    def seconds(chunk):
        run(chunk)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run(chunk)
            times.append(time.perf_counter() - start)
        return min(times)

    best = min(((megabytes << 20) // (4 * len(p) * len(q)) for megabytes in (2, 4, 8, 16)), key=seconds)
    return lambda: run(best)


def golden(inputs):
    """Values that the tests keep: crisp Dice by both libraries, MONAI's answers for soft maps (`[K, x, y]` lists)."""
    reference, prediction = (torch.tensor(inputs[name])[None] for name in ("reference", "prediction"))
    regions = inputs["regions"]
    p, q = (torch.tensor(inputs[name], dtype=torch.float64)[None] for name in "pq")
    helper = monai.metrics.DiceHelper(
        include_background=True, num_classes=regions, reduction="none", get_not_nans=False
    )
    no_smoothing = {"reduction": "none", "smooth_nr": 0.0, "smooth_dr": 0.0}
    soft_label = monai.losses.DiceLoss(soft_label=True, **no_smoothing)
    product = monai.losses.DiceLoss(**no_smoothing)
    metric = monai.metrics.DiceMetric(reduction="mean")
    metric(y_pred=p, y=p)
    values = {
        "monai_dice": helper(prediction[None], reference[None])[0],
        "torchmetrics_dice": dice_score(
            prediction, reference, num_classes=regions, average="none", input_format="index"
        )[0],
        "monai_soft_label_loss": soft_label(q, p).ravel(),
        "monai_soft_label_loss_self": soft_label(p, p).ravel(),
        "monai_metric_of_soft_self": metric.aggregate(),
        "monai_product_dice_of_soft_self": 1 - product(p, p).mean(),
    }
    return {name: np.asarray(value, np.float64).tolist() for name, value in values.items()}
