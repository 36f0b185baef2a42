"""Slow, straightforward references in NumPy, written from the definitions; the benchmarks time them as peers."""

import numpy as np
from scipy import ndimage


def region_benchmark(ucm2, annotations, thresholds):
    """Region benchmark of one image by recounting: label every level, count every annotator, measure.

    Returns a dict of per-level sums over annotators' regions (`covered`, `[T]`), per-level averages over annotators
    (`rand`, `information`, `[T]`), the sum with each region at its best level (`covered_region`) and the `area`.
    """
    rand, information, covered = (np.zeros((len(thresholds), len(annotations))) for _ in range(3))
    best = [np.zeros(int(labels.max()) + 1) for labels in annotations]
    for t, threshold in enumerate(thresholds):
        labels, _ = ndimage.label(ucm2 <= threshold, np.ones((3, 3)))
        segmentation = labels[1::2, 1::2]
        for g, annotation in enumerate(annotations):
            table = contingency(annotation, segmentation)
            rand[t, g] = rand_index(table)
            information[t, g] = variation_of_information(table)
            area, overlap = table.sum(1), best_overlap(table)
            covered[t, g] = (area * overlap).sum()
            best[g] = np.maximum(best[g], overlap)
    areas = [np.bincount(labels.ravel()) for labels in annotations]
    return {
        "area": float(sum(area.sum() for area in areas)),
        "covered": covered.sum(1),
        "covered_region": float(sum((area * overlap).sum() for area, overlap in zip(areas, best, strict=True))),
        "rand": rand.mean(1),
        "information": information.mean(1),
    }


def contingency(reference, prediction):
    """Counts of every pair of labels, `[K, K']`."""
    rows, columns = int(reference.max()) + 1, int(prediction.max()) + 1
    cells = np.bincount(reference.ravel().astype(np.int64) * columns + prediction.ravel(), minlength=rows * columns)
    return cells.reshape(rows, columns).astype(np.float64)


def rand_index(table):
    """Share of the pixel pairs on which both maps agree."""
    total = table.sum()
    rows, columns = table.sum(1), table.sum(0)
    disagreed = ((rows**2).sum() + (columns**2).sum()) / 2 - (table**2).sum()
    return 1 - disagreed / (total * (total - 1) / 2)


def variation_of_information(table):
    """H(A) + H(B) - 2 I(A; B) in bits."""
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    inside = joint > 0
    mutual = (joint[inside] * np.log2(joint[inside] / np.outer(rows, columns)[inside])).sum()
    return entropy(rows) + entropy(columns) - 2 * mutual


def entropy(shares):
    """Bits of a distribution."""
    shares = shares[shares > 0]
    return -(shares * np.log2(shares)).sum()


def best_overlap(table):
    """Largest intersection over union of each row's region, `[K]`."""
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    return (table / np.maximum(union, 1)).max(1)
