"""Where points go when an augmentation moves pixels, and boxes that follow them."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Bool, Float32

# What takes a point (x, y, 1), counted in pixels from the image's corner, to its new place (x, y).
Motion = Float32[tf.Tensor, "2 3"]
# Each motion of a list of ops, with height and width of the image after it.
Path = Sequence[tuple[tf.Tensor, tf.Tensor]]

_ROUNDING = 1e-3  # pixels


def linear(x: Sequence = (1, 0, 0), y: Sequence = (0, 1, 0)) -> Motion:
    """The motion to x[0] * x + x[1] * y + x[2], and y likewise; without arguments nothing moves."""
    return tf.stack([tf.stack([tf.cast(factor, tf.float32) for factor in row]) for row in (x, y)])


def follow(
    boxes: Float32[tf.Tensor, "N 4"], size: tf.Tensor, path: Path
) -> tuple[Float32[tf.Tensor, "N 4"], Bool[tf.Tensor, "N"]]:
    """Boxes after the motions of a path, and which of them are still right.

    Args:
      boxes: XYXY in pixels, inside the image; NaN where there is none.
      size: height and width of the image before the path.
      path: what moved.

    Returns:
      The moved boxes, XYXY; False marks those that were cut by a border, or turned by anything but a
      multiple of 90 degrees, on the way, and those that were none.
    """
    right = _inside(boxes, size)
    for motion, after in path:
        x0, y0, x1, y1 = tf.unstack(boxes, axis=1)
        corners = tf.reshape(tf.stack([x0, y0, x1, y1, x0, y1, x1, y0], axis=1), [-1, 4, 2])
        moved = tf.einsum("nkc,dc->nkd", corners, motion[:, :2]) + motion[:, 2]
        boxes = tf.concat([tf.reduce_min(moved, axis=1), tf.reduce_max(moved, axis=1)], axis=1)
        right &= _inside(boxes, after) & _is_upright(motion, after)
    return boxes, right


def _inside(boxes: tf.Tensor, size: tf.Tensor) -> Bool[tf.Tensor, "N"]:
    limit = tf.cast(tf.reverse(size, [0]), tf.float32) + _ROUNDING
    return tf.reduce_all((boxes[:, :2] >= -_ROUNDING) & (boxes[:, 2:] <= limit), axis=1)


def _is_upright(motion: tf.Tensor, size: tf.Tensor) -> Bool[tf.Tensor, ""]:
    """Whether a box stays one: x goes along x or y alone, up to a rounding that no pixel shows."""
    tilt = tf.abs(motion[:, :2])
    along, across = tf.linalg.diag_part(tilt), tf.linalg.diag_part(tf.reverse(tilt, [1]))
    smallest = tf.minimum(tf.reduce_max(along), tf.reduce_max(across))
    return smallest * tf.cast(tf.reduce_max(size), tf.float32) < 0.1
