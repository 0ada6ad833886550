"""Resizing before prediction, pixel for pixel as Detectron2 does it. Training resizes in `data`."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resize_shortest_edge(
    image: UInt8[np.ndarray, "H W 3"], short: int, longest: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Detectron2's ResizeShortestEdge: keeps the aspect ratio, filters when it shrinks.

    Args:
      image: any channel order.
      short: pixels of the shorter side of the result.
      longest: where the longer side would pass this, it gets this many pixels instead.
    """
    return resize(image, target_size(*image.shape[:2], short, longest))


def resize(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """The image at another height and width; the same array if it has them already."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def target_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """Height and width after ResizeShortestEdge; the order of the operations decides how halves round."""
    scale = short / min(height, width)
    sides = (short, scale * width) if height < width else (scale * height, short)
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = (sides[0] * shrink, sides[1] * shrink)
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)
