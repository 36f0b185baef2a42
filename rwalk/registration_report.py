"""Files of a finished registration: the field as ITK reads it, what it did to the moving image, pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from rwalk import drawing, io, page, pairs
from rwalk.pairs import Pair

FOLD = np.array([255.0, 0, 255])
HELD = {
    "displacement": "the field, mm in LPS: antsApplyTransforms and SimpleITK.DisplacementFieldTransform take it",
    "warped": "the moving image on the fixed grid",
    "labels": "the moving labels on the fixed grid, with the values of their file",
    "jacobian": "change of volume at each voxel; not positive where space folds",
    "deviation": "standard deviation of the displacement within the last window, mm",
    "entropy": "of the displacement's probabilities within the last window: 0 certain, 1 not",
    "preview.png": "the pictures above on one sheet",
}
MEANINGS = {
    "dice": "mean overlap of the labels after registration",
    "dice_before": "the same before it",
    "epe": "mean distance between the field and the true one, mm",
    "epe/before": "the same for no displacement at all",
    "tre": "mean distance of the landmarks from where they belong (target registration error), mm",
    "tre/before": "the same before the registration",
    "tre/largest": "that of the worst landmark, mm",
    "landmarks": "corners of the image where the true field is known, else the centres of the labels",
    "displacement/mean": "mean length of the displacement, mm",
    "displacement/largest": "its largest length, mm",
    "folding": "voxels at which space folds (Jacobian not positive)",
    "jacobian/deviation": "standard deviation of the logarithm of the Jacobian",
    "inverse/residual": "distance of a point from itself after the inverse by iteration and the field, mm",
    "deviation": "mean standard deviation of the displacement within the last window, mm",
    "entropy": "mean entropy of the displacement within the last window, 0 to 1",
    "seconds": "seconds of all levels, compilation included",
}


def write(found: dict[str, np.ndarray], pair: Pair, row: dict[str, Any], folder: Path) -> list[Path]:
    """Write everything.

    Args:
        found: `displacement` `[d, *shape]` in voxels; `warped`, `jacobian`, `deviation`, `entropy`, and `labels` where
            there are any, `[*shape]`.
        pair: what was registered.
        row: the figures of the run.
        folder: where to.

    Returns:
        The files: NIfTI where the fixed image has an affine, else npy; `preview.png`; `report.html`.
    """
    affine = pair.grid.affine
    files = [io.save_field(folder / "displacement", found["displacement"], affine)]
    files += [io.save(folder / name, array, affine) for name, array in found.items() if name != "displacement"]
    files.append(preview(found, pair, row, folder / "preview.png"))
    held = [(path.name, HELD.get(path.name, HELD.get(path.name.split(".")[0], ""))) for path in files]
    return [*files, write_page(found, pair, row, folder / "report.html", held)]


def preview(found: dict[str, np.ndarray], pair: Pair, row: dict[str, Any], path: Path) -> Path:
    """Draw all pictures of a pair on one sheet; arguments as for `write`, `path` of the picture, which is returned."""
    kinds = pictures(found, pair)
    columns = [
        [drawing.enlarge(kind.colours[cut], pair.grid.spacing, cut, edge=220) for kind in kinds]
        for cut in drawing.planes(pair.mask)
    ]
    scores = [
        f"Dice {row['dice_before']:.3f} to {row['dice']:.3f}" if "dice" in row else "",
        f"end-point error {row['epe/before']:.3g} to {row['epe']:.3g} mm" if "epe" in row else "",
        f"folding {page.percent(row['folding'])}",
    ]
    lines = [pair.name, ", ".join(score for score in scores if score)]
    names = tuple(f"{kind.name}: {kind.note}" if kind.note else kind.name for kind in kinds)
    return io.write_atomically(path, drawing.sheet(columns, lines, names).save)


def pictures(found: dict[str, np.ndarray], pair: Pair) -> list[page.Row]:
    """What the page shows, in volumes of colours; arguments as for `write`."""
    fixed, moving = pair.fixed, np.clip(pair.moving, 0, 1)
    moved = pairs.to_unit(found["warped"], pair.window)  # as the moving image before
    volume = np.clip(found["jacobian"], 0, 2)
    grown = 255 * np.stack([np.minimum(volume, 1), 1 - np.abs(volume - 1), np.minimum(2 - volume, 1)], -1)
    changed = np.where((found["jacobian"] <= 0)[..., None], FOLD, grown)
    most = float(np.quantile(found["deviation"], 0.999))
    ends = ("equal", "unlike")
    legend = tuple((page.css(np.array(c)), n) for c, n in (((0, 0, 255), "shrinks"), ((255, 255, 255), "keeps"),
                   ((255, 0, 0), "grows"), (FOLD, "folds")))  # fmt: skip
    return [
        page.Row("Fixed", "", drawing.grey(fixed)),
        page.Row("Moving", "on the fixed grid, before", drawing.grey(moving, like=fixed)),
        page.Row("Moved", "after", drawing.grey(moved, like=fixed)),
        page.Row("Difference before", "", drawing.heat(2 * np.abs(fixed - moving)), (), ends),
        page.Row("Difference after", "", drawing.heat(2 * np.abs(fixed - moved)), (), ends),
        page.Row("Change of volume", "", changed, legend),
        page.Row(
            "Uncertainty",
            "standard deviation of the displacement",
            drawing.heat(found["deviation"] / max(most, 1e-12)),
            (),
            ("0", f"{most:.2g} mm"),
        ),
    ]


def write_page(
    found: dict[str, np.ndarray], pair: Pair, row: dict[str, Any], path: Path, files: list[tuple[str, str]]
) -> Path:
    """Write `report.html`; `files` are names and contents of what lies beside it, the rest as for `write`."""
    tiles = [
        page.Tile("folding", page.percent(row["folding"]), "of the voxels"),
        page.Tile("displacement", f"{page.show(row['displacement/mean'])} mm", _largest(row)),
        page.Tile("registered in", f"{page.show(row['seconds'])} s", "compilation included"),
    ]
    if "epe" in row:
        before = f"{page.show(row['epe/before'])} mm before"
        tiles.insert(0, page.Tile("end-point error", f"{page.show(row['epe'])} mm", before))
    if "dice" in row:
        tiles.insert(0, page.Tile("Dice", f"{row['dice']:.3f}", f"{row['dice_before']:.3f} before"))
    figures = [
        (name, page.percent(row[name]) if name == "folding" else page.show(row[name]), meaning)
        for name, meaning in MEANINGS.items()
        if name in row
    ]
    figures += [
        (name, page.show(value), "overlap of this label")
        for name, value in row.items()
        if name.startswith(("dice/", "dice_before/"))
    ]
    return page.write(
        path,
        title=pair.name,
        kind="random walker registration",
        tiles=tiles,
        rows=pictures(found, pair),
        mask=pair.mask,
        spacing=pair.grid.spacing,
        figures=figures,
        files=files,
        notes=[],
    )


def _largest(row: dict[str, Any]) -> str:
    return f"mean; {page.show(row['displacement/largest'])} mm at most"
