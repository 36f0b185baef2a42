"""Names of regions from a side file: plain text, colour tables, tab-separated tables, JSON and atlas lists."""

import json
import os
import re
from pathlib import Path

from evalmetrics.readers import InputError

VALUE_COLUMNS = ("index", "value", "label", "id")
NAME_COLUMNS = ("name", "structure", "region", "label_name")
SIDE_COLUMNS = ("lat", "side", "hemisphere", "hemi")
FORMS = "lines 'value name', a colour table, a table with columns index and name (.tsv, .csv), or JSON {value: name}"


def _from_json(text: str) -> dict[int, str]:
    content = json.loads(text)
    if isinstance(content, dict) and isinstance(content.get("labels"), dict | list):
        content = content["labels"]
    if isinstance(content, list):
        return {index: str(name) for index, name in enumerate(content)}
    if all(isinstance(value, int) for value in content.values()):  # {"background": 0, ...} as in a dataset description
        return {value: str(name) for name, value in content.items()}
    return {int(value): str(name) for value, name in content.items()}


def _from_table(lines: list[str], separator: str) -> dict[int, str]:
    rows = [[cell.strip() for cell in re.split(separator, line)] for line in lines]
    header = [cell.lower() for cell in rows[0]]
    # An atlas list counts its files in "ID" and gives the value in the image under "Label in <file>".
    value = next((i for i, cell in enumerate(header) if cell.startswith("label in")), None)
    if value is None:
        value = next(header.index(column) for column in VALUE_COLUMNS if column in header)
    name = next(header.index(column) for column in NAME_COLUMNS if column in header)
    side = next((header.index(column) for column in SIDE_COLUMNS if column in header), None)
    names = {}
    for row in rows[1:]:
        if len(row) <= max(value, name):  # a further section with other columns follows
            break
        names[int(row[value])] = row[name] if side is None else f"{row[side]} {row[name]}"
    return names


def _from_lines(lines: list[str]) -> dict[int, str]:
    names = {}
    for line in lines:
        value, rest = re.split(r"[\s,;:=]+", line, maxsplit=1)
        quoted = re.search(r'"([^"]*)"', rest)
        # A colour table writes red, green, blue and opacity behind the name.
        names[int(value)] = quoted[1] if quoted else re.sub(r"(\s+\d+){3,4}$", "", rest).strip()
    return names


def _atlas_rows(text: str) -> list[list[str]]:
    """Rows `ID, name, file` of the first section of an atlas list (info_label.txt)."""
    section = re.split(r"^#\s*Keyword=", text, flags=re.M)
    rows = [line.split(",") for line in section[1 if len(section) > 1 else 0].splitlines()[1:] if "," in line]
    return [[cell.strip() for cell in row] for row in rows if not row[0].lstrip().startswith("#")]


def read_names(path: str | os.PathLike) -> dict[int, str]:
    """Read the names of regions by label value (of parts by index).

    Args:
        path: text of lines `value name`, a colour table (FreeSurfer, ITK-SNAP), a table with a header (BIDS tsv, csv),
            an atlas list `info_label.txt`, or JSON (values to names, names to values, a list, or these as "labels").

    Returns:
        Names by label value.

    Raises:
        InputError: the file is missing or follows none of these forms.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of names; give a file of {FORMS}")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        if path.suffix.lower() == ".json":
            return _from_json(text)
        if "Keyword=IndivLabels" in text:
            return {int(row[0]): row[1] for row in _atlas_rows(text)}
        if re.match(r"[A-Za-z]", lines[0]):
            # A header aligned with several tabs has no empty cells; one with single tabs may.
            separator = "\t+" if "\t\t" in lines[0] else "\t" if "\t" in lines[0] else ","
            return _from_table(lines, separator)
        return _from_lines(lines)
    except (ValueError, IndexError, KeyError, StopIteration, AttributeError) as fault:
        reason = str(fault) or "a column is missing"
        raise InputError(f"{path}: cannot read names of regions ({reason}); allowed are {FORMS}") from fault


def atlas_files(folder: Path) -> dict[str, str] | None:
    """Files of a folder in the order of its `info_label.txt`, with their names; None where it has no such list."""
    listing = folder / "info_label.txt"
    if not listing.is_file():
        return None
    rows = _atlas_rows(listing.read_text(encoding="utf-8", errors="replace"))
    return {row[2]: row[1] for row in rows if len(row) > 2} or None
