"""Pasting: predicted masks from their boxes into the image, straight to run-length encodings."""

import numpy as np
from jaxtyping import Float

from maskrcnn_jax.masks.rle import RLE, rle_of_crop


def paste_rle(
    masks: Float[np.ndarray, "D M M"], boxes: Float[np.ndarray, "D 4"], size: tuple[int, int]
) -> list[RLE]:
    """The bitmasks that Detectron2's `paste_masks_in_image` gives at threshold 0.5, encoded.

    A mask is stretched over its box and sampled bilinearly at the pixels' centres, zero outside the
    mask. Only the pixels of the box are ever computed: outside it no sample reaches one half.

    Args:
      masks: probabilities.
      boxes: XYXY pixels of the image. A box without area, or outside the image, gives an empty mask.
      size: height and width of the image.

    Returns:
      Compressed COCO run-length encodings, one for each mask.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    return [_paste(mask, box, size) for mask, box in zip(masks, boxes, strict=True)]


def _paste(mask: Float[np.ndarray, "M M"], box: Float[np.ndarray, "4"], size: tuple[int, int]) -> RLE:
    x0, y0, x1, y1 = box
    left, columns = _bilinear_weights(x0, x1, size[1], mask.shape[1])
    top, rows = _bilinear_weights(y0, y1, size[0], mask.shape[0])
    # Transposed, since run lengths are read column by column.
    inside = columns @ (rows @ mask).T >= 0.5
    return rle_of_crop(inside.T, top, left, size)


def _bilinear_weights(
    low: np.float32, high: np.float32, pixels: int, cells: int
) -> tuple[int, Float[np.ndarray, "S M"]]:
    """The first pixel of a box's side in the image, and the weights that its pixels give the mask's cells."""
    if not high > low:
        return 0, np.zeros((0, cells), np.float32)
    first, end = (int(side) for side in np.clip([np.floor(low), np.ceil(high)], 0, pixels))
    centres = np.arange(first, end, dtype=np.float32) + np.float32(0.5)
    # In Detectron2's order: coordinates over -1..1, then in cells with their centres on whole numbers.
    position = (((centres - low) / (high - low) * 2 - 1 + 1) * cells - 1) / 2
    return first, np.maximum(1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32)), 0)
