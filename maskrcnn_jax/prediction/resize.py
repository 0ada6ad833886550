"""Resizing before prediction, pixel for pixel as Detectron2 or torchvision. Training resizes in `data`."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from maskrcnn_jax.config import MaskRCNNConfig


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


def enlargement(config: MaskRCNNConfig, frame: tuple[int, int], zoom: float = 1.0) -> tuple[float, float]:
    """The factors by which an image of this height and width is resized before the model sees it."""
    rule = target_size_down if config.test_resize_method == "bilinear" else target_size
    target = rule(*frame, *config.test_resize) if config.test_resize else frame
    return tuple(zoom * config.test_zoom * new / old for new, old in zip(target, frame, strict=True))


def scaled(size: tuple[int, int], factors: tuple[float, float]) -> tuple[int, int]:
    """Height and width times their factors, in whole pixels."""
    return tuple(max(int(side * factor + 0.5), 1) for side, factor in zip(size, factors, strict=True))


def target_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """Height and width after ResizeShortestEdge; the order of the operations decides how halves round."""
    scale = short / min(height, width)
    sides = (short, scale * width) if height < width else (scale * height, short)
    if max(sides) > longest:
        shrink = longest / max(sides)
        sides = (sides[0] * shrink, sides[1] * shrink)
    return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)


def interpolate(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    """torchvision's resize: between four pixels at each new one's centre, neither filtered nor rounded."""
    image = image.astype(np.float32)
    for axis in (0, 1):
        image = _interpolate_axis(image, size[axis], axis)
    return image


def _interpolate_axis(image: np.ndarray, length: int, axis: int) -> np.ndarray:
    before = image.shape[axis]
    if before == length:
        return image
    points = (np.arange(length, dtype=np.float32) + 0.5) * np.float32(before / length) - 0.5
    points = np.clip(points, 0, before - 1)
    first = points.astype(np.int64)
    beyond = (points - first.astype(np.float32)).reshape((-1,) + (1,) * (image.ndim - 1 - axis))
    low, high = (image.take(i, axis=axis) for i in (first, np.minimum(first + 1, before - 1)))
    return low * (1 - beyond) + high * beyond


def target_size_down(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """torchvision's height and width: sides are rounded down."""
    scale = min(short / min(height, width), longest / max(height, width))
    return max(int(height * scale), 1), max(int(width * scale), 1)
