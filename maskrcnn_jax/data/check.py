"""Looks through a whole data set: every fault, what is doubtful, and the numbers that people want to know."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from maskrcnn_jax.data.anchor_fit import AnchorGrid, best_anchor_iou
from maskrcnn_jax.data.doubts import NEAR_TWIN, image_doubts, shape_doubts, twin_doubts
from maskrcnn_jax.data.entries import TWIN, Entry, Listing, Progress, in_order, read_entry
from maskrcnn_jax.data.label_shift import Shift, common_shift, measure_shift
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import Fault

_SHIFT_IMAGES = 200  # more of them tell no more about how labels lie, and take their time


@dataclass
class Survey:
    """What `survey` found.

    Attributes:
      faults: what stops the set from being read.
      doubts: what is read as it is, though probably not meant.
      sizes: how many images have each (height, width).
      instances: of each readable image.
      boxes, anchor_iou: of all instances: tight XYXY boxes, and the IoU of the best anchor.
      overlapping: how many instances share pixels with another one.
      duplicates: how many masks, annotations or images repeat another one.
      near_duplicates: how many masks or annotations share most of their pixels with another one.
      unlabelled: the names of images without instances.
      shift: by how much labels lie beside what the images show; None where they do not.
    """

    faults: list[Fault] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)
    instances: list[int] = field(default_factory=list)
    boxes: Float32[np.ndarray, "N 4"] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    anchor_iou: Float32[np.ndarray, "N"] = field(default_factory=lambda: np.zeros(0, np.float32))
    overlapping: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    unlabelled: list[str] = field(default_factory=list)
    shift: Shift | None = None


class _Image(NamedTuple):
    """What one image adds to a survey; `digest` is None where it could not be read."""

    faults: list[Fault]
    doubts: list[Fault]
    digest: bytes | None = None
    size: tuple[int, int] = (0, 0)
    boxes: np.ndarray = np.zeros((0, 4), np.float32)
    anchor_iou: np.ndarray = np.zeros(0, np.float32)
    overlapping: int = 0
    shift: tuple[float, float] | None = None


def survey(
    listing: Listing,
    grids: list[AnchorGrid],
    *,
    scale: float = 1.0,
    fragments: float = 0.05,
    progress: Progress | None = None,
) -> Survey:
    """Reads every image, several at a time, and holds none of them.

    Args:
      listing: the data set.
      grids: the anchors that boxes are compared with.
      scale: by how much images are enlarged before they meet the anchors.
      fragments: an instance is doubtful if more than this share of it lies outside its largest piece.
      progress: called with the number of images done and of all.
    """
    found = Survey(list(listing.faults), list(listing.doubts))
    look = functools.partial(_look, grids=grids, scale=scale, fragments=fragments)
    images, first = [], {}
    spread = {id(entry) for entry in listing.entries[:: len(listing.entries) // _SHIFT_IMAGES + 1]}
    looks = in_order(lambda entry: look(entry, shift=id(entry) in spread), listing.entries)
    pairs = zip(listing.entries, looks, strict=True)
    for done, (entry, image) in enumerate(pairs, start=1):
        found.faults += image.faults
        found.doubts += image.doubts
        if image.digest is not None:
            twin = first.setdefault(image.digest, entry)
            if twin is not entry:
                found.doubts.append(Fault(entry.image, f"{TWIN} {twin.image}", "delete one of the two"))
            if not len(image.boxes):
                found.unlabelled.append(entry.name)
            images.append(image)
        if progress:
            progress(done, len(listing.entries))
    found.sizes.update(image.size for image in images)
    found.instances = [len(image.boxes) for image in images]
    found.overlapping = sum(image.overlapping for image in images)
    faults = found.faults + found.doubts
    found.duplicates = sum(fault.what.startswith(TWIN) for fault in faults)
    found.near_duplicates = sum(fault.what.startswith(NEAR_TWIN) for fault in faults)
    if images:
        found.boxes = np.concatenate([image.boxes for image in images])
        found.anchor_iou = np.concatenate([image.anchor_iou for image in images])
    found.shift = common_shift([image.shift for image in images if image.shift])
    if found.shift:
        found.doubts.append(_shift_doubt(found.shift))
    return found


def _look(entry: Entry, grids: list[AnchorGrid], scale: float, fragments: float, shift: bool) -> _Image:
    record, faults, doubts, origins = read_entry(entry)
    if record is None:
        return _Image(faults, doubts)
    height, width = record.size
    boxes = record.boxes[record.boxes.any(axis=1)]  # those without pixels fit no anchor
    scaled = (round(height * scale), round(width * scale))
    return _Image(
        faults,
        [
            *doubts,
            *image_doubts(record, entry.image),
            *shape_doubts(record, origins, fragments),
            *twin_doubts(record, origins),
        ],
        hashlib.blake2b(record.image.tobytes() + bytes(str(record.size), "ascii"), digest_size=16).digest(),
        record.size,
        boxes,
        best_anchor_iou(boxes * np.float32(scale), scaled, grids).astype(np.float32),
        _overlapping(record),
        measure_shift(record) if shift else None,
    )


def _shift_doubt(shift: Shift) -> Fault:
    vertical = f"{abs(shift.down):.2f} px {'below' if shift.down > 0 else 'above'}"
    horizontal = f"{abs(shift.right):.2f} px {'right' if shift.right > 0 else 'left'}"
    what = (
        f"lie {vertical} and {horizontal} of what the images show "
        f"(median of {shift.images} images, +- {shift.error:.2f} px)"
    )
    remedy = (
        "train with the augmentation random_affine and its "
        f"offset_x = {shift.right:.2f}, offset_y = {shift.down:.2f}"
    )
    return Fault("the labels", what, remedy)


def _overlapping(record: Record) -> int:
    if len(record.layers) == 1:
        return 0
    shared = (record.layers > 0).sum(axis=0) > 1
    return len(np.setdiff1d(record.layers[:, shared], [0]))
