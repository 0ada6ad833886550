"""Region proposal network (Ren et al. 2015): a head over all levels, its proposals, targets and losses.

The functions below the module treat one image; `mask_rcnn.py` maps them over the batch. Anchors of all
levels stand in one list: level, row, column, then size-major and ratio-minor.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from maskrcnn_jax.config import RPNConfig
from maskrcnn_jax.models.box_loss import box_distance
from maskrcnn_jax.models.layers import Conv, normal_fill, relu
from maskrcnn_jax.ops.anchors import grid_anchors
from maskrcnn_jax.ops.boxes import clip, decode
from maskrcnn_jax.ops.losses import sigmoid_cross_entropy
from maskrcnn_jax.ops.matching import ignore_crowds, match_boxes
from maskrcnn_jax.ops.nms import nms
from maskrcnn_jax.ops.sampling import Sample, sample
from maskrcnn_jax.structures import Proposals, Term


class RPNHead(nn.Module):
    """3x3 convolutions, then one objectness logit and four deltas for each anchor."""

    config: RPNConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, levels: Sequence[Float[Array, "B h w C"]], extents: Sequence[Int[Array, "B 2"]]
    ) -> tuple[Float[Array, "B N"], Float[Array, "B N 4"]]:
        anchors = len(self.config.anchor_sizes[0]) * len(self.config.anchor_ratios)
        channels = self.config.channels or levels[0].shape[-1]

        def conv(name, outputs, dtype, kernel=1):
            return Conv(outputs, kernel, dtype=dtype, kernel_init=normal_fill(0.01), name=name)

        # Outputs in float32: of bfloat16's few numbers many are equal, and their place would decide the best.
        names = ["conv", *(f"conv{i}" for i in range(2, self.config.convs + 1))]
        hidden = [conv(name, channels, self.dtype, 3) for name in names]
        objectness, deltas = (
            conv("objectness", anchors, jnp.float32),
            conv("deltas", anchors * 4, jnp.float32),
        )
        batch = levels[0].shape[0]
        outputs = []
        for features, extent in zip(levels, extents, strict=True):
            x = features
            for layer in hidden:
                x = relu(layer(x, extent))
            outputs.append((objectness(x).reshape(batch, -1), deltas(x).reshape(batch, -1, 4)))
        return tuple(jnp.concatenate(part, axis=1) for part in zip(*outputs, strict=True))


class Anchors(NamedTuple):
    """All anchors of one canvas. `count` says how many belong to each level (Python integers)."""

    boxes: Float[Array, "N 4"]
    count: tuple[int, ...]


def make_anchors(
    config: RPNConfig, shapes: Sequence[tuple[int, int]], strides: Sequence[int | Int[Array, "2"]]
) -> Anchors:
    """Anchors of every cell of levels of these shapes (height, width); a stride may be two: down, across."""
    levels = [
        grid_anchors(
            height,
            width,
            stride=stride,
            sizes=sizes,
            ratios=config.anchor_ratios,
            offset=config.anchor_offset,
            rounding=config.anchor_rounding,
        )
        for (height, width), stride, sizes in zip(shapes, strides, config.anchor_sizes, strict=True)
    ]
    return Anchors(jnp.concatenate(levels), tuple(len(level) for level in levels))


def content_spacing(
    strides: Sequence[int], extents: Sequence[Int[Array, "2"]]
) -> Sequence[int | Int[Array, "2"]]:
    """Pixels between anchors, down and across, where they share out one image's content of these cells."""
    side = extents[0] * strides[0]
    return [side // jnp.maximum(extent, 1) for extent in extents]


def valid_anchors(
    config: RPNConfig, shapes: Sequence[tuple[int, int]], extents: Sequence[Int[Array, "2"]]
) -> Bool[Array, "N"]:
    """False for anchors whose cell lies in the padding of one image."""
    parts = []
    for (height, width), extent, sizes in zip(shapes, extents, config.anchor_sizes, strict=True):
        cells = (jnp.arange(height)[:, None] < extent[0]) & (jnp.arange(width)[None, :] < extent[1])
        parts.append(jnp.repeat(cells.reshape(-1), len(sizes) * len(config.anchor_ratios)))
    return jnp.concatenate(parts)


def propose(
    config: RPNConfig,
    logits: Float[Array, "N"],
    deltas: Float[Array, "N 4"],
    anchors: Anchors,
    valid: Bool[Array, "N"],
    size: Int[Array, "2"],
    *,
    training: bool,
) -> Proposals:
    """The best boxes of one image: top-k of each level, decode, clip, drop small ones, NMS by level.

    Args:
      valid: False marks anchors that are not to be used.
      size: height and width of the image's content in pixels.
      training: selects the first of `pre_nms` and `post_nms`, otherwise the second.
    """
    index = 0 if training else 1
    best, levels, start = [], [], 0
    for level, count in enumerate(anchors.count):
        here = jnp.where(valid, logits, -jnp.inf)[start : start + count]
        top = jax.lax.top_k(here, min(config.pre_nms[index], count))[1].astype(jnp.int32)
        best.append(top + start)
        levels.append(jnp.full(top.shape, level, jnp.int32))
        start += count
    best, levels = jnp.concatenate(best), jnp.concatenate(levels)
    if len(anchors.count) > 1:
        order = jnp.argsort(jnp.where(valid[best], logits[best], -jnp.inf), descending=True)
        best, levels = best[order], levels[order]
    boxes = clip(decode(deltas[best], anchors.boxes[best], config.box_weights), size)
    usable = valid[best] & jnp.all(boxes[:, 2:] - boxes[:, :2] > config.min_size, axis=1)
    kept = nms(
        boxes, usable, iou_threshold=config.nms_iou, max_kept=config.post_nms[index], groups=levels
    )  # fmt: skip
    return Proposals(
        boxes.at[kept].get(mode="fill", fill_value=0.0),
        logits[best].at[kept].get(mode="fill", fill_value=-jnp.inf),
        kept < len(best),
    )


def sample_anchors(
    config: RPNConfig,
    anchors: Anchors,
    valid: Bool[Array, "N"],
    boxes: Float[Array, "G 4"],
    boxes_valid: Bool[Array, "G"],
    key: PRNGKeyArray,
    crowd: Bool[Array, "G"] | None = None,
) -> tuple[Sample, Int[Array, "N"]]:
    """The anchors that enter one image's losses, and the ground truth of every anchor.

    No background is drawn from crowds (`crowd` says which of `boxes` are some): Detectron2 forgets about
    them, and so teaches that nothing is there.
    """
    matches = match_boxes(
        boxes,
        anchors.boxes,
        boxes_valid,
        positive=config.positive_iou,
        negative=config.negative_iou,
        low_quality=True,
        usable=valid,
    )
    labels = matches.labels
    if crowd is not None:
        labels = ignore_crowds(labels, anchors.boxes, boxes, crowd)
    drawn = sample(labels, key, count=config.samples, positive_fraction=config.positive_fraction)
    return drawn, matches.index


def rpn_losses(
    config: RPNConfig,
    logits: Float[Array, "N"],
    deltas: Float[Array, "N 4"],
    anchors: Anchors,
    boxes: Float[Array, "G 4"],
    drawn: Sample,
    matched: Int[Array, "N"],
) -> dict[str, Term]:
    """Losses of one image, summed over the drawn anchors, and what `config.loss_count` divides them by.

    Cross-entropy of the objectness, and by default smooth L1 of the deltas of positives (Ren et al. 2015,
    eq. 1).
    """
    index = drawn.index
    entropy = sigmoid_cross_entropy(logits[index], drawn.positive.astype(jnp.float32))
    distance = box_distance(config, deltas[index], anchors.boxes[index], boxes[matched[index]])
    count = drawn.valid.sum() if config.loss_count == "drawn" else config.samples
    count = jnp.float32(count)
    objectness, box = config.loss_weights
    return {
        "loss_rpn_cls": Term(objectness * jnp.where(drawn.valid, entropy, 0.0).sum(), count),
        "loss_rpn_loc": Term(box * jnp.where(drawn.positive, distance, 0.0).sum(), count),
    }
