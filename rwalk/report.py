"""Files of a finished segmentation: label map, probabilities, uncertainty on the input's grid, and a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from rwalk import io
from rwalk.data import Case

# Okabe and Ito: told apart by colour-blind readers too.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)], float
)
PANEL = 300  # pixels, of the longer edge
GAP = 12  # pixels
LINE = 22  # pixels of a line of text
NEAR = 2  # slices on either side whose seeds are drawn


def write(found: dict[str, np.ndarray], case: Case, seeds: np.ndarray, row: dict[str, Any], folder: Path) -> list[Path]:
    """Write everything.

    Args:
        found: `labels` `[*shape]` (0 outside, 1..L), `probabilities` `[L, *shape]`, `entropy` and `margin` `[*shape]`.
        case: the image; the files get the grid it was cut from.
        seeds: `[*shape]`, -1 where there is none.
        row: the figures of the run, for the title.
        folder: where to.

    Returns:
        The files: NIfTI where the image has an affine, else npy; `preview.png`.
    """
    files = [
        io.save(folder / name, case.uncut(array), case.affine, channels=name == "probabilities")
        for name, array in found.items()
    ]
    return [*files, preview(found, case, seeds, row, folder / "preview.png")]


def preview(found: dict[str, np.ndarray], case: Case, seeds: np.ndarray, row: dict[str, Any], path: Path) -> Path:
    """Draw slices through the middle: the image with its seeds, the labels over it, where they are uncertain.

    Args:
        found: as for `write`.
        case: the image.
        seeds: `[*shape]`.
        row: figures for the title.
        path: of the picture.

    Returns:
        The path.
    """
    cuts = planes(case.mask)
    low, high = np.percentile(case.image[0][case.mask], [0.5, 99.5])
    grey = np.clip((case.image[0] - low) / max(high - low, 1e-12), 0, 1) * 255
    columns = []
    for cut in cuts:
        mask, base = case.mask[cut], np.repeat(grey[cut][..., None], 3, -1)
        near, label = _near(seeds, cut), found["labels"][cut]
        painted = np.where((near >= 0)[..., None], _colour(near), base)
        tinted = np.where((label > 0)[..., None], 0.45 * base + 0.55 * _colour(label.astype(int) - 1), base)
        panels = [np.where(mask[..., None], panel, 0) for panel in (painted, tinted, _heat(found["entropy"][cut]))]
        columns.append([_enlarge(panel, case.spacing, cut) for panel in panels])
    names = ("image and seeds", "labels", "entropy: black is certain, white is not")
    canvas = _lay_out(columns, [_title(case, row), _legend(case, row)], names)
    return io.write_atomically(path, canvas.save)


def planes(mask: np.ndarray) -> list[tuple[Any, ...]]:
    """Index of one slice along each axis, a little before the centre of mass; the image itself in two dimensions."""
    if mask.ndim == 2:
        return [(slice(None), slice(None))]
    focus = np.quantile(np.argwhere(mask), 0.45, axis=0).astype(int)  # the middle of a brain is a gap
    return [tuple(int(focus[a]) if a == axis else slice(None) for a in range(3)) for axis in range(3)]


def _near(seeds: np.ndarray, cut: tuple[Any, ...]) -> np.ndarray:
    """Seeds of the slice and of those beside it: few lie in any one."""
    axis = next((a for a, index in enumerate(cut) if not isinstance(index, slice)), None)
    if axis is None:
        return seeds[cut]
    beside = range(max(cut[axis] - NEAR, 0), min(cut[axis] + NEAR + 1, seeds.shape[axis]))
    return np.take(seeds, beside, axis).max(axis)


def _colour(labels: np.ndarray) -> np.ndarray:
    return COLOURS[labels % len(COLOURS)]


def _heat(x: np.ndarray) -> np.ndarray:
    """Black over red and yellow to white."""
    return np.clip(np.stack([3 * x, 3 * x - 1, 3 * x - 2], -1), 0, 1) * 255


def _enlarge(panel: np.ndarray, spacing: tuple[float, ...], cut: tuple[Any, ...]) -> np.ndarray:
    """Turn the first axis to the right and the second upwards, and repeat pixels to their true proportions."""
    panel = panel.swapaxes(0, 1)[::-1]
    width, height = (edge for edge, index in zip(spacing, cut, strict=True) if isinstance(index, slice))
    scale = PANEL / max(panel.shape[0] * height, panel.shape[1] * width)
    rows, columns = (
        max(round(size * edge * scale), 1) for size, edge in zip(panel.shape, (height, width), strict=False)
    )
    take = [np.arange(n) * size // n for n, size in zip((rows, columns), panel.shape, strict=False)]
    return panel[take[0]][:, take[1]].astype(np.uint8)


def _lay_out(columns: list[list[np.ndarray]], lines: list[str], names: tuple[str, ...]) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    longest = max(font.getlength(line) for line in lines)
    wide = max(sum(column[0].shape[1] + GAP for column in columns), int(longest) + GAP) + GAP
    high = (
        (len(lines) + len(names)) * LINE + sum(max(c[i].shape[0] for c in columns) for i in range(len(names))) + 4 * GAP
    )
    canvas = Image.new("RGB", (wide, high), "#101010")
    draw, top = ImageDraw.Draw(canvas), GAP
    for line in lines:
        draw.text((GAP, top), line, "#f0f0f0", font)
        top += LINE
    for i, name in enumerate(names):
        draw.text((GAP, top), name, "#b0b0b0", font)
        top, left = top + LINE, GAP
        for column in columns:
            canvas.paste(Image.fromarray(column[i]), (left, top))
            left += column[i].shape[1] + GAP
        top += max(column[i].shape[0] for column in columns)
    return canvas


def _title(case: Case, row: dict[str, Any]) -> str:
    return (
        f"{case.name}: {row['pairs/used']:.0f} eigenvectors; against the exact solve: relative error "
        f"{row['error/relative']:.3g}, {100 * row['agreement']:.2f} % of the labels equal"
    )


def _legend(case: Case, row: dict[str, Any]) -> str:
    scores = [f"{name} {row[f'dice/{name}']:.3f}" for name in case.names if f"dice/{name}" in row]
    if not scores:
        return "no reference to compare with"
    return f"Dice {row['dice']:.3f} (exact {row['dice_exact']:.3f}): {', '.join(scores)}"
