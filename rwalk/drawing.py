"""Pictures from arrays: slices of a volume, colours of labels, grey and heat scales, and sheets of panels."""

import base64
import io as streams
from typing import Any

import numpy as np

# Okabe and Ito: told apart by colour-blind readers too.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)], float
)
PANEL = 300  # pixels, of the longer edge
GAP = 12  # pixels
LINE = 22  # pixels of a line of text
NAMES = ("first axis", "second axis", "third axis")

Cut = tuple[Any, ...]


def planes(mask: np.ndarray) -> list[Cut]:
    """Index of one slice along each axis, a little before the centre of mass; the image itself in two dimensions."""
    if mask.ndim == 2:
        return [(slice(None), slice(None))]
    focus = np.quantile(np.argwhere(mask), 0.45, axis=0).astype(int)  # the middle of a brain is a gap
    return [tuple(int(focus[a]) if a == axis else slice(None) for a in range(3)) for axis in range(3)]


def name_of(cut: Cut) -> str:
    """Which slice a cut is, in words."""
    where = [(a, index) for a, index in enumerate(cut) if not isinstance(index, slice)]
    return "" if not where else f"{NAMES[where[0][0]]}, slice {where[0][1]}"


def colour(labels: np.ndarray) -> np.ndarray:
    """Colour of each label 0, 1, ..., `[..., 3]` in 0 to 255."""
    return COLOURS[labels % len(COLOURS)]


def grey(x: np.ndarray, mask: np.ndarray | None = None, like: np.ndarray | None = None) -> np.ndarray:
    """Intensities between two percentiles of those inside the mask, `[..., 3]` in 0 to 255.

    `like` is the image whose percentiles are taken, so that one grey means the same in several; x by default.
    """
    shown = x if like is None else like
    low, high = np.percentile(shown if mask is None else shown[mask], [0.5, 99.5])
    return np.repeat((np.clip((x - low) / max(high - low, 1e-12), 0, 1) * 255)[..., None], 3, -1)


def heat(x: np.ndarray) -> np.ndarray:
    """Black over red and yellow to white for 0 to 1, `[..., 3]` in 0 to 255."""
    return np.clip(np.stack([3 * x, 3 * x - 1, 3 * x - 2], -1), 0, 1) * 255


def enlarge(panel: np.ndarray, spacing: tuple[float, ...], cut: Cut, edge: int = PANEL) -> np.ndarray:
    """Turn the first axis to the right and the second upwards, and repeat pixels to their true proportions.

    Args:
        panel: `[x, y, 3]` in 0 to 255.
        spacing: edge lengths of a voxel of the volume.
        cut: the slice of it that the panel shows.
        edge: pixels of the longer edge.

    Returns:
        `[rows, columns, 3]` uint8.
    """
    panel = panel.swapaxes(0, 1)[::-1]
    width, height = (length for length, index in zip(spacing, cut, strict=True) if isinstance(index, slice))
    scale = edge / max(panel.shape[0] * height, panel.shape[1] * width)
    sizes = [max(round(size * length * scale), 1) for size, length in zip(panel.shape, (height, width), strict=False)]
    take = [np.arange(n) * size // n for n, size in zip(sizes, panel.shape, strict=False)]
    return panel[take[0]][:, take[1]].astype(np.uint8)


def uri(panel: np.ndarray) -> str:
    """A picture as it can stand in a page, `[rows, columns, 3]` uint8 to a PNG in base64."""
    from PIL import Image

    stream = streams.BytesIO()
    Image.fromarray(panel).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def sheet(columns: list[list[np.ndarray]], lines: list[str], names: tuple[str, ...]) -> Any:
    """One picture of all panels: a column for each slice, a row with its name for each kind, `lines` above.

    Args:
        columns: panels `[rows, columns, 3]` uint8 from top to bottom, a list for each slice.
        lines: of text.
        names: of the rows.

    Returns:
        A `PIL.Image`.
    """
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
