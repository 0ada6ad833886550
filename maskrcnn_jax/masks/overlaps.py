"""Which of many masks overlap, and by how many pixels, without comparing each with each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt64

from maskrcnn_jax.masks.crops import Crops, crops_of_pixels

# A slide's hundred thousand rectangles have tens of millions of candidates: so many rectangles at a time,
# and the pixels of so many pairs.
_CHUNK, _PAIRS = 2048, 512
_ROWS = 256  # of an image: what has none of such a band in common is never compared
_COLUMNS = 56  # that a word of 64 bits holds wherever in its first byte they begin


def overlapping(rectangles: Int[np.ndarray, "N 4"]) -> Int[np.ndarray, "P 2"]:
    """All pairs n < m of rectangles (as in `Crops`) that have pixels in common."""
    rectangles = np.asarray(rectangles, np.int64)
    if not len(rectangles):
        return np.zeros((0, 2), np.int64)
    top, left, bottom, right = rectangles.T
    first = top // _ROWS
    bands = np.maximum((bottom - 1) // _ROWS - first + 1, 0)
    owner = np.repeat(np.arange(len(rectangles)), bands)
    band = first[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(bands) - bands, bands)
    # In the order of bands and left sides, those that start before another ends are its next neighbours.
    low, width = left.min(), right.max() - left.min() + 1
    place = band * width + left[owner] - low
    order = np.argsort(place, kind="stable")
    owner, band, place = owner[order], band[order], place[order]
    last = np.searchsorted(place, band * width + right[owner] - low, side="left")
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(owner), _CHUNK):
        here = np.arange(start, min(start + _CHUNK, len(owner)))
        counts = np.maximum(last[here] - here - 1, 0)
        a = np.repeat(here, counts)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        a, b, bands = owner[a], owner[b], band[a]
        shared = np.maximum(first[a], first[b]) == bands  # Two that are both in several bands count once.
        shared &= np.minimum(bottom[a], bottom[b]) > np.maximum(top[a], top[b])
        shared &= np.minimum(right[a], right[b]) > np.maximum(left[a], left[b])
        found.append(np.stack([a[shared], b[shared]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def shared_pixels(crops: Crops, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "P"]:
    """How many pixels the two masks of each pair have in common."""
    starts = range(0, len(pairs), _PAIRS)
    return np.concatenate([np.zeros(0, np.int64), *(_shared(crops, pairs[n : n + _PAIRS]) for n in starts)])


def _shared(crops: Crops, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "P"]:
    """The rows of each pair's common window, so many columns at once, as words of bits."""
    one, other = crops.rectangles[pairs.T]
    top, left = np.maximum(one[:, :2], other[:, :2]).T
    height, width = np.maximum(np.minimum(one[:, 2:], other[:, 2:]).T - [top, left], 0)
    per_row = -(-width // _COLUMNS)
    ends = np.cumsum(height * per_row)
    pair = np.repeat(np.arange(len(pairs)), height * per_row)
    row, word = np.divmod(np.arange(len(pair)) - (ends - height * per_row)[pair], per_row[pair])
    row, column, rest = row + top[pair], word * _COLUMNS + left[pair], width[pair] - word * _COLUMNS
    used = (np.uint64(1) << np.minimum(rest, _COLUMNS).astype(np.uint64)) - np.uint64(1)
    words = (_words(crops, side[pair], row, column) for side in pairs.T)
    common = np.bitwise_count(next(words) & next(words) & used)
    return np.bincount(pair, common, len(pairs)).astype(np.int64)


def _words(
    crops: Crops, masks: Int[np.ndarray, "W"], rows: Int[np.ndarray, "W"], columns: Int[np.ndarray, "W"]
) -> UInt64[np.ndarray, "W"]:
    """Masks from these pixels of the image on, in their lowest bits; beyond a row's end comes what comes."""
    top, left = crops.rectangles[masks, :2].T
    byte = crops.bounds[masks] + (rows - top) * crops.row_bytes[masks] + (columns - left) // 8
    return crops.words[byte] >> ((columns - left) % 8).astype(np.uint64)


def cut(crops: Crops, n: int, window: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """The pixels of mask n inside a rectangle, as far as the mask's own rectangle reaches."""
    top, left, bottom, right = window
    row, column = crops.rectangles[n, :2].tolist()
    return crops.pixels(n)[
        max(top - row, 0) : max(bottom - row, 0), max(left - column, 0) : max(right - column, 0)
    ]


def vote(crops: Crops, members: Sequence[int], weights: Sequence[float], share: float) -> Crops:
    """The pixels that members with at least this share of all weight agree on; the union for share 0.

    Args:
      crops: masks of one image.
      members: which of them vote.
      weights: of each member.
      share: 0 to 1; a tie counts as agreement.
    """
    rectangles = crops.rectangles[list(members)]
    top, left = rectangles[:, :2].min(axis=0).tolist()
    bottom, right = rectangles[:, 2:].max(axis=0).tolist()
    votes = np.zeros((bottom - top, right - left))
    for n, (row, column, end_row, end_column), weight in zip(
        members, rectangles.tolist(), weights, strict=True
    ):
        votes[row - top : end_row - top, column - left : end_column - left][crops.pixels(n)] += weight
    # A little less than the share, since sums of floats are not exact.
    return crops_of_pixels([(votes > 0) & (votes >= (share - 1e-9) * sum(weights))], [(top, left)])
