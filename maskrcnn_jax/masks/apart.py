"""Masks that share no pixel, as a label image needs them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from maskrcnn_jax.masks.crops import Crops, crops_of_pixels, join
from maskrcnn_jax.masks.overlaps import overlapping, shared_pixels

# Of an object of which less is left than this, there is a rim along another's outline: neither its shape nor
# its colour says anything of it, but whoever counts labels would count it.
_LEAST = 0.2


def apart(crops: Crops) -> Crops:
    """Each pixel goes to the first of the masks that hold it, the better in a result, and no slivers stay.

    Of a mask that lost pixels only the largest piece is left (pixels hang together by their sides), and
    nothing where that is less than a fifth of the mask. What it gives up so is free for the next.
    """
    pairs = overlapping(crops.rectangles)
    pairs = pairs[shared_pixels(crops, pairs) > 0]
    rivals: dict[int, list[int]] = {}
    for better, worse in pairs[np.argsort(pairs[:, 0], kind="stable")].tolist():
        rivals.setdefault(worse, []).append(better)
    left: dict[int, Bool[np.ndarray, "h w"]] = {}
    for n in sorted(rivals):
        pixels = crops.pixels(n)
        for better in rivals[n]:
            _take_away(pixels, crops, n, better, left)
        left[n] = pixels if pixels.sum() == crops.areas[n] else _piece(pixels, crops.areas[n])
    if not left:
        return crops
    rows = sorted(left)
    new = crops_of_pixels([left[n] for n in rows], crops.rectangles[rows, :2].tolist())
    place = np.arange(len(crops))
    place[rows] = len(crops) + np.arange(len(rows))
    return join([crops, new]).take(place)


def _take_away(
    pixels: Bool[np.ndarray, "h w"],
    crops: Crops,
    n: int,
    better: int,
    left: dict[int, Bool[np.ndarray, "h w"]],
) -> None:
    """Clears the pixels of mask n that a better one still has."""
    own, other = crops.rectangles[[n, better]]
    low, high = np.maximum(own[:2], other[:2]), np.minimum(own[2:], other[2:])
    here, there = (
        tuple(slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        for corner in (own[:2], other[:2])
    )
    pixels[here] &= ~(left[better] if better in left else crops.pixels(better))[there]


def _piece(pixels: Bool[np.ndarray, "h w"], area: int) -> Bool[np.ndarray, "h w"]:
    """The largest piece, the first of several; nothing where it is too small a part of the mask."""
    from scipy import ndimage  # late: a result without masks that overlap needs none of it

    pieces, count = ndimage.label(pixels)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    if not count or sizes.max() < _LEAST * area:
        return np.zeros_like(pixels)
    return pieces == 1 + sizes.argmax()
