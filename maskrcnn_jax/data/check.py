"""Looks through a whole data set: every fault, what is doubtful, and the numbers that people want to know."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from scipy import ndimage

from maskrcnn_jax.data.anchor_fit import AnchorGrid, best_anchor_iou
from maskrcnn_jax.data.entries import TWIN, Entry, Listing, Progress, in_order, read_entry
from maskrcnn_jax.data.records import Fault, Record

_SEMANTIC_PIECES = 8  # an instance in so many pieces is probably a class's whole area
_PIECE_PIXELS = 4  # smaller pieces are specks and not counted there
_HUGE_SHARE = 0.8  # so is the only instance, if it covers this much of the image; two cannot
_BLACK = 16  # what 12-bit values in a 16-bit file stay below once only their high byte is kept
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


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
      unlabelled: the names of images without instances.
    """

    faults: list[Fault] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    sizes: Counter = field(default_factory=Counter)
    instances: list[int] = field(default_factory=list)
    boxes: Float32[np.ndarray, "N 4"] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    anchor_iou: Float32[np.ndarray, "N"] = field(default_factory=lambda: np.zeros(0, np.float32))
    overlapping: int = 0
    duplicates: int = 0
    unlabelled: list[str] = field(default_factory=list)


class _Image(NamedTuple):
    """What one image adds to a survey; `digest` is None where it could not be read."""

    faults: list[Fault]
    doubts: list[Fault]
    digest: bytes | None = None
    size: tuple[int, int] = (0, 0)
    boxes: np.ndarray = np.zeros((0, 4), np.float32)
    anchor_iou: np.ndarray = np.zeros(0, np.float32)
    overlapping: int = 0


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
    pairs = zip(listing.entries, in_order(look, listing.entries), strict=True)
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
    found.duplicates = sum(fault.what.startswith(TWIN) for fault in found.faults + found.doubts)
    if images:
        found.boxes = np.concatenate([image.boxes for image in images])
        found.anchor_iou = np.concatenate([image.anchor_iou for image in images])
    return found


def _look(entry: Entry, grids: list[AnchorGrid], scale: float, fragments: float) -> _Image:
    record, faults, doubts, origins = read_entry(entry)
    if record is None:
        return _Image(faults, doubts)
    height, width = record.size
    scaled = (round(height * scale), round(width * scale))
    return _Image(
        faults,
        [*doubts, *_image_doubts(entry, record), *_shape_doubts(record, origins, fragments)],
        hashlib.blake2b(record.image.tobytes() + bytes(str(record.size), "ascii"), digest_size=16).digest(),
        record.size,
        record.boxes,
        best_anchor_iou(record.boxes * np.float32(scale), scaled, grids).astype(np.float32),
        _overlapping(record),
    )


def _image_doubts(entry: Entry, record: Record) -> Iterator[Fault]:
    brightest = record.image.max()
    if brightest < _BLACK:
        what = f"is nearly black: no value is above {brightest} of 255, as with 12 bits in a 16-bit file"
        yield Fault(entry.image, what, "stretch the values to the whole range")


def _shape_doubts(record: Record, origins: list[str], fragments: float) -> Iterator[Fault]:
    """Instances that are rather several, a class's whole area, or all but the object."""
    found = {
        n: _pieces(record.layers[record.layer[n], y0:y1, x0:x1] == n + 1)
        for n, (x0, y0, x1, y1) in enumerate(record.boxes.astype(int))
        if not record.crowd[n]
    }
    shares = {n: pieces.sum() / np.prod(record.size) for n, pieces in found.items()}
    huge = sum(share > _HUGE_SHARE for share in shares.values())
    for n, pieces in found.items():
        large, share = int((pieces >= _PIECE_PIXELS).sum()), shares[n]
        if large >= _SEMANTIC_PIECES:
            what = f"is one instance of {large} separate pieces, as in semantic labels"
            yield Fault(origins[n], what, "label each object by itself")
        elif len(origins) == 1 and share > _HUGE_SHARE:
            what = f"is the only instance and covers {share:.0%} of the image, as in semantic labels"
            yield Fault(origins[n], what, "label each object by itself")
        elif huge > 1 and share > _HUGE_SHARE:
            what = f"covers {share:.0%} of the image, and is not the only one, as in inverted masks"
            yield Fault(origins[n], what, "save the background as 0 and the instance as 255")
        elif pieces.sum() - pieces.max() > fragments * pieces.sum():
            apart = 1 - pieces.max() / pieces.sum()
            what = f"is in {len(pieces)} pieces, {apart:.0%} of it outside the largest"
            yield Fault(origins[n], what, "delete the specks, or label the pieces as instances of their own")


def _pieces(mask: np.ndarray) -> Int[np.ndarray, "pieces"]:
    """Pixels of each 8-connected piece."""
    labels, _ = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    return np.bincount(labels.ravel())[1:]


def _overlapping(record: Record) -> int:
    if len(record.layers) == 1:
        return 0
    shared = (record.layers > 0).sum(axis=0) > 1
    return len(np.setdiff1d(record.layers[:, shared], [0]))
