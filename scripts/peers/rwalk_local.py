"""Peers of rwalk that run beside it: scikit-image's random walker, scipy, PyAMG, and ours in a fresh process.

A function takes the arrays (`image` float32 `[*shape]`, `seeds` int32 with -1 where there is none, numbers as `[]`),
brings them into the form the library wants, and returns the callable to time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent


def _scikit(arrays, mode):
    from skimage.segmentation import random_walker

    image, labels = arrays["image"].astype(np.float64), arrays["seeds"] + 1
    beta, tol = float(arrays["beta"]), float(arrays["tol"])
    return lambda: random_walker(image, labels, beta=beta, mode=mode, tol=tol, return_full_prob=True)


def scikit_cg_j(arrays):
    """Conjugate gradients with Jacobi's preconditioner."""
    return _scikit(arrays, "cg_j")


def scikit_cg_mg(arrays):
    """Conjugate gradients with PyAMG's multigrid."""
    return _scikit(arrays, "cg_mg")


def scikit_bf(arrays):
    """A sparse factorisation."""
    return _scikit(arrays, "bf")


def pencil_of(arrays):
    """The eigenproblem of an image, by ours: what is compared is the solver."""
    from rwalk import graph
    from rwalk.eigen import pencil

    image = arrays["image"]
    lattice = graph.build(image[None], beta=float(arrays["beta"]), spacing=(1.0,) * image.ndim)
    return lattice, pencil.pencil_of(lattice)


def scipy_shift_invert(arrays):
    """ARPACK on a sparse factorisation, tolerance 1e-3: the smallest values."""
    from rwalk.eigen import reference

    _, matrix = pencil_of(arrays)
    return lambda: reference.shift_invert(matrix, int(arrays["k"]), tol=1e-3).values


def lobpcg_pyamg(arrays):
    """Scipy's LOBPCG with PyAMG's smoothed aggregation, the set-up of the latter included, and our number of guards."""
    from rwalk.eigen import reference

    _, matrix = pencil_of(arrays)
    k, steps = int(arrays["k"]), int(arrays["steps"])
    return lambda: reference.lobpcg_pyamg(matrix, k, maximum=steps, extra=max(8, k // 5)).values


def before_and_after(arrays):
    """The lattices of an image for the two `betas`."""
    from rwalk import graph

    image, unit = arrays["image"], (1.0,) * arrays["image"].ndim
    return [graph.build(image[None], beta=float(beta), spacing=unit) for beta in arrays["betas"]]


def answer_of(arrays, lattice, basis):
    """The truncated answer to priors, not polished, so that the basis is seen."""
    from rwalk import graph, online

    p = arrays["priors"].reshape(len(arrays["priors"]), -1)
    return online.priors(basis, graph.stencil_of(lattice), p, 1e-3, polish=0).x


def recomputed(arrays):
    """The basis of the second beta computed anew, and an answer from it."""
    from rwalk import eigen

    _, after = before_and_after(arrays)
    return lambda: answer_of(arrays, after, eigen.smallest_eigenpairs(after, int(arrays["k"])))


COLD = """
import json, sys, time
import numpy as np
arrays = dict(np.load(sys.argv[1]))
sys.path[:0] = json.loads(sys.argv[2])
from peers import rwalk_local
import jax
from rwalk import eigen
lattice, _ = rwalk_local.pencil_of(arrays)
jax.block_until_ready(lattice.weights)
values = eigen.smallest_eigenpairs(lattice, int(arrays["k"])).values
np.save(sys.argv[3], np.asarray(values, np.float64))
"""


def cold_eigenpairs(arrays):
    """Ours in a fresh process, from the start of Python to the values: imports and compilation included, no cache."""
    import tempfile

    folder = tempfile.mkdtemp(prefix="cold-")
    given, result = os.path.join(folder, "given.npz"), os.path.join(folder, "values.npy")
    np.savez(given, **arrays)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    paths = json.dumps([str(ROOT), str(ROOT / "scripts")])

    def run():
        subprocess.run([sys.executable, "-c", COLD, given, paths, result], check=True, env=environment)
        return np.load(result)

    return run


def copy(arrays):
    """A copy of the block by XLA, both cores: what a product with the stencil cannot be faster than."""
    import jax
    import jax.numpy as jnp

    block = jnp.asarray(arrays["block"])
    function = jax.jit(lambda x: x + 1)
    return lambda: np.asarray(jax.block_until_ready(function(block))[0, :1])
