"""What the RoI heads learn from: sampled RoIs, their targets and losses (Girshick 2015; He et al. 2017)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.models.box_loss import box_distance
from maskrcnn_jax.models.heads import select_class
from maskrcnn_jax.ops.losses import sigmoid_cross_entropy, softmax_cross_entropy
from maskrcnn_jax.ops.masks import mask_targets
from maskrcnn_jax.ops.matching import ignore_crowds, match_boxes
from maskrcnn_jax.ops.sampling import Sample, sample
from maskrcnn_jax.structures import Proposals, Term


class RoITargets(NamedTuple):
    """Sampled RoIs of one image, foreground first.

    Attributes:
      boxes: the RoIs, zeros in the padding.
      classes: K is the background.
      instance: the ground truth of each; meaningless for background.
      positive: foreground RoIs.
      valid: False marks padding.
    """

    boxes: Float[Array, "S 4"]
    classes: Int[Array, "S"]
    instance: Int[Array, "S"]
    positive: Bool[Array, "S"]
    valid: Bool[Array, "S"]


def sample_rois(
    config: MaskRCNNConfig,
    proposals: Proposals,
    boxes: Float[Array, "G 4"],
    classes: Int[Array, "G"],
    valid: Bool[Array, "G"],
    key: PRNGKeyArray,
    drawn: Sample | None = None,
    crowd: Bool[Array, "G"] | None = None,
) -> RoITargets:
    """The RoIs that enter one image's losses; its ground truths join the proposals.

    Args:
      proposals: of one image.
      boxes, classes, valid: its ground truths.
      drawn: fixed candidates (proposals, then ground truths) in place of a random draw.
      crowd: which of `boxes` are crowds, not `valid` as truths; no background is drawn from them.
    """
    roi = config.roi
    candidates = jnp.concatenate([proposals.boxes, boxes])
    matches = match_boxes(
        boxes,
        candidates,
        valid,
        positive=roi.positive_iou,
        negative=roi.positive_iou,
        low_quality=False,
    )
    if drawn is None:
        labels = jnp.where(jnp.concatenate([proposals.valid, valid]), matches.labels, jnp.int8(-1))
        if crowd is not None:
            labels = ignore_crowds(labels, candidates, boxes, crowd)
        drawn = sample(labels, key, count=roi.samples, positive_fraction=roi.positive_fraction)
    instance = matches.index[drawn.index]
    return RoITargets(
        jnp.where(drawn.valid[:, None], candidates[drawn.index], 0.0),
        jnp.where(drawn.positive, classes[instance], config.num_classes),
        instance,
        drawn.positive,
        drawn.valid,
    )


def box_losses(
    config: MaskRCNNConfig,
    logits: Float[Array, "R K+1"],
    deltas: Float[Array, "R K 4"],
    rois: RoITargets,
    matched: Float[Array, "R 4"],
) -> dict[str, Term]:
    """Cross-entropy of the classes and the box loss (Girshick 2015, eq. 1), over a batch.

    Both are sums over RoIs divided by the number of sampled ones, foreground and background.

    Args:
      config: `roi` in it says how boxes are coded, and which loss they have.
      rois: the targets of all images in one list.
      matched: the ground-truth box of each RoI.
    """
    sampled = rois.valid.sum().astype(jnp.float32)
    entropy = softmax_cross_entropy(logits, rois.classes)
    chosen = select_class(deltas, rois.classes)
    distance = config.roi.box_loss_weight * box_distance(config.roi, chosen, rois.boxes, matched)
    return {
        "loss_cls": Term(jnp.where(rois.valid, entropy, 0.0).sum(), sampled),
        "loss_box_reg": Term(jnp.where(rois.positive, distance, 0.0).sum(), sampled),
    }


def mask_loss(
    logits: Float[Array, "R M M K"],
    classes: Int[Array, "R"],
    targets: Float[Array, "R M M"],
    positive: Bool[Array, "R"],
) -> Term:
    """Mean binary cross-entropy of the class's own mask over foreground RoIs (He et al. 2017, §3)."""
    entropy = sigmoid_cross_entropy(select_class(logits, classes, axis=-1), targets)
    total = jnp.where(positive, entropy.mean(axis=(1, 2)), 0.0).sum()
    return Term(total, positive.sum().astype(jnp.float32))


def roi_mask_targets(
    instance_map: Int[Array, "L H W"],
    layers: Int[Array, "G"],
    rois: RoITargets,
    extent: Int[Array, "2"],
    *,
    size: int,
    soft: bool = False,
) -> Float[Array, "S M M"]:
    """0 or 1: at least half of the cell is covered by the RoI's instance, as Detectron2 has it.

    `extent` is the height and width of the image's content in pixels; `soft` gives the covered share itself,
    by RoIAlign that is not aligned, as torchvision has it.

    The margin keeps exact halves on the foreground side, whatever the order of the additions; it is as
    small as their rounding, because Detectron2 has no margin.
    """
    options = {"size": size, "aligned": not soft}
    covered = mask_targets(instance_map, rois.instance, layers[rois.instance], rois.boxes, extent, **options)
    if soft:
        return covered
    return (covered >= 0.5 - 1e-7).astype(jnp.float32)
