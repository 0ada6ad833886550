"""From a file's values to 0..255: by their type, or where a type has no range, by the image's percentiles."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from maskrcnn_jax.images.intensity import HIGH, LOW
from maskrcnn_jax.images.pixels import high_byte
from maskrcnn_jax.images.windows import sample_windows

_ENDS = (100 * LOW, 100 * HIGH)  # percentiles that become 0 and 255


def has_range(dtype: np.dtype) -> bool:
    """Whether values of a type mean a brightness by themselves: unsigned ones of 8 and 16 bits, and bool."""
    return dtype in (np.bool_, np.uint8, np.uint16)


def percentiles(values: Shaped[np.ndarray, "h w *C"], *, together: bool) -> Float[np.ndarray, "C 2"]:
    """The values that become 0 and 255, of each channel or of all together; NaN and infinity do not count."""
    channels = values.reshape(values.shape[0] * values.shape[1], -1)
    channels = channels.reshape(-1, 1) if together else channels
    finite = [channel[np.isfinite(channel)].astype(np.float64) for channel in channels.T]
    return np.array([np.percentile(channel, _ENDS) if channel.size else (0, 0) for channel in finite])


@dataclass(frozen=True)
class Levels:
    """How values become levels.

    Attributes:
      bits: of a value, if its type has a range.
      ends: what becomes 0 and 255, a row a channel or one for all, if it has none.
      inverted: whether 0 is white.
    """

    bits: int = 8
    ends: Float[np.ndarray, "C 2"] | None = None
    inverted: bool = False

    def __call__(self, values: Shaped[np.ndarray, "h w *C"]) -> UInt8[np.ndarray, "h w *C"]:
        return high_byte(self.deep(values))

    def deep(self, values: Shaped[np.ndarray, "h w *C"]) -> Shaped[np.ndarray, "h w *C"]:
        """Levels of 16 bits where the values have more than 8, or else of 8."""
        levels = self._of_range(values) if self.ends is None else self._between(values)
        return np.iinfo(levels.dtype).max - levels if self.inverted else levels

    def _of_range(self, values: Shaped[np.ndarray, "h w *C"]) -> Shaped[np.ndarray, "h w *C"]:
        """8 and 16 bits as they are, others spread."""
        if values.dtype == np.bool_:
            return values.astype(np.uint8) * 255
        most = (1 << self.bits) - 1
        if self.bits > 8:
            return np.minimum(values, most).astype(np.uint16) << (16 - self.bits)
        return (np.minimum(values, most).astype(np.uint16) * 255 // most).astype(np.uint8)

    def _between(self, values: Shaped[np.ndarray, "h w *C"]) -> UInt8[np.ndarray, "h w *C"]:
        low, high = self.ends.T if values.ndim == 3 else self.ends[0]
        span = np.where(high > low, high - low, np.inf)
        with np.errstate(over="ignore", invalid="ignore"):  # of infinite values
            levels = (values.astype(np.float64) - low) * (255 / span)
        return np.rint(np.clip(np.nan_to_num(levels, nan=0, posinf=255, neginf=0), 0, 255)).astype(np.uint8)


def levels_of(dtype: np.dtype, view: Any, *, bits: int = 0, inverted: bool = False) -> Levels:
    """How the values of an image become levels: by their type, or by percentiles of windows all over it.

    Args:
      dtype: of the values.
      view: the image, a `choice.View`.
      bits: of a value, if not all of its type.
      inverted: whether 0 is white.
    """
    if has_range(dtype):
        return Levels(bits=bits or 8 * dtype.itemsize, inverted=inverted)
    tell_once(dtype)
    values = np.concatenate([view.read(*window) for window in sample_windows(view.size)])
    return Levels(ends=percentiles(values, together=view.colour), inverted=inverted)


@functools.cache
def tell_once(dtype: np.dtype) -> None:
    """Says on the log what is done to values without range, once a process for each type."""
    logging.getLogger("maskrcnn_jax").warning(
        "images of %s: the type has no range, so of each image (and channel) the %g percentile becomes black "
        "and the %g percentile white, in training as in prediction",
        dtype, *_ENDS,
    )  # fmt: skip
