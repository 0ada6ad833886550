"""RoI heads: samples, losses and detections of one image against slow versions; targets; the two heads."""

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
from maskrcnn_jax.models import detections, roi_training
from maskrcnn_jax.models.heads import BoxPredictor, C4Heads, Features, FPNHeads, pool, select_class
from maskrcnn_jax.models.resnet import Stage
from maskrcnn_jax.models.roi_training import RoITargets
from maskrcnn_jax.ops.boxes import clip, decode, encode
from maskrcnn_jax.ops.sampling import Sample
from maskrcnn_jax.structures import Detections, Proposals

SMALL = BackboneConfig(depth=50, last_stage=2, stem_channels=4, res2_channels=8, bottleneck_channels=2)
C4 = MaskRCNNConfig(
    num_classes=3,
    backbone=SMALL,
    roi=RoIConfig(samples=8, bins=6, sampling=0, mask_channels=4),
    detection=DetectionConfig(score_threshold=0.1, max_detections=9),
)
FPN = MaskRCNNConfig(
    num_classes=3,
    backbone=dataclasses.replace(SMALL, last_stage=3),
    fpn=FPNConfig(channels=4),
    rpn=RPNConfig(anchor_sizes=((8,), (16,), (32,))),
    roi=RoIConfig(bins=3, mask_bins=5, mask_convs=2, mask_channels=6, fc_channels=(7, 5)),
)

# Ground truths: two, and padding. Proposals: one on each, one between thresholds, one far away, padding.
TRUTHS = np.array([[10, 10, 30, 30], [50, 20, 70, 60], [0, 0, 0, 0]], np.float32)
CLASSES, TRUTHS_VALID = np.array([2, 0, 0], np.int32), np.array([True, True, False])
PROPOSALS = Proposals(
    np.array(
        [[11, 9, 29, 31], [50, 22, 71, 61], [12, 20, 36, 44], [80, 80, 90, 90], [0, 0, 0, 0]], np.float32
    ),
    np.array([4, 3, 2, 1, -np.inf], np.float32),
    np.array([True, True, True, True, False]),
)


@functools.cache
def compiled_sampling(with_draw):
    def run(proposals, valid, key, drawn):
        drawn = drawn if with_draw else None
        truths, classes = jnp.asarray(TRUTHS), jnp.asarray(CLASSES)
        return roi_training.sample_rois(C4, proposals, truths, classes, valid, key, drawn)

    return jax.jit(run)


def sample_rois(proposals=PROPOSALS, valid=TRUTHS_VALID, key=0, drawn=None):
    return jax.device_get(compiled_sampling(drawn is not None)(proposals, valid, jax.random.key(key), drawn))


def test_scores_differ_in_bfloat16_too(rng):
    """Detections are ordered by score: equal ones would be ordered by their place among the proposals."""
    x = jnp.asarray(rng.normal(size=(2000, 16)), jnp.bfloat16)
    predictor = BoxPredictor(dataclasses.replace(C4, dtype="bfloat16"))
    logits, deltas = jax.jit(lambda key: predictor.init_with_output(key, x)[0])(jax.random.key(0))
    for values in (logits, deltas):
        assert values.dtype == jnp.float32
        assert len(np.unique(values)) > 0.95 * values.size
        assert len(np.unique(values.astype(jnp.bfloat16))) < 0.5 * values.size


def test_ground_truths_join_the_proposals(iou):
    """Foreground first: two proposals and the two truths compete for int(8 * 0.25) places."""
    rois = sample_rois()
    assert rois.positive.tolist() == [True, True] + [False] * 6
    assert rois.valid.tolist() == [True] * 4 + [False] * 4  # Only two candidates are background.
    candidates = np.concatenate([PROPOSALS.boxes[:2], TRUTHS[:2]])
    for box, instance, class_ in zip(rois.boxes[:2], rois.instance, rois.classes, strict=False):
        assert (candidates == box).all(axis=1).any()
        assert iou(TRUTHS[instance], box) >= 0.5 and class_ == CLASSES[instance]
    background = {tuple(box) for box in rois.boxes[2:4].tolist()}
    assert background == {tuple(box) for box in PROPOSALS.boxes[2:4].tolist()}
    assert (rois.classes[2:] == C4.num_classes).all() and not rois.boxes[4:].any()


def test_the_draw_is_a_function_of_the_key():
    first, again = sample_rois(key=1), sample_rois(key=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    drawn = {sample_rois(key=key).boxes[:2].tobytes() for key in range(12)}
    assert len(drawn) > 1


def test_without_ground_truth_all_rois_are_background():
    rois = sample_rois(valid=np.zeros(3, bool))
    assert not rois.positive.any() and rois.valid.sum() == 4 and (rois.classes == C4.num_classes).all()


def test_no_background_is_drawn_from_a_crowd():
    """The third of the boxes becomes a crowd around the fourth proposal."""
    left, top, right, bottom = PROPOSALS.boxes[3]
    boxes = np.array([*TRUTHS[:2], [left - 1, top - 1, right + 1, bottom + 1]], np.float32)
    draw = functools.partial(roi_training.sample_rois, C4, PROPOSALS, boxes, CLASSES, TRUTHS_VALID)
    for crowd, background in (((False, False, False), [2, 3]), ((False, False, True), [2])):
        rois = draw(jax.random.key(0), None, np.array(crowd))
        drawn = np.asarray(rois.boxes)[np.asarray(rois.valid & ~rois.positive)]
        assert {tuple(box) for box in drawn.tolist()} == {
            tuple(PROPOSALS.boxes[n].tolist()) for n in background
        }


def test_without_proposals_the_ground_truths_are_the_rois():
    rois = sample_rois(PROPOSALS._replace(valid=np.zeros(5, bool)))
    assert rois.positive.sum() == 2 and rois.valid.sum() == 2
    assert {tuple(box) for box in rois.boxes[:2].tolist()} == {tuple(box) for box in TRUTHS[:2].tolist()}


def test_without_anything_there_is_only_padding():
    rois = sample_rois(PROPOSALS._replace(valid=np.zeros(5, bool)), np.zeros(3, bool))
    assert not rois.valid.any() and not rois.positive.any() and not rois.boxes.any()


def test_a_given_draw_is_taken():
    """Candidates are counted through proposals and ground truths."""
    drawn = Sample(np.array([6, 0, 3, 2, 0, 0, 0, 0], np.int32), np.arange(8) < 2, np.arange(8) < 4)
    rois = sample_rois(drawn=drawn)
    expected = np.stack([TRUTHS[1], PROPOSALS.boxes[0], PROPOSALS.boxes[3], PROPOSALS.boxes[2]])
    np.testing.assert_array_equal(rois.boxes[:4], expected)
    assert rois.classes.tolist() == [0, 2] + [3] * 6 and rois.instance[:2].tolist() == [1, 0]


@pytest.fixture
def rois(rng):
    """Two foreground RoIs of classes 2 and 0, three of background, one of padding; and their truths."""
    boxes = rng.uniform(0, 40, (6, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + 1
    targets = RoITargets(
        boxes,
        np.array([2, 0, 3, 3, 3, 3], np.int32),
        np.array([0, 1, 0, 0, 0, 0], np.int32),
        np.arange(6) < 2,
        np.arange(6) < 5,
    )
    matched = boxes + rng.uniform(-1, 1, boxes.shape).astype(np.float32)
    return targets, matched


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_box_losses_are_these_sums(rng, rois, agnostic, beta):
    """Both over the five sampled RoIs; the deltas are those of each RoI's own class."""
    rois, matched = rois
    logits = rng.normal(size=(6, 4)).astype(np.float32)
    deltas = rng.normal(size=(6, 1 if agnostic else 3, 4)).astype(np.float32)
    roi = dataclasses.replace(C4.roi, smooth_l1_beta=beta, class_agnostic_boxes=agnostic)
    losses = roi_training.box_losses(dataclasses.replace(C4, roi=roi), logits, deltas, rois, matched)
    entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), rois.classes]
    own = deltas[[0, 1], [0, 0] if agnostic else [2, 0]]
    apart = np.abs(own - np.asarray(encode(matched[:2], rois.boxes[:2], roi.box_weights)))
    if beta:
        apart = np.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2)
    np.testing.assert_allclose(losses["loss_cls"].mean, entropy[:5].sum() / 5, rtol=1e-5)
    np.testing.assert_allclose(losses["loss_box_reg"].mean, apart.sum() / 5, rtol=1e-5)


@pytest.mark.parametrize("classes", [3, 1])
def test_the_mask_loss_is_this_mean(rng, classes):
    """Of the class's own mask, over foreground RoIs; one map for all classes where they share it."""
    logits = rng.normal(size=(4, 5, 5, classes)).astype(np.float32)
    targets = (rng.random((4, 5, 5)) < 0.5).astype(np.float32)
    own, positive = np.array([2, 0, 3, 1], np.int32), np.array([True, True, False, False])
    chosen = logits[[0, 1], :, :, [2, 0] if classes == 3 else [0, 0]]
    entropy = np.log1p(np.exp(np.where(targets[:2] > 0, -chosen, chosen)))
    np.testing.assert_allclose(
        roi_training.mask_loss(logits, own, targets, positive).mean, entropy.mean(), rtol=1e-5
    )
    assert roi_training.mask_loss(logits, own, targets, np.zeros(4, bool)).mean == 0


def test_losses_of_padding_are_zero_with_zero_gradient(rois):
    """Nothing sampled at all; and the boxes of padding, which have no side, make no NaN."""
    nothing = jax.tree.map(lambda x: jnp.zeros_like(x), rois[0])

    def total(logits, deltas, masks):
        losses = roi_training.box_losses(C4, logits, deltas, nothing, jnp.zeros((6, 4)))
        losses["loss_mask"] = roi_training.mask_loss(
            masks, nothing.classes, jnp.zeros((6, 5, 5)), nothing.positive
        )
        return sum(term.mean for term in losses.values())

    inputs = (jnp.ones((6, 4)), jnp.ones((6, 3, 4)), jnp.ones((6, 5, 5, 3)))
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*inputs)
    assert value == 0 and not any(gradient.any() for gradient in gradients)


def test_mask_targets_are_0_or_1_and_halves_count_as_covered():
    """A cell of which exactly half is covered is foreground, as in Detectron2."""
    instance_map = np.zeros((2, 12, 12), np.uint16)
    instance_map[1, :, :3] = 2
    boxes = np.array([[0, 0, 12, 12], [0, 0, 4, 4]], np.float32)
    rois = RoITargets(boxes, *(np.array(v, np.int32) for v in ([0, 0], [1, 1])), *[np.ones(2, bool)] * 2)
    targets = roi_training.roi_mask_targets(
        jnp.asarray(instance_map), jnp.array([0, 1]), rois, jnp.array(instance_map.shape[1:]), size=2
    )
    # Half of the 6-cell-wide left column: its samples lie at 0.5 .. 5.5, three of six inside.
    np.testing.assert_array_equal(targets, [[[1, 0], [1, 0]], [[1, 1], [1, 1]]])


def test_select_class():
    values = np.arange(24).reshape(2, 3, 4)
    classes = np.array([2, 5], np.int32)  # 5 is background: any class will do, but no NaN.
    np.testing.assert_array_equal(select_class(values, classes), [values[0, 2], values[1, 2]])
    np.testing.assert_array_equal(select_class(values[..., :1], classes, axis=-1), values[..., 0])


@functools.cache
def compiled_selection(config):
    return jax.jit(functools.partial(detections.select_detections, config, (10.0, 10.0, 5.0, 5.0)))


def slow_detections(iou, config, logits, deltas, proposals, size):
    """A class at a time, a box at a time."""
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    boxes = np.asarray(clip(decode(deltas, proposals.boxes[:, None], (10.0, 10.0, 5.0, 5.0)), size))
    boxes = np.broadcast_to(boxes, (len(logits), logits.shape[1] - 1, 4))
    found = []
    for k in range(logits.shape[1] - 1):
        kept = []
        for r in np.argsort(-scores[:, k]):
            if not proposals.valid[r] or scores[r, k] <= config.score_threshold:
                continue
            if not kept or iou(boxes[kept, k], boxes[r, k]).max() <= config.nms_iou:
                kept.append(r)
        found += [(scores[r, k], k, boxes[r, k]) for r in kept]
    return sorted(found, key=lambda entry: -entry[0])[: config.max_detections]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("places", [9, 200])
def test_detections_equal_a_slow_selection(iou, rng, agnostic, places):
    """With fewer places than detections, and with more."""
    config = DetectionConfig(score_threshold=0.2, max_detections=places)
    corner = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (40, 2))], axis=1).astype(np.float32)
    proposals = Proposals(boxes, np.zeros(40, np.float32), rng.random(40) < 0.8)
    logits = rng.normal(0, 1.5, (40, 4)).astype(np.float32)
    deltas = rng.normal(size=(40, 1 if agnostic else 3, 4)).astype(np.float32)
    size = np.array([64, 80], np.int32)
    expected = slow_detections(iou, config, logits, deltas, proposals, size)
    found, scores, classes, valid = compiled_selection(config)(logits, deltas, proposals, size)
    count = len(expected)
    assert valid.tolist() == [True] * count + [False] * (places - count) and (count == 9 or places == 200)
    np.testing.assert_allclose(scores[:count], [score for score, _, _ in expected], rtol=1e-5)
    assert classes[:count].tolist() == [k for _, k, _ in expected]
    np.testing.assert_allclose(found[:count], [box for _, _, box in expected], atol=1e-4)
    assert not found[count:].any() and not scores[count:].any() and not classes[count:].any()


@pytest.mark.parametrize("nothing", ["below the threshold", "no proposal"])
def test_no_detection(nothing):
    config = DetectionConfig(score_threshold=0.2, max_detections=9)
    valid = np.full(40, nothing != "no proposal")
    proposals = Proposals(
        np.tile([[0, 0, 9, 9]], (40, 1)).astype(np.float32), np.zeros(40, np.float32), valid
    )
    logits = np.zeros((40, 4), np.float32)
    logits[:, 3 if nothing == "below the threshold" else 0] = 5
    size = np.array([64, 80], np.int32)
    boxes, scores, _, valid = compiled_selection(config)(
        logits, np.zeros((40, 3, 4), np.float32), proposals, size
    )
    assert not valid.any() and not boxes.any() and not scores.any()


def random_tree(rng, shapes):
    return jax.tree.map(lambda leaf: rng.uniform(-0.5, 0.6, leaf.shape).astype(np.float32), shapes)


ROIS = np.array(
    [[[4, 4, 40, 50], [0, 0, 0, 0], [-9, 10, 30, 20]], [[9, 9, 15, 15], [1, 2, 60, 40], [5, 5, 20, 70]]]
)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_the_c4_head_pools_no_more_than_it_reads(rng, stride_in_1x1):
    """With the stride in the first 1x1, every second bin is left out: the same as pooling all of them."""
    backbone = dataclasses.replace(SMALL, stride_in_1x1=stride_in_1x1)
    config = dataclasses.replace(C4, backbone=backbone)
    heads = C4Heads(config)
    features = Features(
        (jnp.asarray(rng.normal(size=(2, 12, 16, 8)), jnp.float32),),
        (jnp.array([[12, 16], [9, 10]], jnp.int32),),
    )
    boxes = jnp.asarray(ROIS, jnp.float32)

    def init():
        return heads.init(jax.random.key(0), boxes, method=lambda m, b: m.mask_head(m.shared(features, b)))

    params = random_tree(rng, jax.eval_shape(init)["params"])

    @jax.jit
    def both(params):
        pooled = pool(features, boxes, config.levels, config.roi.bins, config.roi.sampling)
        whole = Stage(backbone, 3, config.roi.norm).apply({"params": params["res3"]}, pooled)
        return heads.apply({"params": params}, features, boxes, method="shared"), whole

    shared, whole = both(params)
    assert shared.shape == (6, 3, 3, 16)
    np.testing.assert_allclose(shared, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (6, 10, 10, 3)),
        ({"mask_deconvs": 2}, (6, 20, 20, 3)),
        ({"mask_bins": 7, "class_agnostic_masks": True}, (6, 14, 14, 1)),
        ({"mask_convs": 0, "mask_sampling": 1}, (6, 10, 10, 3)),
    ],
)
def test_mask_heads_of_several_kinds(changes, shape):
    config = dataclasses.replace(FPN, roi=dataclasses.replace(FPN.roi, **changes))
    sides = (16, 8, 4)
    features = Features(
        tuple(jnp.zeros((2, side, side, 4)) for side in sides),
        tuple(jnp.full((2, 2), side, jnp.int32) for side in sides),
    )
    heads = FPNHeads(config)
    out = jax.eval_shape(
        lambda: heads.init_with_output(jax.random.key(0), features, jnp.zeros((2, 3, 4)), method="masks")[0]
    )
    assert out.shape == shape and shape[1] == config.mask_size


def test_scores_count_how_sure_the_masks_are(rng):
    """A slow version; a mask that is nowhere above one half scores nothing, and padding stays last."""
    masks = rng.random((5, 4, 4)).astype(np.float32)
    masks[1] *= 0.5
    scores = np.array([0.9, 0.8, 0.5, 0.45, 0.0], np.float32)
    boxes, valid = rng.random((5, 4)).astype(np.float32), np.arange(5) < 4
    found = Detections(boxes, scores, np.arange(5), masks, valid)
    found = jax.tree.map(np.asarray, detections.rescore_by_masks(jax.tree.map(jnp.asarray, found), 2.0))
    sure = [mask[mask > 0.5].mean() if (mask > 0.5).any() else 0 for mask in masks]
    expected = scores * np.array(sure) ** 2
    order = [*sorted(range(4), key=lambda n: -expected[n]), 4]
    np.testing.assert_array_equal(found.classes, order)
    np.testing.assert_allclose(found.scores, expected[order], rtol=1e-5)
    np.testing.assert_array_equal(found.masks, masks[order])
    np.testing.assert_array_equal(found.valid, valid)
