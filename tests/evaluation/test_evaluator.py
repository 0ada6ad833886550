"""Evaluation from images to metrics, with predictions that are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from maskrcnn_jax.evaluation.evaluator import Crew, evaluate, score
from maskrcnn_jax.files import to_json
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rles_of_labels


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
        annotated=np.full((len(classes), 5), np.nan),
    )


def answer(record, kept):
    """The first `kept` instances, as they are."""
    corners = np.array([[8 * (n % 5), 8 * (n // 5)] for n in range(kept)], np.float32).reshape(-1, 2)
    return Result(
        boxes=np.concatenate([corners, corners + 4], axis=1),
        scores=np.linspace(0.9, 0.6, kept, dtype=np.float32),
        classes=np.zeros(kept, np.int32),
        crops=crops_of(rles_of_labels(record.layers, len(record.classes))[:kept]),
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
    assert [image.metrics["PQ"] for image in found.images] == pytest.approx(
        [6 / 9, 4 / 6, np.nan], nan_ok=True
    )
    assert all(image.seconds >= 0 for image in found.images)
    assert found.curves.truths == 10 and found.curves.right.all()
    assert [row["image_id"] for row in found.results] == [3, 3, 3, 5, 5]
    again = score(found.ground_truth, found.results)
    assert again.metrics == pytest.approx(found.metrics, nan_ok=True)
    assert [image.seconds for image in again.images] == [None] * 3


def test_the_least_score_concerns_the_nuclei_metrics_alone():
    """Of four detections that score 0.9 to 0.6, three are left from 0.65 on."""
    one = record(1, 4)
    both = [evaluate(lambda _: answer(one, 4), [one], min_score=s) for s in (0.0, 0.65)]
    assert [found.metrics["segm/AP@100"] for found in both] == pytest.approx([1, 1])
    assert [found.metrics["nuclei/PQ"] for found in both] == pytest.approx([1, 6 / 7])
    assert [found.images[0].detections for found in both] == [4, 3]
    assert both[1].min_score == 0.65


def test_without_scores_there_is_no_average_precision():
    one = record(1, 4)
    known = evaluate(lambda _: answer(one, 3), [one])
    found = score(known.ground_truth, known.results, have_scores=False)
    assert found.curves is None
    assert found.metrics == {k: v for k, v in known.metrics.items() if k.startswith("nuclei")}


def test_result_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"slide 2: .*\(40, 40\) pixels, the image has \(48, 48\)"):
        evaluate(lambda _: answer(record(2, 1), 1), [record(2, 1, side=48)])


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        evaluate(lambda _: None, [])
    with pytest.raises(ValueError, match="no images"):
        score({"images": [], "categories": [], "annotations": []}, [])


def test_a_crew_finds_together_what_one_finds():
    """Three processes, one after the other: each predicts its share, the first scores all."""
    records = [record(n, count) for n, count in ((3, 6), (5, 4), (8, 0), (9, 7))]
    by_id, seen = {r.image_id: r for r in records}, []

    def predict(image):
        seen.append(int(image[0, 0, 0]))
        return answer(by_id[seen[-1]], len(by_id[seen[-1]].classes) // 2)

    alone, shares = evaluate(predict, records), []
    assert seen == [3, 5, 8, 9]

    def gather(share):
        shares.append(json.loads(to_json(share)))
        return [shares[-1], *shares[:-1]] if len(shares) == 3 else []

    seen.clear()
    told = [[], [], []]  # equally often, though one process has one image more
    options = [
        {"crew": Crew(n, 3, gather), "progress": lambda *done, n=n: told[n].append(done)} for n in range(3)
    ]
    assert evaluate(predict, records, **options[1]) is None and seen == [5]
    assert evaluate(predict, records, **options[2]) is None and seen == [5, 8]
    found = evaluate(predict, records, **options[0])
    assert seen == [5, 8, 3, 9] and told == [[(3, 4), (4, 4)]] * 3
    assert found.metrics == pytest.approx(alone.metrics, nan_ok=True)
    assert to_json(found.results) == to_json(alone.results)
    assert [image.name for image in found.images] == [image.name for image in alone.images]
