"""COCO run-length encodings from crops and label maps, without ever making an instance's full-size mask.

A mask is read column by column; its code is the lengths of the runs, background first. Here runs are
held as *edges*: the sorted positions in that reading order at which the mask changes. Whatever is
returned is byte for byte what `pycocotools.mask.encode` gives for the full mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from maskrcnn_jax.errors import UserError

RLE = dict[str, Any]


def rle_of_crop(crop: Bool[np.ndarray, "h w"], top: int, left: int, size: tuple[int, int]) -> RLE:
    """Encodes a mask that is given as a crop of its image.

    Args:
      crop: the mask; everything outside it is background. It may be empty.
      top, left: the image row and column of the crop's first pixel. The crop may leave the image on
        any side; what lies outside is cut.
      size: height and width of the image.

    Returns:
      {"size": [H, W], "counts": compressed bytes}.
    """
    return rles_of_crops([crop], [(top, left)], size)[0]


def rles_of_crops(
    crops: Sequence[Bool[np.ndarray, "h w"]], corners: Sequence[Sequence[int]], size: tuple[int, int]
) -> list[RLE]:
    """Encodes several masks of one image; see `rle_of_crop`.

    Args:
      crops: the masks.
      corners: `top` and `left` of each.
      size: height and width of the image.
    """
    return _compress([_edges(crop, *corner, size) for crop, corner in zip(crops, corners, strict=True)], size)


def rles_of_labels(layers: Int[np.ndarray, "L H W"], count: int) -> list[RLE]:
    """Encodes all instances of layered label maps in one pass.

    Args:
      layers: value n + 1 marks a pixel of instance n, 0 background; an instance lives in one layer.
      count: how many instances there are.

    Returns:
      One encoding for each instance, in order; that of an instance without pixels is empty.

    Raises:
      UserError: a value is above `count`, or an instance has pixels in two layers.
    """
    runs = [_runs(layer) for layer in layers]
    labels, starts, ends = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    layer_of_run = np.repeat(np.arange(len(runs)), [len(values) for values, *_ in runs])
    order = np.argsort(labels, kind="stable")
    labels, layer_of_run = labels[order], layer_of_run[order]
    if len(labels) and labels[-1] > count:
        raise UserError(f"label {labels[-1]} is above the number of instances, {count}")
    torn = (labels[1:] == labels[:-1]) & (layer_of_run[1:] != layer_of_run[:-1])
    if torn.any():
        raise UserError(f"labels {np.unique(labels[1:][torn]).tolist()} have pixels in more than one layer")
    edges = np.stack([starts[order], ends[order]], axis=1)
    bounds = np.searchsorted(labels, np.arange(1, count + 2))
    per_instance = [edges[a:b].ravel() for a, b in pairwise(bounds)]
    return _compress(per_instance, layers.shape[1:])


def crop_of_rle(rle: RLE) -> tuple[Bool[np.ndarray, "h w"], int, int]:
    """The mask inside its tight box, and that box's first row and column; a 0 x 0 crop if it is empty."""
    height = rle["size"][0]
    edges = np.cumsum(run_lengths(rle["counts"]))
    starts, ends = edges[:-1:2], edges[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return np.zeros((0, 0), bool), 0, 0
    # Cut where a column ends, so that the time does not depend on the image's height.
    pieces = (ends - 1) // height - starts // height + 1
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    columns = np.repeat(starts // height, pieces) + nth
    first = np.where(nth == 0, np.repeat(starts, pieces) - columns * height, 0)
    end = np.minimum(np.repeat(ends, pieces) - columns * height, height)
    top, left = first.min(), columns[0]
    steps = np.zeros((columns[-1] - left + 1, end.max() - top + 1), np.int8)
    np.add.at(steps, (columns - left, first - top), 1)
    np.add.at(steps, (columns - left, end - top), -1)
    return np.cumsum(steps, axis=1, dtype=np.int8)[:, :-1].astype(bool).T, int(top), int(left)


def _edges(
    crop: Bool[np.ndarray, "h w"], top: int, left: int, size: tuple[int, int]
) -> Int[np.ndarray, "edges"]:
    """Where a mask changes, in reading order."""
    height, width = size
    crop = crop[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    rows, columns = crop.shape
    framed = np.zeros((columns, rows + 2), bool)
    framed[:, 1:-1] = crop.T
    column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
    edges = (left + column) * height + top + row
    if rows == height:
        # A run that leaves a column at its bottom goes on at the top of the next: no edge between them.
        joined = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    return edges


def _runs(labels: Int[np.ndarray, "H W"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, first position and end of each run of foreground, in reading order."""
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    foreground = flat[starts] > 0
    return flat[starts][foreground], starts[foreground], ends[foreground]


def _compress(edges: Sequence[np.ndarray], size: Sequence[int]) -> list[RLE]:
    """All codes in one pass; pycocotools' encoder has 32 bits for a length, which slides exceed."""
    height, width = (int(side) for side in size)
    counts = [np.diff(e, prepend=0, append=height * width) for e in edges]
    # pycocotools' encoder leaves out an empty last run, but not an empty first one.
    counts = [c[:-1] if len(c) > 1 and c[-1] == 0 else c for c in counts]
    deltas = [np.concatenate([c[:3], c[3:] - c[1:-2]]) for c in counts]
    values = np.concatenate([np.zeros(0, np.int64), *deltas])
    # Five bits a character, with one bit for the sign.
    bits = np.frexp(np.where(values < 0, ~values, values).astype(np.float64))[1] + 1
    lengths = -(-bits // 5)
    ends = np.cumsum(lengths)
    place = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    characters = ((np.repeat(values, lengths) >> (5 * place)) & 0x1F) | 0x20
    characters[ends - 1] &= 0x1F
    text = (characters + 48).astype(np.uint8).tobytes()
    bounds = np.append(0, ends)[np.cumsum([0, *map(len, counts)])].tolist()
    return [{"size": [height, width], "counts": text[a:b]} for a, b in pairwise(bounds)]


def run_lengths(code: bytes | str) -> Int[np.ndarray, "runs"]:
    """Lengths of the runs: five bits a character, low ones first, as differences to the run before last."""
    characters = (
        np.frombuffer(code.encode() if isinstance(code, str) else code, np.uint8).astype(np.int64) - 48
    )
    last = (characters & 0x20) == 0
    first = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(characters)) - np.repeat(first, np.diff(first, append=len(characters)))
    values = np.add.reduceat((characters & 0x1F) << (5 * place), first)
    # The highest bit that is written is the sign.
    values -= ((characters[last] & 0x10) != 0) * (np.int64(1) << (5 * (place[last] + 1)))
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])
    counts[2::2] = np.cumsum(values[2::2])
    return counts
