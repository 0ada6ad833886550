"""The small files beside results: COCO rows, metrics, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from maskrcnn_jax.files import PathLike, atomic, to_json, write_json

Rows = Iterable[Mapping[str, Any]]


def write_coco_results(path: PathLike, rows: Rows) -> None:
    """COCO result rows as the JSON list that pycocotools and contest servers load, one row a line."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for row in rows:
            file.write(separator + to_json(row))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_metrics(path: PathLike, metrics: Mapping[str, Any]) -> None:
    """Metrics as a JSON object in the order of their names; what is not a number becomes null."""
    write_json(path, dict(sorted(metrics.items())))


def write_image(path: PathLike, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """An RGB or grey uint8 picture, in the format that the name's ending tells."""
    path = Path(path)
    with atomic(path) as temporary:
        form = Image.registered_extensions()[path.suffix.lower()]
        # Of PNG: by default twice as slow, for hardly a byte.
        Image.fromarray(image).save(temporary, format=form, compress_level=4)
