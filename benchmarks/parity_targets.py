"""The targets of training: proposals, labels, matches and masks, from golden outputs of the RPN."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from parity_goldens import Golden, Row, as_batch, extents, largest, pair

from maskrcnn_jax.models import roi_training, rpn
from maskrcnn_jax.ops.boxes import encode, pairwise_iou
from maskrcnn_jax.ops.masks import mask_targets
from maskrcnn_jax.ops.matching import match
from maskrcnn_jax.ops.sampling import Sample
from maskrcnn_jax.structures import Batch, Proposals


def batch_of(golden: Golden) -> Batch:
    """The golden training image, each of its masks in a layer of its own."""
    train = golden.train
    images, sizes = as_batch(train["image_bgr"][..., ::-1])
    count = len(train["gt_boxes"])
    index = np.arange(count, dtype=np.int32)
    return Batch(
        images=images,
        sizes=sizes,
        boxes=train["gt_boxes"][None],
        classes=train["gt_classes"][None].astype(np.int32),
        valid=np.ones((1, count), bool),
        crowd=np.zeros((1, count), bool),
        layers=index[None],
        instance_map=(train["gt_masks"] * (index + 1)[:, None, None]).astype(np.uint16)[None],
        index=np.zeros(1, np.int32),
        cut=np.zeros(1, np.int32),
    )


def _drawn(positive: np.ndarray, negative: np.ndarray) -> Sample:
    """Detectron2's own draw."""
    index = np.concatenate([positive, negative]).astype(np.int32)
    return Sample(index, np.arange(len(index)) < len(positive), np.ones(len(index), bool))


def samples_of(golden: Golden) -> tuple[Sample, Sample]:
    """The drawn anchors and RoIs."""
    train = golden.train
    return (
        _drawn(train["anchor_pos_idx"], train["anchor_neg_idx"]),
        _drawn(train["roi_fg_idx"], train["roi_bg_idx"]),
    )


def measure_targets(golden: Golden) -> list[Row]:
    """One row for each golden array, and how many candidates of each kind are drawn."""
    train, batch = golden.train, batch_of(golden)
    anchor_draw, roi_draw = samples_of(golden)
    found, proposals = _anchor_targets(golden.config, train, batch, anchor_draw)
    found |= _roi_targets(golden.config, train, batch, roi_draw)
    found, proposals = jax.device_get((found, proposals))
    valid = proposals.valid
    ours, theirs = pair(proposals.boxes[valid], train["proposal_boxes"])
    counts = {
        "positive anchors drawn": (found.pop("positive_anchors"), len(train["anchor_pos_idx"])),
        "negative anchors drawn": (found.pop("negative_anchors"), len(train["anchor_neg_idx"])),
        "foreground RoIs drawn": (found.pop("foreground_rois"), len(train["roi_fg_idx"])),
        "background RoIs drawn": (found.pop("background_rois"), len(train["roi_bg_idx"])),
        "number of proposals": (valid.sum(), len(train["proposal_boxes"])),
    }
    rows = [Row(golden.name, f"training: {what}", abs(int(a) - b), 0) for what, (a, b) in counts.items()]
    difference = largest(proposals.boxes[valid][ours], train["proposal_boxes"][theirs])
    rows.append(Row(golden.name, "training: proposals, pixels", difference, 0.02))
    for name, value in found.items():
        rows.append(Row(golden.name, f"training: {name}", largest(value, train[name]), _allowed(name, train)))
    return rows


def _allowed(name: str, train: Mapping[str, np.ndarray]) -> float:
    """Nothing for integers; the spacing of float32 else."""
    if train[name].dtype != np.float32:
        return 0
    if name == "mask_targets_soft":  # Samples sit at pixel coordinates, which near 500 are 3e-5 apart.
        return 1e-4
    return 1e-6 * max(1.0, float(np.abs(train[name]).max(initial=0)))


@functools.partial(jax.jit, static_argnums=0)
def _anchor_targets(config, train, batch, given):
    """Golden arrays by name, how many were drawn of each kind, and the proposals of training."""
    anchors = rpn.make_anchors(config.rpn, extents(config, batch.images.shape[1:3]), config.levels)
    usable, boxes, valid = jnp.ones(len(anchors.boxes), bool), batch.boxes[0], batch.valid[0]
    proposals = rpn.propose(
        config.rpn, train["rpn_logits"], train["rpn_deltas"], anchors, usable, batch.sizes[0], training=True
    )
    iou = pairwise_iou(boxes, anchors.boxes)
    thresholds = {"positive": config.rpn.positive_iou, "negative": config.rpn.negative_iou}
    drawn, matched = rpn.sample_anchors(config.rpn, anchors, usable, boxes, valid, jax.random.key(0))
    positives = given.index[: len(train["anchor_pos_idx"])]
    targets = encode(boxes[matched[positives]], anchors.boxes[positives], config.rpn.box_weights)
    found = {
        "anchors": anchors.boxes,
        "anchor_iou_max": iou.max(axis=0),
        "anchor_gt_idx": matched,
        "anchor_labels": match(iou, valid, low_quality=True, **thresholds).labels,
        "anchor_target_deltas_pos": targets,
        "positive_anchors": drawn.positive.sum(),
        "negative_anchors": (drawn.valid & ~drawn.positive).sum(),
    }
    return found, proposals


@functools.partial(jax.jit, static_argnums=0)
def _roi_targets(config, train, batch, given):
    """Golden arrays by name, and how many were drawn of each kind, with Detectron2's proposals."""
    boxes, classes, valid, layers = batch.boxes[0], batch.classes[0], batch.valid[0], batch.layers[0]
    everyone = jnp.ones(len(train["proposal_boxes"]), bool)
    proposals = Proposals(train["proposal_boxes"], train["proposal_logits"], everyone)
    sample = functools.partial(
        roi_training.sample_rois, config, proposals, boxes, classes, valid, jax.random.key(0)
    )
    rois, drawn = sample(given), sample()
    overlaps = pairwise_iou(boxes, jnp.concatenate([proposals.boxes, boxes]))
    threshold = config.roi.positive_iou
    matches = match(overlaps, valid, positive=threshold, negative=threshold, low_quality=False)
    targets = encode(boxes[rois.instance], rois.boxes, config.roi.box_weights)
    front = jax.tree.map(lambda x: x[: len(train["roi_fg_idx"])], rois)
    side, instance_map = config.mask_size, batch.instance_map[0]
    return {
        "roi_gt_idx_all": matches.index,
        "roi_labels_all": jnp.where(matches.labels == 1, classes[matches.index], config.num_classes),
        "roi_boxes": rois.boxes,
        "roi_labels": rois.classes,
        "roi_target_deltas": jnp.where(rois.positive[:, None], targets, 0.0),
        "mask_targets_soft": mask_targets(
            instance_map, front.instance, layers[front.instance], front.boxes, batch.sizes[0], size=side
        ),
        "mask_targets": roi_training.roi_mask_targets(instance_map, layers, front, batch.sizes[0], size=side),
        "foreground_rois": drawn.positive.sum(),
        "background_rois": (drawn.valid & ~drawn.positive).sum(),
    }
