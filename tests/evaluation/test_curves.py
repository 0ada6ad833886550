"""Curves by score against COCO's AP, cases worked by hand, and counting for each score anew."""

import numpy as np
import pytest
from test_coco import annotation, as_results, dataset, random_case

from maskrcnn_jax.evaluation.coco import average_precision
from maskrcnn_jax.evaluation.curves import curves
from maskrcnn_jax.evaluation.figure import draw_curves


def test_hand_worked_curve():
    """Of two objects the first is found, then a wrong one, then the second at IoU 0.6."""
    truth = [annotation((0, 0, 8, 8)), annotation((20, 20, 10, 4))]
    boxes = ((0, 0, 8, 8), (50, 50, 9, 9), (20, 21, 10, 4))
    found = curves(dataset(truth), as_results(map(annotation, boxes), [0.9, 0.8, 0.7]))
    scores, precision, recall = found.at_scores(0.5)
    assert scores.tolist() == [0.9, 0.8, 0.7]
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall.tolist() == [0.5, 0.5, 1]
    assert found.best_score(0.5) == (0.7, pytest.approx(4 / 5))
    assert found.best_score(0.75) == (0.9, pytest.approx(2 / 3))


def test_equal_scores_are_kept_or_dropped_together():
    truth = [annotation((0, 0, 8, 8)), annotation((20, 20, 8, 8))]
    boxes = ((0, 0, 8, 8), (50, 50, 9, 9), (20, 20, 8, 8))
    found = curves(dataset(truth), as_results(map(annotation, boxes), [0.5, 0.5, 0.4]))
    scores, precision, recall = found.at_scores(0.5)
    assert scores.tolist() == [0.5, 0.4]
    assert precision.tolist() == pytest.approx([1 / 2, 2 / 3])
    assert recall.tolist() == [0.5, 1]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("limit", [3, 100])
def test_ap_of_the_curves_is_cocos(kind, limit, rng):
    """Of one class, and with different scores: what equal ones mean is left open by COCO."""
    for _ in range(6):
        ground_truth, results = random_case(rng, categories=1, crowds=True)
        for row, score in zip(results, rng.permutation(len(results)), strict=True):
            row["score"] = float(score + 1) / (len(results) + 1)
        metrics = average_precision(ground_truth, results, kind=kind, max_dets=[limit])
        found = curves(ground_truth, results, kind=kind, limit=limit)
        for threshold in (0.5, 0.75):
            expected = metrics[f"{kind}/AP{threshold * 100:.0f}@{limit}"]
            assert found.average_precision(threshold) == pytest.approx(expected, nan_ok=True)


def test_each_point_is_what_is_left_without_lower_scores(rng):
    """Dropping detections below a score and counting anew gives the curve's point at that score."""
    ground_truth, results = random_case(rng, categories=2)
    scores, precision, recall = curves(ground_truth, results).at_scores(0.5)
    assert scores.tolist() == sorted({row["score"] for row in results}, reverse=True)
    for n, least in enumerate(scores):
        kept = curves(ground_truth, [row for row in results if row["score"] >= least])
        assert precision[n] == kept.right[0].sum() / len(kept.scores)
        assert recall[n] == kept.right[0].sum() / len(ground_truth["annotations"])


def test_what_lies_in_a_crowd_does_not_count():
    truth = [annotation((0, 0, 8, 8)), annotation((20, 20, 30, 30), iscrowd=1)]
    results = as_results(map(annotation, ((0, 0, 8, 8), (22, 22, 5, 5))), [0.6, 0.9])
    found = curves(dataset(truth), results)
    assert found.truths == 1
    assert [values.tolist() for values in found.at_scores(0.5)] == [[0.6], [1], [1]]


@pytest.mark.parametrize("truth", [[], [annotation((0, 0, 8, 8))]])
@pytest.mark.parametrize("boxes", [[], [(30, 30, 4, 4)]])
def test_empty_sides_have_a_picture_too(truth, boxes, tmp_path):
    found = curves(dataset(truth), as_results(map(annotation, boxes), [0.5] * len(boxes)))
    assert found.average_precision(0.5) == pytest.approx(0 if truth else np.nan, nan_ok=True)
    if not truth or not boxes:
        assert np.isnan(found.best_score(0.5)).all()
    draw_curves(found).savefig(tmp_path / "curves.png")


def test_the_picture_tells_the_numbers():
    truth = [annotation((0, 0, 8, 8)), annotation((20, 20, 10, 4))]
    boxes = ((0, 0, 8, 8), (50, 50, 9, 9), (20, 21, 10, 4))
    found = curves(dataset(truth), as_results(map(annotation, boxes), [0.9, 0.8, 0.7]))
    left, middle, right = draw_curves(found, min_score=0.75).axes
    legends = [[text.get_text() for text in axes.get_legend().texts] for axes in (left, middle, right)]
    ap50, ap75 = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert legends == [
        [f"IoU 0.5: AP {ap50:.3f}", f"IoU 0.75: AP {ap75:.3f}", "score ≥ 0.75"],
        ["IoU 0.5: best 0.800, from 0.70 on", "IoU 0.75: best 0.667, from 0.90 on"],
        ["right: 2", "wrong: 1"],
    ]
    marked = [line.get_xydata().tolist() for line in left.lines if line.get_marker() == "o"]
    assert marked[:2] == [[[0.5, pytest.approx(2 / 3)]], [[0.5, 0.5]]], "one of two right, one wrong"
