"""Masks without their surroundings: one as its pixels and their place, many as bits and tight boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from maskrcnn_jax.masks.rle import RLE, crop_of_rle, rles_of_crops

# Masks whose bits are gathered at once: the places of all of a slide's would be many times as large as they.
_TAKEN = 1 << 14


class Crop(NamedTuple):
    """A mask without its empty surroundings: `pixels` (h, w) bool lie at row `top`, column `left`."""

    top: int
    left: int
    pixels: np.ndarray

    @property
    def content(self) -> tuple:
        """What two masks have in common if their pixels are the same."""
        return self.top, self.left, self.pixels.shape, self.pixels.tobytes()


@dataclass(frozen=True, eq=False)
class Crops:
    """N masks.

    Attributes:
      bits: the rows of all masks, one after the other, eight pixels a byte, the first in its lowest bit. A
        row starts with a byte; what fills up its last one is 0.
      rectangles: first row, first column, end row and end column of each mask's tight box; all 0 for a mask
        without pixels.
    """

    bits: UInt8[np.ndarray, "bytes"]
    rectangles: Int[np.ndarray, "N 4"]

    def __len__(self) -> int:
        return len(self.rectangles)

    @cached_property
    def row_bytes(self) -> Int[np.ndarray, "N"]:
        """Bytes of a row of each."""
        return -(-(self.rectangles[:, 3] - self.rectangles[:, 1]) // 8)

    @cached_property
    def bounds(self) -> Int[np.ndarray, "N+1"]:
        """The first byte of each, and the number of all."""
        heights = self.rectangles[:, 2] - self.rectangles[:, 0]
        return np.concatenate([[0], np.cumsum(heights * self.row_bytes)])

    @cached_property
    def areas(self) -> Int[np.ndarray, "N"]:
        """Pixels of each."""
        areas, solid = np.zeros(len(self), np.int64), np.flatnonzero(np.diff(self.bounds))
        if len(solid):
            counts = np.bitwise_count(self.bits)
            areas[solid] = np.add.reduceat(counts, self.bounds[solid], dtype=np.int64)
        return areas

    @cached_property
    def words(self) -> UInt64[np.ndarray, "bytes"]:
        """The 64 bits from each byte on: a view, in which neighbours overlap."""
        padded = np.concatenate([self.bits, np.zeros(8, np.uint8)])
        return np.ndarray(len(self.bits), "<u8", padded, strides=(1,))

    def pixels(self, n: int) -> Bool[np.ndarray, "h w"]:
        """Mask n in its tight box."""
        top, left, bottom, right = self.rectangles[n].tolist()
        rows = self.bits[self.bounds[n] : self.bounds[n + 1]].reshape(bottom - top, self.row_bytes[n])
        return np.unpackbits(rows, axis=1, count=right - left, bitorder="little").view(bool)

    def take(self, rows: Int[np.ndarray, "M"]) -> Crops:
        """Some of the masks, in the order of `rows`."""
        first = self.bounds[:-1][rows]
        lengths = self.bounds[1:][rows] - first
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        bits = np.empty(bounds[-1], np.uint8)
        for start in range(0, len(first), _TAKEN):
            some = slice(start, start + _TAKEN)
            low, high = bounds[start], bounds[min(start + _TAKEN, len(first))]
            place = np.arange(low, high) + np.repeat(first[some] - bounds[:-1][some], lengths[some])
            bits[low:high] = self.bits[place]
        return Crops(bits, self.rectangles[rows])

    def moved(self, down: int, right: int) -> Crops:
        """The masks so many pixels further down and to the right."""
        moved = self.rectangles + np.array([down, right, down, right])
        return Crops(self.bits, np.where(self.areas[:, None] > 0, moved, 0))

    def rles(self, size: tuple[int, int]) -> list[RLE]:
        """Compressed COCO run-length encodings at an image of this height and width."""
        corners = self.rectangles[:, :2].tolist()
        return rles_of_crops([self.pixels(n) for n in range(len(self))], corners, size)


def join(parts: Sequence[Crops]) -> Crops:
    """The masks of all, one after the other."""
    bits = [np.zeros(0, np.uint8), *(part.bits for part in parts)]
    rectangles = [np.zeros((0, 4), np.int64), *(part.rectangles for part in parts)]
    return Crops(np.concatenate(bits), np.concatenate(rectangles))


def crops_of(masks: Sequence[RLE]) -> Crops:
    """Decodes run-length encodings."""
    bits, rectangles = [np.zeros(0, np.uint8)], np.zeros((len(masks), 4), np.int64)
    for n, mask in enumerate(masks):
        pixels, top, left = crop_of_rle(mask)
        bits.append(np.packbits(pixels, axis=1, bitorder="little").ravel())
        rectangles[n] = top, left, top + pixels.shape[0], left + pixels.shape[1]
    return Crops(np.concatenate(bits), rectangles)


def crops_of_pixels(pixels: Sequence[Bool[np.ndarray, "h w"]], corners: Sequence[Sequence[int]]) -> Crops:
    """Masks from pixels.

    Args:
      pixels: of each mask; what is background around it is cut off.
      corners: the image row and column of each one's first pixel.
    """
    return join(
        [pack(np.ascontiguousarray(p)[None], np.array([c])) for p, c in zip(pixels, corners, strict=True)]
    )


def crops_of_runs(
    owner: Int[np.ndarray, "runs"],
    row: Int[np.ndarray, "runs"],
    start: Int[np.ndarray, "runs"],
    end: Int[np.ndarray, "runs"],
    count: int,
) -> Crops:
    """Masks from runs of pixels that share none.

    Args:
      owner: the mask of each, rising.
      row: of the image, rising within a mask; runs of a row are in order.
      start, end: its first column and the one behind its last.
      count: how many masks there are.
    """
    rectangles = np.zeros((count, 4), np.int64)
    if len(owner):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        low = [np.minimum.reduceat(values, first) for values in (row, start)]
        high = [np.maximum.reduceat(values, first) for values in (row + 1, end)]
        rectangles[owner[first]] = np.stack([*low, *high], axis=1)
    crops = Crops(np.zeros(0, np.uint8), rectangles)
    top, left = rectangles[:, :2].T
    stride = 8 * crops.row_bytes
    # Of the image's first row and column, if the mask reached so far.
    origin = 8 * crops.bounds[:-1] - top * stride - left
    begin = origin.take(owner) + row * stride.take(owner)
    places = np.stack([begin + start, begin + end], axis=1).ravel()
    return Crops(_bits_between(places, crops.bounds[-1]), rectangles)


def _bits_between(places: Int[np.ndarray, "P"], count: int) -> UInt8[np.ndarray, "bytes"]:
    """So many bytes of bits, which change at these places, which rise."""
    words = np.zeros(count // 8 + 1, "<u8")
    word = places >> 6
    last = np.flatnonzero(np.append(word[1:] != word[:-1], len(word) > 0))  # of the places in each word
    flips = np.uint64(2**64 - 1) << (places & 63).astype(np.uint64)
    flips = np.bitwise_xor.accumulate(flips)[last]
    flips[1:] ^= flips[:-1]
    words[word[last]] = flips
    # A word's last bit says whether it has changed all that follow, too.
    words[1:] ^= -np.bitwise_xor.accumulate(words >> np.uint64(63))[:-1]
    return words.view(np.uint8)[:count]


def pack(masks: Bool[np.ndarray, "N h w"], corners: Int[np.ndarray, "N 2"]) -> Crops:
    """Masks from windows of one size: what is background around each is cut off.

    Args:
      masks: the windows.
      corners: the image row and column of each one's first pixel.
    """
    bits = np.packbits(masks, axis=2, bitorder="little")
    rows = bits.any(axis=2)
    columns = np.unpackbits(np.bitwise_or.reduce(bits, axis=1), axis=1, bitorder="little").view(bool)
    top, bottom = _extent(rows)
    left, right = _extent(columns)
    # Shifted within their bytes, so that the first column of each is in a lowest bit.
    pairs = bits.astype(np.uint16)
    pairs[..., :-1] |= pairs[..., 1:] << np.uint16(8)
    bits = (pairs >> (left % 8).astype(np.uint16)[:, None, None]).astype(np.uint8)
    first, last = left // 8, left // 8 - (left - right) // 8
    kept = _between(top, bottom, bits.shape[1])[:, :, None] & _between(first, last, bits.shape[2])[:, None]
    rectangles = np.stack([top, left, bottom, right], axis=1) + np.tile(corners, 2)
    return Crops(bits[kept], np.where((bottom > top)[:, None], rectangles, 0).astype(np.int64))


def _extent(used: Bool[np.ndarray, "N side"]) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """The first place of each row that is used, and the end of the last; both 0 where none is."""
    if not used.size:
        return (np.zeros(len(used), np.int64),) * 2
    some = used.any(axis=1)
    end = used.shape[1] - used[:, ::-1].argmax(axis=1)
    return np.where(some, used.argmax(axis=1), 0), np.where(some, end, 0)


def _between(low: Int[np.ndarray, "N"], high: Int[np.ndarray, "N"], side: int) -> Bool[np.ndarray, "N side"]:
    place = np.arange(side)
    return (place >= low[:, None]) & (place < high[:, None])
