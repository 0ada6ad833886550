"""One image, from its file to the files of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.image_source import ImageSource
from maskrcnn_jax.images.regions import Regions
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.stored import StoredResult
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.outputs.overview import overview_factor
from maskrcnn_jax.prediction.journal import Job, Journal
from maskrcnn_jax.prediction.merge import filled, merge_to_disk
from maskrcnn_jax.prediction.scale import Scale
from maskrcnn_jax.prediction.tiling import (
    BatchPredictor,
    find_tiles,
    stretches_grey,
    tile_grid,
)

LARGE = 2048  # Images with a longer side than this are predicted in tiles, unless told otherwise.
TILE = 1024
# What a damaged file, a full disk or too small a memory makes readers, writers and JAX raise.
FAILURES = (ValueError, OSError, MemoryError, RuntimeError)
Progress = Callable[[int, int], None]
Found = Result | StoredResult


class Seen(NamedTuple):
    """An image that is open.

    Attributes:
      zoom: by how much it is enlarged for the model.
      tile: side of its tiles in its own pixels; 0 if it is predicted as a whole, from `pixels`.
    """

    job: Job
    source: ImageSource
    zoom: float
    tile: int
    pixels: Shaped[np.ndarray, "H W *C"] | None


class Worker:
    """Does jobs."""

    def __init__(
        self,
        predict: BatchPredictor,
        outputs: Outputs,
        journal: Journal,
        *,
        most: int,
        min_score: float,
        tile: int | None = None,
        choice: Choice = ALL,
        scale: Scale | None = None,
        regions: Regions | None = None,
        batch: int = 1,
    ):
        """Nothing is predicted yet.

        Args:
          predict: what finds the objects.
          outputs: what writes them.
          journal: what is told of each image that is done, and keeps the tiles of one that is not.
          most: the number of objects that `predict` finds in an image at most.
          min_score: objects that score less are left out.
          tile: side of the tiles in pixels as the model sees them, 0 for never. None takes tiles of 1024 for
            images with a longer side than 2048.
          choice: what to read of images with several series, planes or channels.
          scale: at which images are shown to the model.
          regions: what has its middle in none of them is left out.
          batch: how many tiles the model gets at once, and images in `do_jobs`.
        """
        self._scale, self._regions, self.batch = scale or Scale(), regions, batch
        self._scales: dict[str, list[str]] = {}
        self._choice = choice
        self._predict, self._outputs, self._journal = predict, outputs, journal
        self._most, self._min_score, self._tile = most, min_score, tile
        self._full: list[str] = []
        self._smaller: list[str] = []

    @property
    def notes(self) -> list[str]:
        """What a person should know who looks at the results so far."""
        notes = []
        if self._full:
            notes.append(
                f"the model finds at most {self._most:,} objects, and did in {_listed(self._full)}: "
                "there may be more; predict in tiles (--tile)"
            )
        if self._smaller:
            notes.append(f"overlays are smaller than the images: {_listed(self._smaller)}")
        notes += [f"{note}: {_listed(names)}" for note, names in self._scales.items()]
        return notes

    def __call__(self, job: Job, progress: Progress | None = None) -> int:
        """Predicts an image and writes its results.

        Args:
          job: the image.
          progress: called with the number of tiles done and of all, if there are tiles.

        Returns:
          The number of its objects.

        Raises:
          One of `FAILURES`: `fault` puts it into words.
        """
        seen = self.look(job)
        try:
            found = self.find_in_tiles(seen, progress) if seen.tile else self.start([seen])()[0]
        except BaseException:
            seen.source.close()
            raise
        return self.write(seen, found)

    def look(self, job: Job) -> Seen:
        """Opens an image, and reads it if it is to be predicted as a whole."""
        source = open_source(job.image, self._choice)
        try:
            zoom, note = self._scale.of(source)
            if note:
                self._scales.setdefault(note, []).append(job.name)
            tile = self._tile_side(source, zoom)
            read = source.read_deep if stretches_grey(self._predict) else source.read
            return Seen(job, source, zoom, tile, None if tile else read(0, 0, *source.size))
        except BaseException:
            source.close()
            raise

    def start(self, images: Sequence[Seen]) -> Callable[[], list[Result]]:
        """Hands whole images of one zoom to the device; what waits for their objects."""
        zoom = {} if images[0].zoom == 1 else {"zoom": images[0].zoom}
        return self._predict.start([image.pixels for image in images], **zoom)

    def find_in_tiles(self, seen: Seen, progress: Progress | None = None) -> StoredResult:
        """Predicts an image in tiles; what is wanted of it is on disk until the journal has the image."""
        options, size = self._options(seen.job, seen.tile, seen.zoom), seen.source.size
        tiles = tile_grid(size, seen.tile, options["overlap"])
        numbers = range(len(tiles))
        store = find_tiles(self._predict, seen.source, numbers, progress=progress, **options)
        parts = filled(map(store.read, numbers), size)
        return merge_to_disk(parts, tiles, size, options["resume"] / "objects", self._wanted)

    def write(self, seen: Seen, found: Found) -> int:
        """Writes an image's results, and closes it; returns the number of its objects."""
        job = seen.job
        with seen.source:
            if isinstance(found, Result):
                found = found.take(np.flatnonzero(self._wanted(found)))
            try:
                self._outputs.write(job.name, seen.source, found)
                self._journal.save(job, found.size, len(found), self._outputs.rows(job.image_id, found))
            except BaseException:
                self._outputs.remove(job.name)
                raise
        if not seen.tile and len(found) >= self._most:
            self._full.append(job.name)
        factor = overview_factor(found.size)
        if factor > 1 and "overlay" in self._outputs.files(job.name):
            self._smaller.append(f"{job.name} by {factor}")
        return len(found)

    def count_tiles(self, job: Job) -> int:
        """In how many tiles the image is predicted; 0 if it is as a whole.

        If there are any, `find_tiles` may be called from now on, by several workers at once.
        """
        with open_source(job.image, self._choice) as source:
            zoom, _ = self._scale.of(source)
            tile = self._tile_side(source, zoom)
            if not tile:
                return 0
            find_tiles(self._predict, source, (), **self._options(job, tile, zoom))
            return len(tile_grid(source.size, tile, tile // 8))

    def find_tiles(self, job: Job, numbers: Sequence[int]) -> None:
        """Predicts some of an image's tiles, for the call that does the job and finds them done."""
        with open_source(job.image, self._choice) as source:
            zoom, _ = self._scale.of(source)
            tile = self._tile_side(source, zoom)
            find_tiles(self._predict, source, numbers, **self._options(job, tile, zoom))

    def _wanted(self, found: Result) -> Bool[np.ndarray, "D"]:
        enough = found.scores >= self._min_score
        if self._regions is None:
            return enough
        return enough & self._regions.contain((found.boxes[:, :2] + found.boxes[:, 2:]) / 2)

    def _tile_side(self, source: ImageSource, zoom: float) -> int:
        """In the image's pixels; 0 if it is predicted as a whole."""
        tile = (TILE if max(source.size) * zoom > LARGE else 0) if self._tile is None else self._tile
        return round(tile / zoom)

    def _options(self, job: Job, tile: int, zoom: float) -> dict[str, Any]:
        resume = self._journal.tiles(job)
        options = {"zoom": zoom, "regions": self._regions, "batch": self.batch, "resume": resume}
        return {"tile": tile, "overlap": tile // 8, **options}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def fault(image: Path, error: Exception) -> str:
    """What went wrong with an image, in a line."""
    if isinstance(error, DataError):
        return "; ".join(map(str, error.faults))
    text = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        text = f"does not fit into memory; give --tile {TILE}, or a smaller number"
    return f"{image}: {text}"
