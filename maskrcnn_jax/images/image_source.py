"""What an image that is read window by window can do, wherever its pixels are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.intensity import grey_table
from maskrcnn_jax.images.pixels import as_rgb
from maskrcnn_jax.images.windows import sample_windows

_ROUNDING = 1.01  # levels are whole numbers of pixels, so their sides are not exact parts of the finest


class ImageSource:
    """An image that is read in windows; a context manager, which closes its file.

    Attributes:
      size: height and width in pixels.
      fingerprint: tells this image from others; for a file it depends on its content, not its place.
      mpp: how many µm a pixel is long; None if the file does not say.
      levels: heights and widths of a pyramid's levels, `size` first.
    """

    size: tuple[int, int]
    fingerprint: str
    mpp: float | None = None

    @property
    def levels(self) -> list[tuple[int, int]]:
        return [self.size]

    def read(self, top: int, left: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        """The pixels of a window as RGB.

        Raises:
          UserError: the window has no pixels or leaves the image.
          DataError: the file is damaged there.
        """
        return as_rgb(self.read_deep(top, left, height, width))

    def read_deep(self, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        """As `read`, but with 16 bits where the image has more than 8, and with the channels that it has."""
        self._require_inside(top, left, height, width)
        return self._read(0, top, left, height, width)

    def read_reduced(
        self, top: int, left: int, height: int, width: int, most: float
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A window as RGB from the coarsest level of the pyramid that is at most so many times smaller.

        Args:
          top, left, height, width: of the window, in pixels of the finest level.
          most: by how many times its sides may be smaller.

        Returns:
          The same place in pixels of that level, resampled where its borders lie within them.

        Raises:
          As `read`.
        """
        ratios = [np.divide(self.size, level) for level in self.levels]
        level = max(n for n, ratio in enumerate(ratios) if n == 0 or ratio.max() <= most * _ROUNDING)
        if level == 0:
            return self.read(top, left, height, width)
        self._require_inside(top, left, height, width)
        low = np.array([top, left]) / ratios[level]
        high = np.minimum([top + height, left + width] / ratios[level], self.levels[level])
        first, end = np.floor(low).astype(int), np.ceil(high).astype(int)
        pixels = as_rgb(self._read(level, *first.tolist(), *(end - first).tolist()))
        if (first == low).all() and (end == high).all():
            return pixels
        size = np.maximum(np.rint(high - low).astype(int), 1).tolist()
        box = (*(low - first)[::-1].tolist(), *(high - first)[::-1].tolist())
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, box=box))

    def stretched(self) -> ImageSource:
        """The same image, its grey stretched (`images.intensity`) over all of it and at its full depth.

        Of more than 2**26 pixels the limits are those of 256 squares all over the image. One with colour is
        returned as it is.
        """
        table = grey_table(self.read_deep(*window) for window in sample_windows(self.size))
        return self if table is None else _Stretched(self, table)

    def close(self) -> None:
        """Closes the file, if there is one; again, it does nothing."""

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_inside(self, top: int, left: int, height: int, width: int) -> None:
        inside = 0 <= top < top + height <= self.size[0] and 0 <= left < left + width <= self.size[1]
        if not inside:
            raise UserError(
                f"rows {top}:{top + height}, columns {left}:{left + width} are not inside an image of "
                f"{self.size[0]} x {self.size[1]} pixels"
            )

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> Shaped[np.ndarray, "h w *C"]:
        """A window of a level, in its pixels."""
        raise NotImplementedError


class _Stretched(ImageSource):
    """Another source through a table of levels."""

    def __init__(self, source: ImageSource, table: UInt8[np.ndarray, "levels"]):
        self._source, self._table = source, table
        self.size, self.mpp = source.size, source.mpp
        self.fingerprint = f"{source.fingerprint} stretched"

    @property
    def levels(self) -> list[tuple[int, int]]:
        return self._source.levels

    def _read(self, level: int, top: int, left: int, height: int, width: int) -> UInt8[np.ndarray, "h w *C"]:
        return self._table[self._source._read(level, top, left, height, width)]

    def close(self) -> None:
        self._source.close()
