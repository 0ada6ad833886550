"""The tables of a COCO file, in whatever dialect a tool wrote them, and what is wrong with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskrcnn_jax.documents import DATA_SET, DocumentError, read_json
from maskrcnn_jax.errors import DataError, Fault

Row = dict[str, Any]

_PARTS = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}
_SHOWN = 80  # letters of a text that messages show
_WHOLE = re.compile(r"-?\d{1,18}")


def load(path: Path) -> dict[str, list[Row]]:
    """The images, categories and annotations of a file.

    Read as they are meant are tables that map ids to rows (LIVECell), numbers with a decimal point (7.0, from
    tables with gaps), and ids that are numbers written as text, if all of a column are.

    Raises:
      DataError: the file is not there, no COCO file, or lists no images.
    """
    if not path.exists() or path.is_dir():
        what = "is a folder" if path.is_dir() else "is not there"
        raise DataError([Fault(str(path), what, "give the JSON file with the annotations")])
    try:
        data = read_json(path, most_bytes=DATA_SET)
    except DocumentError as error:
        raise DataError([Fault(str(path), error.what, error.remedy)]) from error
    if not isinstance(data, dict):
        what = f"holds a {type(data).__name__}; COCO results, perhaps"
        raise DataError([Fault(str(path), what, "give the ground truth: images, categories, annotations")])
    faults = []
    tables = {part: _rows(data.get(part)) for part in _PARTS}
    for part, rows in tables.items():
        if rows is None:
            faults.append(Fault(str(path), f"has no list of {part}", "write one, if need be an empty one"))
        else:
            faults += _field_faults(path, part, rows)
    if not faults and not tables["images"]:
        faults.append(Fault(str(path), "lists no images", "is it the right file?"))
    if faults:
        raise DataError(faults)
    return tables


def table_faults(path: Path, data: dict[str, list[Row]]) -> list[Fault]:
    """Ids and files that occur twice, and annotations of images or categories that are not there."""
    faults = []
    for part, rows in data.items():
        for twin in repeated(row["id"] for row in rows):
            faults.append(Fault(f"{path}: {part}", f"the id {twin} occurs twice", "give each its own id"))
    for twin in repeated(row["file_name"] for row in data["images"]):
        what = f"the file {shown(twin)} is listed twice"
        remedy = "list each file once, with all of its annotations"
        faults.append(Fault(f"{path}: images", what, remedy))
    for field, part in (("image_id", "images"), ("category_id", "categories")):
        known = {row["id"] for row in data[part]}
        for row in data["annotations"]:
            if row[field] not in known:
                what = f"has {field} {row[field]}, which is not among the {part}"
                remedy = f"correct it, or add it to {part}"
                faults.append(Fault(f"{path}: annotation {row['id']}", what, remedy))
    return faults


def repeated(values: Iterable[Any]) -> list[Any]:
    """Each of those that occur more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def shown(text: str) -> str:
    """A text of the file for messages: in one line, not too long, and as every terminal can print it."""
    plain = text if text.isprintable() and text else ascii(text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}... ({len(text)} letters)"


def _rows(table: Any) -> list[Row] | None:
    """The rows of a list, or of a mapping of ids to rows; None where it is neither."""
    if isinstance(table, dict):
        ids = [int(key) if _WHOLE.fullmatch(key) else key for key in table]
        rows = zip(ids, table.values(), strict=True)
        table = [{"id": key} | row if isinstance(row, dict) else row for key, row in rows]
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        return None
    return table


def _field_faults(path: Path, part: str, rows: list[Row]) -> list[Fault]:
    faults = []
    for field, kind in _PARTS[part].items():
        if kind is int:
            _take_numbers(rows, field)
        wrong = [n for n, row in enumerate(rows) if not isinstance(row.get(field), kind)]
        if wrong:
            what = f"{len(wrong)} of {part} have no {field!r} of type {kind.__name__}"
            remedy = f"write one for each; the first without is {part}[{wrong[0]}]"
            faults.append(Fault(str(path), what, remedy))
    return faults


def _take_numbers(rows: list[Row], field: str) -> None:
    """Turns 7.0 into 7, and "7" too if the whole column is such text."""
    for row in rows:
        if isinstance(row.get(field), float) and row[field].is_integer():
            row[field] = int(row[field])
    values = [row.get(field) for row in rows]
    if all(isinstance(value, str) and _WHOLE.fullmatch(value) for value in values):
        for row in rows:
            row[field] = int(row[field])
