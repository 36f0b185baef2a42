"""What a user's image, seeds and priors must satisfy; every fault is one line. Runs on the host."""

import warnings

import numpy as np

SHOWN = 3  # pieces named in a message
GAPS = 255  # up to this label some may have no seed: each costs a system of equations and a map of probabilities


class InputError(ValueError):
    """A fault of the user's data, told in one line: what was given, what is allowed, what to do."""

    is_input_fault = True  # the command line shows the line without a traceback

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def check_image(image: np.ndarray, mask: np.ndarray, name: str) -> None:
    """Refuse an image that has no edges to tell: NaN, constant, or an empty mask.

    Args:
        image: `[C, *shape]`.
        mask: `[*shape]` bool.
        name: of the file, for the message.

    Raises:
        InputError: it has one of these faults.
    """
    if not mask.any():
        raise InputError(f"{name}: the mask is empty; it must hold the voxels to segment")
    inside = image[:, mask]
    bad = int((~np.isfinite(inside)).any(0).sum())
    if bad:
        raise InputError(
            f"{name}: {bad} of {mask.sum()} voxels are NaN or infinite; fill them, or leave them out with image.mask"
        )
    if (inside.min(1) == inside.max(1)).all():
        raise InputError(
            f"{name}: the image is constant ({inside.flat[0]:g}) inside the mask; there is nothing to segment"
        )


def check_seeds(seeds: np.ndarray, mask: np.ndarray, name: str) -> None:
    """Refuse seeds from which no segmentation follows: none, one label, or all of a label outside the mask.

    Labels are the user's numbers, and some in between may have no seed; large ones with gaps are refused.

    Args:
        seeds: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        mask: `[*shape]` bool.
        name: of the file, for the message.

    Raises:
        InputError: it has one of these faults.
    """
    given = np.unique(seeds[seeds >= 0])
    if not given.size:
        raise InputError(f"{name}: no seeds; mark voxels with 1, 2, ... for the labels, 0 is unmarked")
    if given.size == 1:
        raise InputError(f"{name}: seeds of one label only; at least two are needed, the background's among them")
    if given[-1] >= max(GAPS, given.size):
        raise InputError(
            f"{name}: labels go up to {given[-1] + 1}, but only {given.size} of them have seeds; number them 1 to "
            f"{given.size}"
        )
    inside = np.unique(seeds[(seeds >= 0) & mask])
    lost = sorted(set(given.tolist()) - set(inside.tolist()))
    if lost:
        raise InputError(
            f"{name}: all seeds of label {', '.join(str(label + 1) for label in lost)} are outside the mask; "
            "move them inside, or enlarge the mask"
        )


def check_label_map(values: np.ndarray, name: str, what: str = "label map") -> None:
    """Refuse a label map that holds anything but labels.

    Args:
        values: `[C, *shape]`.
        name: of the file, for the message.
        what: it is, likewise.

    Raises:
        InputError: several channels, or values that are not whole, negative or above 2^31 - 1.
    """
    if len(values) != 1:
        raise InputError(f"{name}: {len(values)} channels; a {what} has one")
    if (values != np.round(values)).any() or values.min() < 0 or values.max() > np.iinfo(np.int32).max:
        odd = values[values != np.round(values)]
        shown = f"{odd[0]:g} among them" if odd.size else f"{values.min():g} to {values.max():g}"
        raise InputError(f"{name}: the {what} must hold whole numbers from 0 to 2147483647, got {shown}")


def check_labels(seeds: np.ndarray, known: int, name: str, priors: str) -> None:
    """Refuse seeds of labels that the priors do not have.

    Args:
        seeds: `[*shape]` integers, 0..L-1 at a seed and -1 elsewhere.
        known: number of labels of the priors.
        name: of the file of the seeds, for the message.
        priors: of the file of the priors, likewise.

    Raises:
        InputError: there is such a label.
    """
    most = int(seeds.max()) + 1
    if most > known:
        raise InputError(
            f"{name}: seeds of label {most}, the priors {priors} have labels 1 to {known}; give priors of all labels, "
            "or seeds of these only"
        )


def pieces_without_seeds(pieces: np.ndarray, seeds: np.ndarray) -> list[int]:
    """Numbers of the connected components, `[*shape]` with -1 outside, in which no seed lies."""
    seeded = np.unique(pieces[(seeds >= 0) & (pieces >= 0)])
    return sorted(set(range(pieces.max() + 1)) - set(seeded.tolist()))


def check_pieces(pieces: np.ndarray, seeds: np.ndarray, name: str) -> None:
    """Refuse a graph with components that no seed reaches, and say where they are.

    Args:
        pieces: `[*shape]` component of each voxel, -1 outside the graph.
        seeds: `[*shape]` integers, -1 where there is none.
        name: of the file, for the message.

    Raises:
        InputError: there is such a component.
    """
    lonely = pieces_without_seeds(pieces, seeds)
    if not lonely:
        return
    named = []
    for piece in lonely[:SHOWN]:
        where = np.argwhere(pieces == piece)
        named.append(f"{len(where)} voxels at {tuple(int(i) for i in where[0])}")
    more = f" and {len(lonely) - SHOWN} more" if len(lonely) > SHOWN else ""
    raise InputError(
        f"{name}: {len(lonely)} of {pieces.max() + 1} separate pieces of the mask hold no seed "
        f"({', '.join(named)}{more}); seed them, or leave them unlabelled with seeds.pieces=ignore"
    )


def check_priors(priors: np.ndarray, mask: np.ndarray, name: str, *, close: bool) -> np.ndarray:
    """Refuse priors that are no probabilities; divide them by their sum, with a warning, where that is asked for.

    Args:
        priors: `[L, *shape]`.
        mask: `[*shape]` bool.
        name: of the file, for the message.
        close: divide by the sums instead of refusing sums that are not one.

    Returns:
        `[L, *shape]` that sum to one inside the mask, zero outside.

    Raises:
        InputError: NaN, negative, empty, one label only, or sums that are not one.
    """
    inside = priors[:, mask]
    if priors.shape[0] < 2:
        raise InputError(f"{name}: priors of one label only; at least two are needed")
    if not np.isfinite(inside).all() or (inside < 0).any():
        raise InputError(
            f"{name}: priors must be finite and not negative, range is {inside.min():g} to {inside.max():g}"
        )
    total = inside.sum(0)
    empty = int((total == 0).sum())
    if empty:
        raise InputError(
            f"{name}: the priors are zero for all labels at {empty} voxels inside the mask; give each a label"
        )
    off = float(np.abs(total - 1).max())
    if off > 1e-3:
        sums = f"{name}: the priors sum to {total.min():g}..{total.max():g}"
        if not close:
            raise InputError(f"{sums}, one is needed; correct them, or divide them with problem.close=true")
        warnings.warn(f"{sums}; they are divided by their sums", stacklevel=2)
    result = np.zeros_like(priors)
    result[:, mask] = inside / total
    return result
