"""Which lines to look at first when tests fail: suspiciousness from per-test coverage, and how good a ranking is.

>>> import numpy as np, faultloc
>>> spectrum = faultloc.pack(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]]), failed=[True, False, False])
>>> faultloc.formulas.ochiai(faultloc.counts(spectrum)).round(3).tolist()
[0.577, 0.707, 0.0]
"""

import importlib
from typing import Any

_EXPORTS = {
    "Spectrum": "spectrum",
    "Counts": "spectrum",
    "pack": "spectrum",
    "counts": "spectrum",
    "InputError": "io",
    "Recording": "io",
    "read": "io",
}
_MODULES = (
    "cases", "corpus", "faultsets", "features", "formulas", "grammars", "importers", "intervals", "io", "learn",
    "logistic", "metrics", "models", "mutate", "preprocessor", "programs", "rankers", "ranking", "spectrum", "stats",
    "synthetic", "tflm", "tree", "triage",
)  # fmt: skip

__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import faultloc` costs nothing."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"faultloc.{_EXPORTS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"faultloc.{name}")
    raise AttributeError(f"module 'faultloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
