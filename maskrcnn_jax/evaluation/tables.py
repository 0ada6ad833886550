"""An evaluation as tables: for the screen, and rows for a CSV file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from maskrcnn_jax.evaluation.evaluator import Evaluation, ImageScore

_ROWS = {"bbox": "boxes", "segm": "masks"}
_SHOWN = ("AJI", "Dice", "PQ", "F1@0.5")  # of an image, for the screen; the file has all
_MOST_IMAGES = 24


def table(metrics: Mapping[str, float]) -> Table:
    """AP, AP50 and AP75 of boxes and masks, for each limit of detections that `metrics` has."""
    limits = sorted({int(name.rpartition("@")[2]) for name in metrics if name.split("/")[0] in _ROWS})
    columns = [f"{name}@{limit}" for limit in limits for name in ("AP", "AP50", "AP75")]
    view = Table("", title="average precision @ detections an image")
    for column in columns:
        view.add_column(column.replace("@", " @"), justify="right")
    for kind, label in _ROWS.items():
        view.add_row(label, *(_shown(metrics.get(f"{kind}/{column}", math.nan)) for column in columns))
    return view


def nuclei_table(metrics: Mapping[str, float]) -> Table:
    """AJI, Dice, PQ, F1 and counting error: the mean of the images, and of all images taken as one."""
    view = Table("", title="nuclei")
    for column in ("mean of images", "all as one"):
        view.add_column(column, justify="right")
    for name in [name.removeprefix("nuclei/") for name in metrics if name.startswith("nuclei/")]:
        values = (metrics.get(f"{prefix}/{name}", math.nan) for prefix in ("nuclei", "nuclei_micro"))
        view.add_row(name.replace("_", " "), *map(_shown, values))
    return view


def images_table(evaluation: Evaluation) -> Table:
    """A row an image, those of the lowest PQ if there are too many for a screen; then both averages."""
    images, title = evaluation.images, "images"
    if len(images) > _MOST_IMAGES:
        images = sorted(images, key=_quality)[:_MOST_IMAGES]
        title = f"{len(images)} of {len(evaluation.images)} images, those of the lowest PQ"
    view = Table(title=f"{title}; scores from {evaluation.min_score:g} on")
    view.add_column("", overflow="fold")
    for column in ("objects", "found", *_SHOWN):
        view.add_column(column, justify="right", no_wrap=True)
    for image in images:
        cells = (_shown(image.metrics[name]) for name in _SHOWN)
        view.add_row(image.name, str(image.ground_truths), str(image.detections), *cells)
    view.add_section()
    totals = (sum(getattr(i, side) for i in evaluation.images) for side in ("ground_truths", "detections"))
    for label, prefix, counts in (
        ("mean of images", "nuclei", ("", "")),
        ("all as one", "nuclei_micro", map(str, totals)),
    ):
        cells = (_shown(evaluation.metrics[f"{prefix}/{name}"]) for name in _SHOWN)
        view.add_row(label, *counts, *cells)
    return view


def image_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A mapping an image: its id and name, counts, all metrics, and seconds where they were taken."""
    rows = [
        {
            "image_id": image.image_id,
            "image": image.name,
            "objects": image.ground_truths,
            "found": image.detections,
            **image.metrics,
            "seconds": image.seconds,
        }
        for image in evaluation.images
    ]
    if all(row["seconds"] is None for row in rows):
        for row in rows:
            del row["seconds"]
    return rows


def _quality(image: ImageScore) -> float:
    """PQ; what has none comes last."""
    return math.inf if math.isnan(image.metrics["PQ"]) else image.metrics["PQ"]


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
