"""Objects as a label image: 0 for the background, d + 1 for object d."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import tifffile
from jaxtyping import Int, Shaped

from maskrcnn_jax.files import PathLike, atomic
from maskrcnn_jax.masks.apart import apart
from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.result import Result

# Bytes of a strip, which a reader decodes at once, and of the rows that are drawn at once.
_STRIP, _BAND = 1 << 18, 1 << 25
_MAX_CLASSIC = (1 << 32) - (1 << 25)  # Bytes, before compression: above, the file becomes a BigTIFF.
_MAX_SHORT = np.iinfo(np.uint16).max


def write_labels(path: PathLike, result: Result) -> None:
    """A grey TIFF, 16 bits for up to 65,535 objects, else 32. No two objects share a pixel: see `apart`.

    It is drawn band by band, so that a slide's never has to fit in memory, and compressed in strips
    (Deflate), which more programs read than tiles.
    """
    dtype = dtype_of(result)
    height, width = result.size
    rows = max(1, min(height, _STRIP // (width * dtype.itemsize)))
    band = rows * max(1, _BAND // (rows * width * dtype.itemsize))
    with atomic(path) as temporary:
        tifffile.imwrite(
            temporary,
            (
                zlib.compress(labels[top : top + rows])
                for labels in _bands(result, band, dtype)
                for top in range(0, len(labels), rows)
            ),
            shape=(height, width),
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            rowsperstrip=rows,
            bigtiff=height * width * dtype.itemsize > _MAX_CLASSIC,
        )


def dtype_of(result: Result) -> np.dtype:
    """Of its label image."""
    return np.dtype("<u2" if len(result) <= _MAX_SHORT else "<u4")


def draw(
    labels: Shaped[np.ndarray, "h w"], crops: Crops, numbers: Int[np.ndarray, "M"], top: int, left: int = 0
) -> None:
    """Fills the pixels of masks, which share none, with their numbers + 1.

    Args:
      labels: a window of the label image; what does not lie in it is left out.
      crops: all masks.
      numbers: which of them.
      top, left: of the window.
    """
    bottom, right = top + labels.shape[0], left + labels.shape[1]
    for d, (a, b, c, e) in zip(numbers.tolist(), crops.rectangles[numbers].tolist(), strict=True):
        rows, columns = (max(a, top), min(c, bottom)), (max(b, left), min(e, right))
        inside = crops.pixels(d)[slice(*np.subtract(rows, a)), slice(*np.subtract(columns, b))]
        labels[slice(*np.subtract(rows, top)), slice(*np.subtract(columns, left))][inside] = d + 1


def _bands(result: Result, rows: int, dtype: np.dtype) -> Iterator[Shaped[np.ndarray, "rows W"]]:
    """The label image from above, this many rows at a time."""
    height, width = result.size
    crops = apart(result.crops)
    first, _, end, _ = crops.rectangles.T
    for top in range(0, height, rows):
        labels = np.zeros((min(rows, height - top), width), dtype)
        draw(labels, crops, np.flatnonzero((first < top + len(labels)) & (end > top)), top)
        yield labels
