"""The detections of overlapping tiles as those of one image: nothing is cut, and nothing counted twice.

A detection's *clearance* is how far its box keeps from those borders of a tile that are not borders of the
image: what is near has been seen without its surroundings, what touches has been cut. The rules, in turn:

1. Another tile that sees the same place with clearly more clearance owns it: the detection goes. So does
   one that touches its tile's border where another tile sees all of it.
2. Objects longer than the overlap are cut in every tile. Two pieces whose masks agree where their tiles
   overlap (IoU 0.5 there) are one object: their union, with the mean of their scores by area. A piece that
   finds no partner stays as it is.
3. What is left and shares half of the smaller mask with a detection of another tile is the same object,
   unless one of the two tiles has found both: the one that is not cut stays, or else that of higher score.
4. What went by rule 1 though its own tile saw all of it comes back where nothing that stayed, of any class,
   shares half of the smaller mask with it: the owner has missed the object. Of several, the best comes back.

Only detections of one class are joined or compared, as in the model's own suppression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from maskrcnn_jax.masks.overlaps import overlapping
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.masks.stored import StoredResult, sort_to_disk
from maskrcnn_jax.prediction.seams import ALONE, Detections, Settled, Tile, all_of, order_of, settle

# Boxes that keep this many pixels or fewer from a border may have been cut by it.
_TOUCH = 4.0
_FRESH = 4096  # Detections in seams that are looked at together, at least.


def merge_tiles(parts: Iterable[Result], tiles: Sequence[Tile], size: tuple[int, int]) -> Result:
    """One result for the whole image, best first; see `settle_tiles`."""
    settled = [Settled(concatenate([], size), np.zeros(0, np.uint64)), *settle_tiles(parts, tiles, size)]
    everything = concatenate([some.result for some in settled], size)
    order = np.concatenate([some.order for some in settled])
    del settled  # Of a slide's millions each copy counts.
    return everything.take(np.argsort(order))


def merge_to_disk(
    parts: Iterable[Result],
    tiles: Sequence[Tile],
    size: tuple[int, int],
    path: Path,
    wanted: Callable[[Result], Bool[np.ndarray, "D"]],
) -> StoredResult:
    """As `merge_tiles`, with no more in memory than `settle_tiles` and `sort_to_disk` need.

    Args:
      parts, tiles, size: as for `settle_tiles`.
      path: of the file that they are written to.
      wanted: tells which objects are to be kept.
    """

    def chosen(settled: Settled) -> Settled:
        rows = np.flatnonzero(wanted(settled.result))
        return Settled(settled.result.take(rows), settled.order[rows])

    return sort_to_disk(map(chosen, settle_tiles(parts, tiles, size)), path, size)


def filled(parts: Iterable[Result | None], size: tuple[int, int]) -> Iterator[Result]:
    """Tiles that were skipped as such in which nothing was found: what only their neighbours see there, cut,
    goes.
    """
    empty = concatenate([], size)
    return (part or empty for part in parts)


def settle_tiles(parts: Iterable[Result], tiles: Sequence[Tile], size: tuple[int, int]) -> Iterator[Settled]:
    """The image's objects, in the end all of them, as soon as they are what they will be.

    What is waited for are the detections that lie in tiles still to come, and those that share half of their
    masks with such ones: with tiles row by row, about as many as lie in the seam below a row.

    Args:
      parts: the detections in each tile, with boxes and masks in the frame of the whole image, and masks
        inside their tile; from an iterator, they are not kept.
      tiles: where each of them looked. Places that no other tile looked at are left as they are.
      size: height and width of the image.
    """
    views = _Views(tiles, size)
    nothing = np.zeros(0, np.int64)
    waiting = Detections(concatenate([], size), *[nothing] * 3, *[nothing.astype(bool)] * 2)
    fresh, count = [], 0
    for t, part in enumerate(parts):
        detections, other = views.detections(t, part, count)
        count += len(part)
        once = detections.take(np.flatnonzero(other == -np.inf))
        yield Settled(once.result, order_of(once.result.scores, ALONE, once.number))
        fresh.append(detections.take(np.flatnonzero(other > -np.inf)))
        # Those that wait are looked at again, so not before as many have come.
        many = sum(len(some.number) for some in fresh) >= max(_FRESH, len(waiting.number))
        if many or t == len(tiles) - 1:
            found, waiting = settle(all_of([waiting, *fresh]), tiles, t)
            yield found
            fresh.clear()


class _Views:
    """How well tiles see what they see."""

    def __init__(self, tiles: Sequence[Tile], size: tuple[int, int]):
        self._size = size
        self._corners = np.array(tiles, np.int64).reshape(-1, 4)
        self._corners[:, 2:] += self._corners[:, :2]
        self._near = [[] for _ in tiles]
        for a, b in overlapping(self._corners).tolist():
            self._near[a].append(b)
            self._near[b].append(a)

    def detections(self, tile: int, part: Result, count: int) -> tuple[Detections, Float[np.ndarray, "D"]]:
        """What a tile has found, after so many; and the best clearance in another, -inf without one."""
        boxes, (top, left, bottom, right) = part.boxes, part.crops.rectangles.T
        other, last = np.full(len(part), -np.inf), np.full(len(part), tile)
        for n in self._near[tile]:
            other = np.maximum(other, _clearance(boxes, self._corners[n], self._size))
            a, b, c, d = self._corners[n].tolist()
            inside = (top < c) & (bottom > a) & (left < d) & (right > b)
            last = np.where(inside, np.maximum(last, n), last)
        own = _clearance(boxes, self._corners[tile], self._size)
        longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        # Two tiles' boxes of one object differ by less than half its side, so one of them always stays.
        owned = (other < own + longer / 2) & ~((own <= _TOUCH) & (other > _TOUCH))
        number, origin = count + np.arange(len(part)), np.full(len(part), tile)
        return Detections(part, number, origin, last, owned, own <= _TOUCH), other


def _clearance(
    boxes: Float[np.ndarray, "D 4"], corners: Int[np.ndarray, "4"], size: tuple[int, int]
) -> Float[np.ndarray, "D"]:
    """Pixels to the nearest inner border, negative beyond it; -inf for boxes without a place in the tile."""
    top, left, bottom, right = corners.tolist()
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    sides = [
        np.full(len(boxes), np.inf) if outer else distance
        for outer, distance in (
            (top == 0, y0 - top),
            (left == 0, x0 - left),
            (bottom >= size[0], bottom - y1),
            (right >= size[1], right - x1),
        )
    ]
    apart = (y1 <= top) | (y0 >= bottom) | (x1 <= left) | (x0 >= right)
    return np.where(apart, -np.inf, np.min(sides, axis=0))
