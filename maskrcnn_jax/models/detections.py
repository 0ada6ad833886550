"""What the model finds: from class logits and box deltas of proposals to the detections of an image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from maskrcnn_jax.config import DetectionConfig
from maskrcnn_jax.ops.boxes import clip, decode
from maskrcnn_jax.ops.nms import nms
from maskrcnn_jax.structures import Detections, Proposals


def select_detections(
    config: DetectionConfig,
    box_weights: Sequence[float],
    logits: Float[Array, "R K+1"],
    deltas: Float[Array, "R K 4"],
    proposals: Proposals,
    size: Int[Array, "2"],
) -> tuple[Float[Array, "D 4"], Float[Array, "D"], Int[Array, "D"], Bool[Array, "D"]]:
    """Boxes, scores, classes and validity of one image: softmax, thresholds, NMS by class, the best D."""
    classes = logits.shape[1] - 1
    scores = jax.nn.softmax(logits)[:, :classes].reshape(-1)
    boxes = clip(decode(deltas, proposals.boxes[:, None], box_weights), size)
    boxes = jnp.broadcast_to(boxes, (boxes.shape[0], classes, 4)).reshape(-1, 4)
    usable = jnp.repeat(proposals.valid, classes) & (scores > config.score_threshold)
    usable &= jnp.all(boxes[:, 2:] - boxes[:, :2] >= config.min_size, axis=1)
    order = jnp.argsort(jnp.where(usable, scores, -1.0), descending=True)
    labels = (order % classes).astype(jnp.int32)
    kept = nms(
        boxes[order],
        usable[order],
        iou_threshold=config.nms_iou,
        max_kept=config.max_detections,
        groups=labels,
    )

    def take(values):
        return values.at[kept].get(mode="fill", fill_value=0)

    return take(boxes[order]), take(scores[order]), take(labels), kept < len(order)


def rescore_by_masks(found: Detections, weight: float) -> Detections:
    """One image's detections with scores that count how sure their masks are, best first; padding stays last.

    See `DetectionConfig.mask_weight`.
    """
    inside = found.masks > 0.5
    pixels = jnp.maximum(inside.sum((1, 2), dtype=jnp.float32), 1.0)
    sureness = jnp.where(inside, found.masks, 0.0).sum((1, 2), dtype=jnp.float32) / pixels
    found = found._replace(scores=found.scores * sureness**weight)
    order = jnp.argsort(jnp.where(found.valid, found.scores, -1.0), descending=True)
    return jax.tree.map(lambda field: field[order], found)
