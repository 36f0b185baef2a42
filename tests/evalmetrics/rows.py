"""Rows of a run as the report takes them."""

import numpy as np


def make_row(
    case="one", *, reference=("background", "organ", "lesion"), prediction=("a", "b", "c"), match=(2, 0, 1), **more
):
    """A row with made-up scores: pairs fall off with the distance from the match."""
    n = max(len(reference), len(prediction))
    slot = {region: index for index, region in enumerate(match)}
    pairs = [[1 / (1 + 2 * abs(i - slot[j]) + 0.1 * i) for j in range(len(prediction))] for i in range(len(reference))]
    region = [pairs[i][match[i]] if i < len(reference) and match[i] < len(prediction) else 0.0 for i in range(n)]
    return {
        "case": case, "reference_names": list(reference), "prediction_names": list(prediction), "region": region,
        "match": list(match), "pairs": pairs, "macro": float(np.mean(region)), "macro_reference": 0.5, "micro": 0.75,
        "volume_weighted": 0.625, "crum": 0.375, "reference_volume": [100.0] * len(reference),
        "prediction_volume": [150.0] * len(prediction), "spacing": [1.0, 1.0, 1.0], **more,
    }  # fmt: skip
