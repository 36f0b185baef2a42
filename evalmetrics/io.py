"""Reading segmentations and writing results: the only door between files and arrays."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evalmetrics.mapped import slabs
from evalmetrics.naming import read_names
from evalmetrics.pairing import (
    Case,
    Pairing,
    Source,
    case_name,
    describe,
    files_behind,
    files_of,
    find_pairs,
    is_several,
    maps_of,
)  # fmt: skip
from evalmetrics.readers import InputError, read, suffix_of
from evalmetrics.volumes import Kind, Volume, interpret, single_region
from evalmetrics.writing import write_csv, write_json, write_text

__all__ = [
    "Case", "InputError", "Pairing", "Volume", "case_name", "describe", "files_behind", "find_pairs", "load",
    "load_annotators", "pair", "read_names", "reorient", "write_csv", "write_json", "write_text",
]  # fmt: skip


def load(
    path: Source,
    *,
    kind: Kind = "auto",
    names: str | os.PathLike | dict[int, str] | None = None,
    key: str | None = None,
    rest: bool = True,
) -> Volume:
    """Read one segmentation.

    NIfTI (`.nii` memory-mapped), MGZ, NRRD, `.seg.nrrd`, npy (memory-mapped), npz, PNG, TIFF (memory-mapped where it
    is uncompressed), MATLAB and BSDS `.mat`; a list of files or a folder is one map per region. How labels and
    probabilities are told apart: see `evalmetrics.volumes.interpret`.

    Args:
        path: a file, a list of files, or a folder with one map per region.
        kind: `labels` or `probabilities` where the rule for `auto` does not fit.
        names: names of regions by label value or part, or a side file of them (see `read_names`).
        key: the array of an npz or mat file; the number of a BSDS annotator.
        rest: for one map per region, put a part before them for what they leave of one.

    Returns:
        The volume; label values are replaced by 0..K-1 and kept in `values`.

    Raises:
        InputError: one line naming the file, what was found, what is allowed and what to do.
    """
    if kind not in ("auto", "labels", "probabilities"):
        raise ValueError(f"kind={kind!r}; allowed are auto, labels, probabilities")
    known = names if isinstance(names, dict) or names is None else read_names(names)
    if is_several(path):
        files = files_of(path)
        stems = {index: case_name(file) for index, file in enumerate(files)}
        return _maps(files, stems | (known or {}), describe(path), rest)
    single = files_of(path)[0]
    if single.is_dir():
        files, listed = maps_of(single)
        return _maps(files, listed | (known or {}), str(path), rest)
    if kind == "probabilities" and key is None and suffix_of(single) in (".png", ".tif", ".tiff"):
        key = "channels"
    return interpret(read(single, key), kind, str(path), known)


def load_annotators(path: str | os.PathLike) -> tuple[Volume, ...]:
    """Read every annotator's label map of one BSDS `.mat` file.

    Args:
        path: a `groundTruth` file of BSDS300 or BSDS500.

    Returns:
        One label map `[height, width]` per annotator.

    Raises:
        InputError: the file is missing, damaged, or holds no annotators.
    """
    import scipy.io

    first = load(path, key="0")
    try:
        count = scipy.io.loadmat(path, variable_names=["groundTruth"])["groundTruth"].size
    except KeyError as fault:
        raise InputError(f"{path}: holds no 'groundTruth'; give an annotation file of BSDS") from fault
    return (first, *(load(path, key=str(number)) for number in range(1, count)))


def _maps(files: list[Path], names: dict[int, str], path: str, rest: bool) -> Volume:
    """Stack one map per region; what they leave of one becomes the first part."""
    if not files:
        raise InputError("an empty list of maps was given; give one file per region")
    first = read(files[0])
    # Masks and 8-bit fractions need no more than float32; a float64 map keeps its digits.
    dtype = first.data.dtype if first.data.dtype.kind == "f" else np.float32
    stack = np.empty((len(files) + rest, *first.data.shape), dtype)
    for part, file in enumerate(files):
        region = single_region(read(file).data if part else first.data, str(file))
        if region.shape != first.data.shape:
            raise InputError(
                f"{file}: shape {region.shape} differs from {first.data.shape} of {files[0]}; "
                "the maps of one segmentation share a grid: resample them"
            )
        stack[part + rest] = region
    if rest:
        total = stack[1:].sum(0)
        stack[0] = np.clip(1 - total, 0, 1)
        names = {0: "rest"} | {index + 1: name for index, name in names.items()}
    ndim = stack.ndim - 1
    spacing = first.spacing if first.spacing is not None and len(first.spacing) == ndim else (1.0,) * ndim
    return Volume(stack, first.affine, spacing, tuple(names.get(k, f"part {k}") for k in range(len(stack))), None, path)


def reorient(volume: Volume, reference: Volume) -> Volume:
    """Turn a volume so that its axes run as those of the reference, where both know their place in space.

    Axes are only swapped and flipped: a view, no resampling.

    Args:
        volume: to be turned.
        reference: whose axes are taken over.

    Returns:
        The turned volume with its new affine, or the volume itself where one of the two has no affine or is not 3-D.
    """
    if volume.affine is None or reference.affine is None or len(volume.shape) != 3 or len(reference.shape) != 3:
        return volume
    from nibabel import orientations as turn

    here, there = (turn.io_orientation(side.affine) for side in (volume, reference))
    if np.isnan(here).any() or np.isnan(there).any() or np.array_equal(here, there):
        return volume
    change = turn.ornt_transform(here, there)
    spatial = [slice(None, None, int(flip)) for flip in change[:, 1]]
    order = np.argsort(change[:, 0]).tolist()
    lead = int(volume.soft)
    data = volume.data[(slice(None),) * lead + tuple(spatial)].transpose(*range(lead), *(axis + lead for axis in order))
    affine = volume.affine @ turn.inv_ornt_aff(change, volume.shape)
    return volume._replace(data=data, affine=affine, spacing=tuple(volume.spacing[axis] for axis in order))


def _with_values(volume: Volume, values: tuple[int, ...], names: dict[int, str]) -> Volume:
    if volume.values is None or volume.values == values:
        return volume
    # Indices into the old values are looked up in the new ones; the fresh map is what `relabel` would give.
    table = np.searchsorted(values, volume.values).astype(np.uint8 if len(values) <= 256 else np.uint16)
    data = np.empty_like(volume.data, dtype=table.dtype, subok=False)
    for index in slabs(volume.data):
        data[index] = table[volume.data[index]]
    return volume._replace(data=data, values=values, names=tuple(names[value] for value in values))


def pair(
    reference: Source,
    prediction: Source,
    *,
    kind: Kind | tuple[Kind, Kind] = "auto",
    labels: Literal["unordered", "ordered"] = "unordered",
    names: Any = None,
    key: str | None = None,
    rest: bool = True,
) -> tuple[Volume, Volume]:
    """Read the two segmentations of one case.

    The prediction's axes are turned onto the reference's (`reorient`). With `labels=ordered` equal label values get
    equal indices on both sides (a value that only one side has is an empty region of the other); with `unordered` each
    side keeps its own values, so that no region is empty and the numbers of regions may differ.

    Args:
        reference: file, list of maps, or folder of maps.
        prediction: likewise.
        kind: see `load`; a pair of two gives one for each side.
        labels: whether equal values mean equal regions.
        names: see `load`; for both sides.
        key: see `load`; for both sides.
        rest: see `load`.

    Returns:
        Reference and prediction; nothing about them is checked yet, see `evalmetrics.checks.checked`.

    Raises:
        InputError: a source cannot be read, or ordered labels do not fit the parts of a soft map.
    """
    if labels not in ("unordered", "ordered"):
        raise ValueError(f"labels={labels!r}; allowed are unordered, ordered")
    kinds = (kind, kind) if isinstance(kind, str) else tuple(kind)
    first, second = (
        load(source, kind=side, names=names, key=key, rest=rest)
        for source, side in zip((reference, prediction), kinds, strict=True)
    )
    second = reorient(second, first)
    return _joined(first, second) if labels == "ordered" else (first, second)


def _joined(first: Volume, second: Volume) -> tuple[Volume, Volume]:
    if first.soft and second.soft:
        return first, second
    named = [dict(zip(side.values or (), side.names, strict=False)) for side in (second, first)]
    names = named[0] | named[1]
    if first.values is not None and second.values is not None:
        values = tuple(sorted({*first.values, *second.values}))
        return _with_values(first, values, names), _with_values(second, values, names)
    soft, crisp = (first, second) if first.soft else (second, first)
    parts, highest = len(soft.names), max(crisp.values or (0,))
    if highest >= parts:
        raise InputError(
            f"{crisp.path}: label value {highest} has no part in {soft.path}, which has {parts} "
            f"(0..{parts - 1}); ordered labels need one part per value: relabel, or say labels=unordered"
        )
    crisp = _with_values(crisp, tuple(range(parts)), dict(enumerate(soft.names)) | names)
    return (soft, crisp) if first.soft else (crisp, soft)
