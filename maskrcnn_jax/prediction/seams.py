"""What becomes of detections whose place several tiles saw: rules 2 to 4 of `merge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from maskrcnn_jax.masks.crops import Crops
from maskrcnn_jax.masks.overlaps import cut, overlapping, shared_pixels, vote
from maskrcnn_jax.masks.result import Result, concatenate

_SAME = 0.5


class Tile(NamedTuple):
    """A window of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Detections(NamedTuple):
    """What several tiles have found.

    Attributes:
      result: all of it.
      number: of each among all of the image.
      origin: its tile.
      last: the last tile in which it lies, too.
      owned: whether no other tile sees it clearly better.
      touches: whether its tile may have cut it.
    """

    result: Result
    number: Int[np.ndarray, "D"]
    origin: Int[np.ndarray, "D"]
    last: Int[np.ndarray, "D"]
    owned: Bool[np.ndarray, "D"]
    touches: Bool[np.ndarray, "D"]

    def take(self, rows: Int[np.ndarray, "rows"]) -> Detections:
        return Detections(self.result.take(rows), *(column[rows] for column in self[1:]))


def all_of(parts: Sequence[Detections]) -> Detections:
    """The detections of several parts, one after the other."""
    results, *columns = zip(*parts, strict=True)
    size = results[0].size
    return Detections(concatenate(results, size), *(np.concatenate(column) for column in columns))


class Settled(NamedTuple):
    """Objects that no tile still to come can change.

    Attributes:
      result: in no order.
      order: by which all of an image's are sorted, best first. No two have the same.
    """

    result: Result
    order: UInt64[np.ndarray, "D"]


# What goes first among those of one score.
ALONE, _SINGLE, _MISSED, _JOINED = range(4)


def order_of(
    scores: Float[np.ndarray, "D"], kind: int | Int[np.ndarray, "D"], numbers: Int[np.ndarray, "D"]
) -> UInt64[np.ndarray, "D"]:
    """From the best score down; then by kind, then by number, up to 2**30."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))  # Floats rise as their bits do.
    return falling.astype(np.uint64) << 32 | np.uint64(kind) << 30 | numbers.astype(np.uint64)


def settle(waiting: Detections, tiles: Sequence[Tile], done: int) -> tuple[Settled, Detections]:
    """Rules 2 to 4, for the detections that more than one tile saw and none after tile `done` can change.

    Returns:
      What is left of those; and the others, as they were.
    """
    links = _links(waiting, tiles)
    count = len(waiting.number)
    label = _labels(count, np.concatenate([links.half, links.pieces]))
    reached = np.zeros(count, bool)
    reached[label[waiting.last > done]] = True
    final = ~reached[label]
    found = _join(waiting.take(np.flatnonzero(final)), links.among(final))
    return found, waiting.take(np.flatnonzero(~final))


class _Links(NamedTuple):
    """Pairs of detections of different tiles, of which one's fate may hang on the other's.

    Attributes:
      half: share half of the smaller mask, whatever their class.
      pieces: of one object that both tiles have cut.
      rivals: of one class, which both tiles own; half of the smaller mask is shared, and neither tile tells
        the two apart.
    """

    half: Int[np.ndarray, "P 2"]
    pieces: Int[np.ndarray, "Q 2"]
    rivals: Int[np.ndarray, "R 2"]

    def among(self, kept: Bool[np.ndarray, "D"]) -> _Links:
        """Those of the kept detections, by their new numbers."""
        number = np.cumsum(kept) - 1
        return _Links(*(number[pairs[kept[pairs].all(axis=1)]] for pairs in self))


def _links(detections: Detections, tiles: Sequence[Tile]) -> _Links:
    (result, _, origin, _, owned, touches), crops = detections, detections.result.crops
    pairs = overlapping(crops.rectangles)
    pairs = pairs[origin[pairs[:, 0]] != origin[pairs[:, 1]]]
    shared = shared_pixels(crops, pairs)
    half = pairs[shared >= _SAME * np.maximum(crops.areas[pairs].min(axis=1), 1)]
    one_class = result.classes[pairs[:, 0]] == result.classes[pairs[:, 1]]
    pairs, shared = pairs[one_class], shared[one_class]
    rival = owned[pairs].all(axis=1) & (shared > 0)

    cut_twice = rival & touches[pairs].all(axis=1)
    zones = [_common(tiles[origin[a]], tiles[origin[b]]) for a, b in pairs[cut_twice]]
    pieces = pairs[cut_twice][_agree(crops, pairs[cut_twice], shared[cut_twice], zones)]

    areas = crops.areas[pairs]
    alike = shared >= _SAME * np.maximum(areas.sum(axis=1) - shared, 1)
    rival &= shared >= _SAME * areas.min(axis=1)
    rival &= alike | ~_told_apart(pairs, pairs[alike], origin)
    return _Links(half, pieces, pairs[rival])


def _join(detections: Detections, links: _Links) -> Settled:
    """What is left of detections, if all that they hang on are among them."""
    (result, number, origin, _, owned, touches), crops = detections, detections.result.crops
    objects = [rows for rows in _group(len(origin), links.pieces) if owned[rows[0]]]
    kept = _suppress(objects, result.scores, touches, origin, links.rivals)
    stayed = np.zeros(len(origin), bool)
    stayed[[row for rows in kept for row in rows]] = True
    missed = _missed(stayed, ~owned & ~touches, result.scores, links.half)
    single = [rows[0] for rows in kept if len(rows) == 1]
    several = [rows for rows in kept if len(rows) > 1]
    firsts = np.array([*single, *missed, *(rows[0] for rows in several)], np.int64)
    alone = result.take(firsts[: len(single) + len(missed)])
    found = concatenate([alone, *(_union(result, crops, rows) for rows in several)], result.size)
    kinds = np.repeat([_SINGLE, _MISSED, _JOINED], [len(single), len(missed), len(several)])
    return Settled(found, order_of(found.scores, kinds, number[firsts]))


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


def _labels(count: int, links: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "count"]:
    """The connected component of each of so many nodes; components count as their first nodes do."""
    from scipy.sparse import coo_array  # late: images that are predicted as a whole need none of it
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links)), tuple(links.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1] if count else np.zeros(0, np.int32)


def _group(count: int, links: Int[np.ndarray, "P 2"]) -> list[Int[np.ndarray, "members"]]:
    """The connected components of a graph of `count` nodes, as the rows of each."""
    labels = _labels(count, links)
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
