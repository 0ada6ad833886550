"""What was found in one image, on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from maskrcnn_jax.masks.apart import apart
from maskrcnn_jax.masks.crops import Crops, join
from maskrcnn_jax.masks.rle import RLE

_PART = 4096  # detections that `Result.split` gives at once


@dataclass(frozen=True, eq=False)
class Result:
    """One image's detections, best first, at the image's own size.

    Attributes:
      boxes: XYXY pixels.
      scores, classes: of each; classes count from 0.
      crops: the masks, without their surroundings.
      size: height and width of the image in pixels.
    """

    boxes: Float[np.ndarray, "D 4"]
    scores: Float[np.ndarray, "D"]
    classes: Int[np.ndarray, "D"]
    crops: Crops
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def masks(self) -> list[RLE]:
        """D COCO run-length encodings, compressed, at image size."""
        return self.crops.rles(self.size)

    def label_map(self) -> Int[np.ndarray, "H W"]:
        """Detection d fills its pixels with d + 1, as `masks.apart` deals them out; 0 is background."""
        labels = np.zeros(self.size, np.int32)
        crops = apart(self.crops)
        for d, (top, left, bottom, right) in enumerate(crops.rectangles.tolist()):
            labels[top:bottom, left:right][crops.pixels(d)] = d + 1
        return labels

    def take(self, rows: Int[np.ndarray, "rows"]) -> Result:
        """Some of the detections, in the order of `rows`."""
        return Result(
            self.boxes[rows], self.scores[rows], self.classes[rows], self.crops.take(rows), self.size
        )

    def split(self) -> Iterator[Result]:
        """The detections in their order, some thousand at a time: what is made of a slide's is large."""
        for start in range(0, len(self), _PART):
            yield self.take(np.arange(start, min(start + _PART, len(self))))


def concatenate(results: Sequence[Result], size: tuple[int, int]) -> Result:
    """The detections of several results for the same image, one after the other."""
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    columns = zip(empty, *((r.boxes, r.scores, r.classes) for r in results), strict=True)
    boxes, scores, classes = (np.concatenate(column) for column in columns)
    return Result(boxes, scores, classes, join([result.crops for result in results]), size)
