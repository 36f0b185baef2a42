"""Files of a finished segmentation: label map, probabilities, uncertainty on the input's grid, a picture and a page."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from rwalk import drawing, io, page
from rwalk.data import Case

SHOWN = 8  # labels whose probabilities are drawn
HELD = {
    "labels": "1, 2, ... the labels, 0 outside of the mask",
    "probabilities": "of each label, on the fourth axis",
    "entropy": "of the probabilities, over that of equal ones: 0 certain, 1 not",
    "margin": "difference of the two largest probabilities",
    "preview.png": "the first of the pictures above",
}
MEANINGS = {
    "dice": "mean overlap with the reference labels",
    "dice_exact": "the same for the exact solution",
    "overlap": "the same of the probabilities instead of the labels",
    "brier": "mean squared distance of the probabilities from the reference labels, over all labels",
    "calibration": "mean gap between the largest probability and how often its label is right",
    "error/bound": "proven bound on the relative error, from the basis alone",
    "error/relative": "relative error against the exact solution, in the norm of the mass",
    "error/pointwise_bound": "proven bound on the error of any voxel's probability",
    "error/largest": "largest error of a voxel's probability",
    "agreement": "voxels whose label is that of the exact solution",
    "flips/share": "voxels whose label the pointwise bound does not settle",
    "pairs/used": "eigenvectors that the answer used",
    "seconds/basis": "seconds for the eigenvectors, once for an image",
    "seconds/online": "seconds for the answer from them",
    "seconds/cold": "seconds for conjugate gradients from nothing, to a coarser tolerance",
    "seconds/warm": "seconds for conjugate gradients that start at the answer",
}
SHARES = ("agreement", "flips/share")


def write(found: dict[str, np.ndarray], case: Case, seeds: np.ndarray, row: dict[str, Any], folder: Path) -> list[Path]:
    """Write everything.

    Args:
        found: `labels` `[*shape]` (0 outside, 1..L), `probabilities` `[L, *shape]`, `entropy` and `margin` `[*shape]`.
        case: the image; the files get the grid it was cut from.
        seeds: `[*shape]`, -1 where there is none.
        row: the figures of the run, for the title.
        folder: where to.

    Returns:
        The files: NIfTI where the image has an affine, else npy; `preview.png`; `report.html`.
    """
    files = [
        io.save(folder / name, case.uncut(array), case.affine, channels=name == "probabilities")
        for name, array in found.items()
    ]
    files.append(preview(found, case, seeds, row, folder / "preview.png"))
    held = [(path.name, HELD.get(path.name, HELD.get(path.name.split(".")[0], ""))) for path in files]
    return [*files, write_page(found, case, seeds, row, folder / "report.html", held)]


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
    kinds = [*pictures(found, case, seeds, row)[:2], _entropy(found)]
    columns = [
        [drawing.enlarge(kind.colours[cut], case.spacing, cut) for kind in kinds] for cut in drawing.planes(case.mask)
    ]
    names = ("image and seeds", "labels", "entropy: black is certain, white is not")
    canvas = drawing.sheet(columns, [_title(case, row), _legend(case, row)], names)
    return io.write_atomically(path, canvas.save)


def pictures(found: dict[str, np.ndarray], case: Case, seeds: np.ndarray, row: dict[str, Any]) -> list[page.Row]:
    """What the page shows, in volumes of colours; arguments as for `write`."""
    mask, base = case.mask, drawing.grey(case.image[0], case.mask)
    names = _names(case, len(found["probabilities"]))
    legend = tuple((page.css(drawing.colour(np.asarray(i))), name) for i, name in enumerate(names))
    near, label = _near(seeds), found["labels"].astype(int)
    painted = np.where((near >= 0)[..., None], drawing.colour(near), base)
    tinted = np.where((label > 0)[..., None], 0.45 * base + 0.55 * drawing.colour(label - 1), base)
    rows = [
        page.Row("Image and seeds", "seeds of the slices on either side too", painted, legend),
        page.Row("Labels", "of the largest probability", tinted, legend),
        _entropy(found),
    ]
    bound = row.get("error/pointwise_bound")
    if bound is not None and bound < 0.5:  # a larger one settles no label
        loose = mask & (found["margin"] <= 2 * bound)
        marked = np.where(loose[..., None], np.array([255.0, 40, 120]), 0.6 * base)
        note = f"margin not above twice the bound of {page.show(bound)}: {page.percent(loose[mask].mean())} of the mask"
        rows.append(page.Row("Voxels that could flip", note, marked, (("rgb(255, 40, 120)", "could flip"),)))
    shown = zip(names[:SHOWN], found["probabilities"][:SHOWN], strict=False)
    rows += [page.Row(f"Probability of {name}", "", drawing.heat(x), (), ("0", "1")) for name, x in shown]
    return [kind._replace(colours=np.where(mask[..., None], kind.colours, 0)) for kind in rows]


def write_page(
    found: dict[str, np.ndarray],
    case: Case,
    seeds: np.ndarray,
    row: dict[str, Any],
    path: Path,
    files: list[tuple[str, str]],
) -> Path:
    """Write `report.html`; `files` are names and contents of what lies beside it, the rest as for `write`."""
    tiles = [
        page.Tile("labels as the exact solution's", page.percent(row["agreement"]), "of the voxels"),
        page.Tile("relative error", page.show(row["error/relative"]), _bound_of(row)),
        page.Tile("answered in", f"{page.show(1000 * row['seconds/online'])} ms", _rival_of(row)),
    ]
    if "dice" in row:
        note = f"the exact solution has {row['dice_exact']:.3f}"
        tiles.insert(0, page.Tile("Dice, mean of the labels", f"{row['dice']:.3f}", note))
    if row.get("flips/share", 1) < 1:
        tiles.append(page.Tile("could flip", page.percent(row["flips/share"]), "of the voxels, by the pointwise bound"))
    figures = [
        (name, page.percent(row[name]) if name in SHARES else page.show(row[name]), meaning)
        for name, meaning in MEANINGS.items()
        if name in row
    ]
    figures += [
        (name, page.show(value), "overlap of this label")
        for name, value in row.items()
        if name.startswith(("dice/", "dice_exact/"))
    ]
    notes = []
    if not row.get("exact/converged", 1):
        notes.append("The exact solution did not reach its tolerance: errors are against what it reached.")
    return page.write(
        path,
        title=case.name,
        kind="random walker segmentation",
        tiles=tiles,
        rows=pictures(found, case, seeds, row),
        mask=case.mask,
        spacing=case.spacing,
        figures=figures,
        files=files,
        notes=notes,
    )


def _entropy(found: dict[str, np.ndarray]) -> page.Row:
    return page.Row("Uncertainty", "entropy", drawing.heat(found["entropy"]), (), ("certain", "undecided"))


def _bound_of(row: dict[str, Any]) -> str:
    bound = row.get("error/bound")
    return "there is no bound for seeds" if bound is None else f"the bound said {page.show(bound)}"


def _rival_of(row: dict[str, Any]) -> str:
    return f"conjugate gradients: {page.show(1000 * row['seconds/cold'])} ms"


def _names(case: Case, count: int) -> list[str]:
    return [case.names[i] if i < len(case.names) else f"label {i + 1}" for i in range(count)]


def _near(seeds: np.ndarray) -> np.ndarray:
    """Seeds of a volume grown by a voxel: few lie in any one slice."""
    if seeds.ndim == 2:
        return seeds
    return ndimage.grey_dilation(seeds, footprint=ndimage.generate_binary_structure(3, 1))


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
