"""COCO's instance annotations: one JSON file with polygons or run lengths, and a folder of images."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from maskrcnn_jax.data.entries import TWIN, Entry, Listing, Reading
from maskrcnn_jax.data.readers.coco_masks import crop_of_segmentation, oddities
from maskrcnn_jax.data.records import DataError, Fault, Record, encode_layers
from maskrcnn_jax.documents import DATA_SET, DocumentError, read_json
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.masks.crops import Crop

Row = dict[str, Any]

_PARTS = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}


def matches(path: Path) -> bool:
    """Whether `path` looks like a data set of this kind."""
    return path.is_file() and path.suffix.lower() == ".json"


def list_entries(path: Path, images: Path | None = None) -> Listing:
    """The images of a COCO file, in its order.

    Category ids may have gaps: class k is the k-th smallest id. Regions with `iscrowd` become crowds.
    Annotations that cover no pixel are left out; polygons are cut at the image's border. Two images that
    their names alone do not tell apart are called by their ids, too.

    Args:
      path: the JSON file.
      images: the folder that file names start from. Not given, it is sought where people keep it: beside
        the JSON file, in its `images/` or `NAME/`, or as COCO has it, `annotations/instances_NAME.json`
        and `NAME/`.

    Raises:
      DataError: the file is not there, no COCO file or lists no images, or no folder holds any of them.
    """
    data = _load(path)
    faults = _id_faults(path, data)
    root = images or _find_images(path, data["images"])
    names = _names(data["images"])
    classes = {k: n for n, k in enumerate(sorted({row["id"] for row in data["categories"]}))}
    of_image = defaultdict(list)
    for row in data["annotations"]:
        of_image[row["image_id"]].append(row)
    entries = [
        Entry(
            row["id"],
            name,
            str(root / row["file_name"]),
            functools.partial(_read_entry, path, root, row | {"name": name}, of_image[row["id"]], classes),
        )
        for row, name in zip(data["images"], names, strict=True)
    ]
    kinds = {row["id"]: row["name"] for row in data["categories"]}
    return Listing(entries, faults, [], tuple(kinds[k] for k in classes), tuple(classes))


def _load(path: Path) -> dict[str, list[Row]]:
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
    for part, fields in _PARTS.items():
        rows = data.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            faults.append(Fault(str(path), f"has no list of {part}", "write one, if need be an empty one"))
            continue
        for field, kind in fields.items():
            if kind is int:
                _take_whole_floats(rows, field)
            wrong = [n for n, row in enumerate(rows) if not isinstance(row.get(field), kind)]
            if wrong:
                what = f"{len(wrong)} of {part} have no {field!r} of type {kind.__name__}"
                remedy = f"write one for each; the first without is {part}[{wrong[0]}]"
                faults.append(Fault(str(path), what, remedy))
    if not faults and not data["images"]:
        faults.append(Fault(str(path), "lists no images", "is it the right file?"))
    if faults:
        raise DataError(faults)
    return data


def _take_whole_floats(rows: list[Row], field: str) -> None:
    """Turns 7.0 into 7: tables that hold gaps write every number so."""
    for row in rows:
        if isinstance(row.get(field), float) and row[field].is_integer():
            row[field] = int(row[field])


def _id_faults(path: Path, data: dict[str, list[Row]]) -> list[Fault]:
    faults = []
    for part, rows in data.items():
        if part in _PARTS:
            for twin in _repeated(row["id"] for row in rows):
                faults.append(Fault(f"{path}: {part}", f"the id {twin} occurs twice", "give each its own id"))
    for twin in _repeated(row["file_name"] for row in data["images"]):
        remedy = "list each file once, with all of its annotations"
        faults.append(Fault(f"{path}: images", f"the file {twin} is listed twice", remedy))
    for field, part in (("image_id", "images"), ("category_id", "categories")):
        known = {row["id"] for row in data[part]}
        for row in data["annotations"]:
            if row[field] not in known:
                what = f"has {field} {row[field]}, which is not among the {part}"
                remedy = f"correct it, or add it to {part}"
                faults.append(Fault(f"{path}: annotation {row['id']}", what, remedy))
    return faults


def _repeated(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]


def _find_images(path: Path, rows: list[Row]) -> Path:
    name = path.stem.removeprefix("instances_")
    bases = (path.parent, path.parent.parent)
    candidates = [base / place for base in bases for place in ("", "images", name, f"images/{name}")]
    for row in rows:
        for candidate in candidates:
            if (candidate / row["file_name"]).is_file():
                return candidate
    what = f"its images ({rows[0]['file_name']}, ...) are in none of {', '.join(map(str, candidates))}"
    raise DataError([Fault(str(path), what, "say where the images are (`images`)")])


def _names(rows: list[Row]) -> list[str]:
    """What messages and result files call the images; each must be the name of a file of its own."""
    names = [str(Path(row["file_name"]).with_suffix("")).replace("/", "_") for row in rows]
    shared = set(_repeated(names))
    return [f"{name}_{row['id']}" if name in shared else name for name, row in zip(names, rows, strict=True)]


class _Instances(NamedTuple):
    """The sound annotations of one image, and what is wrong with the others."""

    crops: list[Crop]
    rows: list[Row]
    origins: list[str]
    faults: list[Fault]
    doubts: list[Fault]


def _read_entry(path: Path, root: Path, row: Row, annotations: list[Row], classes: dict[int, int]) -> Reading:
    size = (row["height"], row["width"])
    if min(size) < 1:
        what = f"has the size {size}"
        return Reading(
            None, [Fault(f"{path}: image {row['id']}", what, "write its height and width")], [], []
        )
    known = [annotation for annotation in annotations if annotation["category_id"] in classes]
    found = _read_instances(path, row["file_name"], size, known)
    try:
        image = _read_sized_image(root / row["file_name"], size, path.name)
    except DataError as error:
        return Reading(None, error.faults + found.faults, found.doubts, [])
    record = Record(
        row["id"],
        row["name"],
        image,
        encode_layers(found.crops, size),
        np.array([classes[a["category_id"]] for a in found.rows], np.int32),
        np.array([bool(a.get("iscrowd", 0)) for a in found.rows], bool),
    )
    return Reading(record, found.faults, found.doubts, found.origins)


def _read_sized_image(path: Path, size: tuple[int, int], source: str) -> UInt8[np.ndarray, "H W 3"]:
    image = read_image(path)
    if image.shape[:2] != size:
        found = f"has {image.shape[0]} x {image.shape[1]} pixels (height x width), {source} says {size}"
        raise DataError([Fault(str(path), found, "correct the numbers or restore the image")])
    return image


def _read_instances(path: Path, image: str, size: tuple[int, int], annotations: list[Row]) -> _Instances:
    found = _Instances([], [], [], [], [])
    first: dict[tuple, int] = {}
    for annotation in annotations:
        where = f"{path}: annotation {annotation['id']} (image {image})"
        crop = crop_of_segmentation(annotation, size)
        if isinstance(crop, str):
            found.faults.append(Fault(where, crop, "write polygons or run lengths of the image's size"))
            continue
        for what in oddities(annotation, size):
            found.doubts.append(Fault(where, what, "correct the outline"))
        if not crop.pixels.size:
            what = "covers no pixel and is left out"
            found.doubts.append(Fault(where, what, "delete it or draw the instance"))
            continue
        twin = first.setdefault((annotation["category_id"], *crop.content), annotation["id"])
        if twin != annotation["id"]:
            found.doubts.append(Fault(where, f"{TWIN} annotation {twin}", "delete one of them"))
        found.crops.append(crop)
        found.rows.append(annotation)
        found.origins.append(where)
    return found
