"""Brings grey images, which microscopes fill to very different degrees, to one range."""

import numpy as np
from jaxtyping import UInt8

LOW, HIGH = 0.01, 0.998  # shares of the pixels that become 0 and 255, beyond them all the others
_COLOURLESS = 3  # levels between channels; JPEG moves those of a grey image apart by a few
_LEAST_SPAN = 16  # levels; the noise of an empty image is not blown up to a picture


def is_grey(image: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether the three channels say the same."""
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    return max(np.abs(red - green).max(initial=0), np.abs(green - blue).max(initial=0)) <= _COLOURLESS


def stretch_grey(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Stretches an image without colour so that its 1 and 99.8 percentiles become 0 and 255.

    An image with colour is returned as it is.
    """
    if not is_grey(image):
        return image
    counts = np.bincount(image[..., 1].ravel(), minlength=256).cumsum()
    low, high = np.searchsorted(counts, [LOW * counts[-1], HIGH * counts[-1]])
    span = max(high - low, _LEAST_SPAN)
    table = np.clip(np.rint((np.arange(256) - low) * (255 / span)), 0, 255).astype(np.uint8)
    return table[image]
