"""Whatever images people have, grey or colour, 8 or 16 bits, as the RGB that the model reads."""

import numpy as np
from jaxtyping import Shaped, UInt8


def fault_of(image: object) -> str | None:
    """Why `as_rgb` would not take this image; None if it does."""
    if not isinstance(image, np.ndarray):
        return f"expected a NumPy array, found {type(image).__name__}"
    if image.dtype not in (np.uint8, np.uint16):
        return f"expected uint8 or uint16 pixels, found {image.dtype}: scale them to 0..255 and convert"
    channels = image.shape[2:]
    if image.ndim not in (2, 3) or channels not in ((), (1,), (3,), (4,)):
        return f"expected (H, W) or (H, W, C) with C = 1, 3 or 4, found {image.shape}"
    return "it has no pixels" if image.size == 0 else None


def as_rgb(image: Shaped[np.ndarray, "H W *C"]) -> UInt8[np.ndarray, "H W 3"]:
    """Grey is spread over the channels, alpha dropped, and 16 bits keep their high byte, as in training."""
    return as_colours(high_byte(image))


def high_byte(levels: Shaped[np.ndarray, "*S"]) -> UInt8[np.ndarray, "*S"]:
    """Levels of 16 bits as 8; those of 8 as they are."""
    return (levels >> 8).astype(np.uint8) if levels.dtype == np.uint16 else levels


def as_colours(image: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "H W 3"]:
    """Grey is spread over the channels, and alpha dropped."""
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
