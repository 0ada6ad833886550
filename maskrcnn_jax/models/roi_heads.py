"""RoI heads (He et al. 2017): box and mask branches for C4 and FPN, their targets, losses, detections.

Both heads have the same two methods. `boxes` scores RoIs and hands on what it computed; `masks` draws
masks, from what was handed on where the head shares its features (C4), else from pooling anew (FPN).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.models.fpn import assign_levels
from maskrcnn_jax.models.layers import Conv, Deconv, Dense, normal_fill
from maskrcnn_jax.models.resnet import Stage
from maskrcnn_jax.ops.boxes import clip, decode, encode, pairwise_iou
from maskrcnn_jax.ops.losses import sigmoid_cross_entropy, smooth_l1, softmax_cross_entropy
from maskrcnn_jax.ops.masks import mask_targets
from maskrcnn_jax.ops.matching import ignore_crowds, match
from maskrcnn_jax.ops.nms import nms
from maskrcnn_jax.ops.roi_align import roi_align
from maskrcnn_jax.ops.sampling import Sample, sample
from maskrcnn_jax.structures import Proposals


class Features(NamedTuple):
    """Feature levels, finest first, and the part of each that belongs to the image, in cells."""

    levels: tuple[Float[Array, "B h w C"], ...]
    extents: tuple[Int[Array, "B 2"], ...]


class BoxPredictor(nn.Module):
    """Class logits, the background last, and four deltas for each class."""

    config: MaskRCNNConfig

    @nn.compact
    def __call__(self, x: Float[Array, "R C"]) -> tuple[Float[Array, "R K+1"], Float[Array, "R K 4"]]:
        classes, dtype = self.config.num_classes, jnp.dtype(self.config.dtype)
        boxes = 1 if self.config.roi.class_agnostic_boxes else classes
        logits = Dense(classes + 1, dtype, normal_fill(0.01), name="cls_score")(x)
        deltas = Dense(boxes * 4, dtype, normal_fill(0.001), name="bbox_pred")(x)
        return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(-1, boxes, 4)


class MaskHead(nn.Module):
    """3x3 convolutions, transposed convolutions that double the side, one mask logit a class."""

    config: MaskRCNNConfig

    @nn.compact
    def __call__(self, x: Float[Array, "R m m C"]) -> Float[Array, "R M M K"]:
        roi, dtype = self.config.roi, jnp.dtype(self.config.dtype)
        for i in range(1, roi.mask_convs + 1):
            x = nn.relu(Conv(roi.mask_channels, 3, dtype=dtype, name=f"mask_fcn{i}")(x))
        for i in range(1, roi.mask_deconvs + 1):
            x = nn.relu(Deconv(roi.mask_channels, dtype, name="deconv" if i == 1 else f"deconv{i}")(x))
        masks = 1 if roi.class_agnostic_masks else self.config.num_classes
        predictor = Conv(masks, dtype=dtype, kernel_init=normal_fill(0.001), name="predictor")
        return predictor(x).astype(jnp.float32)


class C4Heads(nn.Module):
    """The stage after the backbone's last, shared by both branches (He et al. 2017, fig. 4 left)."""

    config: MaskRCNNConfig

    def setup(self):
        backbone = self.config.backbone
        stage = backbone.last_stage + 1
        stride = backbone.stage_strides[stage - 2]
        # Where a strided 1x1 comes first, it reads only every second bin: pool no others.
        skips = backbone.depth >= 50 and backbone.stride_in_1x1
        self._step, first_stride = (stride, 1) if skips else (1, stride)
        self._name = f"res{stage}"
        dtype = jnp.dtype(self.config.dtype)
        setattr(self, self._name, Stage(backbone, stage, self.config.roi.norm, dtype, first_stride))
        self.box_predictor = BoxPredictor(self.config)
        self.mask_head = MaskHead(self.config)

    def shared(self, features: Features, boxes: Float[Array, "B R 4"]) -> Float[Array, "B*R m m C"]:
        """RoIAlign and the residual stage: what both branches read."""
        roi = self.config.roi
        pooled = pool(features, boxes, self.config.levels, roi.bins, roi.sampling, step=self._step)
        return getattr(self, self._name)(pooled)

    def boxes(self, features: Features, boxes: Float[Array, "B R 4"]):
        """Class logits (B*R, K+1), deltas (B*R, K, 4), and the shared features for `masks`."""
        shared = self.shared(features, boxes)
        return *self.box_predictor(shared.mean(axis=(1, 2))), shared

    def masks(
        self,
        features: Features,
        boxes: Float[Array, "B R 4"],
        shared: Float[Array, "B*R m m C"] | None = None,
    ) -> Float[Array, "B*R M M K"]:
        """Mask logits; `shared` are these boxes' features where they are already there."""
        return self.mask_head(self.shared(features, boxes) if shared is None else shared)


class FPNHeads(nn.Module):
    """Two fully connected layers for boxes, four convolutions for masks (He et al. 2017, fig. 4 right)."""

    config: MaskRCNNConfig

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.box_head = FullyConnected(self.config.roi.fc_channels, dtype)
        self.box_predictor = BoxPredictor(self.config)
        self.mask_head = MaskHead(self.config)

    def _pool(self, features, boxes, bins, sampling):
        fpn, last = self.config.fpn, self.config.backbone.last_stage
        count = last - fpn.first_stage + 1
        strides = self.config.levels[:count]
        level = assign_levels(boxes, strides)
        finest = Features(features.levels[:count], features.extents[:count])
        return pool(finest, boxes, strides, bins, sampling, level=level)

    def boxes(self, features: Features, boxes: Float[Array, "B R 4"]):
        """Class logits (B*R, K+1), deltas (B*R, K, 4), and None: nothing is shared with `masks`."""
        pooled = self._pool(features, boxes, self.config.roi.bins, self.config.roi.sampling)
        return *self.box_predictor(self.box_head(pooled)), None

    def masks(
        self, features: Features, boxes: Float[Array, "B R 4"], shared: None = None
    ) -> Float[Array, "B*R M M K"]:
        """Mask logits of the boxes."""
        roi = self.config.roi
        sampling = roi.sampling if roi.mask_sampling is None else roi.mask_sampling
        return self.mask_head(self._pool(features, boxes, roi.mask_bins, sampling))


class FullyConnected(nn.Module):
    """Fully connected layers with ReLU over each RoI's flattened features."""

    channels: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "R P P C"]) -> Float[Array, "R c"]:
        x = x.reshape(x.shape[0], -1)
        for i, channels in enumerate(self.channels, 1):
            x = nn.relu(Dense(channels, self.dtype, name=f"fc{i}")(x))
        return x


def pool(
    features: Features,
    boxes: Float[Array, "B R 4"],
    strides: Sequence[int],
    bins: int,
    samples: int,
    *,
    step: int = 1,
    level: Int[Array, "B R"] | None = None,
) -> Float[Array, "B*R P P C"]:
    """RoIAlign of a whole batch, its RoIs in one list."""
    level = jnp.zeros(boxes.shape[:2], jnp.int32) if level is None else level

    def one(levels, boxes, level, extents):
        return roi_align(
            levels,
            boxes,
            strides=strides,
            bins=bins,
            samples=samples,
            step=step,
            level=level,
            extents=extents,
        )

    pooled = jax.vmap(one)(features.levels, boxes, level, jnp.stack(features.extents, axis=1))
    return pooled.reshape(-1, *pooled.shape[2:])


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
    matches = match(
        pairwise_iou(boxes, candidates),
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
) -> dict[str, Float[Array, ""]]:
    """Cross-entropy of the classes and smooth L1 of the deltas (Girshick 2015, eq. 1), over a batch.

    Both are sums over RoIs divided by the number of sampled ones, foreground and background.

    Args:
      rois: the targets of all images in one list.
      matched: the ground-truth box of each RoI.
    """
    sampled = jnp.maximum(rois.valid.sum(), 1).astype(jnp.float32)
    entropy = softmax_cross_entropy(logits, rois.classes)
    chosen = select_class(deltas, rois.classes)
    targets = encode(matched, rois.boxes, config.roi.box_weights)
    distance = smooth_l1(chosen - targets, config.roi.smooth_l1_beta).sum(axis=1)
    return {
        "loss_cls": jnp.where(rois.valid, entropy, 0.0).sum() / sampled,
        "loss_box_reg": jnp.where(rois.positive, distance, 0.0).sum() / sampled,
    }


def mask_loss(
    logits: Float[Array, "R M M K"],
    classes: Int[Array, "R"],
    targets: Float[Array, "R M M"],
    positive: Bool[Array, "R"],
) -> Float[Array, ""]:
    """Mean binary cross-entropy of the class's own mask over foreground RoIs (He et al. 2017, §3)."""
    entropy = sigmoid_cross_entropy(select_class(logits, classes, axis=-1), targets)
    count = jnp.maximum(positive.sum(), 1).astype(jnp.float32)
    return jnp.where(positive, entropy.mean(axis=(1, 2)), 0.0).sum() / count


def roi_mask_targets(
    instance_map: Int[Array, "L H W"], layers: Int[Array, "G"], rois: RoITargets, *, size: int
) -> Float[Array, "S M M"]:
    """0 or 1: at least half of the cell is covered by the RoI's instance, as Detectron2 has it.

    The margin keeps exact halves on the foreground side, whatever the order of the additions; it is as
    small as their rounding, because Detectron2 has no margin.
    """
    covered = mask_targets(instance_map, rois.instance, layers[rois.instance], rois.boxes, size=size)
    return (covered >= 0.5 - 1e-7).astype(jnp.float32)


def select_class(values: Array, classes: Int[Array, "R"], axis: int = 1) -> Array:
    """Each row's values of its own class; of the only one where all classes share."""
    index = jnp.minimum(classes, values.shape[axis] - 1)
    index = index.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, index, axis=axis).squeeze(axis)


def select_detections(
    config: DetectionConfig,
    box_weights: Sequence[float],
    logits: Float[Array, "R K+1"],
    deltas: Float[Array, "R K 4"],
    proposals: Proposals,
    size: Int[Array, "2"],
) -> tuple[Float[Array, "D 4"], Float[Array, "D"], Int[Array, "D"], Bool[Array, "D"]]:
    """Boxes, scores, classes and validity of one image: softmax, threshold, NMS by class, the best D."""
    classes = logits.shape[1] - 1
    scores = jax.nn.softmax(logits)[:, :classes].reshape(-1)
    boxes = clip(decode(deltas, proposals.boxes[:, None], box_weights), size)
    boxes = jnp.broadcast_to(boxes, (boxes.shape[0], classes, 4)).reshape(-1, 4)
    usable = jnp.repeat(proposals.valid, classes) & (scores > config.score_threshold)
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
