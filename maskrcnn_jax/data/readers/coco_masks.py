"""A COCO annotation's polygons or run lengths as a crop, and what is wrong with them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from pycocotools import mask as coco

from maskrcnn_jax.masks.crops import Crop
from maskrcnn_jax.masks.rle import crop_of_rle, run_lengths

_SLACK = 1.0  # pixels that an outline may leave the image by: tools round
_FAR = 4  # an outline that leaves the image by more than so many times its longer side is no outline of it


def crop_of_segmentation(annotation: dict[str, Any], size: tuple[int, int]) -> Crop | str:
    """The annotation's mask, 0 x 0 if it covers no pixel; or what makes it unreadable.

    Polygons are drawn as pycocotools draws them; parts of fewer than three points have no area. An outline
    may also be one flat list, a list of points, or nested once more than COCO has it.

    Args:
      annotation: a row of a COCO file.
      size: height and width of the image.
    """
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and _are_numbers(box)):
        return "has a bbox that is not x, y, width, height"
    if box is not None and min(box[2:]) < 0:
        return f"has a bbox of negative width or height: {', '.join(f'{x:g}' for x in box)}"
    if annotation.get("iscrowd") not in (0, 1, None):
        return f"has iscrowd {annotation['iscrowd']!r}, which is neither 0 nor 1"
    if isinstance(segmentation, list):
        parts = _outlines(segmentation)
        if fault := _polygon_fault(parts, size):
            return fault
        drawn = [part for part in parts if len(part) >= 6]
        if not drawn:
            return Crop(0, 0, np.zeros((0, 0), bool))
        rle = coco.merge(coco.frPyObjects(drawn, *size))
    elif isinstance(segmentation, dict):
        if fault := _rle_fault(segmentation, size):
            return fault
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = coco.frPyObjects({"size": size, "counts": [int(n) for n in rle["counts"]]}, *size)
    else:
        return "has no segmentation: only boxes, perhaps, which are not enough for masks"
    crop, top, left = crop_of_rle(rle)
    return Crop(top, left, crop)


def oddities(annotation: dict[str, Any], size: tuple[int, int]) -> list[str]:
    """What is odd about a readable annotation: polygons without area, or outside of the image, as its box."""
    height, width = size
    found = []
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        parts = _outlines(segmentation)
        if flat := sum(len(part) < 6 for part in parts):
            found.append(f"has {flat} polygons of fewer than three points, which are left out")
        points = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
        low, high = points.min(axis=0), points.max(axis=0)
        if (low < -_SLACK).any() or (high > np.array([width, height]) + _SLACK).any():
            found.append(_leaves("polygon", (*low, *high), size))
    box = annotation.get("bbox")
    if box is not None:
        left, top, *sides = box
        corners = (left, top, left + sides[0], top + sides[1])
        if min(left, top) < -_SLACK or corners[2] > width + _SLACK or corners[3] > height + _SLACK:
            found.append(_leaves("box", corners, size))
    area = annotation.get("area")
    if area is not None and not is_area(area):
        found.append(f"has the area {str(area)[:20]!a}, which is none: that of its mask is taken")
    return found


def is_area(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= sys.float_info.max


def is_relative(annotation: dict[str, Any]) -> bool:
    """Whether a readable annotation's outlines lie between 0 and 1: shares of the sides, not pixels."""
    segmentation = annotation["segmentation"]
    return isinstance(segmentation, list) and all(
        0 <= x <= 1 for part in _outlines(segmentation) for x in part
    )


def _outlines(segmentation: list[Any]) -> list[Any]:
    """A list of x0, y0, x1, y1, ... for each outline, from any nesting; what is none is left as it is."""
    if segmentation and _is_list_of(segmentation, int | float):
        return [segmentation]
    if len(segmentation) > 1 and all(_is_list_of(point, int | float, 2) for point in segmentation):
        return [[x for point in segmentation for x in point]]
    if segmentation and all(_is_list_of(part, list) and part for part in segmentation):
        return [outline for part in segmentation for outline in _outlines(part)]
    return segmentation


def _is_list_of(value: Any, kind: Any, length: int | None = None) -> bool:
    right = isinstance(value, list) and all(isinstance(x, kind) for x in value)
    return right and (length is None or len(value) == length)


def _leaves(kind: str, corners: tuple[float, ...], size: tuple[int, int]) -> str:
    numbers = ", ".join(f"{corner:g}" for corner in corners)
    return f"its {kind} ({numbers}; x0, y0, x1, y1) leaves the image of {size[0]} x {size[1]} pixels"


def _polygon_fault(parts: list[Any], size: tuple[int, int]) -> str | None:
    if not any(parts):
        return "has an empty list of polygons: only a box, perhaps, which is not enough for a mask"
    for part in parts:
        if not isinstance(part, list) or len(part) % 2:
            return "has a polygon that is no list x0, y0, x1, y1, ..."
        if not _are_numbers(part):
            return "has a polygon with a coordinate that is no number"
        # pycocotools makes a point for each pixel of an outline, and would run out of memory.
        if any(abs(x) > (_FAR + 1) * max(size) for x in part):
            return f"has a polygon with the coordinate {max(part, key=abs):g}, far outside of the image"
    return None


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(x, int | float) and abs(x) <= sys.float_info.max for x in values)


def _rle_fault(rle: dict[str, Any], size: tuple[int, int]) -> str | None:
    if rle.get("size") != list(size):
        return f"has run lengths of size {rle.get('size')}, its image {list(size)} (height, width)"
    counts = rle.get("counts")
    if isinstance(counts, str) and counts and all("0" <= letter <= "o" for letter in counts):
        counts = run_lengths(counts).tolist() if ord(counts[-1]) - 48 < 32 else [-1]
    if not isinstance(counts, list) or not all(map(_is_length, counts)):
        return "has damaged run lengths"
    if sum(counts) != size[0] * size[1]:
        return f"has run lengths of {sum(counts)} pixels, its image {size[0] * size[1]}"
    return None


def _is_length(n: Any) -> bool:
    return isinstance(n, int | float) and n >= 0 and n == n // 1
