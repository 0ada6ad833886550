"""Which windows of an image stand for all of it."""

import numpy as np

_ALL = 1 << 26  # pixels; of larger images squares stand for the rest
_SQUARE, _SQUARES = 512, 16  # their side in pixels, and how many along each side of the image
_BAND = 1 << 22  # pixels that are looked at at once

Window = tuple[int, int, int, int]


def sample_windows(
    size: tuple[int, int], *, squares: int | None = None, side: int | None = None, most: int | None = None
) -> list[Window]:
    """First row, first column, height and width of each.

    They are bands of the whole image from top to bottom, or squares all over a large one.

    Args:
      size: of the image.
      squares, side: how many along each side of the image (16), and of how many pixels (512).
      most: pixels of an image that is seen whole (2**26).
    """
    height, width = size
    squares, side = squares or _SQUARES, side or _SQUARE
    if height * width <= (_ALL if most is None else most):
        rows = max(_BAND // width, 1)
        return [(top, 0, min(rows, height - top), width) for top in range(0, height, rows)]
    parts = [min(side, length) for length in size]
    tops, lefts = (
        sorted({round(start) for start in np.linspace(0, length - part, squares)})
        for length, part in zip(size, parts, strict=True)
    )
    return [(top, left, *parts) for top in tops for left in lefts]
