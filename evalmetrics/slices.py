"""Pictures of one case: orthogonal slices through the place where two segmentations disagree most.

Legend: a slot is a region of the reference, its match, or both; S slots. Volumes are read slab by slab.
"""

import base64
import io as streams
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evalmetrics.io import reorient
from evalmetrics.mapped import SLAB, plane, slabs
from evalmetrics.volumes import Volume

# Told apart by readers with any colour vision, on the dark ground of the pictures (after Okabe and Ito).
HUES = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#3b7dd8")
EXTRA = "#9aa3ad"
GROUND = (13, 16, 21)
EMPTY_NAMES = ("background", "rest")
# Perceptually even from dark to light, so that the order survives greyscale printing.
RAMP = ("#0d1015", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")
DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))
PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}


class Slice(NamedTuple):
    """One plane: images as data URIs, size in mm, letters of the edges (left, right, top, bottom), cross in 0..1."""

    plane: str
    where: str
    width: float
    height: float
    edges: tuple[str, str, str, str]
    cross: tuple[float, float]
    reference: str
    prediction: str
    disagreement: str


class Picture(NamedTuple):
    """Slices of one case, with its rank among the cases and the share of voxels that disagree."""

    case: str
    rank: str
    macro: float
    share: float
    slices: list[Slice]


class Slots(NamedTuple):
    """Slot of every region of the two maps (background included) and the colour of each slot, `[S, 3]`."""

    reference: np.ndarray
    prediction: np.ndarray
    colours: np.ndarray


def rgb(colour: str) -> tuple[int, int, int]:
    """Bytes of '#rrggbb'."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def palette(names: Sequence[str]) -> dict[str, str]:
    """A colour per region name; the hues come back lighter, then darker, where there are more regions than hues."""
    colours = {}
    for index, name in enumerate(name for name in names if name not in EMPTY_NAMES):
        turn, hue = divmod(index, len(HUES))
        towards = ((0, 0, 0), (255, 255, 255), (0, 0, 0))[turn % 3]
        share = (0.0, 0.5, 0.4)[turn % 3]
        mixed = [round(a + (b - a) * share) for a, b in zip(rgb(HUES[hue]), towards, strict=True)]
        colours[name] = "#{:02x}{:02x}{:02x}".format(*mixed)
    return colours


def slots_of(
    row: dict[str, Any], reference: Volume, prediction: Volume, background: Any, colours: dict[str, str]
) -> Slots:
    """Where every region of the files stands in the matching of a row.

    Args:
        row: scored row; its regions are counted without the background.
        reference: as read from the file.
        prediction: as read from the file.
        background: label value, part or name that was left out on both sides, None where nothing was.
        colours: by name of the reference's regions.

    Returns:
        The slots; a background that was left out has one of its own, shared by both sides.
    """
    count = len(row["match"])
    sides = []
    for volume in (reference, prediction):
        left_out = None if background is None else volume.index_of(background)
        kept = [index for index in range(len(volume.names)) if index != left_out]
        sides.append((np.full(len(volume.names), count), kept))
    for slot, match in enumerate(row["match"]):
        for (places, kept), region in zip(sides, (slot, int(match)), strict=True):
            if region < len(kept):
                places[kept[region]] = slot
    names = [*row["reference_names"], *[""] * count][:count]
    shades = [GROUND if name in EMPTY_NAMES else rgb(colours.get(name, EXTRA)) for name in names]
    return Slots(sides[0][0], sides[1][0], np.array([*shades, GROUND], np.float32))


def composition(volume: Volume, places: np.ndarray, count: int, index: tuple[Any, ...]) -> np.ndarray:
    """The map at `index` by slot, `[S, *block]`, float32."""
    if not volume.soft:
        labels = places[np.asarray(volume.data[index])]
        return (labels == np.arange(count).reshape(-1, *[1] * labels.ndim)).astype(np.float32)
    block = np.asarray(volume.data[(slice(None), *index)], np.float32)
    slotted = np.zeros((count, *block.shape[1:]), np.float32)
    slotted[places] = block
    return slotted


def disagreement(reference: Volume, prediction: Volume, slots: Slots, index: tuple[Any, ...]) -> np.ndarray:
    """Half the absolute difference of two matched maps summed over slots, `[*block]` in [0, 1]; 0 or 1 on labels."""
    if not reference.soft and not prediction.soft:
        here, there = np.asarray(reference.data[index]), np.asarray(prediction.data[index])
        return (slots.reference[here] != slots.prediction[there]).astype(np.float32)
    count = len(slots.colours)
    total = np.abs(
        composition(reference, slots.reference, count, index) - composition(prediction, slots.prediction, count, index)
    )
    return np.minimum(total.sum(0) / 2, 1)


def worst_place(reference: Volume, prediction: Volume, slots: Slots) -> tuple[tuple[int, ...], float]:
    """Voxel in the middle of the block with most disagreement, and the mean disagreement of the map.

    One pass adds the disagreement up in blocks of a sixteenth of the volume's edge, for a single deviating voxel says
    less than a place where many deviate. Each block counts by what its slices show: at the rim of an organ a block may
    disagree wholly while the slices through it are all but empty.
    """
    shape = reference.shape
    edge = max(1, min(length for length in shape if length > 1 or max(shape) == 1) // 16)
    sums = np.zeros([-(-length // edge) for length in shape])
    lead = int(reference.soft)
    size = SLAB if reference.soft else SLAB // (len(slots.colours) if prediction.soft else 1)
    for slab in slabs(reference.data, prediction.data, lead=lead, size=max(size, 1)):
        index = slab[lead:]
        block = disagreement(reference, prediction, slots, index)
        offsets = [piece.start or 0 for piece in index] + [0] * (len(shape) - len(index))
        cells = []
        for axis, (offset, length) in enumerate(zip(offsets, block.shape, strict=True)):
            starts = np.unique(np.maximum(np.arange(offset // edge, -(-(offset + length) // edge)) * edge - offset, 0))
            block = np.add.reduceat(block, starts, axis=axis)
            cells.append((starts + offset) // edge)
        sums[np.ix_(*cells)] += block
    shown = [
        sums.sum(tuple(other for other in range(sums.ndim) if other != axis), keepdims=True)
        for axis in range(sums.ndim)
    ]
    visible = sum(each / max(each.max(), 1e-12) for each in shown) if sums.ndim == 3 else 1.0
    best = np.unravel_index(int(np.argmax(sums * visible)), sums.shape)
    around = tuple(
        slice(int(cell) * edge, min((int(cell) + 1) * edge, length)) for cell, length in zip(best, shape, strict=True)
    )
    inside = disagreement(reference, prediction, slots, around).astype(np.float64)
    weights = inside if inside.sum() > 0 else np.ones_like(inside)
    middle = [float((np.indices(weights.shape)[axis] * weights).sum() / weights.sum()) for axis in range(len(shape))]
    place = tuple(piece.start + round(offset) for piece, offset in zip(around, middle, strict=True))
    return place, float(sums.sum() / np.prod(shape))


def _png(image: np.ndarray) -> str:
    from PIL import Image

    buffer = streams.BytesIO()
    Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def ramp(values: np.ndarray) -> np.ndarray:
    """Colours `[..., 3]` of values in [0, 1]."""
    stops = np.array([rgb(colour) for colour in RAMP], np.float64)
    at = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(values, at, stops[:, channel]) for channel in range(3)], axis=-1)


def _images(reference: Volume, prediction: Volume, slots: Slots, index: tuple[Any, ...], turn: Callable) -> list[str]:
    count = len(slots.colours)
    maps = []
    for volume, places in ((reference, slots.reference), (prediction, slots.prediction)):
        parts = composition(volume, places, count, index)
        bare = np.clip(1 - parts.sum(0), 0, 1)[..., None] * np.array(GROUND)  # where no part has mass, outside a brain
        maps.append(turn(np.einsum("s...,sc->...c", parts, slots.colours) + bare))
    amount = turn(disagreement(reference, prediction, slots, index)[..., None])[..., 0]
    # A faint shadow of the reference says where in the body the disagreement lies.
    shadow = np.abs(maps[0] - np.array(GROUND)).max(-1, keepdims=True) * 0.18
    return [_png(maps[0]), _png(maps[1]), _png(np.maximum(ramp(amount), np.array(GROUND) + shadow))]


def _canonical(volume: Volume) -> Volume:
    towards = Volume(np.empty((1, 1, 1)), np.eye(4), (1.0,) * 3, (), (), "")
    return reorient(volume, towards)


def _slice(reference: Volume, prediction: Volume, slots: Slots, place: tuple[int, ...], axis: int | None) -> Slice:
    shape, spacing, affine = reference.shape, reference.spacing, reference.affine
    u, v = (other for other in range(len(shape)) if other != axis)
    if axis is not None:
        reference, prediction = (
            side._replace(data=plane(side.data, axis, place[axis], lead=int(side.soft)))
            for side in (reference, prediction)
        )
    index = (slice(None), slice(None))
    cross = (place[u] + 0.5) / shape[u], (place[v] + 0.5) / shape[v]
    if affine is not None and axis is not None:
        where = f"{'xyz'[axis]} = {(affine @ [*place, 1])[axis]:.0f} mm".replace("-", "−")
        images = _images(reference, prediction, slots, index, lambda image: image.swapaxes(0, 1)[::-1])
        edges = (DIRECTIONS[u][0], DIRECTIONS[u][1], DIRECTIONS[v][1], DIRECTIONS[v][0])
        size = shape[u] * spacing[u], shape[v] * spacing[v]
        return Slice(PLANES[axis], where, *size, edges, (cross[0], 1 - cross[1]), *images)
    images = _images(reference, prediction, slots, index, lambda image: image)
    name, where = ("image", "") if axis is None else (f"axis {axis}", f"index {place[axis]}")
    return Slice(name, where, shape[v] * spacing[v], shape[u] * spacing[u], ("",) * 4, (cross[1], cross[0]), *images)


def picture(
    row: dict[str, Any],
    reference: Volume,
    prediction: Volume,
    *,
    rank: str = "",
    background: Any = None,
    colours: dict[str, str] | None = None,
    place: tuple[int, ...] | None = None,
) -> Picture:
    """Slices of reference, prediction and their disagreement, by default through the place of greatest disagreement.

    Axes are turned to right, anterior, superior where the files know their place in space.

    Args:
        row: scored row of the case.
        reference: as read from the file, 2-D or 3-D.
        prediction: of the same grid.
        rank: word for the caption ("worst").
        background: see `slots_of`.
        colours: by name of the reference's regions; a fresh `palette` where None.
        place: voxel that the slices go through, in the turned axes; None looks for the greatest disagreement.

    Returns:
        One slice of an image, three of a volume.
    """
    reference, prediction = _canonical(reference), _canonical(prediction)
    slots = slots_of(row, reference, prediction, background, colours or palette(row["reference_names"]))
    worst, share = worst_place(reference, prediction, slots)
    place = worst if place is None else place
    shape = reference.shape
    if len(shape) == 2:
        axes: list[int | None] = [None]
    else:
        thick = [axis for axis in PLANES if all(shape[other] > 1 for other in range(3) if other != axis)]
        axes = [*thick] or [2]
        axes = axes if reference.affine is not None else axes[::-1]
    found = [_slice(reference, prediction, slots, place, axis) for axis in axes]
    return Picture(str(row["case"]), rank, float(row["macro"]), share, found)
