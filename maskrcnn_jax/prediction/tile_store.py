"""Finished tiles of a long prediction on disk, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import as_json, atomic, write_json
from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.prediction.identity import differences, read

_MANIFEST = "tiles.json"
# What a file that a full disk or a lost power left behind makes NumPy raise.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class TileStore:
    """A folder with `tiles.json`, which says of which prediction, and a file for each finished tile."""

    def __init__(self, folder: str | os.PathLike[str], identity: Mapping[str, Any]):
        """Opens the folder, or makes it.

        Args:
          folder: for this prediction alone.
          identity: what the tiles depend on: JSON values by their names.

        Raises:
          UserError: the folder holds something else, or tiles of another prediction; says what differs.
        """
        self._folder = Path(folder)
        manifest = self._folder / _MANIFEST
        identity = as_json(identity)
        if manifest.exists():
            changes = differences(read(manifest), identity, "there")
            if changes:
                raise UserError(
                    f"{folder} holds tiles of another prediction; name another folder or delete it:{changes}"
                )
        elif self._folder.exists() and any(self._folder.iterdir()):
            raise UserError(f"{folder} holds other files than tiles: name an empty or a new folder")
        else:
            write_json(manifest, identity)

    def load(self) -> dict[int, Result | None]:
        """All tiles that are finished; None for one that was skipped. What is damaged counts as missing."""
        stems = (path.stem.removeprefix("tile_") for path in self._folder.glob("tile_*.npz"))
        numbers = (int(stem) for stem in stems if stem.isdecimal())
        return {number: self.read(number) for number in numbers if number in self}

    def __contains__(self, number: int) -> bool:
        """Whether a tile is finished, and all of its file there."""
        try:
            self.read(number)
        except _DAMAGED:
            return False
        return True

    def read(self, number: int) -> Result | None:
        """A finished tile's detections; None if it was skipped."""
        with self._path(number).open("rb") as file, np.load(file, allow_pickle=False) as fields:
            return _result_of(dict(fields))

    def save(self, number: int, result: Result | None) -> None:
        """Keeps a tile's detections, or that it was skipped."""
        fields = {}
        if result is not None:
            fields = {
                "boxes": result.boxes,
                "scores": result.scores,
                "classes": result.classes,
                "bits": result.crops.bits,
                "rectangles": result.crops.rectangles,
                "size": np.array(result.size),
            }
        with atomic(self._path(number)) as temporary, temporary.open("wb") as file:
            np.savez(file, **fields)

    def _path(self, number: int) -> Path:
        return self._folder / f"tile_{number:06d}.npz"


def _result_of(fields: dict[str, np.ndarray]) -> Result | None:
    if not fields:
        return None
    crops = Crops(fields["bits"], fields["rectangles"])
    height, width = fields["size"].tolist()
    return Result(fields["boxes"], fields["scores"], fields["classes"], crops, (height, width))
