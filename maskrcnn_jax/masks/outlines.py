"""Masks as polygons along the corners of their pixels: drawn again, they give the same mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

Ring = list[tuple[int, int]]


class _Sides(NamedTuple):
    """Straight parts of a border in one direction. The mask lies on their right.

    Attributes:
      start, end: (S,) corners, counted row by row.
      forward: (S,) whether they lead to larger coordinates: to the right, or down.
    """

    start: Int[np.ndarray, "S"]
    end: Int[np.ndarray, "S"]
    forward: Bool[np.ndarray, "S"]


def outlines(mask: Bool[np.ndarray, "h w"]) -> list[list[Ring]]:
    """One polygon for each piece of a mask, a piece being pixels that hang together by their sides.

    The polygons are valid as OGC and GeoJSON (RFC 7946) define it: no ring touches itself, two touch in
    single points at most, and exterior rings turn from the x axis to the y axis, holes the other way.

    Returns:
      For each piece its rings, the exterior first, then the holes. A ring is a closed list of the corners
      (x, y), in pixels from the mask's upper left: pixel (row i, column j) covers [j, j + 1] x [i, i + 1].
    """
    from scipy import ndimage  # late: most of what imports this draws no outline

    if not mask.any():
        return []
    framed = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), bool)
    framed[1:-1, 1:-1] = mask
    pieces, count = ndimage.label(framed)
    across, down = _across(pieces), _down(pieces)
    width = mask.shape[1] + 1
    row, column = np.divmod(across.start, width)
    # A side that leads to the right has its pixel below, one that leads to the left above.
    owner = pieces[row + across.forward, np.where(across.forward, column + 1, column)]
    # They sum up to the area of a ring: positive for exteriors.
    area = row * (column - across.end % width)
    corners = np.stack([across.start, across.end], axis=1)
    polygons: list[list[Ring]] = [[] for _ in range(count)]
    for cycle in _cycles(_next_across(pieces, across, down)):
        y, x = np.divmod(corners[[*cycle, cycle[0]]].ravel()[:-1], width)
        rings = polygons[owner[cycle[0]] - 1]
        rings.insert(
            0 if area[cycle].sum() > 0 else len(rings), list(zip(x.tolist(), y.tolist(), strict=True))
        )
    return polygons


def _across(pieces: Int[np.ndarray, "h+2 w+2"]) -> _Sides:
    """The horizontal sides of all pieces."""
    mask = (pieces > 0).astype(np.int8)
    step = mask[1:] - mask[:-1]
    before, after = step[:, :-1].ravel(), step[:, 1:].ravel()
    first, last = (np.flatnonzero((before != after) & (edge != 0)) for edge in (after, before))
    forward = after[first] > 0
    return _Sides(np.where(forward, first, last), np.where(forward, last, first), forward)


def _down(pieces: Int[np.ndarray, "h+2 w+2"]) -> _Sides:
    """The vertical sides: those of the transposed mask, where right is left."""
    sides = _across(pieces.T)
    height, width = pieces.shape[0] - 1, pieces.shape[1] - 1
    start, end = (corner % height * width + corner // height for corner in (sides.end, sides.start))
    return _Sides(start, end, ~sides.forward)


def _next_across(pieces: Int[np.ndarray, "h+2 w+2"], across: _Sides, down: _Sides) -> Int[np.ndarray, "S"]:
    """For each horizontal side the one that comes next, after a vertical one, in its ring.

    Where two pixels share a corner only, two sides come in and two go out. If both belong to one piece,
    the ring goes over to the other pixel: so it surrounds one region of the background, and the border of
    such a region never touches itself. If they belong to two pieces, it stays with its own.
    """
    upper_left, upper_right = pieces[:-1, :-1], pieces[:-1, 1:]
    lower_left, lower_right = pieces[1:, :-1], pieces[1:, 1:]
    falling = (upper_left > 0) & (lower_right > 0) & (upper_right == 0) & (lower_left == 0)
    rising = (upper_right > 0) & (lower_left > 0) & (upper_left == 0) & (lower_right == 0)
    crossing = (falling | rising).ravel()
    over = (falling & (upper_left == lower_right) | rising & (upper_right == lower_left)).ravel()

    def leaving(sides: _Sides) -> Int[np.ndarray, "S"]:
        return 2 * sides.start + (crossing[sides.start] & sides.forward)

    def wanted(sides: _Sides, turn: bool) -> Int[np.ndarray, "S"]:
        # On the right of "right" comes "down", then "left", then "up".
        return 2 * sides.end + (crossing[sides.end] & (sides.forward ^ turn ^ over[sides.end]))

    vertical = _places(leaving(down), wanted(across, turn=False))
    return _places(leaving(across), wanted(down, turn=True))[vertical]


def _places(values: Int[np.ndarray, "S"], wanted: Int[np.ndarray, "W"]) -> Int[np.ndarray, "W"]:
    """Where each wanted value stands among different values."""
    order = np.argsort(values)
    return order[np.searchsorted(values[order], wanted)]


def _cycles(following: Int[np.ndarray, "S"]) -> Iterator[list[int]]:
    """The cycles of a permutation."""
    successors: list[int | None] = following.tolist()
    for start, step in enumerate(successors):
        cycle, place = [], start
        while step is not None:
            cycle.append(place)
            successors[place], place = None, step
            step = successors[place]
        if cycle:
            yield cycle
