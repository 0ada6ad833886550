"""COCO's instance annotations: one JSON file with polygons or run lengths, and a folder of images."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from maskrcnn_jax.data.entries import TWIN, Entry, Listing, Reading
from maskrcnn_jax.data.readers.coco_file import Row, load, shown, table_faults
from maskrcnn_jax.data.readers.coco_images import ImageFile, find_images, name_fault
from maskrcnn_jax.data.readers.coco_masks import crop_of_segmentation, is_area, is_relative, oddities
from maskrcnn_jax.data.records import Record, encode_layers
from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.decoding import read_image
from maskrcnn_jax.masks.crops import Crop

_MOST_PIXELS = 2**32 - 1  # of an image; pycocotools counts with 32 bits


def matches(path: Path) -> bool:
    """Whether `path` looks like a data set of this kind."""
    return path.is_file() and path.suffix.lower() == ".json"


def list_entries(
    path: Path, images: Path | None = None, choice: Choice = ALL, *, crowds_are_instances: bool = False
) -> Listing:
    """The images of a COCO file, in its order.

    Category ids may have gaps: class k is the k-th smallest id. Regions with `iscrowd` become crowds.
    Annotations that cover no pixel are left out, unless they have a box, which COCO counts; polygons are cut
    at the image's border. Two images that their names alone do not tell apart are called by their ids, too.

    Args:
      path: the JSON file.
      images: the folder that file names start from; None looks in the usual places.
      crowds_are_instances: `iscrowd` means nothing: CVAT writes 1 for all that was drawn with a brush.
      choice: what to read of images with several series, planes or channels.

    Raises:
      DataError: the file is not there, no COCO file or lists no images, or no folder holds any of them.
    """
    data = load(path)
    if crowds_are_instances:
        data["annotations"] = [row | {"iscrowd": 0} for row in data["annotations"]]
    faults = table_faults(path, data)
    files = find_images(path, data["images"], images)
    classes = {k: n for n, k in enumerate(sorted({row["id"] for row in data["categories"]}))}
    of_image = defaultdict(list)
    if fault := _common_fault(path, data):
        faults.append(fault)  # and not each annotation by itself
    else:
        for row in data["annotations"]:
            of_image[row["image_id"]].append(row)
    entries = [
        Entry(
            row["id"],
            file.name,
            str(file.path),
            functools.partial(_read_entry, path, file, row, of_image[row["id"]], classes, choice),
        )
        for row, file in zip(data["images"], files, strict=True)
    ]
    kinds = {row["id"]: row["name"] for row in data["categories"]}
    return Listing(entries, faults, [], tuple(kinds[k] for k in classes), tuple(classes))


def _common_fault(path: Path, data: dict[str, list[Row]]) -> Fault | None:
    """What is wrong with all annotations alike; of a sound file only the first ones are looked at."""
    rows, where = data["annotations"], f"{path}: annotations"
    if rows and all(row.get("iscrowd") == 1 for row in rows):
        what = f"all {len(rows)} have iscrowd 1, as CVAT writes for brush masks: nothing would be learned"
        return Fault(where, what, "if they are instances, set crowds_are_instances")
    sizes = {row["id"]: size for row in data["images"] if _is_possible(size := (row["height"], row["width"]))}
    readable = _readable(rows, sizes)
    first = next(readable, None)
    if first is None or _shows_something(*first) or any(_shows_something(*rest) for rest in readable):
        return None
    if is_relative(first[0]):
        what = f"all {len(rows)} lie between 0 and 1: shares of the image's sides, perhaps"
        return Fault(where, what, "multiply x by the image's width and y by its height")
    return Fault(where, f"none of the {len(rows)} covers a pixel", "write outlines in pixels of the image")


def _readable(rows: Iterable[Row], sizes: dict[int, tuple[int, int]]) -> Iterable[tuple[Row, Crop]]:
    for row in rows:
        if row["image_id"] in sizes:
            crop = crop_of_segmentation(row, sizes[row["image_id"]])
            if isinstance(crop, Crop):
                yield row, crop


def _shows_something(annotation: Row, crop: Crop) -> bool:
    return bool(crop.pixels.size) and not is_relative(annotation)


def _is_possible(size: tuple[int, int]) -> bool:
    return min(size) >= 1 and size[0] * size[1] <= _MOST_PIXELS


class _Instances(NamedTuple):
    """The sound annotations of one image, and what is wrong with the others."""

    crops: list[Crop]
    rows: list[Row]
    origins: list[str]
    faults: list[Fault]
    doubts: list[Fault]


def _read_entry(
    path: Path, file: ImageFile, row: Row, annotations: list[Row], classes: dict[int, int], choice: Choice
) -> Reading:
    where, size = f"{path}: image {row['id']}", (row["height"], row["width"])
    if fault := name_fault(where, row, file.path):
        return Reading(None, [fault], [], [])
    if not _is_possible(size):
        return Reading(None, [Fault(where, f"has the size {size}", "write its height and width")], [], [])
    known = [annotation for annotation in annotations if annotation["category_id"] in classes]
    found = _read_instances(path, shown(row["file_name"]), size, known)
    try:
        image = _read_sized_image(file.path, size, path.name, choice)
    except DataError as error:
        return Reading(None, error.faults + found.faults, found.doubts, [])
    record = Record(
        row["id"],
        file.name,
        image,
        encode_layers(found.crops, size),
        np.array([classes[a["category_id"]] for a in found.rows], np.int32),
        np.array([bool(a.get("iscrowd", 0)) for a in found.rows], bool),
        np.array([_annotated(*pair) for pair in zip(found.rows, found.crops, strict=True)]).reshape(-1, 5),
    )
    return Reading(record, found.faults, found.doubts, found.origins)


def _annotated(annotation: Row, crop: Crop) -> Float64[np.ndarray, "5"]:
    """The annotation's box and area; NaN for a box that says no more than the mask."""
    values = np.full(5, np.nan)
    height, width = crop.pixels.shape
    box, area = annotation.get("bbox"), annotation.get("area")
    if box is not None and box != [crop.left, crop.top, width, height]:
        values[:4] = box
    if is_area(area):
        values[4] = area
    return values


def _read_sized_image(
    path: Path, size: tuple[int, int], source: str, choice: Choice
) -> UInt8[np.ndarray, "H W 3"]:
    image = read_image(path, choice)
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
            boxed = annotation.get("bbox") is not None
            what = "covers no pixel and " + ("counts for average precision only" if boxed else "is left out")
            found.doubts.append(Fault(where, what, "delete it or draw the instance"))
            if not boxed:
                continue
        twin = first.setdefault((annotation["category_id"], *crop.content), annotation["id"])
        if twin != annotation["id"] and crop.pixels.size:
            found.doubts.append(Fault(where, f"{TWIN} annotation {twin}", "delete one of them"))
        found.crops.append(crop)
        found.rows.append(annotation)
        found.origins.append(where)
    return found
