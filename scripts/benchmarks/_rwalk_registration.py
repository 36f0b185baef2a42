"""Registration beside SimpleITK's Demons: the MNI brain bent by a known field, and two brains of the public data.

The error is one minus the mean Dice of the labels carried along, whatever the side.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness.measure import Benchmark, Inputs, Peer, Run
from harness.runner import Settings

PEERS = "rwalk_registration"
DEMONS = 0.2325  # error of the classic Demons on the real pair: what ours must not exceed
LEVELS = ((8, 2, 3), (4, 2, 3), (2, 1, 2))  # edge of the cubes in voxels, radius, rounds
GAMMA, HOLD, ALPHA, PATCH = 0.2, 2.0, 100.0, 1


def registrations(settings: Settings) -> list[Benchmark]:
    """Registration against classic and symmetric Demons, of two brains where the public data are at hand."""
    one = functools.partial(bent, settings.size or 64)
    made = [_against_demons("registration", "the MNI brain, bent by a known field", one, 0.2, None)]
    folder = None if settings.data is None or settings.size else settings.data / "rwalk" / "brain_pair"
    if folder is not None and folder.is_dir():
        two = functools.partial(brains, folder)
        made.append(_against_demons("registration_pair", "two T1 brains, 160 x 192 x 144", two, DEMONS, 1))
    return made


def _against_demons(
    name: str, where: str, inputs: Callable[[], Inputs], tolerance: float, bar: float | None
) -> Benchmark:
    return Benchmark(
        name,
        f"{where}; error is one minus the mean Dice",
        inputs,
        ours,
        lambda arrays: arrays["labels"],
        tolerance=tolerance,
        peers=tuple(
            Peer(f"SimpleITK {kind}", f"{PEERS}:{function}", bar, needs=("SimpleITK",))
            for kind, function in (("Demons", "demons"), ("symmetric Demons", "symmetric"))
        ),
        answer=np.asarray,
        error=one_minus_dice,
    )


def brains(folder: Path) -> Inputs:
    """The pair of brains; the labels of the first lie on a grid of their own and are brought to the image's."""
    from rwalk import data, pairs

    paths = {
        f"{letter}{kind}": str(folder / f"image_{letter}_160x192x144{kind}.nii.gz")
        for letter in "AB"
        for kind in ("", "_seg")
    }
    case = data.from_file(paths["A"], None, 1)
    return _arrays(pairs.from_files(case, paths["B"], paths["B_seg"], paths["A_seg"]))


def bent(edge: int) -> Inputs:
    """The MNI brain of about so many voxels a side, bent by a field."""
    from rwalk import data, pairs

    case = data.mni(max(round(192 / edge), 1))
    return _arrays(pairs.warped(case, amplitude=4.0, smoothness=20.0, noise=0.02, seed=0))


def _arrays(pair: Any) -> Inputs:
    named = {"fixed": pair.fixed, "moving": pair.moving, "labels": pair.labels, "moving_labels": pair.moving_labels}
    return {name: np.asarray(x, np.int32 if "labels" in name else np.float32) for name, x in named.items()}


def ours(arrays: Inputs) -> Run:
    """Random walker over displacements; the labels carried along by the nearest voxel, as the peers do."""
    import jax.numpy as jnp

    from rwalk import graph, register, warp

    fixed, moving = jnp.asarray(arrays["fixed"]), jnp.asarray(arrays["moving"])
    labels = jnp.asarray(arrays["moving_labels"], jnp.float32)[None]

    def run() -> Any:
        field = jnp.zeros((fixed.ndim, *fixed.shape), jnp.float32)
        for factor, radius, rounds in LEVELS:
            small = register.shrink(fixed, factor)
            lattice = graph.build(small[None], beta=1.0, scale="var")
            field = register.climb(
                small, register.shrink(moving, factor), lattice, field, factor=factor, rounds=rounds, gamma=GAMMA,
                hold=HOLD, alpha=ALPHA, radius=radius, kind="ssd", patch=PATCH, estimate="expected",
            )  # fmt: skip
        return warp.sample(labels, field, order=0)[0]

    return run


def one_minus_dice(found: Any, reference: np.ndarray) -> float:
    """One minus the mean Dice of all labels but the background."""
    found = np.asarray(found).astype(np.int32)
    labels = range(1, int(reference.max()) + 1)
    dice = [
        2 * np.count_nonzero((found == k) & (reference == k))
        / (np.count_nonzero(found == k) + np.count_nonzero(reference == k))
        for k in labels
    ]  # fmt: skip
    return float(1 - np.mean(dice))
