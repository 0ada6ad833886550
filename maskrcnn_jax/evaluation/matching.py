"""COCOeval for dense images: the same matching, at the cost of the pairs that overlap."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn_jax.errors import UserError

Kind = Literal["bbox", "segm"]
Row = dict[str, Any]

_FIELD = {"bbox": "bbox", "segm": "segmentation"}


def match(
    ground_truth: dict[str, Any],
    results: Sequence[Row],
    *,
    kind: Kind,
    max_dets: Sequence[int],
    thresholds: Sequence[float] | None = None,
    by_area: bool = True,
) -> COCOeval:
    """Evaluates every image, as pycocotools does.

    Args:
      ground_truth: a COCO data set: images, categories, annotations. It is not changed.
      results: COCO result rows; `bbox` is XYWH in pixels, `segmentation` an RLE or polygons.
      kind: whether boxes or masks are compared.
      max_dets: how many detections of an image and class count, for each limit.
      thresholds: of the IoU; by default COCO's ten.
      by_area: whether small, medium and large objects are looked at apart, too.

    Returns:
      An evaluation whose `evalImgs` are filled, ready for `accumulate`.

    Raises:
      UserError: lists the rows' unknown images and categories and missing fields, or an odd limit.
    """
    _check(ground_truth, results, kind, max_dets)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print.
        truth = _dataset(ground_truth, ground_truth["annotations"])
        found = _dataset(ground_truth, [_detection(row, kind) for row in results])
        evaluation = _SparseCOCOeval(truth, found, kind)
        evaluation.params.maxDets = sorted(set(max_dets))
        if thresholds is not None:
            evaluation.params.iouThrs = np.asarray(thresholds, float)
        if not by_area:
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation


class _SparseCOCOeval(COCOeval):
    """COCOeval that keeps only the pairs which overlap enough to match.

    The matching is the same; but where the original visits every pair of detection and ground truth
    ten times for each of four area ranges, this one visits the few that can match.
    """

    def computeIoU(self, imgId, catId):
        """For each detection, best first: the (ground truth, IoU) pairs that may match, in order."""
        dense = super().computeIoU(imgId, catId)
        detections = min(len(self._dts[imgId, catId]), self.params.maxDets[-1])
        pairs = [[] for _ in range(detections)]
        if len(dense):
            rows, columns = np.nonzero(dense >= _least(min(self.params.iouThrs)))
            for d, g, iou in zip(rows, columns, dense[rows, columns].tolist(), strict=True):
                pairs[d].append((g, iou))
        return pairs

    def evaluateImg(self, imgId, catId, aRng, maxDet):
        """Greedy matching of one image's detections, in the form that `accumulate` reads."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth and not found:
            return None
        low, high = aRng
        ignored = np.array([bool(g["ignore"]) or not low <= g["area"] <= high for g in truth], bool)
        order = np.argsort([-d["score"] for d in found], kind="stable")[:maxDet]
        outside = np.array([not low <= found[d]["area"] <= high for d in order], bool)
        crowd = [bool(g["iscrowd"]) for g in truth]
        pairs = [sorted(p, key=lambda pair: ignored[pair[0]]) for p in self.ious[imgId, catId]]
        matches = np.array([_match(pairs, ignored, crowd, t) for t in self.params.iouThrs], int)
        matched = matches >= 0
        matched_ignored = matched.copy()
        matched_ignored[matched] = ignored[matches[matched]]
        return {
            "dtScores": [found[d]["score"] for d in order],
            "dtMatches": matched,
            "dtIgnore": matched_ignored | (~matched & outside),
            "gtIgnore": ignored,
        }


def _match(
    pairs: list[list[tuple[int, float]]], ignored: np.ndarray, crowd: list[bool], threshold: float
) -> list[int]:
    """The ground truth of each detection, or -1: the best one left, one to ignore only for want of others."""
    taken = [False] * len(crowd)
    matches = []
    for candidates in pairs:
        best, best_iou = -1, _least(threshold)
        for g, iou in candidates:
            if taken[g] and not crowd[g]:
                continue
            if best >= 0 and ignored[g] and not ignored[best]:
                break
            if iou >= best_iou:
                best, best_iou = g, iou
        if best >= 0:
            taken[best] = True
        matches.append(best)
    return matches


def _least(threshold: float) -> float:
    """pycocotools' guard: an IoU of 1 passes a threshold of 1 despite rounding."""
    return min(threshold, 1 - 1e-10)


def _check(ground_truth: dict[str, Any], results: Sequence[Row], kind: Kind, max_dets: Sequence[int]) -> None:
    faults = []
    if not max_dets or min(max_dets) < 1:
        faults.append(f"max_dets {tuple(max_dets)} must be positive numbers")
    for field, part in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in ground_truth[part]}
        unknown = {row[field] for row in results if field in row} - known
        if unknown:
            faults.append(f"{field} not in the ground truth: {sorted(unknown, key=str)}")
    for field in ("image_id", "category_id", "score", _FIELD[kind]):
        missing = [n for n, row in enumerate(results) if field not in row]
        if missing:
            faults.append(f"{len(missing)} rows have no {field!r}, the first is row {missing[0]}")
    if faults:
        raise UserError("these results cannot be evaluated:\n  " + "\n  ".join(faults))


def _detection(row: Row, kind: Kind) -> Row:
    """What is compared, and nothing else: pycocotools would size a mask by the box beside it."""
    kept = {field: row[field] for field in ("image_id", "category_id", "score", _FIELD[kind])}
    return kept | ({"area": row["bbox"][2] * row["bbox"][3]} if kind == "bbox" else {})


def _dataset(ground_truth: dict[str, Any], annotations: Sequence[Row]) -> COCO:
    """A copy of a data set with these annotations, numbered from 1: COCOeval takes id 0 for no match."""
    data = COCO()
    data.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": [{"iscrowd": 0, **row, "id": n + 1} for n, row in enumerate(annotations)],
    }
    data.createIndex()
    for row in data.dataset["annotations"]:
        if "area" not in row:
            row["area"] = float(rle.area(data.annToRLE(row)))
    return data
