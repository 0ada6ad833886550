"""The numbers of nuclear segmentation: AJI, AJI+, Dice, PQ with its factors, F1 by IoU, counting error.

All of them follow from one sparse table of the pixels that each ground truth shares with each prediction.
Classes do not matter. Instances may overlap; a pixel then counts in each instance that has it, except in
Dice. To score the way of tools that know label maps only, give label maps (`Result.label_map`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.masks.rle import RLE, rles_of_labels

F1_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
Instances = Int[np.ndarray, "H W"] | Sequence[RLE]


class Tally(NamedTuple):
    """The sums behind the metrics of one image; those of several images add up, field by field.

    Attributes:
      aji, aji_plus: pixels of the intersections and of the unions.
      dice: pixels common to both foregrounds, and the sum of both.
      matches: one-to-one pairs with an IoU above each of `F1_THRESHOLDS`.
      iou_sum: of the pairs above 0.5.
      counts: ground truths and predictions.
      count_error: their absolute difference.
    """

    aji: Int[np.ndarray, "2"]
    aji_plus: Int[np.ndarray, "2"]
    dice: Int[np.ndarray, "2"]
    matches: Int[np.ndarray, "thresholds"]
    iou_sum: float
    counts: Int[np.ndarray, "2"]
    count_error: int


class _Overlaps(NamedTuple):
    """Pairs of ground truth and prediction that share pixels; areas of all."""

    truth: Int[np.ndarray, "pairs"]
    found: Int[np.ndarray, "pairs"]
    shared: Int[np.ndarray, "pairs"]
    truth_areas: Int[np.ndarray, "G"]
    found_areas: Int[np.ndarray, "D"]

    @property
    def union(self) -> Int[np.ndarray, "pairs"]:
        return self.truth_areas[self.truth] + self.found_areas[self.found] - self.shared

    @property
    def iou(self) -> Float[np.ndarray, "pairs"]:
        return self.shared / self.union


def tally(ground_truth: Instances, predictions: Instances) -> Tally:
    """Compares the instances of one image.

    Args:
      ground_truth, predictions: label maps (0 is background) or COCO run-length encodings. Instances
        without pixels do not count.

    Raises:
      UserError: the two have different image sizes.
    """
    truth, found = _codes(ground_truth), _codes(predictions)
    sizes = {tuple(code["size"]) for code in truth + found}
    if len(sizes) > 1:
        raise UserError(f"instances to be compared have different image sizes: {sorted(sizes)}")
    overlaps = _overlaps(truth, found)
    matches = [_assign(overlaps, threshold) for threshold in F1_THRESHOLDS]
    return Tally(
        aji=_aggregated_jaccard(overlaps, _best_for_each_truth(overlaps)),
        aji_plus=_aggregated_jaccard(overlaps, _assign(overlaps, 0.0)),
        dice=_foregrounds(truth, found),
        matches=np.array([len(pairs) for pairs in matches]),
        iou_sum=float(overlaps.iou[matches[0]].sum()),
        counts=np.array([len(truth), len(found)]),
        count_error=abs(len(truth) - len(found)),
    )


def summarize(sums: Tally) -> dict[str, float]:
    """The metrics of one image's tally, or of the sum of several.

    Returns:
      `AJI` (Kumar et al. 2017, algorithm 1: a ground truth takes the prediction of highest IoU, which may
      serve several; what is in no pair adds its area to the union) and `AJI+` (Graham et al. 2019: pairs
      are one to one, by the best sum of IoUs); `Dice` of the foregrounds; `DQ`, `SQ` and
      `PQ` (Kirillov et al. 2019; a pair has an IoU above 0.5; SQ is 0 without pairs); `F1@t`, where a
      pair has an IoU above t; `count_error`, the absolute difference relative to the ground truth. NaN
      where there is nothing to compare with.
    """
    objects = sums.counts.sum()
    matched = sums.matches[0]
    metrics = {
        "AJI": _ratio(*sums.aji),
        "AJI+": _ratio(*sums.aji_plus),
        "Dice": _ratio(2 * sums.dice[0], sums.dice[1]),
        "DQ": _ratio(2 * matched, objects),
        "SQ": _ratio(sums.iou_sum, matched) if matched else _ratio(0, objects),
        "PQ": _ratio(2 * sums.iou_sum, objects),
    }
    pairs = zip(F1_THRESHOLDS, sums.matches, strict=True)
    metrics |= {f"F1@{threshold}": _ratio(2 * n, objects) for threshold, n in pairs}
    return metrics | {"count_error": _ratio(sums.count_error, sums.counts[0])}


def tally_results(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, min_score: float = 0.5
) -> dict[Any, Tally]:
    """A tally for each image of a COCO data set.

    Args:
      ground_truth: images and annotations. Crowds are no instances, and what lies in one by more than half
        does not count as a prediction (Kirillov et al. 2019).
      results: COCO result rows with masks.
      min_score: rows that score less do not count as predictions.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    groups = {image_id: ([], [], []) for image_id in sizes}
    annotations = {crowd: [] for crowd in (False, True)}
    for row in ground_truth["annotations"]:
        annotations[bool(row.get("iscrowd", 0))].append(row)
    found = [row for row in results if row["score"] >= min_score]
    for side, rows in enumerate((annotations[False], found, annotations[True])):
        for row in rows:
            image_id = row["image_id"]
            groups[image_id][side].append(_as_rle(row["segmentation"], sizes[image_id]))
    return {
        image_id: tally(truth, _outside(found, crowds)) for image_id, (truth, found, crowds) in groups.items()
    }


def averages(tallies: Sequence[Tally]) -> dict[str, float]:
    """The metrics of several images: `nuclei/NAME` and `nuclei_micro/NAME`.

    The first is the mean over the images for which the metric is defined, the second that of all images
    taken as one. At least one tally is needed.
    """
    per_image = [summarize(sums) for sums in tallies]
    pooled = summarize(Tally(*(sum(field[1:], start=field[0]) for field in zip(*tallies, strict=True))))
    means = {}
    for name in pooled:
        defined = [metrics[name] for metrics in per_image if not math.isnan(metrics[name])]
        means[f"nuclei/{name}"] = float(np.mean(defined)) if defined else math.nan
    return means | {f"nuclei_micro/{name}": value for name, value in pooled.items()}


def _codes(instances: Instances) -> list[RLE]:
    if isinstance(instances, np.ndarray):
        instances = rles_of_labels(instances[None], int(instances.max(initial=0)))
    return [code for code in instances if coco.area(code)]


def _as_rle(segmentation: Any, size: tuple[int, int]) -> RLE:
    """COCO's three forms of a mask: polygons, counts as a list, or counts as text."""
    if isinstance(segmentation, list):
        return coco.merge(coco.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return coco.frPyObjects(segmentation, *size)
    return segmentation


def _outside(codes: list[RLE], crowds: list[RLE]) -> list[RLE]:
    """Those with no more than half of their pixels in the crowds."""
    if not codes or not crowds:
        return codes
    share = coco.iou(codes, [coco.merge(crowds)], [1])[:, 0]
    return [code for code, inside in zip(codes, share, strict=True) if inside <= 0.5]


def _overlaps(truth: list[RLE], found: list[RLE]) -> _Overlaps:
    truth_areas, found_areas = (np.array([int(coco.area(c)) for c in codes], int) for codes in (truth, found))
    if not truth or not found:
        none = np.zeros(0, int)
        return _Overlaps(none, none, none, truth_areas, found_areas)
    # Against a crowd pycocotools divides by the first one's area alone, which gives back the pixels.
    share = coco.iou(found, truth, [1] * len(truth))
    d, g = np.nonzero(share)
    return _Overlaps(g, d, np.rint(share[d, g] * found_areas[d]).astype(int), truth_areas, found_areas)


def _best_for_each_truth(overlaps: _Overlaps) -> Int[np.ndarray, "pairs"]:
    """The pair of highest IoU of each ground truth that has one; a prediction may serve several."""
    order = np.lexsort([overlaps.found, -overlaps.iou, overlaps.truth])
    first = np.unique(overlaps.truth[order], return_index=True)[1]
    return order[first]


def _assign(overlaps: _Overlaps, threshold: float) -> Int[np.ndarray, "pairs"]:
    """The one-to-one pairs with IoU above the threshold that have the largest sum of IoUs."""
    iou = overlaps.iou
    candidates = np.flatnonzero(iou > threshold)
    rows, row = np.unique(overlaps.truth[candidates], return_inverse=True)
    columns, column = np.unique(overlaps.found[candidates], return_inverse=True)
    gain = np.zeros((len(rows), len(columns)))
    gain[row, column] = iou[candidates]
    pair = np.full(gain.shape, -1)
    pair[row, column] = candidates
    chosen = pair[linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen >= 0]


def _aggregated_jaccard(overlaps: _Overlaps, pairs: Int[np.ndarray, "pairs"]) -> Int[np.ndarray, "2"]:
    """Intersections of the pairs; their unions and the areas of all that is in no pair."""
    alone_truth, alone_found = overlaps.truth_areas.copy(), overlaps.found_areas.copy()
    alone_truth[overlaps.truth[pairs]] = 0
    alone_found[overlaps.found[pairs]] = 0
    union = overlaps.union[pairs].sum() + alone_truth.sum() + alone_found.sum()
    return np.array([overlaps.shared[pairs].sum(), union])


def _foregrounds(truth: list[RLE], found: list[RLE]) -> Int[np.ndarray, "2"]:
    merged = [coco.merge(codes) for codes in (truth, found) if codes]
    total = sum(int(coco.area(code)) for code in merged)
    common = int(coco.area(coco.merge(merged, intersect=True))) if len(merged) == 2 else 0
    return np.array([common, total])


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
