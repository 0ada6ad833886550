"""Matching against a loop over candidates, against Detectron2's labels, and with padding."""

import functools

import jax
import numpy as np
import pytest

from maskrcnn_jax.ops.boxes import pairwise_iou
from maskrcnn_jax.ops.matching import ignore_crowds, match, match_boxes

RPN = {"positive": 0.7, "negative": 0.3, "low_quality": True}
ROI = {"positive": 0.5, "negative": 0.5, "low_quality": False}


def slow_match(quality, positive, negative, low_quality):
    """Candidate by candidate, in words of the paper."""
    index, labels = [], []
    for column in quality.T:
        index.append(int(np.argmax(column)))
        best = column.max()
        label = 1 if best >= positive else 0 if best < negative else -1
        if low_quality and any(q == row.max() for q, row in zip(column, quality, strict=True)):
            label = 1
        labels.append(label)
    return index, labels


def assert_matches(found, index, labels):
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.index.dtype == np.int32 and found.labels.dtype == np.int8


@pytest.mark.parametrize("rule", [RPN, ROI])
def test_equals_a_loop(rng, rule):
    """Quality in steps of 0.1: full of ties and of values on the thresholds."""
    quality = (rng.integers(0, 10, (8, 60)) / 10).astype(np.float32)
    quality[3] = 0
    rule = {name: np.float32(value) if name != "low_quality" else value for name, value in rule.items()}
    assert_matches(match(quality, np.ones(8, bool), **rule), *slow_match(quality, **rule))


@pytest.mark.parametrize("rule", [RPN, ROI])
def test_padding_never_matches(rng, rule):
    quality = rng.uniform(0, 1, (9, 50)).astype(np.float32)
    valid = np.array([0, 1, 1, 0, 0, 1, 1, 0, 0], bool)
    index, labels = match(quality[valid], np.ones(4, bool), **rule)
    assert_matches(match(quality, valid, **rule), np.flatnonzero(valid)[index], labels)


@pytest.mark.parametrize("rule", [RPN, ROI])
def test_without_ground_truth_all_is_negative(rng, rule):
    quality = rng.uniform(0, 1, (2, 7)).astype(np.float32)
    assert_matches(match(quality, np.zeros(2, bool), **rule), np.zeros(7), np.zeros(7))


def test_a_ground_truth_that_overlaps_nothing_claims_every_candidate_of_quality_zero():
    quality = np.array([[0.0, 0.0, 0.0, 0.0], [0.8, 0.0, 0.1, 0.4]], np.float32)
    assert_matches(match(quality, np.ones(2, bool), **RPN), [1, 0, 1, 1], [1, 1, 1, 1])
    assert_matches(match(quality, np.array([False, True]), **RPN), [1, 1, 1, 1], [1, 0, 0, -1])


def test_one_candidate_one_ground_truth():
    assert_matches(match(np.array([[0.1]], np.float32), np.ones(1, bool), **RPN), [0], [1])


def test_compiled_with_its_input_keeps_exact_ties(form, rng):
    """IoU fused into matching must round the same way on both sides of `quality == row maximum`."""
    corner = rng.uniform(0, 100, (2000, 2))
    anchors = np.concatenate([corner, corner + 16.3], axis=1).astype(np.float32)
    truth = anchors[:20] + rng.uniform(-3, 3, (20, 4)).astype(np.float32)
    valid = np.ones(20, bool)

    def label(truth, anchors, valid):
        return match_boxes(truth, anchors, valid, **RPN)

    index, labels = slow_match(np.asarray(pairwise_iou(truth, anchors)), **RPN)
    assert_matches(jax.jit(label)(truth, anchors, valid), index, labels)
    batched = jax.jit(jax.vmap(label, (0, None, 0)))(truth[None], anchors, valid[None])
    assert_matches(jax.tree.map(lambda x: x[0], batched), index, labels)


@pytest.mark.parametrize("rule", [RPN, ROI])
@pytest.mark.parametrize("count", [0, 1, 13])
def test_boxes_match_as_their_iou_does(form, rng, rule, count):
    """Whole pixels, so that many qualities are equal; some truths are padding, one overlaps nothing."""
    corner = rng.integers(0, 40, (120, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 12, corner.shape)], axis=1).astype(np.float32)
    truth, candidates = boxes[:20], boxes[20:]
    truth[5] += 500
    valid = rng.permutation(np.arange(20) < count)
    index, labels = match(pairwise_iou(truth, candidates), valid, **rule)
    found = jax.jit(lambda *inputs: match_boxes(*inputs, **rule))(truth, candidates, valid)
    assert_matches(found, index, labels)


@pytest.mark.parametrize("name, rule", [("rpn", RPN), ("rpn_zero_row", RPN), ("roi", ROI)])
def test_labels_are_detectron2s(golden, name, rule):
    data = golden("comp_matcher")
    found = match(data[f"{name}_quality"], np.ones(12, bool), **rule)
    label = "rpn_zero_row_label" if name == "rpn_zero_row" else f"{name}_label"
    assert_matches(found, data[f"{name}_idx"], data[label])


def test_empty_is_detectron2s(golden):
    data = golden("comp_matcher")
    found = match(np.zeros((1, 7), np.float32), np.zeros(1, bool), **ROI)
    assert_matches(found, data["empty_idx"], data["empty_label"])


@pytest.mark.parametrize("model", ["c4_train", "fpn_train"])
def test_labels_of_anchors_and_rois_are_detectron2s(form, golden, model):
    """From boxes to labels under jit, with padded ground truths: every label and index the same."""
    data = golden(model)
    truth = np.pad(data["gt_boxes"], ((0, 9), (0, 0)))
    valid = np.arange(len(truth)) < len(data["gt_boxes"])
    run = jax.jit(lambda boxes, rule: match_boxes(truth, boxes, valid, **dict(rule)), static_argnums=1)
    anchors = run(data["anchors"], tuple(RPN.items()))
    assert_matches(anchors, data["anchor_gt_idx"], data["anchor_labels"])

    candidates = np.concatenate([data["proposal_boxes"], data["gt_boxes"]])
    rois = run(candidates, tuple(ROI.items()))
    np.testing.assert_array_equal(rois.index, data["roi_gt_idx_all"])
    classes = np.where(rois.labels == 1, data["gt_classes"][rois.index], 3)
    np.testing.assert_array_equal(classes, data["roi_labels_all"])


@pytest.mark.parametrize("seed", range(4))
def test_ignores_what_lies_in_a_crowd(seed):
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(0, 40, (60, 2)), rng.uniform(1, 12, (60, 2))
    sides[50:] += 20
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    candidates, truths = boxes[:50], boxes[50:]
    crowd, labels = rng.random(10) < 0.5, rng.integers(-1, 2, 50).astype(np.int8)
    expected = []
    for (x0, y0, x1, y1), label in zip(candidates, labels, strict=True):
        shares = [
            max(min(x1, b[2]) - max(x0, b[0]), 0) * max(min(y1, b[3]) - max(y0, b[1]), 0)
            for b in truths[crowd]
        ]
        inside = any(share > 0.7 * (x1 - x0) * (y1 - y0) for share in shares)
        expected.append(-1 if inside and label == 0 else label)
    found = jax.jit(ignore_crowds)(labels, candidates, truths, crowd)
    np.testing.assert_array_equal(found, expected)
    assert (found != labels).any()


def test_without_crowds_and_for_empty_candidates_labels_stay():
    labels, box = np.zeros(2, np.int8), np.array([[0, 0, 9, 9]], np.float32)
    candidates = np.array([[1, 1, 2, 2], [5, 5, 5, 5]], np.float32)
    assert ignore_crowds(labels, candidates, box, np.array([False])).tolist() == [0, 0]
    assert ignore_crowds(labels, candidates, box, np.array([True])).tolist() == [-1, 0]


def test_unusable_candidates_are_nobodys_best(form, rng):
    """Labels of the usable ones are as if the others were not there; those are ignored."""
    corners = rng.integers(0, 30, (66, 2))
    boxes = np.concatenate([corners, corners + rng.integers(4, 20, (66, 2))], axis=1).astype(np.float32)
    truths, candidates, usable = boxes[:6], boxes[6:], rng.random(60) < 0.5
    best = np.asarray(pairwise_iou(truths, candidates)).argmax(axis=1)
    assert not usable[best].all()
    everyone = np.ones(6, bool)
    found = jax.jit(functools.partial(match_boxes, **RPN))(truths, candidates, everyone, usable=usable)
    alone = match(np.asarray(pairwise_iou(truths, candidates[usable])), everyone, **RPN)
    np.testing.assert_array_equal(found.labels[usable], alone.labels)
    np.testing.assert_array_equal(found.index[usable], alone.index)
    assert (np.asarray(found.labels)[~usable] == -1).all()
