"""Brings grey images, which microscopes fill to very different degrees, to one range."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int, Shaped, UInt8

LOW, HIGH = 0.01, 0.998  # shares of the pixels that become 0 and 255, beyond them all the others
COLOURLESS = 3  # levels between channels; JPEG moves those of a grey image apart by a few
# By bytes of a level. The noise of an empty image is not blown up to a picture. Most images of 16 bits hold a
# camera's 12, of which the second is the same share as the first is of 8.
LEAST_SPAN = {1: 16, 2: 256}


def is_grey(image: Shaped[np.ndarray, "H W *C"]) -> bool:
    """Whether the channels but alpha say the same."""
    if image.ndim == 2 or image.shape[2] == 1:
        return True
    red, green, blue = (image[..., channel].astype(np.int32) for channel in range(3))
    return max(np.abs(red - green).max(initial=0), np.abs(green - blue).max(initial=0)) <= COLOURLESS


def stretch_grey(image: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "H W *C"]:
    """Stretches an image without colour so that its 1 and 99.8 percentiles become 0 and 255, in 8 bits.

    An image with colour is returned as it is.

    Args:
      image: levels of 8 or 16 bits: grey, RGB or RGBA.
    """
    table = grey_table([image])
    return image if table is None else table[image]


def grey_table(parts: Iterable[Shaped[np.ndarray, "h w *C"]]) -> UInt8[np.ndarray, "levels"] | None:
    """What `stretch_grey` makes of each level of an image that is seen in parts; None if one has colour."""
    counts = np.zeros(1, np.int64)
    for part in parts:
        if not is_grey(part):
            return None
        green = part if part.ndim == 2 else part[..., min(1, part.shape[2] - 1)]
        counts = counts + np.bincount(green.ravel(), minlength=np.iinfo(part.dtype).max + 1)
    counts = counts.cumsum()
    low, high = np.searchsorted(counts, [LOW * counts[-1], HIGH * counts[-1]])
    span = max(high - low, LEAST_SPAN[part.dtype.itemsize])
    return stretched(np.arange(len(counts)) - low, span)


def stretched(levels: Int[np.ndarray, "*levels"], span: int) -> UInt8[np.ndarray, "*levels"]:
    """What levels, counted from the one that becomes 0, become where the one at `span` becomes 255."""
    return np.clip(np.rint(levels * (255 / span)), 0, 255).astype(np.uint8)
