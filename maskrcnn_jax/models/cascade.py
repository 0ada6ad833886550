"""Cascade R-CNN (Cai and Vasconcelos 2018): box heads one after the other, each on the boxes of the last.

Everything here is for one image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from maskrcnn_jax.config import RoIConfig
from maskrcnn_jax.models.roi_training import RoITargets
from maskrcnn_jax.ops.boxes import clip, decode
from maskrcnn_jax.ops.matching import ignore_crowds, match_boxes


def refine(
    roi: RoIConfig, deltas: Float[Array, "R 1 4"], boxes: Float[Array, "R 4"], size: Int[Array, "2"]
) -> Float[Array, "R 4"]:
    """The boxes of a stage, from which the next one starts: inside the image, and without a gradient."""
    return jax.lax.stop_gradient(clip(decode(deltas[:, 0], boxes, roi.box_weights), size))


def label_again(
    roi: RoIConfig,
    rois: RoITargets,
    refined: Float[Array, "R 4"],
    boxes: Float[Array, "G 4"],
    classes: Int[Array, "G"],
    valid: Bool[Array, "G"],
    crowd: Bool[Array, "G"],
    background: int,
) -> RoITargets:
    """What refined RoIs learn at the next stage, whose IoU `roi` has; those without area learn nothing.

    Args:
      rois: of the stage before.
      boxes, classes, valid, crowd: the image's ground truths.
      background: its class.
    """
    iou = roi.positive_iou
    matches = match_boxes(boxes, refined, valid, positive=iou, negative=iou, low_quality=False)
    labels = ignore_crowds(matches.labels, refined, boxes, crowd)
    solid = jnp.all(refined[:, 2:] > refined[:, :2], axis=1)
    kept = rois.valid & solid & (labels >= 0)
    positive = kept & (labels == 1)
    return RoITargets(
        jnp.where(kept[:, None], refined, 0.0),
        jnp.where(positive, classes[matches.index], background),
        matches.index,
        positive,
        kept,
    )


def mean_logits(stages: Sequence[Float[Array, "*R K+1"]]) -> Float[Array, "*R K+1"]:
    """Logits of the mean of the stages' class probabilities."""
    return jnp.log(sum(jax.nn.softmax(logits) for logits in stages) / len(stages))
