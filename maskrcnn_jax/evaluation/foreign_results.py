"""Results of any tool, read back to be scored: a COCO results JSON, or a folder of label images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from pycocotools import mask as coco

from maskrcnn_jax.data.readers.coco_masks import crop_of_segmentation
from maskrcnn_jax.data.readers.label_images import IMAGE_ENDINGS, LABEL_ENDINGS
from maskrcnn_jax.documents import DATA_SET, DocumentError, read_json
from maskrcnn_jax.errors import DataError, Fault, UserError
from maskrcnn_jax.images.decoding import LABEL_SUFFIXES, image_files, read_labels
from maskrcnn_jax.masks.rle import rle_of_crop, rles_of_labels

Row = dict[str, Any]

_FIELDS = ("image_id", "category_id", "score", "segmentation")


class ForeignResults(NamedTuple):
    """What was read.

    Attributes:
      rows: COCO result rows with box, score and a run-length encoding of the image's size.
      have_scores: False for label images, whose rows all score 1.
      notes: what a person should know who compares these numbers with others.
    """

    rows: list[Row]
    have_scores: bool
    notes: list[str]


def read_results(path: Path, ground_truth: dict[str, Any]) -> ForeignResults:
    """Reads and checks results for the images of a COCO data set.

    Args:
      path: a JSON list of COCO result rows (polygons or run lengths; boxes may be missing), or a folder with
        a label image for each image: PNG, TIFF or NPY of any integer type, called as the image or as
        StarDist and Cellpose call it, `X.tif`, `X_masks.tif`, `X_cp_masks.png`. Other files in the
        folder are not looked at. Label images know no classes: all is category 1.
      ground_truth: its `file_name`s are the names that label images go by.

    Raises:
      UserError: there are no images.
      DataError: lists every fault: rows and files that cannot be read, unknown ids, other sizes, images
        without a label image.
    """
    if not ground_truth["images"]:
        raise UserError("there are no images to evaluate: does this split have any?")
    if path.is_dir():
        return _read_label_images(path, ground_truth["images"])
    if not path.is_file():
        remedy = "give a COCO results JSON or a folder of label images"
        raise DataError([Fault(str(path), "is neither file nor folder", remedy)])
    return _read_json(path, ground_truth)


def _read_json(path: Path, ground_truth: dict[str, Any]) -> ForeignResults:
    entries = _load(path)
    faults = _field_faults(path, entries) or _id_faults(path, entries, ground_truth)
    if faults:
        raise DataError(faults)
    images = {image["id"]: image for image in ground_truth["images"]}
    rows, damaged, first = [], Counter(), {}
    for n, entry in enumerate(entries):
        image = images[entry["image_id"]]
        row = _row(entry, (image["height"], image["width"]))
        if isinstance(row, dict):
            rows.append(row)
            continue
        damaged[image["file_name"], row] += 1
        first.setdefault((image["file_name"], row), n)
    if damaged:
        remedy = "write polygons or run lengths of the image's size"
        raise DataError(
            [
                Fault(f"{path}: row {first[key]} (image {key[0]})", _counted(key[1], count), remedy)
                for key, count in damaged.items()
            ]
        )
    notes = []
    if silent := [i["file_name"] for i in images.values() if i["id"] not in {r["image_id"] for r in rows}]:
        notes.append(f"nothing was found in {len(silent)} of {len(images)} images: {_listed(silent)}")
    if len(rows) > 1 and len({row["score"] for row in rows}) == 1:
        notes.append("all scores are equal, so average precision depends on the order of the rows")
    return ForeignResults(rows, True, notes)


def _load(path: Path) -> list[Any]:
    try:
        entries = read_json(path, most_bytes=DATA_SET)
    except DocumentError as error:
        raise DataError([Fault(str(path), error.what, error.remedy)]) from error
    if not isinstance(entries, list):
        what = f"holds a {type(entries).__name__}; a data set with its ground truth, perhaps"
        raise DataError([Fault(str(path), what, "give COCO results: a list with a row an object")])
    return entries


def _field_faults(path: Path, entries: Sequence[Any]) -> list[Fault]:
    odd = [n for n, entry in enumerate(entries) if not isinstance(entry, dict)]
    if odd:
        remedy = "write an object with " + ", ".join(_FIELDS)
        return [Fault(f"{path}: row {odd[0]}", _counted("is no object", len(odd)), remedy)]
    faults = []
    for field in _FIELDS:
        missing = [n for n, entry in enumerate(entries) if field not in entry]
        if missing:
            hint = "; if the tool has none, write 1" if field == "score" else ""
            what = _counted(f"has no {field!r}", len(missing))
            faults.append(Fault(f"{path}: row {missing[0]}", what, f"write one for each object{hint}"))
    scores = [n for n, entry in enumerate(entries) if not _is_number(entry.get("score", 0))]
    if scores:
        what = _counted(f"has the score {entries[scores[0]]['score']!r}", len(scores))
        faults.append(Fault(f"{path}: row {scores[0]}", what, "write a finite number"))
    return faults


def _id_faults(path: Path, entries: Sequence[Row], ground_truth: dict[str, Any]) -> list[Fault]:
    faults = []
    for field, part, name in (("image_id", "images", "file_name"), ("category_id", "categories", "name")):
        known = {entry["id"]: entry[name] for entry in ground_truth[part]}
        unknown = Counter(str(entry[field]) for entry in entries if not _is_in(entry[field], known))
        if unknown:
            ids = [f"{i} is {title}" for i, title in known.items()]
            what = f"{sum(unknown.values())} rows have an unknown {field}: {_listed(list(unknown))}"
            faults.append(Fault(str(path), what, f"the ids of this split are: {_listed(ids)}"))
    return faults


def _row(entry: Row, size: tuple[int, int]) -> Row | str:
    """A row with a box and a compressed mask, or what is wrong with it."""
    crop = crop_of_segmentation(entry, size)
    if isinstance(crop, str):
        return crop
    code = rle_of_crop(crop.pixels, crop.top, crop.left, size)
    box = entry.get("bbox") or coco.toBbox(code).tolist()
    return {field: entry[field] for field in _FIELDS[:3]} | {"bbox": box, "segmentation": code}


def _read_label_images(folder: Path, images: Sequence[Row]) -> ForeignResults:
    files: dict[str, list[Path]] = {}
    for file in image_files(folder, LABEL_SUFFIXES):
        files.setdefault(file.stem, []).append(file)
    rows, faults = [], []
    for image in images:
        name = image["file_name"]
        found = next((files[stem] for stem in _stems(name) if stem in files), [])
        if len(found) != 1:
            names = " and ".join(file.name for file in found)
            what = f"holds {names} for the image {name}" if found else f"holds no label image of {name}"
            remedy = "leave one of them" if found else f"add {name}.tif, all zeros if nothing was found"
            faults.append(Fault(str(folder), what, remedy))
            continue
        try:
            rows += _label_rows(found[0], image)
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    note = "label images have no scores: average precision, which is about their order, is left out"
    return ForeignResults(rows, False, [note])


def _stems(name: str) -> list[str]:
    """What an image's label image may be called; last its bare name, which may be the image's own."""
    names = [name, *(name + ending for ending in IMAGE_ENDINGS)]
    return [stem + ending for ending in (*LABEL_ENDINGS, "") for stem in names]


def _label_rows(path: Path, image: Row) -> list[Row]:
    labels = read_labels(path)
    size = (image["height"], image["width"])
    if labels.shape != size:
        sizes = (" x ".join(map(str, shape)) for shape in (labels.shape, size))
        what = "has {} pixels (height x width), its image {}".format(*sizes)
        raise DataError([Fault(str(path), what, "give the labels the image's size")])
    codes = _codes(labels)
    boxes = coco.toBbox(codes).tolist() if codes else []
    return [
        {"image_id": image["id"], "category_id": 1, "score": 1.0, "bbox": box, "segmentation": code}
        for box, code in zip(boxes, codes, strict=True)
    ]


def _codes(labels: Int[np.ndarray, "H W"]) -> list[dict[str, Any]]:
    """A run-length encoding of each label but 0, in order of the labels, which may have gaps."""
    values, numbered = np.unique(labels, return_inverse=True)
    numbered = numbered.reshape(labels.shape) + int(values[0] != 0)
    return rles_of_labels(numbered[None], int(numbered.max()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_in(value: Any, known: dict[int, str]) -> bool:
    return isinstance(value, int) and value in known


def _counted(what: str, count: int) -> str:
    return what if count == 1 else f"{what}, as {count - 1} more"


def _listed(items: Sequence[str], most: int = 6) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
