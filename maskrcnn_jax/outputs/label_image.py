"""Objects as a label image: 0 for the background, d + 1 for object d."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import tifffile
from jaxtyping import Shaped

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
    dtype = np.dtype("<u2" if len(result) <= _MAX_SHORT else "<u4")
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


def _bands(result: Result, rows: int, dtype: np.dtype) -> Iterator[Shaped[np.ndarray, "rows W"]]:
    """The label image from above, this many rows at a time."""
    height, width = result.size
    crops = apart(result.crops)
    first, _, end, _ = crops.rectangles.T
    for top in range(0, height, rows):
        labels = np.zeros((min(rows, height - top), width), dtype)
        for d in np.flatnonzero((first < top + len(labels)) & (end > top)).tolist():
            _draw(labels, crops, d, top)
        yield labels


def _draw(labels: Shaped[np.ndarray, "rows W"], crops: Crops, d: int, top: int) -> None:
    first, left, end, right = crops.rectangles[d].tolist()
    start, stop = max(first, top), min(end, top + len(labels))
    labels[start - top : stop - top, left:right][crops.pixels(d)[start - first : stop - first]] = d + 1
