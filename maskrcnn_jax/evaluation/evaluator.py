"""From a prediction function and records, or from COCO results, to metrics and the tables that show them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from rich.table import Table

from maskrcnn_jax.evaluation.coco import average_precision, to_coco, to_results
from maskrcnn_jax.evaluation.nuclei import averages, tally_results
from maskrcnn_jax.structures import Result

if TYPE_CHECKING:
    from maskrcnn_jax.data.records import Record

_ROWS = {"bbox": "boxes", "segm": "masks"}


@dataclass(frozen=True)
class ImageSummary:
    """One image of an evaluation: its ground truth and detections counted, and the seconds they took."""

    image_id: int
    name: str
    ground_truths: int
    detections: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
      metrics: as `score` names them.
      results: COCO result rows, ready for JSON.
      ground_truth: the COCO data set that they were compared with.
      predictions: the result of each image, in the order of `images`.
      images: a summary of each image, in the order of the records.
    """

    metrics: dict[str, float]
    results: list[dict[str, Any]]
    ground_truth: dict[str, Any]
    predictions: list[Result]
    images: list[ImageSummary]


def evaluate(
    predict: Callable[[UInt8[np.ndarray, "H W 3"]], Result],
    records: Sequence[Record],
    *,
    categories: Sequence[str] = ("nucleus",),
    max_dets: Sequence[int] = (100, 2000),
    min_score: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predicts every record's image and scores the answers.

    Args:
      predict: from an RGB image to its detections, at the image's own size.
      records: images with ground truth. Read twice, so that no more than one has to be held.
      categories: name of each class.
      max_dets: how many detections of an image and class may count; AP is reported for each.
      min_score: detections below do not count in the nuclei metrics, which know no scores.
      progress: called with the number of images done and of all, after each image.

    Raises:
      ValueError: there are no records, a result's size is not its image's, or the ground truth is faulty.
    """
    if not len(records):
        raise ValueError("there are no records to evaluate")
    ground_truth = to_coco(records, categories)
    predictions, images = [], []
    for record in records:
        start = time.perf_counter()
        result = predict(record.image)
        seconds = time.perf_counter() - start
        if tuple(result.size) != record.image.shape[:2]:
            raise ValueError(
                f"{record.name}: the result is for an image of {tuple(result.size)} pixels, "
                f"the image has {record.image.shape[:2]}"
            )
        predictions.append(result)
        images.append(ImageSummary(record.image_id, record.name, len(record.classes), len(result), seconds))
        if progress is not None:
            progress(len(images), len(records))
    ids = [image.image_id for image in images]
    results = to_results(zip(ids, predictions, strict=True))
    metrics = score(ground_truth, results, max_dets=max_dets, min_score=min_score)
    return Evaluation(metrics, results, ground_truth, predictions, images)


def score(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    max_dets: Sequence[int] = (100, 2000),
    min_score: float = 0.5,
) -> dict[str, float]:
    """The metrics of COCO result rows, wherever they come from; no model needed.

    Returns:
      COCO AP of boxes and masks, named and raising as `average_precision`; AJI, PQ and the others as
      `nuclei.averages` names them, for the rows that score at least `min_score`.
    """
    metrics = {}
    for kind in _ROWS:
        metrics |= average_precision(ground_truth, results, kind=kind, max_dets=max_dets)
    tallies = tally_results(ground_truth, results, min_score=min_score)
    return metrics | (averages(list(tallies.values())) if tallies else {})


def table(metrics: Mapping[str, float]) -> Table:
    """AP, AP50 and AP75 of boxes and masks, for each limit of detections that `metrics` has."""
    limits = sorted({int(name.rpartition("@")[2]) for name in metrics if name.split("/")[0] in _ROWS})
    columns = [f"{name}@{limit}" for limit in limits for name in ("AP", "AP50", "AP75")]
    view = Table("", title="average precision @ detections an image")
    for column in columns:
        view.add_column(column.replace("@", " @"), justify="right")
    for kind, label in _ROWS.items():
        view.add_row(label, *(_shown(metrics, f"{kind}/{column}") for column in columns))
    return view


def nuclei_table(metrics: Mapping[str, float]) -> Table:
    """AJI, Dice, PQ, F1 and counting error: the mean of the images, and of all images taken as one."""
    view = Table("", title="nuclei")
    for column in ("mean of images", "all as one"):
        view.add_column(column, justify="right")
    for name in [name.removeprefix("nuclei/") for name in metrics if name.startswith("nuclei/")]:
        values = (_shown(metrics, f"{prefix}/{name}") for prefix in ("nuclei", "nuclei_micro"))
        view.add_row(name.replace("_", " "), *values)
    return view


def _shown(metrics: Mapping[str, float], name: str) -> str:
    value = metrics.get(name, math.nan)
    return "–" if math.isnan(value) else f"{value:.3f}"
