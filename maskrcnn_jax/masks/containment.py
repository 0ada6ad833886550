"""Suppression of parts: masks that lie inside better ones, which suppression by the IoU of boxes keeps."""

import numpy as np
from jaxtyping import Float, Int

from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.overlaps import overlapping, shared_pixels


def not_contained(
    crops: Crops, scores: Float[np.ndarray, "N"], classes: Int[np.ndarray, "N"], share: float
) -> Int[np.ndarray, "kept"]:
    """Which masks stay, in their order.

    From the best score down, a mask that stays drops each worse one of its class more than `share` of
    whose pixels lie in it. Of equal scores the first is the better. A mask without pixels lies in none.

    Args:
      crops: masks of one image.
      scores, classes: of each.
      share: 0 to 1; nothing goes at 1.
    """
    rank = np.argsort(np.argsort(-scores, kind="stable"))
    pairs = overlapping(crops.rectangles)
    pairs = pairs[classes[pairs[:, 0]] == classes[pairs[:, 1]]]
    pairs = np.take_along_axis(pairs, np.argsort(rank[pairs], axis=1), axis=1)
    inside = shared_pixels(crops, pairs) > share * crops.areas[pairs[:, 1]]
    pairs = pairs[inside]
    gone = np.zeros(len(scores), bool)
    for better, worse in pairs[np.argsort(rank[pairs[:, 0]])].tolist():
        gone[worse] |= not gone[better]
    return np.flatnonzero(~gone)
