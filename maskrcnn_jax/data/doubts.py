"""What is odd about one image and its instances: it can be read, but was probably not meant so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from scipy import ndimage

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.errors import Fault

NEAR_TWIN = "has nearly the same pixels as"
_SEMANTIC_PIECES = 8  # an instance in so many pieces is probably a class's whole area
_PIECE_PIXELS = 4  # smaller pieces are specks and not counted there
_HUGE_SHARE = 0.8  # of the image: an only instance of this size is one, too, and one among others is inverted
_TWIN_IOU = 0.85  # two instances of one class that share so much are one that was drawn twice
_BLACK = 16  # what 12-bit values in a 16-bit file stay below once only their high byte is kept
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def image_doubts(record: Record, where: str) -> Iterator[Fault]:
    """An image in which nobody would see anything."""
    brightest = record.image.max()
    if brightest < _BLACK:
        what = f"is nearly black: no value is above {brightest} of 255, as with 12 bits in a 16-bit file"
        yield Fault(where, what, "stretch the values to the whole range")


def shape_doubts(record: Record, origins: list[str], fragments: float) -> Iterator[Fault]:
    """Instances that are rather several, a class's whole area, or all but the object."""
    found = {
        n: _pieces(record.layers[record.layer[n], y0:y1, x0:x1] == n + 1)
        for n, (x0, y0, x1, y1) in enumerate(record.boxes.astype(int))
        if x0 < x1 and not record.crowd[n]
    }
    shares = {n: pieces.sum() / np.prod(record.size) for n, pieces in found.items()}
    for n, pieces in found.items():
        large, share = int((pieces >= _PIECE_PIXELS).sum()), shares[n]
        if large >= _SEMANTIC_PIECES:
            what = f"is one instance of {large} separate pieces, as in semantic labels"
            yield Fault(origins[n], what, "label each object by itself")
        elif len(origins) == 1 and share > _HUGE_SHARE:
            what = f"is the only instance and covers {share:.0%} of the image, as in semantic labels"
            yield Fault(origins[n], what, "label each object by itself")
        elif share > _HUGE_SHARE:
            what = f"covers {share:.0%} of the image, and is not its only instance, as an inverted mask does"
            yield Fault(origins[n], what, "save the background as 0 and the instance as 255")
        elif pieces.sum() - pieces.max() > fragments * pieces.sum():
            apart = 1 - pieces.max() / pieces.sum()
            what = f"is in {len(pieces)} pieces, {apart:.0%} of it outside the largest"
            yield Fault(origins[n], what, "delete the specks, or label the pieces as instances of their own")


def twin_doubts(record: Record, origins: list[str]) -> Iterator[Fault]:
    """Instances that are nearly another one of their class; readers tell of those that are wholly so."""
    areas = np.bincount(record.layers.ravel(), minlength=len(record.classes) + 1)[1:]
    alone = ~record.crowd & (areas <= _HUGE_SHARE * np.prod(record.size))
    for upper, lower in itertools.combinations(record.layers.astype(int), 2):
        both = (upper > 0) & (lower > 0)
        pairs, shared = np.unique(np.stack([upper[both], lower[both]]) - 1, axis=1, return_counts=True)
        iou = shared / (areas[pairs].sum(axis=0) - shared)
        alike = (record.classes[pairs[0]] == record.classes[pairs[1]]) & alone[pairs].all(axis=0)
        twins = alike & (iou > _TWIN_IOU) & (iou < 1)
        for (n, m), share in zip(pairs[:, twins].T, iou[twins], strict=True):
            what = f"{NEAR_TWIN} {origins[min(n, m)]} (IoU {share:.2f})"
            yield Fault(origins[max(n, m)], what, "delete one of the two, if both are one object")


def _pieces(mask: np.ndarray) -> Int[np.ndarray, "pieces"]:
    """Pixels of each 8-connected piece."""
    labels, _ = ndimage.label(mask, _EIGHT_NEIGHBOURS)
    return np.bincount(labels.ravel())[1:]
