"""COCO average precision at any number of detections, and the COCO form of records and results."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as rle

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.evaluation.matching import Kind, Row, match
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rles_of_labels

if TYPE_CHECKING:
    from maskrcnn_jax.data.records import Record

# Names of the classes in order; a mapping gives their category ids, too, else class k has the id k + 1.
Categories = Sequence[str] | Mapping[int, str]

# pycocotools' order of `params.areaRng`, and its suffixes: all, small, medium, large.
_AREAS = ("", "s", "m", "l")


def average_precision(
    ground_truth: dict[str, Any],
    results: Sequence[Row],
    *,
    kind: Kind,
    max_dets: Sequence[int] = (100, 2000),
) -> dict[str, float]:
    """COCO average precision (Lin et al. 2014), for each number of detections that an image may have.

    Only the best `max_dets` detections of an image and class count. The customary 100 caps the recall
    of dense images: with 393 nuclei an image a perfect answer scores 0.26.

    Args:
      ground_truth: a COCO data set: images, categories, annotations. It is not changed.
      results: COCO result rows; `bbox` is XYWH in pixels, `segmentation` an RLE or polygons.
      kind: whether boxes or masks are compared.
      max_dets: the limits to report.

    Returns:
      For each limit m: `KIND/AP@m` (mean over IoU .50:.05:.95), `KIND/AP50@m`, `KIND/AP75@m`, and
      `KIND/APs@m`, `KIND/APm@m`, `KIND/APl@m` for areas up to 32², up to 96² and above. Without
      results they are 0, without ground truth (of that area) NaN.

    Raises:
      UserError: lists the rows' unknown images and categories and missing fields, or an odd limit.
    """
    evaluation = match(ground_truth, results, kind=kind, max_dets=max_dets)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print.
        evaluation.accumulate()
    # `summarize` takes its headline at maxDets 100 and prints -1 where that is not in the list.
    precision = evaluation.eval["precision"]
    metrics = {}
    for m, limit in enumerate(evaluation.params.maxDets):
        curves = precision[..., m]
        for a, suffix in enumerate(_AREAS):
            metrics[f"{kind}/AP{suffix}@{limit}"] = _mean(curves[..., a])
        for threshold in (50, 75):
            t = np.flatnonzero(np.isclose(evaluation.params.iouThrs, threshold / 100))
            metrics[f"{kind}/AP{threshold}@{limit}"] = _mean(curves[t, ..., 0])
    return metrics


def to_coco(records: Iterable[Record], categories: Categories = ("nucleus",)) -> dict[str, Any]:
    """The ground truth of records as a COCO data set, ready for JSON.

    Args:
      records: with distinct `image_id`s.
      categories: names of the classes, with their ids or without.

    Returns:
      `images`, `categories`, `annotations`; an annotation has a compressed RLE, and its area and XYWH box
      in pixels as they were annotated, else those of its mask. Annotation ids count from 1, in the order of
      the instances.

    Raises:
      UserError: lists the records with classes out of range, and the image ids that occur twice.
    """
    images, annotations, faults = [], [], []
    ids = _ids(categories)
    seen: set[int] = set()
    for record in records:
        if record.image_id in seen:
            faults.append(f"{record.name}: image id {record.image_id} occurs twice")
        seen.add(record.image_id)
        height, width = record.image.shape[:2]
        images.append({"id": record.image_id, "file_name": record.name, "height": height, "width": width})
        if odd := [n for n, k in enumerate(record.classes) if not 0 <= k < len(ids)]:
            faults.append(f"{record.name}: instances {odd} have classes outside 0..{len(ids) - 1}")
            continue
        rows = _annotations(record, ids)
        annotations += [{"id": len(annotations) + n + 1} | row for n, row in enumerate(rows)]
    if faults:
        raise UserError("these records are no ground truth:\n  " + "\n  ".join(faults))
    names = categories.values() if isinstance(categories, Mapping) else categories
    names = [{"id": k, "name": name} for k, name in zip(ids, names, strict=True)]
    return {"images": images, "categories": names, "annotations": annotations}


def without_classes(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """A copy of a COCO data set in which everything is of category 1, for results that know no classes."""
    annotations = [row | {"category_id": 1} for row in ground_truth["annotations"]]
    return {**ground_truth, "categories": [{"id": 1, "name": "object"}], "annotations": annotations}


def to_results(results: Iterable[tuple[int, Result]], categories: Categories | None = None) -> list[Row]:
    """COCO result rows of (image id, result) pairs: XYWH boxes, RLEs as text, ids as in `to_coco`."""
    rows, ids = [], None if categories is None else _ids(categories)
    for image_id, result in results:
        corners = np.asarray(result.boxes, np.float64).reshape(-1, 4)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        fields = (boxes.tolist(), result.scores.tolist(), result.classes.tolist(), result.masks)
        rows += [
            {
                "image_id": image_id,
                "category_id": k + 1 if ids is None else ids[k],
                "bbox": box,
                "score": score,
                "segmentation": _as_text(code),
            }
            for box, score, k, code in zip(*fields, strict=True)
        ]
    return rows


def from_results(
    rows: Iterable[Row], image_id: int, size: tuple[int, int], categories: Sequence[Row]
) -> Result:
    """The rows of one image as a result, best first: the inverse of `to_results`.

    Args:
      rows: COCO result rows with boxes and run-length encodings.
      image_id: rows of other images are left out.
      size: height and width of the image.
      categories: of the data set.
    """
    classes = {category["id"]: k for k, category in enumerate(categories)}
    rows = sorted((row for row in rows if row["image_id"] == image_id), key=lambda row: -row["score"])
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Result(
        boxes.astype(np.float32),
        np.array([row["score"] for row in rows], np.float32),
        np.array([classes[row["category_id"]] for row in rows], np.int32),
        crops_of([row["segmentation"] for row in rows]),
        size,
    )


def _ids(categories: Categories) -> list[int]:
    return list(categories) if isinstance(categories, Mapping) else list(range(1, len(categories) + 1))


def _annotations(record: Record, ids: Sequence[int]) -> list[Row]:
    """The instances of a record as annotations without an id."""
    codes = rles_of_labels(record.layers, len(record.classes))
    rows = []
    for code, k, crowd, annotated in zip(codes, record.classes, record.crowd, record.annotated, strict=True):
        # One by one: pycocotools 2.0.11 cannot measure more than 255 codes at once under NumPy 2.
        box, area = rle.toBbox(code).tolist(), int(rle.area(code))
        rows.append(
            {
                "image_id": record.image_id,
                "category_id": ids[k],
                "segmentation": _as_text(code),
                "area": area if np.isnan(annotated[4]) else float(annotated[4]),
                "bbox": box if np.isnan(annotated[:4]).any() else annotated[:4].tolist(),
                "iscrowd": int(crowd),
            }
        )
    return rows


def _mean(precision: np.ndarray) -> float:
    """Mean over what has ground truth; pycocotools marks the rest with -1."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")


def _as_text(code: dict[str, Any]) -> dict[str, Any]:
    counts = code["counts"]
    return {**code, "counts": counts.decode() if isinstance(counts, bytes) else counts}
