"""Matching: which ground truth each candidate box belongs to, and whether it counts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from maskrcnn_jax.ops.boxes import area, pairwise_intersection, pairwise_iou
from maskrcnn_jax.ops.platforms import by_platform


class Matches(NamedTuple):
    """One entry for each candidate.

    Attributes:
      index: the ground truth with the highest quality, the first of equals; 0 where there is none.
      labels: 1 positive, 0 negative, -1 ignored.
    """

    index: Int[Array, "N"]
    labels: Int8[Array, "N"]


def match(
    quality: Float[Array, "G N"],
    valid: Bool[Array, "G"],
    *,
    positive: float,
    negative: float,
    low_quality: bool,
    usable: Bool[Array, "N"] | None = None,
) -> Matches:
    """Gives each candidate its best ground truth and a label (Ren et al. 2015, §3.1.2).

    Args:
      quality: IoU, not negative, of G >= 1 ground truths and N >= 1 candidates.
      valid: False marks padding among the ground truths: it never matches.
      positive: from this best quality on, a candidate is positive.
      negative: below this best quality it is negative; between the two it is ignored. Equal to `positive`
        where nothing shall be ignored.
      low_quality: also make positive every candidate that is the best, or as good as the best, of some
        valid ground truth. As in Detectron2, a ground truth that overlaps nothing so claims every
        candidate of quality 0; the candidate's index stays that of its own best ground truth.
      usable: False marks candidates that are ignored and are nobody's best; None where all may be used.

    Returns:
      Matches; all negative with index 0 where no ground truth is valid.
    """
    # Quality is compared with its own maximum: were it fused into both, the two could round differently.
    quality = jax.lax.optimization_barrier(quality)
    masked = jnp.where(valid[:, None], quality, -1.0)
    index = jnp.argmax(masked, axis=0).astype(jnp.int32)
    best = jnp.max(masked, axis=0)
    is_positive = best >= positive
    if low_quality:
        rival = quality if usable is None else jnp.where(usable, quality, -1.0)
        row_best = jnp.max(rival, axis=1)
        is_positive |= jnp.any((quality == row_best[:, None]) & valid[:, None], axis=0)
    return Matches(index, _labels(is_positive, best, negative, usable))


def match_boxes(
    boxes: Float[Array, "G 4"],
    candidates: Float[Array, "N 4"],
    valid: Bool[Array, "G"],
    *,
    positive: float,
    negative: float,
    low_quality: bool,
    usable: Bool[Array, "N"] | None = None,
) -> Matches:
    """`match` by the IoU of `boxes` and `candidates`; on accelerators without a matrix of G x N in memory.

    Args:
      boxes: the ground truths, XYXY corners in pixels.
      candidates: the same of anchors or proposals.
      valid, positive, negative, low_quality, usable: as in `match`.
    """

    thresholds = {"positive": positive, "negative": negative, "low_quality": low_quality}

    def kept(boxes, candidates, valid, usable):
        return match(pairwise_iou(boxes, candidates), valid, **thresholds, usable=usable)

    def computed_again(boxes, candidates, valid, usable):
        index, best = _best_box(*_again(boxes, candidates, valid))
        is_positive = best >= positive
        if low_quality:
            # No quality is -1, so padding ties with nothing.
            rival = pairwise_iou(boxes, candidates)
            rival = rival if usable is None else jnp.where(usable, rival, -1.0)
            row_best = jnp.where(valid, jnp.max(rival, axis=1), -1.0)
            boxes, candidates, row_best = _again(boxes, candidates, row_best)
            is_positive |= jnp.any(pairwise_iou(boxes, candidates) == row_best[:, None], axis=0)
        return Matches(index, _labels(is_positive, best, negative, usable))

    return by_platform(boxes, candidates, valid, usable, cpu=kept, default=computed_again)


def _labels(
    is_positive: Bool[Array, "N"],
    best: Float[Array, "N"],
    negative: float,
    usable: Bool[Array, "N"] | None,
) -> Int8[Array, "N"]:
    labels = jnp.where(is_positive, 1, jnp.where(best < negative, 0, -1))
    return (labels if usable is None else jnp.where(usable, labels, -1)).astype(jnp.int8)


def _again(*inputs: Array) -> tuple[Array, ...]:
    """The same values, but what is computed from them is computed anew, within the sum that reads it.

    Else XLA sees that it had it before, and keeps a matrix of gigabytes to read it three times. IoU is the
    same bits every time, because `pairwise_iou` leaves nothing to a compiler: no product in it can be fused
    with a sum.
    """
    return jax.lax.optimization_barrier(inputs)


def _best_box(boxes, candidates, valid) -> tuple[Int[Array, "N"], Float[Array, "N"]]:
    """The first best valid box of each candidate, and its IoU; 0 and -1 where there is none."""
    quality = jnp.where(valid[:, None], pairwise_iou(boxes, candidates), -1.0)
    number = jax.lax.broadcasted_iota(jnp.int32, quality.shape, 0)

    def better(a, b):
        first = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
        return tuple(jnp.where(first, x, y) for x, y in zip(a, b, strict=True))

    start = jnp.float32(-1.0), jnp.int32(0)
    best, index = jax.lax.reduce((quality, number), start, better, (0,))
    return index, best


def ignore_crowds(
    labels: Int8[Array, "N"],
    candidates: Float[Array, "N 4"],
    boxes: Float[Array, "G 4"],
    crowd: Bool[Array, "G"],
    *,
    share: float = 0.7,
) -> Int8[Array, "N"]:
    """Ignores negatives that lie in a crowd: they may well show an object that nobody has marked.

    Args:
      labels: as `match` gives them.
      candidates: XYXY corners in pixels.
      boxes: the ground truths.
      crowd: which of them are regions of many objects.
      share: a candidate with more than this share of its area in one region lies in it; Detectron's value.

    Returns:
      Labels with -1 for these; positives stay.
    """
    sides = jnp.maximum(area(candidates), jnp.finfo(jnp.float32).tiny)
    covered = pairwise_intersection(boxes, candidates) > share * sides[None, :]
    inside = jnp.any(covered & crowd[:, None], axis=0)
    return jnp.where(inside & (labels == 0), jnp.int8(-1), labels)
