"""How far labels lie beside what the images show: some sets' outlines are a fraction of a pixel off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from maskrcnn_jax.data.records import Record

_FINE, _COARSE = 1.0, 12.0  # deviations of the Gaussians between which an object's outline shows, in pixels
_REACH = 8  # pixels; labels that lie farther off are no outlines of what is there
_FRAME = 16  # pixels along the border, where Gaussians know only half of their surroundings
_INNER = np.s_[_FRAME:-_FRAME, _FRAME:-_FRAME]
_LEAST_CORRELATION = 0.25  # below, the image shows something else than its labels say
_LARGEST = 2048  # of larger images a window in the middle is enough
_LEAST_IMAGES = 5
_LEAST_SHIFT = 0.25  # pixels
_ERRORS = 4  # a shift of so many standard errors is no chance


class Shift(NamedTuple):
    """Where labels lie beside what the images show.

    Attributes:
      down, right: medians over the images, in pixels; negative is above and to the left.
      error: the larger one of their standard errors, in pixels.
      images: how many were measured.
    """

    down: float
    right: float
    error: float
    images: int


def measure_shift(record: Record) -> tuple[float, float] | None:
    """Where the labels of one image lie beside what it shows: pixels down and to the right.

    The foreground is correlated with the image, both without what is finer or coarser than outlines are;
    a parabola through the best whole shift and its neighbours gives the fraction.

    Returns:
      None where the image does not show what its labels say, or there is nothing to compare.
    """
    window = tuple(slice(max(side - _LARGEST, 0) // 2, (side + _LARGEST + 1) // 2) for side in record.size)
    foreground = (record.layers[:, *window] > 0).any(axis=0)
    if min(foreground.shape) < 4 * _FRAME or foreground.all() or not foreground.any():
        return None
    # Without a frame the labels meet all of their surroundings at each shift, and none from the other side.
    labels = np.pad(_outlines(foreground)[_INNER], _FRAME)
    picture = _outlines(_presence(record.image[window], foreground))
    scale = np.sqrt((labels**2).sum() * (picture[_INNER] ** 2).sum())
    spectrum = np.fft.rfft2(labels) * np.conj(np.fft.rfft2(picture))
    around = np.roll(np.fft.irfft2(spectrum, foreground.shape), (_REACH, _REACH), (0, 1))
    around = around[: 2 * _REACH + 1, : 2 * _REACH + 1]
    row, column = np.unravel_index(around.argmax(), around.shape)
    if not 0 < row < 2 * _REACH or not 0 < column < 2 * _REACH:
        return None
    if around[row, column] < _LEAST_CORRELATION * scale:
        return None
    down = row - _REACH + _vertex(around[row - 1 : row + 2, column])
    right = column - _REACH + _vertex(around[row, column - 1 : column + 2])
    return float(down), float(right)


def common_shift(shifts: list[tuple[float, float]]) -> Shift | None:
    """The median of single images' shifts, if it is more than chance and more than a quarter of a pixel."""
    if len(shifts) < _LEAST_IMAGES:
        return None
    middle = np.median(shifts, axis=0)
    # Of a normal distribution's median, its deviation from the median of the distances.
    deviation = 1.4826 * np.median(np.abs(shifts - middle), axis=0)
    error = float(1.2533 * deviation.max() / np.sqrt(len(shifts)))
    if np.hypot(*middle) < max(_LEAST_SHIFT, _ERRORS * error):
        return None
    return Shift(float(middle[0]), float(middle[1]), error, len(shifts))


def _presence(
    image: UInt8[np.ndarray, "H W 3"], foreground: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W"]:
    """How much of an object each pixel shows: stain takes red light, and fluorescence gives some light."""
    red = image[..., 0].astype(np.float64)
    if red[foreground].mean() < red[~foreground].mean():
        return 255 - red
    return image.max(axis=2).astype(np.float64)


def _outlines(values: np.ndarray) -> Float[np.ndarray, "H W"]:
    """Without mean, noise and slow changes."""
    values = values.astype(np.float64)
    band = ndimage.gaussian_filter(values, _FINE) - ndimage.gaussian_filter(values, _COARSE)
    return band - band.mean()


def _vertex(values: Float[np.ndarray, "3"]) -> float:
    """Where a parabola through values at -1, 0 and 1 has its top."""
    before, top, after = values
    return 0.5 * (before - after) / (before - 2 * top + after)
