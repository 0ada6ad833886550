"""A window of an image, moved, turned, mirrored and scaled at once: pixels are resampled only once."""

from __future__ import annotations

import math

import tensorflow as tf
from jaxtyping import Float32

from maskrcnn_jax.data.colour import Image, Layers, Seed, to_uint8
from maskrcnn_jax.data.motion import Motion, linear
from maskrcnn_jax.data.selection import copied, like

Signed = float  # an argument that may be negative


def random_affine(
    image: Image,
    layers: Layers,
    seed: Seed,
    *,
    size: int,
    smallest: float,
    largest: float,
    degrees: float,
    offset_x: Signed,
    offset_y: Signed,
) -> tuple[Image, Layers, Motion]:
    """Shows a square window of an image, `size` pixels wide, under a random similarity.

    The scale lies between `smallest` and `largest`, halving as likely as doubling; the angle within
    +- `degrees`; half of the windows are mirrored. The window's middle is drawn so that, unturned, it stays
    inside; where a corner leaves the image all the same, the nearest pixel is repeated and has no label.

    Args:
      offset_x, offset_y: where labels lie beside what the image shows, in pixels to the right and down; the
        image is moved there, so that both agree.
    """
    scale_seed, angle_seed, mirror_seed, row_seed, column_seed = tf.unstack(tf.random.split(seed, 5))
    scale = tf.exp(tf.random.stateless_uniform([], scale_seed, math.log(smallest), math.log(largest)))
    angle = tf.random.stateless_uniform([], angle_seed, -degrees, degrees) * (math.pi / 180)
    mirror = tf.where(tf.random.stateless_uniform([], mirror_seed) < 0.5, -1.0, 1.0)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    y, x = (
        _middle(extent, size / scale, seed)
        for extent, seed in zip(tf.unstack(shape), (row_seed, column_seed), strict=True)
    )
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale
    # Source pixel of each target pixel, both counted from their first pixel's centre.
    half = (size - 1) / 2
    rows = ((mirror * cos, -sin), (mirror * sin, cos))
    source = [a * -half + b * -half + middle for (a, b), middle in zip(rows, (x, y), strict=True)]
    shifted = [place - offset for place, offset in zip(source, (offset_x, offset_y), strict=True)]
    picture = _transform(tf.cast(image, tf.float32), rows, shifted, size, "BILINEAR", "NEAREST")
    # All layers at once, as channels.
    marks = tf.cast(tf.transpose(copied(layers), [1, 2, 0]), tf.int32)
    marks = _transform(marks, rows, source, size, "NEAREST", "CONSTANT")
    marks = tf.cast(tf.transpose(marks, [2, 0, 1]), tf.uint16)
    return to_uint8(picture), like(layers, marks), _inverse(rows, source)


def _middle(extent: tf.Tensor, side: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Where along an axis a window of `side` pixels has its middle, counted from the first pixel's centre."""
    room = tf.maximum(extent - side, 0.0)
    return (extent - 1) / 2 + room * (tf.random.stateless_uniform([], seed) - 0.5)


def _inverse(rows, source: list[tf.Tensor]) -> Motion:
    """Where a source point goes, counted from the first pixel's corner, given where targets come from."""
    (a, b), (c, d) = rows
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    x, y = (place + 0.5 for place in source)
    return linear((a, b, 0.5 - a * x - b * y), (c, d, 0.5 - c * x - d * y))


def _transform(
    values: tf.Tensor, rows, source, size: int, interpolation: str, fill: str
) -> Float32[tf.Tensor, "size size C"]:
    (a, b), (c, d) = rows
    matrix = tf.stack([a, b, source[0], c, d, source[1], 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values[None],
        transforms=matrix[None],
        output_shape=tf.constant([size, size]),
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode=fill,
    )[0]
