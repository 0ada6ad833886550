"""What was found in one image, on disk: a slide may have more objects than memory holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt64

from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.result import Result, concatenate

_RUN = 1 << 17  # Detections that are sorted at once.
Ordered = tuple[Result, UInt64[np.ndarray, "D"]]


@dataclass(frozen=True)
class StoredResult:
    """One image's detections, best first: of a `Result` what can be had without all of it in memory.

    Attributes:
      path: the file, which is whose made it to remove.
      count: how many there are.
      size: height and width of the image in pixels.
    """

    path: Path
    count: int
    size: tuple[int, int]

    def __len__(self) -> int:
        return self.count

    def split(self) -> Iterator[Result]:
        """The detections in their order, some thousand at a time."""
        read = 0
        with self.path.open("rb") as file:
            while read < self.count:
                part, _ = _read(file, self.size)
                read += len(part)
                yield part

    def load(self) -> Result:
        """All of them, in memory."""
        return concatenate(list(self.split()), self.size)


def sort_to_disk(parts: Iterable[Ordered], path: Path, size: tuple[int, int]) -> StoredResult:
    """The detections of all parts in their order.

    In memory is what makes a part of 131,072, in the end a piece of 4,096 of each.

    Args:
      parts: detections, and numbers that their order goes by, all different.
      path: of the file. Beside it, another one is as large until all is done.
      size: height and width of the image in pixels.
    """
    runs = path.with_name(path.name + ".parts")
    with runs.open("w+b") as file:
        starts = [_write_run(file, *part) for part in _together(parts, size)]
        count = 0
        with path.open("wb") as together:
            for part in _merged([_Run(file, start, size) for start in starts], size):
                count += _write(together, *part)
    runs.unlink()
    return StoredResult(path, count, size)


def _together(parts: Iterable[Ordered], size: tuple[int, int]) -> Iterator[Ordered]:
    """Fewer parts, of so many detections or a little more; there is always one."""
    results, orders, count = [concatenate([], size)], [np.zeros(0, np.uint64)], 0
    for result, order in parts:
        results.append(result)
        orders.append(order)
        count += len(result)
        if count >= _RUN:
            yield concatenate(results, size), np.concatenate(orders)
            del results[1:], orders[1:]
            count = 0
    yield concatenate(results, size), np.concatenate(orders)


class _Run:
    """A sorted part on disk, of which a piece is in memory.

    Attributes:
      result, order: of the piece, which has nothing in it at the part's end.
    """

    def __init__(self, file: BinaryIO, start: int, size: tuple[int, int]):
        self._file, self._next, self._size = file, start, size
        self.go_on()

    def go_on(self) -> None:
        """The next piece."""
        self._file.seek(self._next)
        self.result, self.order = _read(self._file, self._size)
        self._used, self._next = 0, self._file.tell()

    def up_to(self, bound: np.uint64) -> Ordered:
        """What is left of the piece, as far as the bound."""
        start, self._used = self._used, int(np.searchsorted(self.order, bound, side="right"))
        rows = np.arange(start, self._used)
        return self.result.take(rows), self.order[rows]

    @property
    def empty(self) -> bool:
        """Whether nothing is left of the piece."""
        return self._used == len(self.order)


def _write_run(file: BinaryIO, result: Result, order: UInt64[np.ndarray, "D"]) -> int:
    """Writes a part, sorted, with a piece of nothing behind it; returns where it starts."""
    start, rows = file.tell(), np.argsort(order)
    _write(file, result.take(rows), order[rows])
    _write_piece(file, result.take(rows[:0]), order[:0])
    return start


def _merged(runs: Sequence[_Run], size: tuple[int, int]) -> Iterator[Ordered]:
    """All that is in sorted parts, sorted."""
    while runs := [run for run in runs if len(run.order)]:
        # What is not in memory yet comes behind the piece of its part that is.
        bound = min(run.order[-1] for run in runs)
        results, orders = zip(*(run.up_to(bound) for run in runs), strict=True)
        order = np.concatenate(orders)
        rows = np.argsort(order)
        yield concatenate(results, size).take(rows), order[rows]
        for run in runs:
            if run.empty:
                run.go_on()


def _write(file: BinaryIO, result: Result, order: UInt64[np.ndarray, "D"]) -> int:
    """Writes detections in pieces; returns how many there are."""
    first = 0
    for piece in result.split():
        _write_piece(file, piece, order[first : first + len(piece)])
        first += len(piece)
    return first


def _write_piece(file: BinaryIO, result: Result, order: UInt64[np.ndarray, "D"]) -> None:
    crops = result.crops
    columns = (
        order,
        result.boxes,
        result.scores,
        result.classes,
        crops.rectangles.astype(np.int32),
        crops.bits,
    )
    for column in columns:
        np.save(file, column, allow_pickle=False)


def _read(file: BinaryIO, size: tuple[int, int]) -> Ordered:
    """The next piece."""
    columns = (np.load(file, allow_pickle=False) for _ in range(6))
    order, boxes, scores, classes, rectangles, bits = columns
    return Result(boxes, scores, classes, Crops(bits, rectangles.astype(np.int64)), size), order
