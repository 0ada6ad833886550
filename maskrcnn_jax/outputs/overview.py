"""Overlays of images that may be larger than memory: what is too large for a picture is drawn smaller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.colours import PALETTE, neighbour_colors
from maskrcnn_jax.outputs.overlay import draw_overlay, outline

_MAX_SIDE = 4000  # of an overview, in pixels
_READ = 2048  # Slides are read in squares of about so many pixels.


def overview_factor(size: tuple[int, int]) -> int:
    """By which whole factor the overview of an image of this height and width is smaller; 1 up to 4000."""
    return -(-max(size) // _MAX_SIDE)


def draw_overview(
    source: ImageSource, result: Result, *, classes: Sequence[str] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """The outlines of all objects; where they overlap, the better on top.

    An image of more than 4000 pixels a side is shown `overview_factor` times smaller, the average of each
    square of pixels, with an object wherever it has a pixel in the square; no more than a part of it is in
    memory. A smaller one is drawn as by `draw_overlay`.

    Args:
      source: the image.
      result: its objects.
      classes: name of each class, if they shall be told by their colours: a bar below the picture says
        which is which. By default neighbours have different colours.
    """
    factor = overview_factor(source.size)
    colors = None if classes is None else result.classes.tolist()
    if factor == 1:
        picture = draw_overlay(source.read(0, 0, *source.size), result.masks, colors=colors)
    else:
        picture = _draw_smaller(_reduced(source, factor), result, colors, factor)
    return picture if classes is None else np.concatenate([picture, _legend(picture, result, classes)])


def _reduced(source: ImageSource, factor: int) -> UInt8[np.ndarray, "h w 3"]:
    height, width = source.size
    picture = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    step = _READ // factor * factor or factor
    for top in range(0, height, step):
        for left in range(0, width, step):
            pixels = source.read(top, left, min(step, height - top), min(step, width - left))
            part = np.asarray(Image.fromarray(pixels).reduce(factor))
            picture[top // factor :, left // factor :][: part.shape[0], : part.shape[1]] = part
    return picture


def _draw_smaller(
    picture: UInt8[np.ndarray, "h w 3"], result: Result, colors: Sequence[int] | None, factor: int
) -> UInt8[np.ndarray, "h w 3"]:
    crops = result.crops
    colors = neighbour_colors(crops.rectangles) if colors is None else colors
    hues = PALETTE[np.asarray(colors, int) % len(PALETTE)]
    for d in reversed(range(len(result))):
        top, left = crops.rectangles[d, :2].tolist()
        line = outline(_any_of_squares(crops.pixels(d), top, left, factor))
        picture[top // factor :, left // factor :][: line.shape[0], : line.shape[1]][line] = hues[d]
    return picture


def _any_of_squares(
    mask: Bool[np.ndarray, "h w"], top: int, left: int, factor: int
) -> Bool[np.ndarray, "rows columns"]:
    """Which squares of the image's grid hold a pixel of a mask that starts at row `top`, column `left`."""
    for axis, start in enumerate((top, left)):
        starts = np.arange(-(start % factor), mask.shape[axis], factor)
        mask = np.logical_or.reduceat(mask, np.maximum(starts, 0), axis=axis) if len(starts) else mask
    return mask


def _legend(
    picture: UInt8[np.ndarray, "h w 3"], result: Result, classes: Sequence[str]
) -> UInt8[np.ndarray, "bar w 3"]:
    """Each class in its colour, with its number of objects, in as many lines as it takes."""
    width = picture.shape[1]
    size = max(12, min(28, width // 40))
    font = ImageFont.load_default(size)
    places, x, line = [], size, 0
    for k, name in enumerate(classes):
        text = f"{name}: {np.count_nonzero(result.classes == k):,}"
        length = font.getlength(text)
        if x > size and x + length > width - size:
            x, line = size, line + 1
        places.append((x, line, text))
        x += length + 2 * size
    bar = Image.new("RGB", (width, 2 * size * (line + 1)), "black")
    pen = ImageDraw.Draw(bar)
    for k, (x, line, text) in enumerate(places):
        hue = tuple(PALETTE[k % len(PALETTE)].tolist())
        pen.text((x, (2 * line + 1) * size), text, fill=hue, font=font, anchor="lm")
    return np.asarray(bar)
