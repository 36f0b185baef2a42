"""Scores for segmentations that are probabilistic, have many regions, and need not agree on the regions' names.

>>> import numpy as np, evalmetrics
>>> truth = np.array([0, 0, 1, 1, 2, 2])
>>> scores = evalmetrics.score(truth, np.array([2, 2, 0, 0, 0, 1]))
>>> scores.match.tolist(), round(float(scores.macro), 3)
([2, 0, 1], 0.822)
"""

import importlib
from typing import Any

_EXPORTS = {
    "Scores": "scores",
    "score": "scores",
    "from_stats": "scores",
    "PairStats": "pairs",
    "pair_stats": "pairs",
    "merge": "pairs",
    "pair_stats_streamed": "streaming",
    "update": "pairs",
    "match": "matching",
    "Kernel": "kernels",
    "register": "kernels",
    "load": "io",
    "InputError": "readers",
}
_MODULES = (
    "accumulator", "calibration", "crisp", "hierarchy", "io", "kernels", "losses", "matching", "pairs", "scores",
    "simplex", "stats", "streaming", "surface",
)  # fmt: skip

__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import evalmetrics` costs nothing."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"evalmetrics.{_EXPORTS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"evalmetrics.{name}")
    raise AttributeError(f"module 'evalmetrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
