"""Which colour each object gets in a picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from maskrcnn_jax.masks.overlaps import overlapping

# Bright, and far from each other and from the pinks and purples of stained tissue; the second line less so.
PALETTE = np.array(
    [
        *((255, 230, 0), (0, 240, 255), (70, 255, 70), (255, 255, 255), (255, 150, 0), (130, 190, 255)),
        *((255, 90, 80), (190, 130, 255), (190, 255, 0), (255, 150, 220), (0, 190, 150), (200, 170, 120)),
    ],
    np.uint8,
)
NEIGHBOURS = 6  # So many colours tell neighbours apart; the rest is for classes.


def neighbour_colors(rectangles: Int[np.ndarray, "N 4"]) -> list[int]:
    """The palette's first entries in turn, without those of earlier objects nearby while there are others.

    Args:
      rectangles: of the objects, as in `overlaps.Crops`.
    """
    near: list[list[int]] = [[] for _ in rectangles]
    grown = rectangles + np.array([-1, -1, 1, 1])  # so that those which touch overlap
    for n, m in overlapping(grown).tolist():
        near[m].append(n)
    colors: list[int] = []
    for n, others in enumerate(near):
        taken = {colors[m] for m in others}
        turns = ((n + step) % NEIGHBOURS for step in range(NEIGHBOURS))
        colors.append(next((color for color in turns if color not in taken), n % NEIGHBOURS))
    return colors
