"""Random walker segmentation, exact and from precomputed eigenvectors, on lattices in two and three dimensions.

>>> import numpy as np, rwalk
>>> lattice = rwalk.build(np.array([[[0.0, 0.1, 0.9, 1.0]] * 3]), beta=10.0)
>>> seeds = np.array([[0, -1, -1, 1], [-1, -1, -1, -1], [-1, -1, -1, -1]])
>>> rwalk.random_walker(lattice, regions=2, seeds=seeds).x.argmax(0)[2].tolist()
[0, 0, 1, 1]
"""

import importlib
from typing import Any

_EXPORTS = {
    "Basis": "eigen",
    "smallest_eigenpairs": "eigen",
    "Lattice": "graph",
    "build": "graph",
    "reweight": "update",
    "Solution": "solve",
    "random_walker": "solve",
    "InputError": "checks",
}
_MODULES = (
    "bounds", "cache", "certified", "deflate", "edges", "eigen", "graph", "interact", "io", "multigrid", "online",
    "prepared", "seeding", "solve", "stencil", "topology", "update", "weights", "woodbury",
)  # fmt: skip

__all__ = [*_EXPORTS, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import rwalk` costs nothing."""
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"rwalk.{_EXPORTS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"rwalk.{name}")
    raise AttributeError(f"module 'rwalk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
