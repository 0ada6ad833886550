"""What the widget does, without napari and Qt: pixels of a layer in, objects and their measurements out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.outputs.object_table import COLUMNS, table_rows
from maskrcnn_jax.prediction.predictor import Predictor
from maskrcnn_jax.prediction.tiling import predict_tiled
from maskrcnn_jax.prediction.worker import LARGE, TILE
from maskrcnn_jax.zoo import load_model

Progress = Callable[[int, int], None]


class Cancelled(Exception):
    """The person does not want the result any more."""


@dataclass(frozen=True, eq=False)
class Objects:
    """What was found in an image.

    Attributes:
      labels: object n fills its pixels with n, 0 is background.
      features: a column of numbers by name, as in `outputs.object_table`; `index` is the label.
    """

    labels: Int[np.ndarray, "H W"]
    features: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.features["index"])


class Finder:
    """Keeps the last model that it was asked for, which is compiled already."""

    def __init__(self) -> None:
        self._loaded: tuple[str | Path, Predictor] | None = None

    def __call__(
        self,
        pixels: Shaped[np.ndarray, "H W *C"],
        model: str | Path,
        *,
        min_score: float | None = None,
        tile: int = 0,
        progress: Progress = lambda done, count: None,
        cancelled: threading.Event | None = None,
    ) -> Objects:
        """Finds the objects in an image.

        Args:
          pixels: grey, RGB or RGBA of 8 or 16 bits.
          model: the name of one that comes with the package, or the folder of a bundle.
          min_score: objects that score less are left out; None is what the model's config says.
          tile: side of the tiles in pixels; 0 takes tiles of 1024 where a side has more than 2048.
          progress: called with the number of tiles done and of all.
          cancelled: is looked at between tiles.

        Raises:
          UserError: there is no such model, or it or the image cannot be read.
          Cancelled: as it says.
        """

        def step(done: int, count: int) -> None:
            if cancelled is not None and cancelled.is_set():
                raise Cancelled
            progress(done, count)

        predictor = self._predictor(model)
        step(0, 1)
        source = open_source(pixels)
        if not tile and max(source.size) <= LARGE:
            (found,) = predictor.batch([source.read_deep(0, 0, *source.size)])
        else:
            side = tile or TILE
            found = predict_tiled(predictor, source, tile=side, overlap=side // 8, progress=step)
        step(1, 1)
        least = predictor.config.detection.min_score if min_score is None else min_score
        found = found.take(np.flatnonzero(found.scores >= least))
        names = [str(k) for k in range(predictor.config.num_classes)]
        return Objects(found.label_map(), _columns(list(table_rows(found, names, source))))

    def _predictor(self, model: str | Path) -> Predictor:
        if self._loaded is None or self._loaded[0] != model:
            config, params = load_model(model) if isinstance(model, str) else load_bundle(model)
            self._loaded = model, Predictor(config, params)
        return self._loaded[1]


def visible_pixels(
    data: Any,
    *,
    rgb: bool,
    multiscale: bool = False,
    place: Sequence[int] = (),
    limits: tuple[float, float] | None = None,
) -> Shaped[np.ndarray, "H W *C"]:
    """The plane of a layer that is in view, as pixels that a model reads.

    Args:
      data: the layer's array, of any kind that can be indexed.
      rgb: whether its last axis holds colours.
      multiscale: whether it is a pyramid: several arrays, the finest first.
      place: the index along each axis; of those in front of rows and columns it says which plane is meant.
      limits: what is black and what is white, where pixels are neither of 8 nor of 16 bits.

    Raises:
      UserError: the layer has no rows and columns.
    """
    finest = data[0] if multiscale else data
    planes = finest.ndim - 2 - rgb
    if planes < 0:
        raise UserError(f"expected an image of rows and columns, found an array of shape {finest.shape}")
    pixels = np.asarray(finest[tuple(int(i) for i in place[:planes])])
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = limits or (0.0, 1.0)
    share = (np.nan_to_num(pixels.astype(np.float32)) - low) / max(high - low, 1e-12)
    return np.rint(np.clip(share, 0, 1) * 65535).astype(np.uint16)


def _columns(rows: Sequence[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    """A table's rows as arrays; what was not measured, of objects without pixels, is NaN."""
    columns = {
        name: np.array([float("nan") if row[i] == "" else float(row[i]) for row in rows])
        for i, name in enumerate(COLUMNS)
    }
    whole = {"index": columns.pop("id").astype(np.int64), "class": columns.pop("class").astype(np.int64)}
    return whole | columns
