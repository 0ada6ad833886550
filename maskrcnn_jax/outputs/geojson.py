"""Objects as GeoJSON that QuPath imports as detections, by a drag of the file onto the image."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from itertools import count

from maskrcnn_jax.files import PathLike, atomic
from maskrcnn_jax.masks.outlines import outlines
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.stored import StoredResult
from maskrcnn_jax.outputs.colours import PALETTE

_NAMESPACE = uuid.UUID("8f1c2f0e-6a55-4f0b-9d0e-3c4b8f6a7d21")


def write_geojson(
    path: PathLike, result: Result | StoredResult, classes: Sequence[str], *, image: str = ""
) -> None:
    """A FeatureCollection with a feature a line, in the form of QuPath's `PathObject` export (0.4 and later).

    Polygons follow the pixels' corners, in pixels from the upper left of the image at full resolution.
    Object d is named d + 1, as in the label image. One without pixels has no geometry and is left out.

    Args:
      path: of the file.
      result: the objects.
      classes: name of each class.
      image: any name of the image. Ids are made from it and the mask, so that another run gives the same
        ids, and no two images share one.
    """
    colours = [[int(value) for value in PALETTE[k % len(PALETTE)]] for k in range(len(classes))]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for d, polygons, code, k, score in _objects(result):
            feature = {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{image}\n{d}\n{code!r}")),
                "geometry": _geometry(polygons),
                "properties": {
                    "objectType": "detection",
                    "name": str(d + 1),
                    "classification": {"name": classes[k], "color": colours[k]},
                    "measurements": {"score": round(score, 6)},
                },
            }
            file.write(separator + json.dumps(feature, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]}\n")


def _objects(result: Result | StoredResult) -> Iterator[tuple[int, list, bytes, int, float]]:
    """Number, polygons, run lengths, class and score of each object that has pixels."""
    number = count()
    for part in result.split():
        columns = part.masks, part.classes.tolist(), part.scores.tolist(), part.crops.rectangles.tolist()
        for n, (mask, k, score, (top, left, _, _)) in enumerate(zip(*columns, strict=True)):
            d = next(number)
            polygons = [
                [[(left + x, top + y) for x, y in ring] for ring in rings]
                for rings in outlines(part.crops.pixels(n))
            ]
            if polygons:
                yield d, polygons, mask["counts"], k, score


def _geometry(polygons: list) -> dict:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
