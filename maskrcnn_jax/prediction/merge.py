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

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.overlaps import cut, overlapping, shared_pixels, vote
from maskrcnn_jax.masks.result import Result, concatenate

# Boxes that keep this many pixels or fewer from a border may have been cut by it.
_TOUCH = 4.0
_SAME = 0.5


class Tile(NamedTuple):
    """A window of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def merge_tiles(parts: Iterable[Result], tiles: Sequence[Tile], size: tuple[int, int]) -> Result:
    """One result for the whole image, best first.

    Args:
      parts: the detections in each tile, with boxes and masks in the frame of the whole image; from an
        iterator, they are not kept.
      tiles: where each of them looked. Places that no other tile looked at are left as they are.
      size: height and width of the image.
    """
    parts = list(parts)
    origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    everything = concatenate(parts, size)
    own, other = _clearances(parts, tiles, size)
    del parts  # Of a slide's millions each copy counts, here and below.
    boxes = everything.boxes
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    # Two tiles' boxes of one object differ by less than half its side, so one of them always stays.
    owned = (other < own + longer / 2) & ~((own <= _TOUCH) & (other > _TOUCH))
    twice = other > -np.inf
    rest = np.flatnonzero(twice)
    found = _join(everything.take(rest), origin[rest], owned[rest], own[rest] <= _TOUCH, tiles)
    alone = everything.take(np.flatnonzero(~twice))
    del everything, boxes
    merged = concatenate([alone, found], size)
    del alone, found
    return merged.take(np.argsort(-merged.scores, kind="stable"))


def _clearances(
    parts: Sequence[Result], tiles: Sequence[Tile], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "D"], Float[np.ndarray, "D"]]:
    """Each detection's clearance in its own tile, and the best in another; -inf where no other sees it."""
    corners = np.array(tiles, np.int64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    near = [[] for _ in tiles]
    for a, b in overlapping(corners).tolist():
        near[a].append(b)
        near[b].append(a)
    own, other = [np.zeros(0)], [np.zeros(0)]
    for t, part in enumerate(parts):
        own.append(_clearance(part.boxes, corners[t], size))
        views = [_clearance(part.boxes, corners[n], size) for n in near[t]]
        other.append(np.max([np.full(len(part), -np.inf), *views], axis=0))
    return np.concatenate(own), np.concatenate(other)


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


def _join(
    result: Result,
    origin: Int[np.ndarray, "D"],
    owned: Bool[np.ndarray, "D"],
    touches: Bool[np.ndarray, "D"],
    tiles: Sequence[Tile],
) -> Result:
    """Rules 2 to 4, for the detections whose place more than one tile saw."""
    crops = result.crops
    pairs = overlapping(crops.rectangles)
    pairs = pairs[origin[pairs[:, 0]] != origin[pairs[:, 1]]]
    shared = shared_pixels(crops, pairs)
    half = pairs[shared >= _SAME * np.maximum(crops.areas[pairs].min(axis=1), 1)]
    one_class = result.classes[pairs[:, 0]] == result.classes[pairs[:, 1]]
    pairs, shared = pairs[one_class], shared[one_class]
    rival = owned[pairs].all(axis=1) & (shared > 0)

    cut_twice = rival & touches[pairs].all(axis=1)
    zones = [_common(tiles[origin[a]], tiles[origin[b]]) for a, b in pairs[cut_twice]]
    agree = _agree(crops, pairs[cut_twice], shared[cut_twice], zones)
    objects = _group(len(origin), pairs[cut_twice][agree])
    objects = [rows for rows in objects if owned[rows[0]]]

    areas = crops.areas[pairs]
    alike = shared >= _SAME * np.maximum(areas.sum(axis=1) - shared, 1)
    rival &= shared >= _SAME * areas.min(axis=1)
    rival &= alike | ~_told_apart(pairs, pairs[alike], origin)
    kept = _suppress(objects, result.scores, touches, origin, pairs[rival])
    stayed = np.zeros(len(origin), bool)
    stayed[[row for rows in kept for row in rows]] = True
    missed = _missed(stayed, ~owned & ~touches, result.scores, half)
    single = [*(rows[0] for rows in kept if len(rows) == 1), *missed]
    joined = [_union(result, crops, rows) for rows in kept if len(rows) > 1]
    return concatenate([result.take(np.array(single, np.int64)), *joined], result.size)


def _told_apart(
    pairs: Int[np.ndarray, "P 2"], alike: Int[np.ndarray, "Q 2"], origin: Int[np.ndarray, "D"]
) -> Bool[np.ndarray, "P"]:
    """Whether one of the two tiles has found both of a pair, as others that are alike to them show."""
    twins = {(n, int(origin[m])) for pair in alike.tolist() for n, m in (pair, pair[::-1])}
    return np.array([(a, origin[b]) in twins or (b, origin[a]) in twins for a, b in pairs.tolist()], bool)


def _common(one: Tile, other: Tile) -> tuple[int, int, int, int]:
    """The rectangle (as in `Crops`) that two tiles have in common."""
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom = min(one.top + one.height, other.top + other.height)
    right = min(one.left + one.width, other.left + other.width)
    return top, left, bottom, right


def _agree(
    crops: Crops, pairs: Int[np.ndarray, "P 2"], shared: Int[np.ndarray, "P"], zones: Sequence[Sequence[int]]
) -> Bool[np.ndarray, "P"]:
    """Whether the masks of a pair are alike inside the zone that both of their tiles saw."""
    seen = [
        sum(np.count_nonzero(cut(crops, n, zone)) for n in pair)
        for pair, zone in zip(pairs, zones, strict=True)
    ]
    return shared >= _SAME * (np.array(seen, np.int64) - shared)


def _group(count: int, links: Int[np.ndarray, "P 2"]) -> list[Int[np.ndarray, "members"]]:
    """The connected components of a graph of `count` nodes, as the rows of each."""
    graph = coo_array((np.ones(len(links)), tuple(links.T)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if count else []


def _suppress(
    objects: Sequence[Int[np.ndarray, "members"]],
    scores: Float[np.ndarray, "D"],
    touches: Bool[np.ndarray, "D"],
    origin: Int[np.ndarray, "D"],
    pairs: Int[np.ndarray, "P 2"],
) -> list[Int[np.ndarray, "members"]]:
    """The objects that stay when of each pair the better one does, whole ones before cut ones."""
    of_row = np.zeros(len(scores), np.int64)
    for number, rows in enumerate(objects):
        of_row[rows] = number
    rivals: dict[int, set[int]] = {}
    for a, b in of_row[pairs].tolist():
        # What one tile has told apart stays apart.
        if a != b and not np.intersect1d(origin[objects[a]], origin[objects[b]]).size:
            rivals.setdefault(a, set()).add(b)
            rivals.setdefault(b, set()).add(a)
    gone: set[int] = set()
    for number in sorted(rivals, key=lambda n: (touches[objects[n]].any(), -scores[objects[n]].max())):
        if number not in gone:
            gone |= rivals[number]
    return [rows for number, rows in enumerate(objects) if number not in gone]


def _missed(
    stayed: Bool[np.ndarray, "D"],
    candidates: Bool[np.ndarray, "D"],
    scores: Float[np.ndarray, "D"],
    pairs: Int[np.ndarray, "P 2"],
) -> list[int]:
    """Rule 4: of the candidates, from the best score down, those that are in no pair with one that stays."""
    near: dict[int, list[int]] = {}
    for n, m in pairs.tolist():
        near.setdefault(n, []).append(m)
        near.setdefault(m, []).append(n)
    stayed = stayed.copy()
    back = []
    for n in np.flatnonzero(candidates & ~stayed)[np.argsort(-scores[candidates & ~stayed], kind="stable")]:
        if not stayed[near.get(int(n), [])].any():
            stayed[n] = True
            back.append(int(n))
    return back


def _union(result: Result, crops: Crops, rows: Int[np.ndarray, "members"]) -> Result:
    """The pieces of one object as one detection."""
    areas = crops.areas[rows]
    boxes = result.boxes[rows]
    return Result(
        boxes=np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None],
        scores=np.array([np.average(result.scores[rows], weights=areas)], np.float32),
        classes=result.classes[rows[:1]],
        crops=vote(crops, rows, np.ones(len(rows)), 0),
        size=result.size,
    )
