"""Pasting: predicted masks from their boxes into the image, as crops of it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Int32

from maskrcnn_jax.masks.crops import Crops, crops_of_runs, join

_CHUNK = 1 << 13  # rows of pixels that are interpolated at once, unless a mask has more

Runs = Int32[np.ndarray, "4 runs"]


def paste(
    masks: Float[np.ndarray, "D M M"],
    boxes: Float[np.ndarray, "D 4"],
    size: tuple[int, int],
    *,
    whole_pixels: bool = False,
) -> Crops:
    """The bitmasks that Detectron2's `paste_masks_in_image` gives at threshold 0.5.

    A mask is stretched over its box and sampled bilinearly at the pixels' centres, zero outside the
    mask. Along a row of pixels that is a straight line from each cell's centre to the next, so it passes one
    half at most once between them: where it does is computed, and no pixel.

    Args:
      masks: probabilities.
      boxes: XYXY pixels of the image. A box without area, or outside the image, gives an empty mask.
      size: height and width of the image.
      whole_pixels: torchvision's `paste_masks_in_image` in its place. A cell of zeros is put around the mask,
        and the box, grown by as much, cut down to whole pixels, of which the last is part of it.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    if whole_pixels:
        boxes = _whole_frames(boxes, masks.shape[2])
        masks = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    cells = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    first, end = _rows(boxes, size[0])
    ends = np.cumsum(end - first)
    # Some masks at a time: what is made of them stays in the cache, and asks for no new memory.
    starts = np.flatnonzero(np.diff(ends // _CHUNK, prepend=-1))
    parts = []
    for part in map(slice, starts, [*starts[1:], len(boxes)]):
        count = len(ends[part])
        owner = np.repeat(np.arange(count, dtype=np.int32), end[part] - first[part])
        # The rows of a mask go on where those of the one before end.
        row = np.arange(len(owner)) + (end[part] - np.cumsum(end[part] - first[part])).take(owner)
        parts.append(crops_of_runs(*_runs(cells[part], boxes[part], owner, row, size[1]), count))
    return join(parts)


def _whole_frames(boxes: Float[np.ndarray, "D 4"], cells: int) -> Float[np.ndarray, "D 4"]:
    """Boxes with a cell more at each side, from whole pixels to whole pixels, in torchvision's order."""
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * ((cells + 2) / cells)
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return np.concatenate([np.trunc(centre - half), np.trunc(centre + half) + 1], axis=1)


def _rows(boxes: Float[np.ndarray, "D 4"], height: int) -> tuple[Int[np.ndarray, "D"], Int[np.ndarray, "D"]]:
    """First row and end of the pixels that each box touches."""
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & np.isfinite(boxes).all(axis=1)
    sides = np.floor(boxes[:, 1]), np.ceil(boxes[:, 3])
    first, end = (np.where(solid, np.clip(side, 0, height), 0).astype(np.int64) for side in sides)
    return first, end


def _runs(
    cells: Float[np.ndarray, "D M+2 M+2"],
    boxes: Float[np.ndarray, "D 4"],
    owner: Int[np.ndarray, "R"],
    row: Int[np.ndarray, "R"],
    width: int,
) -> Runs:
    """Mask, row, first column and end of each run of pixels, in some rows of pixels."""
    count = cells.shape[1] - 2
    low, high = boxes[:, 1].take(owner), boxes[:, 3].take(owner)
    # In Detectron2's order: coordinates over -1..1, then in cells with their centres on whole numbers.
    centre = row.astype(np.float32) + np.float32(0.5)
    position = (((centre - low) / (high - low) * 2 - 1 + 1) * count - 1) / 2
    position = np.clip(position, -1, count)
    cell = np.minimum(np.floor(position), count - 1)
    upper, lower = (1 - np.abs(position - near)[:, None] for near in (cell, cell + 1))
    lines, line = cells.reshape(-1, count + 2), owner * (count + 2) + cell.astype(np.int64) + 1
    values = lines.take(line, axis=0)
    values *= upper
    values += lower * lines.take(line + 1, axis=0)
    # All rows begin and end outside, so that they may lie end to end: it rises and falls in turn.
    values = values.ravel()
    inside = values >= 0.5
    place = np.flatnonzero(inside[1:] != inside[:-1])
    where, gap = np.divmod(place, count + 2)
    left, right = (values.take(place + n).astype(np.float64) for n in (0, 1))
    x0 = boxes[:, 0].astype(np.float64)
    cell_width = (boxes[:, 2] - x0) / count
    column = gap - 0.5
    column += (0.5 - left) / (right - left)
    column *= cell_width.take(owner).take(where)
    column += x0.take(owner).take(where)
    column -= 0.5
    # A pixel at one half is inside.
    start = np.clip(np.ceil(column[::2]), 0, width).astype(np.int32)
    end = np.clip(np.floor(column[1::2]) + 1, 0, width).astype(np.int32)
    seen = start < end
    where = where[::2][seen]
    return np.stack([owner.take(where), row.take(where), start[seen], end[seen]])
