"""From an image's file to the files of its results, for many images one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn_jax.errors import DataError
from maskrcnn_jax.images.choice import ALL, Choice
from maskrcnn_jax.images.sources import ImageSource, open_source
from maskrcnn_jax.outputs.folder import Outputs
from maskrcnn_jax.outputs.overview import overview_factor
from maskrcnn_jax.prediction.journal import Job, Journal
from maskrcnn_jax.prediction.tiling import (
    BatchPredictor,
    find_tiles,
    predict_tiled,
    stretches_grey,
    tile_grid,
)

LARGE = 2048  # Images with a longer side than this are predicted in tiles, unless told otherwise.
TILE = 1024
# What a damaged file, a full disk or too small a memory makes readers, writers and JAX raise.
FAILURES = (ValueError, OSError, MemoryError, RuntimeError)
Progress = Callable[[int, int], None]


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
    ):
        """Nothing is predicted yet.

        Args:
          predict: what finds the objects.
          outputs: what writes them.
          journal: what is told of each image that is done, and keeps the tiles of one that is not.
          most: the number of objects that `predict` finds in an image at most.
          min_score: objects that score less are left out.
          tile: side of the tiles in pixels, 0 for never. None takes tiles of 1024 for images with a longer
            side than 2048.
          choice: what to read of images with several series, planes or channels.
        """
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
        return notes

    def __call__(self, job: Job, progress: Callable[[int, int], None] | None = None) -> int:
        """Predicts an image and writes its results.

        Args:
          job: the image.
          progress: called with the number of tiles done and of all, if there are tiles.

        Returns:
          The number of its objects.

        Raises:
          One of `FAILURES`: `fault` puts it into words.
        """
        with open_source(job.image, self._choice) as source:
            tile = self._tile_side(source)
            if tile:
                found = predict_tiled(self._predict, source, progress=progress, **self._options(job, tile))
            else:
                read = source.read_deep if stretches_grey(self._predict) else source.read
                (found,) = self._predict.batch([read(0, 0, *source.size)])
            found = found.take(np.flatnonzero(found.scores >= self._min_score))
            try:
                self._outputs.write(job.name, source, found)
                self._journal.save(job, found.size, len(found), self._outputs.rows(job.image_id, found))
            except BaseException:
                self._outputs.remove(job.name)
                raise
        if not tile and len(found) >= self._most:
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
            tile = self._tile_side(source)
            if not tile:
                return 0
            find_tiles(self._predict, source, (), **self._options(job, tile))
            return len(tile_grid(source.size, tile, tile // 8))

    def find_tiles(self, job: Job, numbers: Sequence[int]) -> None:
        """Predicts some of an image's tiles, for the call that does the job and finds them done."""
        with open_source(job.image, self._choice) as source:
            tile = self._tile_side(source)
            find_tiles(self._predict, source, numbers, **self._options(job, tile))

    def _tile_side(self, source: ImageSource) -> int:
        return (TILE if max(source.size) > LARGE else 0) if self._tile is None else self._tile

    def _options(self, job: Job, tile: int) -> dict[str, Any]:
        return {"tile": tile, "overlap": tile // 8, "resume": self._journal.tiles(job)}


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
      job: the image.
      objects: how many it has; None if it failed.
      seconds: that it took, of however many workers.
      fault: why it failed, in a line.
    """

    job: Job
    objects: int | None
    seconds: float
    fault: str | None = None


def do_jobs(worker: Worker, jobs: Iterable[Job], progress: Progress | None = None) -> Iterator[Outcome]:
    """One job after the other; what is wrong with one does not stop the next.

    Args:
      worker: does them.
      jobs: what is to be done.
      progress: called with the number of tiles done and of all, of an image that is predicted in tiles.
    """
    for job in jobs:
        start = time.perf_counter()
        try:
            objects, failure = worker(job, progress), None
        except FAILURES as error:
            objects, failure = None, fault(job.image, error)
        yield Outcome(job, objects, time.perf_counter() - start, failure)


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
