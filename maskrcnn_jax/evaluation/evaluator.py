"""From a prediction function and records, or from COCO results of any origin, to metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from maskrcnn_jax.errors import UserError
from maskrcnn_jax.evaluation.coco import Categories, average_precision, to_coco, to_results
from maskrcnn_jax.evaluation.curves import Curves, curves
from maskrcnn_jax.evaluation.nuclei import averages, summarize, tally_results
from maskrcnn_jax.masks.result import Result

if TYPE_CHECKING:
    from maskrcnn_jax.data.records import Record


@dataclass(frozen=True)
class ImageScore:
    """One image of an evaluation.

    Attributes:
      image_id, name: as in the ground truth.
      ground_truths: its objects; crowds are not counted.
      detections: those that score at least `min_score`.
      metrics: as `nuclei.summarize` names them; NaN where there is nothing to compare.
      seconds: that the prediction took; None where there was none.
    """

    image_id: int
    name: str
    ground_truths: int
    detections: int
    metrics: dict[str, float]
    seconds: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` or `score` found.

    Attributes:
      metrics: COCO AP of boxes and masks as `average_precision` names them, if there are scores; AJI, PQ
        and the others as `nuclei.averages` names them, for the detections that score at least `min_score`.
      images: in the order of the ground truth.
      curves: of the masks, if there are scores.
      min_score: see `metrics`.
      results: COCO result rows, ready for JSON.
      ground_truth: the COCO data set that they were compared with.
    """

    metrics: dict[str, float]
    images: list[ImageScore]
    curves: Curves | None
    min_score: float
    results: Sequence[dict[str, Any]]
    ground_truth: dict[str, Any]


class Crew(NamedTuple):
    """The processes that share out an evaluation.

    Attributes:
      index: which of them this is; 0 scores.
      count: how many there are.
      gather: from what each of them gives, called by all, to the list of it; for values that JSON knows.
    """

    index: int = 0
    count: int = 1
    gather: Callable[[Any], list[Any]] = lambda value: [value]


def evaluate(
    predict: Callable[[UInt8[np.ndarray, "H W 3"]], Result],
    records: Sequence[Record],
    *,
    categories: Categories = ("nucleus",),
    max_dets: Sequence[int] = (100, 2000),
    min_score: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
    crew: Crew = Crew(),  # noqa: B008 - cannot change
) -> Evaluation | None:
    """Predicts every record's image and scores the answers.

    Args:
      predict: from an RGB image to its detections, at the image's own size.
      records: images with ground truth. Read twice, so that no more than one has to be held.
      categories: names of the classes, with their ids or without.
      max_dets: how many detections of an image and class may count; AP is reported for each.
      min_score: detections below do not count in the nuclei metrics, which know no scores.
      progress: called with the number of images done and of all, after each image; in a crew, equally often
        on all processes.
      crew: where several processes call this, each of which predicts its share.

    Returns:
      None on all processes of a crew but the first.

    Raises:
      UserError: there are no records, a result's size is not its image's, or the ground truth is faulty.
    """
    if not len(records):
        raise UserError("there are no images to evaluate: does this split have any?")
    ground_truth = to_coco(records, categories) if crew.index == 0 else None
    found = _predict_share(predict, records, categories, progress, crew)
    everyones = sorted((image for share in crew.gather(found) for image in share), key=lambda image: image[0])
    if ground_truth is None:
        return None
    seconds = [image[1] for image in everyones]
    results = [row for image in everyones for row in image[2]]
    found = score(ground_truth, results, max_dets=max_dets, min_score=min_score)
    timed = [replace(image, seconds=s) for image, s in zip(found.images, seconds, strict=True)]
    return replace(found, images=timed)


def _predict_share(
    predict: Callable[[UInt8[np.ndarray, "H W 3"]], Result],
    records: Sequence[Record],
    categories: Categories,
    progress: Callable[[int, int], None] | None,
    crew: Crew,
) -> list[tuple[int, float, list[dict[str, Any]]]]:
    """Of each image that is this process's to predict: its number, the seconds it took, its result rows."""
    found = []
    for turn in range(0, len(records), crew.count):
        number = turn + crew.index
        if number < len(records):
            record = records[number]
            result, seconds = _timed(predict, record)
            found.append((number, seconds, to_results([(record.image_id, result)], categories)))
        if progress is not None:
            progress(min(turn + crew.count, len(records)), len(records))
    return found


def _timed(predict: Callable[[UInt8[np.ndarray, "H W 3"]], Result], record: Record) -> tuple[Result, float]:
    """A record's answers, and the seconds that they took."""
    start = time.perf_counter()
    result = predict(record.image)
    seconds = time.perf_counter() - start
    if tuple(result.size) != record.image.shape[:2]:
        raise UserError(
            f"{record.name}: the result is for an image of {tuple(result.size)} pixels, "
            f"the image has {record.image.shape[:2]}"
        )
    return result, seconds


def score(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    max_dets: Sequence[int] = (100, 2000),
    min_score: float = 0.5,
    have_scores: bool = True,
) -> Evaluation:
    """Scores COCO result rows, wherever they come from; no model needed.

    Args:
      ground_truth: a COCO data set.
      results: rows with box, mask and score.
      max_dets, min_score: as for `evaluate`.
      have_scores: False if the rows' scores mean nothing. Average precision, which is about their order,
        is then left out.

    Raises:
      UserError: there are no images; or as `average_precision`.
    """
    if not ground_truth["images"]:
        raise UserError("there are no images to evaluate: does this split have any?")
    metrics, found = {}, None
    if have_scores:
        for kind in ("bbox", "segm"):
            metrics |= average_precision(ground_truth, results, kind=kind, max_dets=max_dets)
        found = curves(ground_truth, results, limit=max(max_dets))
    tallies = tally_results(ground_truth, results, min_score=min_score)
    metrics |= averages(list(tallies.values()))
    images = [
        ImageScore(
            image["id"], image.get("file_name", str(image["id"])), *tally.counts.tolist(), summarize(tally)
        )
        for image, tally in zip(ground_truth["images"], tallies.values(), strict=True)
    ]
    return Evaluation(metrics, images, found, min_score, results, ground_truth)
