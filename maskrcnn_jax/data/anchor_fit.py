"""How well boxes can be matched by anchors, without making all the anchors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from maskrcnn_jax.config import MaskRCNNConfig


class AnchorGrid(NamedTuple):
    """The anchors of one level: `shapes` (A, 2) are widths and heights, centred in each cell of `stride`."""

    stride: int
    offset: float
    shapes: Float[np.ndarray, "A 2"]


def anchor_grids(config: MaskRCNNConfig) -> list[AnchorGrid]:
    """The anchors that a model's RPN has."""
    ratios = np.array(config.rpn.anchor_ratios)
    grids = []
    for stride, sizes in zip(config.levels, config.rpn.anchor_sizes, strict=True):
        widths = np.array(sizes)[:, None] / np.sqrt(ratios)
        shapes = np.stack([widths, widths * ratios], axis=2).reshape(-1, 2)
        grids.append(AnchorGrid(stride, config.rpn.anchor_offset, shapes))
    return grids


def best_anchor_iou(
    boxes: Float[np.ndarray, "N 4"], size: tuple[int, int], grids: list[AnchorGrid]
) -> Float[np.ndarray, "N"]:
    """The IoU of each box with the anchor that fits it best.

    Of the anchors of one shape, the one whose centre is nearest overlaps most, in x and in y alone.

    Args:
      boxes: XYXY in pixels.
      size: height and width of their image; anchors stand in the cells that cover it.
      grids: the anchors.
    """
    boxes = boxes.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    best = np.zeros(len(boxes))
    for stride, offset, shapes in grids:
        cells = np.ceil(np.array(size[::-1]) / stride) - 1
        nearest = np.clip(np.round(centres / stride - offset), 0, cells)
        distance = np.abs((nearest + offset) * stride - centres)
        for shape in shapes:
            reach = (sides + shape) / 2 - distance
            overlap = np.clip(np.minimum(reach, np.minimum(sides, shape)), 0, None).prod(axis=1)
            best = np.maximum(best, overlap / (sides.prod(axis=1) + shape.prod() - overlap))
    return best
