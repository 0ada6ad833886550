"""Anchors: the boxes that the region proposal network starts from."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def grid_anchors(
    height: int,
    width: int,
    *,
    stride: int | Int[Array, "2"],
    sizes: Sequence[float],
    ratios: Sequence[float],
    offset: float = 0.0,
    rounding: bool = False,
) -> Float[Array, "H*W*A 4"]:
    """The same A boxes around every cell of a feature map (Ren et al. 2015, §3.1.1), as Detectron2 has them.

    Args:
      height: rows of the feature map.
      width: columns of the feature map.
      stride: image pixels per cell; a pair where they differ, of rows and of columns.
      sizes: square roots of the areas, in pixels.
      ratios: heights over widths.
      offset: where in its cell an anchor is centred, in cells: 0 the corner, 0.5 the middle.
      rounding: whether corners, measured from the centre, become whole pixels, halves even ones.

    Returns:
      XYXY pixels, ordered by row, column, size, ratio. Anchors may leave the image.
    """
    cell = _cell_anchors(sizes, ratios)
    cell = jnp.asarray(cell.round() if rounding else cell)
    down, across = jnp.broadcast_to(jnp.asarray(stride, jnp.float32), 2)
    x = (jnp.arange(width, dtype=jnp.float32) + offset) * across
    y = (jnp.arange(height, dtype=jnp.float32) + offset) * down
    y, x = jnp.meshgrid(y, x, indexing="ij")
    centres = jnp.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (centres + cell[None]).reshape(-1, 4)


def _cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """(A, 4) float32 boxes around the origin; computed in float64, as Detectron2 does, then rounded."""
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return np.array(boxes, np.float32)
