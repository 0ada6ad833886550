"""Scores a predictor on records and writes what people look at: metrics, COCO results, overlays."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from maskrcnn_jax.data.records import Record
from maskrcnn_jax.evaluation.coco import to_results
from maskrcnn_jax.evaluation.evaluator import Evaluation, evaluate
from maskrcnn_jax.inference.overlay import draw_overlay, side_by_side
from maskrcnn_jax.inference.predictor import Predictor
from maskrcnn_jax.inference.writers import write_coco_results, write_image, write_metrics

Progress = Callable[[int, int], None]


def write_evaluation(
    predictor: Predictor,
    records: Sequence[Record],
    folder: Path,
    *,
    categories: Sequence[str] = ("nucleus",),
    max_dets: Sequence[int] = (100, 2000),
    overlays: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates, and writes `metrics.json`, `results.json` and `overlay_NAME.png` into `folder`.

    Args:
      records: images with ground truth.
      categories: name of each class.
      max_dets: the numbers of detections at which AP is reported.
      overlays: of how many images a picture is drawn, ground truth beside prediction.
      progress: called with the number of images done and of all.
    """
    evaluation = evaluate(predictor, records, categories=categories, max_dets=max_dets, progress=progress)
    write_metrics(folder / "metrics.json", evaluation.metrics)
    write_coco_results(folder / "results.json", evaluation.results)
    annotations = evaluation.ground_truth["annotations"]
    for record, result in zip(islice(records, overlays), evaluation.predictions, strict=False):
        truth = [a["segmentation"] for a in annotations if a["image_id"] == record.image_id]
        write_image(folder / f"overlay_{record.name}.png", side_by_side(record.image, truth, result))
    return evaluation


def write_predictions(
    predictor: Predictor,
    records: Sequence[Record],
    folder: Path,
    *,
    overlays: int = 8,
    progress: Progress | None = None,
) -> None:
    """For images without ground truth: `answer.json` (COCO results) and `overlay_NAME.png`.

    Args:
      records: their `image_id` is what the results refer to.
      overlays: of how many images a picture is drawn, with the instances that score at least 0.5.
      progress: called with the number of images done and of all.
    """
    rows = []
    for done, record in enumerate(records, 1):
        result = predictor(record.image)
        rows += to_results([(record.image_id, result)])
        if done <= overlays:
            sure = [mask for mask, score in zip(result.masks, result.scores, strict=True) if score >= 0.5]
            write_image(folder / f"overlay_{record.name}.png", draw_overlay(record.image, sure))
        if progress:
            progress(done, len(records))
    write_coco_results(folder / "answer.json", rows)
