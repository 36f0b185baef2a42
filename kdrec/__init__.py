"""Knowledge distillation for online ranking: a stream, a teacher that keeps learning, students that learn from it.

>>> import numpy as np, kdrec
>>> logits, labels = np.array([[-2.0], [1.0], [3.0]]), np.array([[0.0], [1.0], [1.0]])
>>> sums = kdrec.metrics.zeros(tasks=1, segments=1, bins=64)
>>> sums = kdrec.metrics.update(sums, logits, labels, np.ones(3), np.zeros(3, int))
>>> float(kdrec.metrics.metrics(sums).auc[0])
1.0
"""

import importlib
from typing import Any

_EXPORTS = {
    "InputError": "io",
    "Columns": "stream",
    "Simulator": "simulator",
    "Spec": "models",
    "Method": "distill",
}
_MODULES = (
    "channel", "corpus", "data", "delta", "distill", "export", "io", "labels", "layout", "losses", "memory",
    "metrics", "models", "optimiser", "plan", "search", "serving", "sharing", "simulator", "stream", "summary", "teach",
    "train",
)  # fmt: skip

__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import kdrec` costs nothing."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"kdrec.{_EXPORTS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"kdrec.{name}")
    raise AttributeError(f"module 'kdrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
