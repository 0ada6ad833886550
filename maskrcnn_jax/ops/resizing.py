"""Resizing on the device, number for number as on the host: Pillow's bilinear filter, torchvision's resize.

Pillow filters rows, then columns, with whole numbers: each pass sums pixels times weights of 22 fractional
bits and rounds to 8 bits. So whole numbers give the same pixels, whatever the order of the sums. Where the
height shrinks much more than the width, Pillow 13 takes columns first, which moves pixels by a level.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

_FRACTION_BITS = 22


class AxisTaps(NamedTuple):
    """What each pixel of a resized axis is made of: pixels of the old one, and their weights times 2^22."""

    pixels: Int[np.ndarray, "new T"]
    weights: Int[np.ndarray, "new T"]


def resize(image: UInt8[Array, "H W C"], size: tuple[int, int]) -> UInt8[Array, "h w C"]:
    """The image at another height and width, filtered where it shrinks.

    Pillow's pixels where both sides are resized by about the same factor.
    """
    for axis in (1, 0):  # Pillow's order, which the rounding between the passes makes visible
        if image.shape[axis] != size[axis]:
            image = _resize_axis(image, axis, axis_taps(image.shape[axis], size[axis]))
    return image


def interpolate(image: UInt8[Array, "H W C"], size: tuple[int, int]) -> Float[Array, "h w C"]:
    """torchvision's resize: between four pixels at each new one's centre, neither filtered nor rounded."""
    image = image.astype(jnp.float32)
    for axis in (0, 1):
        if image.shape[axis] != size[axis]:
            image = _interpolate_axis(image, axis, size[axis])
    return image


def _interpolate_axis(image, axis: int, length: int):
    before = image.shape[axis]
    points = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(before / length)
    points = np.clip(points - np.float32(0.5), 0, before - 1)
    first = points.astype(np.int32)
    beyond = np.expand_dims(points - first.astype(np.float32), tuple({0, 1, 2} - {axis}))
    low, high = (jnp.take(image, i, axis=axis) for i in (first, np.minimum(first + 1, before - 1)))
    return low * (1 - beyond) + high * beyond


def _resize_axis(image, axis: int, taps: AxisTaps):
    total = jnp.int32(1 << (_FRACTION_BITS - 1))  # a half
    for pixels, weights in zip(taps.pixels.T, taps.weights.T, strict=True):
        part = jnp.take(image, pixels, axis=axis).astype(jnp.int32)
        total = total + part * np.expand_dims(weights, tuple({0, 1, 2} - {axis}))
    whole = jax.lax.div(total, jnp.full_like(total, 1 << _FRACTION_BITS))
    return jnp.minimum(whole, 255).astype(jnp.uint8)


def axis_taps(old: int, new: int) -> AxisTaps:
    """The triangle filter's taps; it reaches one old pixel to each side, or one new pixel if that is more."""
    scale = old / new
    reach = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + reach + 0.5).astype(np.int64), old)
    pixels = first[:, None] + np.arange((end - first).max())
    distance = np.abs(pixels - centres[:, None] + 0.5) * (1.0 / reach)
    weights = np.where(pixels < end[:, None], np.maximum(1.0 - distance, 0.0), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    whole = np.floor(weights * (1 << _FRACTION_BITS) + 0.5).astype(np.int32)
    return AxisTaps(np.minimum(pixels, old - 1).astype(np.int32), whole)
