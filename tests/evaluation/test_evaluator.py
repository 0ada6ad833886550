"""Evaluation from images to metrics, with predictions that are known."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from maskrcnn_jax.evaluation.evaluator import evaluate, nuclei_table, score, table
from maskrcnn_jax.rle import rles_of_labels
from maskrcnn_jax.structures import Result


def record(image_id, count, side=40):
    """Squares of 4 x 4 pixels; the image's first pixel carries its id."""
    labels = np.zeros((side, side), np.uint16)
    for n in range(count):
        i, j = 8 * (n // 5), 8 * (n % 5)
        labels[i : i + 4, j : j + 4] = n + 1
    image = np.full((side, side, 3), image_id, np.uint8)
    classes = np.zeros(count, np.int32)
    return SimpleNamespace(
        image_id=image_id,
        name=f"slide {image_id}",
        image=image,
        layers=labels[None],
        classes=classes,
        crowd=np.zeros(count, bool),
    )


def answer(record, kept):
    """The first `kept` instances, as they are."""
    corners = np.array([[8 * (n % 5), 8 * (n // 5)] for n in range(kept)], np.float32).reshape(-1, 2)
    return Result(
        boxes=np.concatenate([corners, corners + 4], axis=1),
        scores=np.linspace(0.9, 0.6, kept, dtype=np.float32),
        classes=np.zeros(kept, np.int32),
        masks=rles_of_labels(record.layers, len(record.classes))[:kept],
        size=record.image.shape[:2],
    )


def test_evaluation_of_known_answers():
    records = {n: record(n, count) for n, count in ((3, 6), (5, 4), (8, 0))}
    kept = {3: 3, 5: 2, 8: 0}
    calls = []
    found = evaluate(
        lambda image: answer(records[int(image[0, 0, 0])], kept[int(image[0, 0, 0])]),
        list(records.values()),
        progress=lambda *done: calls.append(done),
    )
    for name in ("bbox/AP50@100", "segm/AP@2000"):
        assert found.metrics[name] == pytest.approx(51 / 101), "half of the objects, none wrong"
    assert found.metrics["nuclei_micro/PQ"] == pytest.approx(2 * 5 / (10 + 5))
    assert found.metrics["nuclei/count_error"] == 0.5
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [(i.image_id, i.name, i.ground_truths, i.detections) for i in found.images] == [
        (3, "slide 3", 6, 3),
        (5, "slide 5", 4, 2),
        (8, "slide 8", 0, 0),
    ]
    assert all(image.seconds >= 0 for image in found.images)
    assert [len(p) for p in found.predictions] == [3, 2, 0]
    assert [row["image_id"] for row in found.results] == [3, 3, 3, 5, 5]
    assert score(found.ground_truth, found.results) == pytest.approx(found.metrics, nan_ok=True)


def test_result_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"slide 2: .*\(40, 40\) pixels, the image has \(48, 48\)"):
        evaluate(lambda _: answer(record(2, 1), 1), [record(2, 1, side=48)])


def test_no_records_are_refused():
    with pytest.raises(ValueError, match="no records"):
        evaluate(lambda _: None, [])


def cells_of(view):
    console = Console(width=160, file=io.StringIO())
    console.print(view)
    lines = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if "│" in line]
    return [[cell.strip() for cell in line] for line in lines]


def test_table_shows_boxes_and_masks_at_every_limit():
    metrics = {
        f"{kind}/{name}@{m}": m / 4000
        for kind in ("bbox", "segm")
        for name in ("AP", "AP50")
        for m in (100, 2000)
    }
    metrics["segm/AP75@100"] = 0.125
    cells = cells_of(table(metrics))
    assert cells == [
        ["boxes", "0.025", "0.025", "–", "0.500", "0.500", "–"],
        ["masks", "0.025", "0.025", "0.125", "0.500", "0.500", "–"],
    ]


def test_nuclei_table_shows_both_averages():
    metrics = {"nuclei/AJI": 0.5, "nuclei/PQ": float("nan"), "nuclei_micro/AJI": 0.25, "nuclei_micro/PQ": 1.0}
    cells = cells_of(nuclei_table(metrics | {"segm/AP@100": 0.1}))
    assert cells == [["AJI", "0.500", "0.250"], ["PQ", "–", "1.000"]]
