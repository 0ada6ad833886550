"""Pasting: predicted masks from their boxes into the image, as crops of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from maskrcnn_jax.masks.crops import Crops, join, pack

# Masks are pasted together whose sides round up to the same multiple of so many pixels (of large ones, of a
# quarter of the power of two below), and so many pixels at a time, which fit into a core's cache.
_STEP, _CHUNK = 8, 1 << 18


def paste(masks: Float[np.ndarray, "D M M"], boxes: Float[np.ndarray, "D 4"], size: tuple[int, int]) -> Crops:
    """The bitmasks that Detectron2's `paste_masks_in_image` gives at threshold 0.5.

    A mask is stretched over its box and sampled bilinearly at the pixels' centres, zero outside the
    mask. Only the pixels of the box are ever computed: outside it no sample reaches one half.

    Args:
      masks: probabilities.
      boxes: XYXY pixels of the image. A box without area, or outside the image, gives an empty mask.
      size: height and width of the image.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    windows = _windows(boxes, size)
    parts, order = [], [np.zeros(0, np.int64)]
    for rows in _alike(windows[:, 2:] - windows[:, :2]):
        parts.append(_paste(masks[rows], boxes[rows], windows[rows]))
        order.append(rows)
    return join(parts).take(np.argsort(np.concatenate(order)))


def _windows(boxes: Float[np.ndarray, "D 4"], size: tuple[int, int]) -> Int[np.ndarray, "D 4"]:
    """First row, first column, end row and end column of the pixels that each box touches."""
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    low, high = np.floor(boxes[:, 1::-1]), np.ceil(boxes[:, :1:-1])
    windows = np.concatenate([np.clip(low, 0, size), np.clip(high, 0, size)], axis=1)
    return np.where(solid[:, None], windows, 0).astype(np.int64)


def _alike(sides: Int[np.ndarray, "D 2"]) -> Iterator[Int[np.ndarray, "rows"]]:
    """Rows of similar sides, not too many at a time."""
    step = np.maximum(_STEP, 2 ** np.frexp(sides)[1] // 8)
    height, width = (-(-sides // step) * step).T
    shape = height * (width.max(initial=0) + 1) + width
    order = np.argsort(shape, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(shape[order])) + 1) if len(order) else ():
        count = max(1, _CHUNK // max(1, int(height[rows[0]] * width[rows[0]])))
        yield from (rows[start : start + count] for start in range(0, len(rows), count))


def _paste(
    masks: Float[np.ndarray, "D M M"], boxes: Float[np.ndarray, "D 4"], windows: Int[np.ndarray, "D 4"]
) -> Crops:
    x0, y0, x1, y1 = boxes.T
    top, left, bottom, right = windows.T
    rows = _bilinear_weights(y0, y1, top, bottom, masks.shape[1])
    columns = _bilinear_weights(x0, x1, left, right, masks.shape[2])
    return pack(rows @ masks @ columns.swapaxes(1, 2) >= 0.5, windows[:, :2])


def _bilinear_weights(
    low: Float[np.ndarray, "D"],
    high: Float[np.ndarray, "D"],
    first: Int[np.ndarray, "D"],
    end: Int[np.ndarray, "D"],
    cells: int,
) -> Float[np.ndarray, "D S M"]:
    """What pixels from `first` on weigh the cells of masks that span `low` to `high`; 0 from `end` on."""
    pixels = first[:, None] + np.arange((end - first).max())
    centres = pixels.astype(np.float32) + np.float32(0.5)
    low, high = low[:, None], high[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area, whose windows are empty
        # In Detectron2's order: coordinates over -1..1, then in cells with their centres on whole numbers.
        position = (((centres - low) / (high - low) * 2 - 1 + 1) * cells - 1) / 2
    weights = np.maximum(1 - np.abs(position[..., None] - np.arange(cells, dtype=np.float32)), 0)
    weights[pixels >= end[:, None]] = 0
    return weights
