"""What is found in one image, as it leaves the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_jax.masks.rle import crop_of_rle


@dataclass(frozen=True)
class Result:
    """One image's detections on the host, best first, at the image's own size.

    Attributes:
      boxes: (D, 4) float32, XYXY pixels.
      scores: (D,) float32.
      classes: (D,) int32, from 0.
      masks: D COCO run-length encodings, compressed, at image size.
      size: height and width of the image in pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: list[dict[str, Any]]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def label_map(self) -> np.ndarray:
        """(H, W) int32: detection d fills its pixels with d + 1, the better score on top; 0 background."""
        labels = np.zeros(self.size, np.int32)
        for d in reversed(range(len(self))):
            crop, top, left = crop_of_rle(self.masks[d])
            labels[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = d + 1
        return labels
