"""Objects as labels of OME-Zarr 0.5: in chunks, with levels; a slide's is neither written nor read whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from maskrcnn_jax.files import PathLike, atomic_folder
from maskrcnn_jax.masks.apart import apart
from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.label_image import draw, dtype_of

NAME = "objects"  # of the label image in its group
_CHUNK = 1024  # side, in pixels


def write_label_zarr(path: PathLike, result: Result, mpp: float | None = None) -> None:
    """The label image of `write_labels` as a group `labels` of OME-Zarr 0.5 with one label image, `objects`.

    It is what OME-Zarr has beside an image's levels: moved to `IMAGE.zarr/labels`, it is of that image. Level
    k holds each 2**k-th pixel of each 2**k-th row, up to one that fits into a chunk. Chunks without objects
    are not stored. One is in memory at a time, or four for a level.

    Args:
      path: of the folder.
      result: the objects.
      mpp: length of a pixel in µm; None if it is not known.

    Raises:
      ImportError: there is no Zarr.
    """
    import zarr

    crops, sizes = apart(result.crops), [result.size]
    while max(sizes[-1]) > _CHUNK:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    with atomic_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        group.attrs["ome"] = {"version": "0.5", "labels": [NAME]}
        image = group.create_group(NAME, attributes={"ome": _metadata(len(sizes), mpp)})
        levels = [
            image.create_array(
                str(k),
                shape=size,
                chunks=tuple(min(_CHUNK, side) for side in size),
                dtype=dtype_of(result),
                fill_value=0,
                dimension_names=("y", "x"),
            )
            for k, size in enumerate(sizes)
        ]
        used = _draw(levels[0], crops)
        for finer, coarser in pairwise(levels):
            used = {(row // 2, column // 2) for row, column in used}
            _halve(finer, coarser, used)


def _metadata(levels: int, mpp: float | None) -> dict[str, Any]:
    """Of a label image: https://ngff.openmicroscopy.org/0.5, "multiscales" and "image-label"."""
    unit = {} if mpp is None else {"unit": "micrometer"}
    scales = [[(mpp or 1.0) * 2**k] * 2 for k in range(levels)]
    multiscale = {
        "name": NAME,
        "type": "nearest",
        "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
        "datasets": [
            {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for k, scale in enumerate(scales)
        ],
    }
    return {"version": "0.5", "multiscales": [multiscale], "image-label": {"source": {"image": "../../"}}}


def _draw(level: Any, crops: Crops) -> set[tuple[int, int]]:
    """Fills the finest level; returns row and column of the chunks in which there is something."""
    height, width = level.shape
    first, start, end, stop = crops.rectangles.T
    used = set()
    for top in range(0, height, _CHUNK):
        row = np.flatnonzero((first < top + _CHUNK) & (end > top))
        for left in range(0, width, _CHUNK):
            here = row[(start[row] < left + _CHUNK) & (stop[row] > left)]
            if len(here):
                chunk = np.zeros((min(_CHUNK, height - top), min(_CHUNK, width - left)), level.dtype)
                draw(chunk, crops, here, top, left)
                level[top : top + _CHUNK, left : left + _CHUNK] = chunk
                used.add((top // _CHUNK, left // _CHUNK))
    return used


def _halve(finer: Any, coarser: Any, chunks: set[tuple[int, int]]) -> None:
    """Fills these chunks of a level with every second pixel of the next finer one."""
    for row, column in sorted(chunks):
        top, left = row * _CHUNK, column * _CHUNK
        window = finer[2 * top : 2 * (top + _CHUNK), 2 * left : 2 * (left + _CHUNK)]
        coarser[top : top + _CHUNK, left : left + _CHUNK] = window[::2, ::2]
