"""Which of many masks overlap, and by how many pixels, without comparing each with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from maskrcnn_jax.masks.rle import RLE, crop_of_rle, rle_of_crop

# A slide's hundred thousand rectangles have tens of millions of candidates: so many rectangles at a time.
_CHUNK = 2048


class Crops(NamedTuple):
    """N masks without their surroundings.

    Attributes:
      pixels: (h, w) bool, one for each mask, in its tight box.
      rectangles: (N, 4) first row, first column, end row and end column of each.
      areas: (N,) pixels of each.
    """

    pixels: list[Bool[np.ndarray, "h w"]]
    rectangles: Int[np.ndarray, "N 4"]
    areas: Int[np.ndarray, "N"]


def crops_of(masks: Sequence[RLE]) -> Crops:
    """Decodes run-length encodings."""
    pixels, rectangles = [], np.zeros((len(masks), 4), np.int64)
    for n, mask in enumerate(masks):
        crop, top, left = crop_of_rle(mask)
        pixels.append(crop)
        rectangles[n] = top, left, top + crop.shape[0], left + crop.shape[1]
    return Crops(pixels, rectangles, np.array([crop.sum() for crop in pixels], np.int64))


def overlapping(rectangles: Int[np.ndarray, "N 4"]) -> Int[np.ndarray, "P 2"]:
    """All pairs n < m of rectangles (as in `Crops`) that have pixels in common."""
    rectangles = np.asarray(rectangles, np.int64)
    order = np.argsort(rectangles[:, 1], kind="stable")
    top, left, bottom, right = rectangles[order].T
    # In the order of their left sides, those that start before another ends are its next neighbours.
    last = np.searchsorted(left, right, side="left")
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(order), _CHUNK):
        here = np.arange(start, min(start + _CHUNK, len(order)))
        counts = np.maximum(last[here] - here - 1, 0)
        a = np.repeat(here, counts)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        shared = np.minimum(bottom[a], bottom[b]) > np.maximum(top[a], top[b])
        shared &= np.minimum(right[a], right[b]) > np.maximum(left[a], left[b])
        found.append(order[np.stack([a[shared], b[shared]], axis=1)])
    return np.sort(np.concatenate(found), axis=1)


def shared_pixels(crops: Crops, pairs: Int[np.ndarray, "P 2"]) -> Int[np.ndarray, "P"]:
    """How many pixels the two masks of each pair have in common."""
    counts = np.zeros(len(pairs), np.int64)
    for p, (n, m) in enumerate(pairs.tolist()):
        top, left = np.maximum(crops.rectangles[n, :2], crops.rectangles[m, :2]).tolist()
        bottom, right = np.minimum(crops.rectangles[n, 2:], crops.rectangles[m, 2:]).tolist()
        window = top, left, bottom, right
        counts[p] = np.count_nonzero(cut(crops, n, window) & cut(crops, m, window))
    return counts


def cut(crops: Crops, n: int, window: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """The pixels of mask n inside a rectangle, as far as the mask's own rectangle reaches."""
    top, left, bottom, right = window
    row, column = crops.rectangles[n, :2].tolist()
    return crops.pixels[n][
        max(top - row, 0) : max(bottom - row, 0), max(left - column, 0) : max(right - column, 0)
    ]


def vote(
    crops: Crops, members: Sequence[int], weights: Sequence[float], share: float, size: tuple[int, int]
) -> RLE:
    """The pixels that members with at least this share of all weight agree on; the union for share 0.

    Args:
      crops: masks of one image.
      members: which of them vote.
      weights: of each member.
      share: 0 to 1; a tie counts as agreement.
      size: height and width of the image.
    """
    rectangles = crops.rectangles[list(members)]
    top, left = rectangles[:, :2].min(axis=0).tolist()
    bottom, right = rectangles[:, 2:].max(axis=0).tolist()
    votes = np.zeros((bottom - top, right - left))
    for n, (row, column, end_row, end_column), weight in zip(
        members, rectangles.tolist(), weights, strict=True
    ):
        votes[row - top : end_row - top, column - left : end_column - left][crops.pixels[n]] += weight
    # A little less than the share, since sums of floats are not exact.
    return rle_of_crop((votes > 0) & (votes >= (share - 1e-9) * sum(weights)), top, left, size)
