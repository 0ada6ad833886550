"""A mask as its pixels and where they lie."""

from typing import NamedTuple

import numpy as np


class Crop(NamedTuple):
    """A mask without its empty surroundings: `pixels` (h, w) bool lie at row `top`, column `left`."""

    top: int
    left: int
    pixels: np.ndarray

    @property
    def content(self) -> tuple:
        """What two masks have in common if their pixels are the same."""
        return self.top, self.left, self.pixels.shape, self.pixels.tobytes()
