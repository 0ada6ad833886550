"""TIFF beyond plain pictures: stacks, channels, series, any type of values; whole or in windows."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Shaped, UInt8

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.choice import ALL, Choice, ChoiceError, View
from maskrcnn_jax.images.levels import Levels, has_range, levels_of
from maskrcnn_jax.images.pixels import as_rgb
from maskrcnn_jax.images.scale import of_tiff

SUFFIXES = (".tif", ".tiff", ".btf")
# Images up to this many pixels (48 MiB as RGB) are decoded whole: that needs no further package.
DECODED_WHOLE = 1 << 24
_ASIDE = ("label", "thumbnail", "macro")  # what scanners add to an image, by the name of its series
_KNOWN_COLOURS = (
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.YCBCR,
)
# What Pillow decodes; the others are left to imagecodecs.
_PILLOW = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925}


class Tiff:
    """The image in an open TIFF.

    Attributes:
      size: height and width in pixels.
      levels: of its pyramid, `size` first; one alone before `stream`.
      mpp: how many µm a pixel is long; None if the file does not say.
      is_large: whether it has a pyramid, or more pixels than are decoded at once.
    """

    def __init__(self, file: tifffile.TiffFile, choice: Choice = ALL):
        """Finds the image; its pixels are not read yet.

        Raises:
          ChoiceError: there are several and none is chosen, or it is none of those that are read.
        """
        series = _choose_series(file, choice)
        self._series, self._page = series, series.keyframe
        if self._page.photometric not in _KNOWN_COLOURS:
            what = f"stores its colours as {self._page.photometric.name}"
            raise ChoiceError(what, "save it as one grey or RGB image of 8 or 16 bits")
        if not (has_range(self._page.dtype) or getattr(self._page.dtype, "kind", "") in ("i", "u", "f")):
            raise ChoiceError(f"has values of the type {self._page.dtype}", "save it with plain numbers")
        self._choice = choice
        self._views = [View(_Pages(series), series.axes, choice)]
        self.size = self._views[0].size
        self.mpp = of_tiff(file, series.index, self._page)
        self.is_large = len(series.levels) > 1 or math.prod(self.size) > DECODED_WHOLE
        self._brightness: Levels | None = None

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """From now on windows decode no more than the file's tiles that they touch, through Zarr.

        Raises:
          ImportError: there is no Zarr.
        """
        import zarr

        # What a file leaves out, as scanners do with empty glass, is white if it has colours.
        dark = self._page.photometric != tifffile.PHOTOMETRIC.RGB and not self._views[0].colour
        blank = 0 if dark or not has_range(self._page.dtype) else np.iinfo(self._page.dtype).max
        views = []
        with contextlib.ExitStack() as stack:
            for n, level in enumerate(self._series.levels):
                if level.axes == self._series.axes:
                    store = stack.enter_context(self._series.aszarr(level=n, fillvalue=blank))
                    views.append(View(zarr.open_array(store, mode="r"), level.axes, self._choice))
            self._views = views
            return stack.pop_all()

    @property
    def levels(self) -> list[tuple[int, int]]:
        return [view.size for view in self._views]

    def read(self, top: int, left: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        """A window as RGB."""
        return as_rgb(self.read_deep(top, left, height, width))

    def read_deep(
        self, top: int, left: int, height: int, width: int, *, level: int = 0
    ) -> Shaped[np.ndarray, "h w *C"]:
        """A window of a level, grey or RGB, with 16 bits where the file has more than 8."""
        values = self._views[level].read(top, left, height, width)
        if self._brightness is None:
            self._brightness = self._levels_of_all()
        return self._brightness.deep(values)

    def _levels_of_all(self) -> Levels:
        bits = self._page.bitspersample
        bits = bits if isinstance(bits, int) else max(bits)
        inverted = self._page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        return levels_of(self._page.dtype, self._views[0], bits=bits, inverted=inverted)


@contextlib.contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF that is closed in the end; other files that it names are not opened."""
    with tifffile.TiffFile(path, _multifile=False) as file:
        yield file


def is_small(file: tifffile.TiffFile) -> bool:
    """Whether a plain picture is decoded whole."""
    return file.pages[0].imagelength * file.pages[0].imagewidth <= DECODED_WHOLE


def is_plain(file: tifffile.TiffFile) -> bool:
    """Whether this is one picture that Pillow reads to the last bit: grey, colour or palette of 8 bits, or
    grey of 16."""
    if len(file.pages) > 1:
        return False
    page = file.pages[0]
    if page.planarconfig == 2 or page.compression not in _PILLOW or page.bitspersample not in (1, 8, 16):
        return False
    grey = len(page.shape) == 2 and page.dtype in (np.bool_, np.uint8, np.uint16)
    return grey or (len(page.shape) == 3 and page.dtype == np.uint8 and page.shape[2] <= 4)


def _choose_series(file: tifffile.TiffFile, choice: Choice) -> tifffile.TiffPageSeries:
    """The only series that is an image, or the one that is chosen."""
    found = {
        n: series
        for n, series in enumerate(file.series)
        if series.name.strip().lower() not in _ASIDE and "Y" in series.axes and "X" in series.axes
    }
    found = {n: series for n, series in found.items() if not series.keyframe.is_reduced} or found
    listed = ", ".join(f"{n}: {_describe(series)}" for n, series in list(found.items())[:20])
    if not found:
        raise ChoiceError("holds no image but labels and thumbnails", "give the file with the image")
    if choice.series is None:
        if len(found) > 1:
            remedy = "choose one with --series N (in a config: data.series)"
            raise ChoiceError(f"holds {len(found)} series ({listed})", remedy)
        return next(iter(found.values()))
    if choice.series not in found:
        raise ChoiceError(f"has no image in a series {choice.series}", f"choose from {listed}")
    return found[choice.series]


def _describe(series: tifffile.TiffPageSeries) -> str:
    name = f"{series.name[:40]!r}, " if series.name else ""
    return f"{name}axes {series.axes}, {' x '.join(map(str, series.shape))}, {series.dtype}"


class _Pages:
    """A series as an array that decodes a page when it is indexed."""

    def __init__(self, series: tifffile.TiffPageSeries):
        self.shape = series.shape
        self._series = series
        self._leading = series.shape[: len(series.shape) - len(series.keyframe.shape)]
        fits = series.shape[len(self._leading) :] == series.keyframe.shape
        # Else pages lie in one stretch behind the first, or are themselves stacks.
        self._by_page = fits and len(series.pages) == math.prod(self._leading)
        self._last: tuple[int | None, Any] = (None, None)

    def __getitem__(self, index: tuple) -> np.ndarray:
        if not self._by_page:
            return self._page(None)[index]
        number = int(np.ravel_multi_index(index[: len(self._leading)], self._leading)) if self._leading else 0
        return self._page(number)[index[len(self._leading) :]]

    def _page(self, number: int | None) -> np.ndarray:
        """A page, or with None all; the last one is kept, as channels of one page are read one by one."""
        if self._last[1] is None or self._last[0] != number:
            if number is None:
                values = self._series.asarray(level=0).reshape(self.shape)
            elif (page := self._series.pages[number]) is None:
                raise UserError(f"its page {number} is missing, or in another file")
            else:
                values = page.asarray().reshape(self._series.keyframe.shape)
            self._last = (number, values)
        return self._last[1]
