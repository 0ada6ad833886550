"""Cascade R-CNN: each head on the boxes of the one before, labelled anew, averaged at the end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.config import (
    BackboneConfig,
    DetectionConfig,
    FPNConfig,
    MaskRCNNConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn_jax.models import cascade
from maskrcnn_jax.models.heads import Features
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.models.roi_training import RoITargets
from maskrcnn_jax.ops.boxes import clip, decode
from maskrcnn_jax.structures import Batch, Proposals

WEIGHTS = ((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
CONFIG = MaskRCNNConfig(
    num_classes=2,
    backbone=BackboneConfig(
        depth=18, last_stage=2, stem_channels=4, res2_channels=4, norm="group", freeze_at=0
    ),
    fpn=FPNConfig(channels=4, extra_levels=0),
    rpn=RPNConfig(anchor_sizes=((16,),), channels=4, samples=8, pre_nms=(30, 30), post_nms=(12, 12)),
    roi=RoIConfig(
        samples=8,
        bins=2,
        mask_bins=2,
        mask_convs=0,
        mask_channels=4,
        fc_channels=(6,),
        class_agnostic_boxes=True,
        cascade_ious=(0.6, 0.7),
        cascade_box_weights=WEIGHTS,
    ),
    detection=DetectionConfig(score_threshold=0.0, max_detections=8),
)
SIZE = np.array([[48, 64]], np.int32)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module")
def params():
    """Such that boxes move by pixels, and each head gives other scores."""
    rng = np.random.default_rng(2)
    fresh = init_params(CONFIG, jax.random.key(0))
    heads = dict(fresh["roi_heads"])
    for name in ("box_predictor", "box_predictor2", "box_predictor3"):
        heads[name] = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), heads[name])
    return fresh | {"roi_heads": heads}


@pytest.fixture
def features(rng):
    return Features((rng.normal(size=(1, 12, 16, 4)).astype(np.float32),), (np.array([[12, 16]]),))


def test_labels_by_hand(iou, rng):
    """A RoI at a time: its best truth, foreground from the stage's IoU on, ignored in crowds, or empty."""
    truths = np.array([[2, 2, 20, 20], [15, 10, 40, 30], [40, 0, 60, 40]], np.float32)
    valid, crowd = np.array([True, True, False]), np.array([False, False, True])
    refined = (truths[rng.integers(0, 3, 60)] + rng.normal(0, 3, (60, 4))).astype(np.float32)
    refined[5] = (7, 7, 7, 20)
    before = RoITargets(
        refined * 0, np.zeros(60, int), np.zeros(60, int), np.zeros(60, bool), np.arange(60) < 55
    )
    roi = CONFIG.roi.stage(1)
    assert roi.positive_iou == 0.6 and roi.box_weights == WEIGHTS[0]
    found = cascade.label_again(roi, before, refined, truths, np.array([1, 0, 1]), valid, crowd, 2)
    overlap = np.where(valid[:, None], iou(truths, refined), -1)
    kinds = set()
    for r in range(60):
        best, inside = overlap[:, r].argmax(), _covered(refined[r], truths[2]) > 0.7
        positive, solid = overlap[best, r] >= 0.6, (refined[r, 2:] > refined[r, :2]).all()
        kept = r < 55 and solid and (positive or not inside)
        assert found.valid[r] == kept and found.positive[r] == (kept and positive)
        assert found.classes[r] == ([1, 0, 1][best] if kept and positive else 2)
        np.testing.assert_array_equal(found.boxes[r], refined[r] if kept else 0)
        kinds.add((kept, bool(positive), bool(inside)))
    assert len(kinds) > 3


def _covered(box, region):
    sides = np.maximum(np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2]), 0)
    return sides.prod() / max((box[2:] - box[:2]).prod(), 1e-9)


def test_detection_goes_through_all_heads(params, features, rng):
    """Boxes of the last head, from those of the others; the mean of all probabilities."""
    corners = rng.uniform(0, 40, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(6, 20, (12, 2))], axis=1).astype(np.float32)
    proposals = Proposals(boxes[None], np.zeros((1, 12), np.float32), np.ones((1, 12), bool))
    model = MaskRCNN(CONFIG)
    apply = functools.partial(model.apply, {"params": params})
    detect = jax.jit(functools.partial(apply, method="detect_boxes"), compiler_options=QUICK)
    found, scores, classes, valid = (np.asarray(x[0]) for x in detect(features, proposals, SIZE))

    probabilities, now = [], jnp.asarray(boxes)
    for number in range(3):
        logits, deltas, _ = apply(
            features, now[None], number, method=lambda m, f, b, n: m.roi_heads.boxes(f, b, n)
        )
        probabilities.append(jax.nn.softmax(logits))
        now = clip(decode(deltas[:, 0], now, CONFIG.roi.stage(number).box_weights), SIZE[0])
    mean = np.mean(probabilities, axis=0)
    assert np.abs(np.asarray(now) - boxes).max() > 2 and valid.sum() > 3
    for box, score, kind in zip(found[valid], scores[valid], classes[valid], strict=True):
        source = np.abs(np.asarray(now) - box).max(axis=1).argmin()
        np.testing.assert_allclose(box, now[source], atol=1e-3)
        np.testing.assert_allclose(score, mean[source, kind], atol=1e-5)


def test_training_has_two_losses_for_each_head_and_gradients_in_all(params, rng):
    image = rng.integers(0, 255, (1, 48, 64, 3)).astype(np.uint8)
    boxes = np.array([[[4, 4, 24, 28], [30, 10, 60, 40]]], np.float32)
    masks = np.zeros((1, 1, 48, 64), np.uint16)
    masks[0, 0, 4:28, 4:24], masks[0, 0, 10:40, 30:60] = 1, 2
    none = np.zeros((1, 2), bool)
    batch = Batch(
        image,
        SIZE,
        boxes,
        np.array([[0, 1]]),
        ~none,
        none,
        np.zeros((1, 2), int),
        masks,
        *[np.zeros(1, int)] * 2,
    )

    def total(params):
        losses = MaskRCNN(CONFIG).apply({"params": params}, batch, jax.random.key(1), method="losses")
        return sum(losses.values()), losses

    gradients, losses = jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICK)(params)
    further = {f"{name}_{n}" for name in ("loss_cls", "loss_box_reg") for n in (2, 3)}
    assert further < losses.keys() and len(losses) == 9
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    for name in ("box_predictor", "box_predictor2", "box_predictor3"):
        assert np.abs(gradients["roi_heads"][name]["cls_score"]["kernel"]).max() > 0


def test_features_feel_the_mean_of_the_heads(params, features):
    """Detectron2 scales what flows back by one over the number of heads."""
    boxes = jnp.asarray([[[4.0, 4.0, 30.0, 30.0]]])
    alone = dataclasses.replace(
        CONFIG, roi=dataclasses.replace(CONFIG.roi, cascade_ious=(), cascade_box_weights=())
    )

    def pull(config):
        def score(level):
            f = Features((level,), features.extents)
            logits = MaskRCNN(config).apply(
                {"params": params}, f, boxes, method=lambda m, f, b: m.roi_heads.boxes(f, b)[0]
            )
            return logits[0, 0]

        return jax.value_and_grad(score)(jnp.asarray(features.levels[0]))

    (value, third), (same, whole) = pull(CONFIG), pull(alone)
    assert value == same and np.abs(whole).max() > 0
    np.testing.assert_allclose(3 * third, whole, rtol=1e-5, atol=1e-8)
