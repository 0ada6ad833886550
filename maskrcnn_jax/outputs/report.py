"""Scores a predictor on records and writes what people look at: metrics, curves, COCO results, overlays."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.evaluation.coco import Categories, from_results, to_results
from maskrcnn_jax.evaluation.evaluator import Crew, Evaluation, evaluate
from maskrcnn_jax.evaluation.figure import draw_curves
from maskrcnn_jax.evaluation.tables import image_rows
from maskrcnn_jax.files import atomic
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.outputs.overlay import draw_overlay, side_by_side
from maskrcnn_jax.outputs.writers import write_coco_results, write_image, write_metrics

Progress = Callable[[int, int], None]
Predict = Callable[[UInt8[np.ndarray, "H W 3"]], Result]


def write_evaluation(
    predict: Predict,
    records: Sequence[Record],
    folder: Path,
    *,
    categories: Categories = ("nucleus",),
    max_dets: Sequence[int] = (100, 2000),
    min_score: float = 0.5,
    overlays: int = 4,
    progress: Progress | None = None,
    crew: Crew = Crew(),  # noqa: B008 - cannot change
) -> Evaluation | None:
    """Evaluates, and writes `results.json` and what `write_report` writes into `folder`.

    Args:
      predict: from an RGB image to what is found in it.
      records: images with ground truth.
      categories: names of the classes, with their ids or without.
      max_dets: the numbers of detections at which AP is reported.
      min_score: detections below count neither in the nuclei metrics nor in the pictures.
      overlays: of how many images a picture is drawn.
      progress: called with the number of images done and of all.
      crew: where several processes call this; only the first writes, and only it gets an evaluation.
    """
    evaluation = evaluate(
        predict,
        records,
        categories=categories,
        max_dets=max_dets,
        min_score=min_score,
        progress=progress,
        crew=crew,
    )
    if evaluation:
        write_coco_results(folder / "results.json", evaluation.results)
        write_report(evaluation, records, folder, overlays=overlays)
    return evaluation


def write_report(
    evaluation: Evaluation, records: Sequence[Record], folder: Path, *, overlays: int = 4
) -> None:
    """Writes `metrics.json`, `images.csv`, `curves.png` and `overlay_NAME.png` into `folder`.

    Args:
      evaluation: where it has no curves, neither has the folder.
      records: the images that were evaluated.
      overlays: of how many images a picture is drawn, ground truth beside prediction.
    """
    write_metrics(folder / "metrics.json", evaluation.metrics)
    _write_images(folder / "images.csv", evaluation)
    if evaluation.curves:
        title = f"masks: {evaluation.curves.truths} objects in {len(evaluation.images)} images"
        if len(evaluation.ground_truth["categories"]) > 1:
            title += ", all classes as one"
        with atomic(folder / "curves.png") as temporary:
            figure = draw_curves(evaluation.curves, min_score=evaluation.min_score, title=title)
            figure.savefig(temporary, format="png", dpi=110)
    annotations = evaluation.ground_truth["annotations"]
    for record in islice(records, overlays):
        truth = [a["segmentation"] for a in annotations if a["image_id"] == record.image_id]
        classes = evaluation.ground_truth["categories"]
        result = from_results(evaluation.results, record.image_id, record.size, classes)
        picture = side_by_side(record.image, truth, result, min_score=evaluation.min_score)
        write_image(folder / f"overlay_{record.name}.png", picture)


def write_predictions(
    predict: Predict,
    records: Sequence[Record],
    folder: Path,
    *,
    min_score: float = 0.5,
    overlays: int = 8,
    progress: Progress | None = None,
) -> None:
    """For images without ground truth: `answer.json` (COCO results) and `overlay_NAME.png`.

    Args:
      predict: from an RGB image to what is found in it.
      records: their `image_id` is what the results refer to.
      min_score: instances that score less are not drawn.
      overlays: of how many images a picture is drawn.
      progress: called with the number of images done and of all.
    """
    rows = []
    for done, record in enumerate(records, 1):
        result = predict(record.image)
        rows += to_results([(record.image_id, result)])
        if done <= overlays:
            sure = [m for m, score in zip(result.masks, result.scores, strict=True) if score >= min_score]
            write_image(folder / f"overlay_{record.name}.png", draw_overlay(record.image, sure))
        if progress:
            progress(done, len(records))
    write_coco_results(folder / "answer.json", rows)


def _write_images(path: Path, evaluation: Evaluation) -> None:
    """A line an image; what is not a number becomes an empty field."""
    rows = image_rows(evaluation)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
