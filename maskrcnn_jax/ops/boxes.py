"""Boxes: area, overlap, the code between boxes and regression deltas, and clipping.

Boxes are XYXY corners in pixels with continuous coordinates: width is x1 - x0, without a + 1.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# No side of an anchor grows by more than this factor in one step: exp() stays finite. Detectron2's value.
_MAX_LOG_SCALE = math.log(1000.0 / 16)


def area(boxes: Float[Array, "*N 4"]) -> Float[Array, "*N"]:
    """Area in square pixels; 0 for padding."""
    x0, y0, x1, y1 = _corners(boxes)
    # The maximum keeps compilers from fusing the product into a later sum, which rounds differently.
    return jnp.maximum((x1 - x0) * (y1 - y0), 0.0)


def pairwise_iou(a: Float[Array, "N 4"], b: Float[Array, "M 4"]) -> Float[Array, "N M"]:
    """Intersection over union of every pair of boxes.

    The rule "equal to the best IoU of a ground truth" hangs on the last bit. So the numbers are exactly
    Detectron2's, compiled or not, if the ground truths are `a`: the union is added in that order.

    Args:
      a: boxes with non-negative sides; zero boxes may pad them.
      b: the same.

    Returns:
      IoU in 0..1; 0 where the intersection is empty, which holds for all padding.
    """
    intersection = pairwise_intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1.0), 0.0)


def pairwise_intersection(a: Float[Array, "N 4"], b: Float[Array, "M 4"]) -> Float[Array, "N M"]:
    """Area that each pair of boxes has in common, in square pixels; 0 for padding."""
    ax0, ay0, ax1, ay1 = _corners(a[:, None])
    bx0, by0, bx1, by1 = _corners(b[None, :])
    width = jnp.minimum(ax1, bx1) - jnp.maximum(ax0, bx0)
    height = jnp.minimum(ay1, by1) - jnp.maximum(ay0, by0)
    # The select after the product keeps a compiler from contracting it with a later difference into one
    # fused multiply-add.
    return jnp.where((width > 0) & (height > 0), width * height, 0.0)


def encode(
    boxes: Float[Array, "*N 4"],
    anchors: Float[Array, "*N 4"],
    weights: tuple[float, float, float, float],
) -> Float[Array, "*N 4"]:
    """Regression targets that take anchors to boxes (Girshick et al. 2014, appendix C).

    With centre c and sides s: w_xy (c_box - c_anchor) / s_anchor and w_wh log(s_box / s_anchor).

    Args:
      boxes: targets, in pixels.
      anchors: anchors or proposals, in pixels.
      weights: scale of dx, dy, dw, dh.

    Returns:
      (dx, dy, dw, dh). Sides of zero, as padding has them, count as one pixel: the values are finite.
    """
    bx, by, bw, bh = _centres_and_sides(boxes)
    ax, ay, aw, ah = _centres_and_sides(anchors)
    bw, bh, aw, ah = (jnp.where(side > 0, side, 1.0) for side in (bw, bh, aw, ah))
    wx, wy, ww, wh = weights
    deltas = (wx * (bx - ax) / aw, wy * (by - ay) / ah, ww * jnp.log(bw / aw), wh * jnp.log(bh / ah))
    return jnp.stack(deltas, axis=-1)


def decode(
    deltas: Float[Array, "*N 4"],
    anchors: Float[Array, "*N 4"],
    weights: tuple[float, float, float, float],
) -> Float[Array, "*N 4"]:
    """Applies deltas to anchors: the inverse of `encode`.

    Args:
      deltas: (dx, dy, dw, dh). Leading axes broadcast, so per-class deltas (N, K, 4) take `anchors[:, None]`.
      anchors: anchors or proposals, in pixels.
      weights: scale of the four deltas.

    Returns:
      Boxes in pixels, not clipped to the image. dw and dh act as at most log(1000 / 16). A zero anchor
      (padding) gives a zero box.
    """
    ax, ay, aw, ah = _centres_and_sides(anchors)
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(_corners(deltas), weights, strict=True))
    x, y = dx * aw + ax, dy * ah + ay
    half_w = 0.5 * (jnp.exp(jnp.minimum(dw, _MAX_LOG_SCALE)) * aw)
    half_h = 0.5 * (jnp.exp(jnp.minimum(dh, _MAX_LOG_SCALE)) * ah)
    return jnp.stack([x - half_w, y - half_h, x + half_w, y + half_h], axis=-1)


def clip(boxes: Float[Array, "*N 4"], size: Int[Array, "2"]) -> Float[Array, "*N 4"]:
    """Boxes cut at the image's border.

    Args:
      boxes: XYXY pixels; a box wholly outside becomes one without area.
      size: height and width of the image in pixels; may be traced.
    """
    height, width = jnp.asarray(size).astype(boxes.dtype)
    x0, y0, x1, y1 = _corners(boxes)
    clipped = (
        jnp.clip(x0, 0, width),
        jnp.clip(y0, 0, height),
        jnp.clip(x1, 0, width),
        jnp.clip(y1, 0, height),
    )
    return jnp.stack(clipped, axis=-1)


def grow(boxes: Float[Array, "*N 4"], share: float) -> Float[Array, "*N 4"]:
    """Boxes whose sides each move outwards by `share` of the box's length along their axis.

    Works on NumPy arrays, too, and gives one then. Padding stays zero.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    first, last = boxes[..., :2] - share * sides, boxes[..., 2:] + share * sides
    join = np.concatenate if isinstance(boxes, np.ndarray) else jnp.concatenate
    return join([first, last], axis=-1)


def _corners(boxes: Float[Array, "*N 4"]) -> tuple[Float[Array, "*N"], ...]:
    return tuple(boxes[..., i] for i in range(4))


def _centres_and_sides(boxes: Float[Array, "*N 4"]) -> tuple[Float[Array, "*N"], ...]:
    """Centre x and y, width, height."""
    x0, y0, x1, y1 = _corners(boxes)
    width, height = x1 - x0, y1 - y0
    return x0 + 0.5 * width, y0 + 0.5 * height, width, height
