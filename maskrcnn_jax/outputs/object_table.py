"""Objects as a table: a row for each, with its shape and colour measured on its pixels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8

from maskrcnn_jax.files import PathLike, atomic
from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.result import Result

COLUMNS = (
    *("id", "class", "score", "x0", "y0", "x1", "y1", "centroid_x", "centroid_y"),
    *("area", "perimeter", "eccentricity", "mean_red", "mean_green", "mean_blue"),
)
_WINDOW = 1024  # Objects are measured in squares of so many pixels: each part of a slide is read about once.


class Readable(Protocol):
    """What pixels are read from: see `sources.open_source`."""

    def read(self, top: int, left: int, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]: ...


def write_table(path: PathLike, result: Result, classes: Sequence[str], source: Readable) -> None:
    """CSV (UTF-8) with the `COLUMNS`, as `table_rows` gives them."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(table_rows(result, classes, source))


def table_rows(result: Result, classes: Sequence[str], source: Readable) -> Iterator[tuple[Any, ...]]:
    """The `COLUMNS` of each object.

    `id` is the object's value in the label image. The box is the detection's; all that follows is of the
    mask: the centroid in the box's frame (the centre of the first pixel is 0.5, 0.5), area and perimeter
    in pixels, the eccentricity of the ellipse with the same second moments (0 is a circle), and mean
    colours, 0 to 255. Of an object without pixels, the area is 0 and the rest empty text.

    Args:
      result: the objects.
      classes: name of each class.
      source: the image; only windows around the objects are read.
    """
    crops = result.crops
    shapes = np.zeros((len(result), 8))
    for d, pixels in _pixels_of_objects(crops, source):
        shapes[d] = _measure(crops.pixels(d), pixels, crops.rectangles[d])
    d = 0
    for part in result.split():
        here = shapes[d : d + len(part)]
        columns = part.classes.tolist(), part.scores.tolist(), part.boxes.tolist(), here.tolist()
        for k, score, box, (x, y, area, *rest) in zip(*columns, strict=True):
            d += 1
            shape = (x, y, int(area), *rest) if area else ("", "", 0, *[""] * len(rest))
            yield d, classes[k], round(score, 6), *(round(side, 3) for side in box), *shape


def _pixels_of_objects(crops: Crops, source: Readable) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Each object that has pixels, with those of its rectangle; neighbours are read together."""
    solid = np.flatnonzero(crops.areas)
    cells = crops.rectangles[:, :2] // _WINDOW
    order = solid[np.lexsort(cells[solid].T[::-1])]
    groups = np.split(order, np.flatnonzero((np.diff(cells[order], axis=0) != 0).any(axis=1)) + 1)
    for group in groups if len(order) else ():
        rectangles = crops.rectangles[group]
        (top, left), (bottom, right) = rectangles[:, :2].min(axis=0), rectangles[:, 2:].max(axis=0)
        window = source.read(*map(int, (top, left, bottom - top, right - left)))
        for d, (a, b, c, e) in zip(group.tolist(), (rectangles - [top, left] * 2).tolist(), strict=True):
            yield d, window[a:c, b:e]


def _measure(
    mask: Bool[np.ndarray, "h w"], pixels: UInt8[np.ndarray, "h w 3"], rectangle: Float[np.ndarray, "4"]
) -> tuple[float, ...]:
    from skimage.measure import regionprops  # late: half a second that the other formats need not wait

    (region,) = regionprops(mask.astype(np.uint8), pixels)
    y, x = np.array(region.centroid) + rectangle[:2] + 0.5
    lengths = (float(region.perimeter), float(region.eccentricity))
    colours = np.asarray(region.intensity_mean).tolist()
    return (
        *(round(float(place), 3) for place in (x, y)),
        float(region.area),
        *(round(length, 4) for length in lengths),
        *(round(colour, 2) for colour in colours),
    )
