"""RoI heads (He et al. 2017): box and mask branches for C4 and FPN.

Both heads have the same two methods. `boxes` scores RoIs and hands on what it computed; `masks` draws
masks, from what was handed on where the head shares its features (C4), else from pooling anew (FPN).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from maskrcnn_jax.config import MaskRCNNConfig, RoIConfig
from maskrcnn_jax.models.fpn import assign_levels
from maskrcnn_jax.models.layers import Conv, Deconv, Dense, normal_fill, relu
from maskrcnn_jax.models.resnet import Stage
from maskrcnn_jax.ops.roi_align import roi_align
from maskrcnn_jax.ops.selection import select


class Features(NamedTuple):
    """Feature levels, finest first, and the part of each that belongs to the image, in cells."""

    levels: tuple[Float[Array, "B h w C"], ...]
    extents: tuple[Int[Array, "B 2"], ...]


class BoxPredictor(nn.Module):
    """Class logits, the background last, and four deltas for each class, in float32: scores are to differ."""

    config: MaskRCNNConfig

    @nn.compact
    def __call__(self, x: Float[Array, "R C"]) -> tuple[Float[Array, "R K+1"], Float[Array, "R K 4"]]:
        classes = self.config.num_classes
        boxes = 1 if self.config.roi.class_agnostic_boxes else classes
        logits = Dense(classes + 1, jnp.float32, normal_fill(0.01), name="cls_score")(x)
        deltas = Dense(boxes * 4, jnp.float32, normal_fill(0.001), name="bbox_pred")(x)
        return logits, deltas.reshape(-1, boxes, 4)


class MaskHead(nn.Module):
    """3x3 convolutions, transposed convolutions that double the side, one mask logit a class."""

    config: MaskRCNNConfig

    @nn.compact
    def __call__(self, x: Float[Array, "R m m C"]) -> Float[Array, "R M M K"]:
        roi, dtype = self.config.roi, jnp.dtype(self.config.dtype)
        for i in range(1, roi.mask_convs + 1):
            x = relu(Conv(roi.mask_channels, 3, norm=roi.mask_norm, dtype=dtype, name=f"mask_fcn{i}")(x))
        for i in range(1, roi.mask_deconvs + 1):
            x = relu(Deconv(roi.mask_channels, dtype, name="deconv" if i == 1 else f"deconv{i}")(x))
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
        kind = {"norm": self.config.roi.norm, "dtype": dtype, "remat": self.config.remat}
        setattr(self, self._name, Stage(backbone, stage, stride=first_stride, **kind))
        self.box_predictor = BoxPredictor(self.config)
        self.mask_head = MaskHead(self.config)

    def __call__(self, features: Features):
        """Runs every layer once, on RoIs of zeros; the parameters are known from it."""
        pooled = unpooled(features, -(-self.config.roi.bins // self._step))
        shared = getattr(self, self._name)(pooled)
        return self.box_predictor(shared.mean(axis=(1, 2))), self.mask_head(shared)

    def shared(self, features: Features, boxes: Float[Array, "B R 4"]) -> Float[Array, "B*R m m C"]:
        """RoIAlign and the residual stage: what both branches read."""
        roi = self.config.roi
        options = {"step": self._step, "aligned": roi.aligned}
        pooled = pool(features, boxes, self.config.levels, roi.bins, roi.sampling, **options)
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
    """Fully connected layers for boxes, convolutions for masks (He et al. 2017, fig. 4 right).

    Each RoI is read from one level of a pyramid, or from the only one that there is.
    """

    config: MaskRCNNConfig

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.box_head = BoxHead(self.config.roi, dtype)
        self.box_predictor = BoxPredictor(self.config)
        self.mask_head = MaskHead(self.config)
        for number in range(2, len(self.config.roi.cascade_ious) + 2):
            setattr(self, f"box_head{number}", BoxHead(self.config.roi, dtype))
            setattr(self, f"box_predictor{number}", BoxPredictor(self.config))

    def __call__(self, features: Features):
        """Runs every layer once, on RoIs of zeros; the parameters are known from it."""
        roi = self.config.roi
        pooled = unpooled(features, roi.bins)
        boxes = [self._predict_boxes(pooled, stage) for stage in range(len(roi.cascade_ious) + 1)]
        return boxes, self.mask_head(unpooled(features, roi.mask_bins))

    def _predict_boxes(self, pooled, stage):
        number = "" if stage == 0 else str(stage + 1)
        head, predictor = (getattr(self, f"{name}{number}") for name in ("box_head", "box_predictor"))
        return predictor(head(pooled))

    def _pool(self, features, boxes, bins, sampling):
        fpn, roi = self.config.fpn, self.config.roi
        count = len(self.config.levels) - (fpn.extra_levels if fpn else 0)
        strides = self.config.levels[:count]
        level = assign_levels(boxes, strides, roi.level_slack)
        finest = Features(features.levels[:count], features.extents[:count])
        return pool(finest, boxes, strides, bins, sampling, level=level, aligned=roi.aligned)

    def boxes(self, features: Features, boxes: Float[Array, "B R 4"], stage: int = 0):
        """Class logits (B*R, K+1), deltas (B*R, K, 4), and None: nothing is shared with `masks`.

        `stage` is the box head of a cascade, 0 the first. Together its heads pull at the features as one.
        """
        pooled = self._pool(features, boxes, self.config.roi.bins, self.config.roi.sampling)
        if further := len(self.config.roi.cascade_ious):
            still = jax.lax.stop_gradient(pooled)
            pooled = still + (pooled - still) / (further + 1)
        return *self._predict_boxes(pooled, stage), None

    def masks(
        self, features: Features, boxes: Float[Array, "B R 4"], shared: None = None
    ) -> Float[Array, "B*R M M K"]:
        """Mask logits of the boxes."""
        roi = self.config.roi
        sampling = roi.sampling if roi.mask_sampling is None else roi.mask_sampling
        return self.mask_head(self._pool(features, boxes, roi.mask_bins, sampling))


class BoxHead(nn.Module):
    """3x3 convolutions, then fully connected layers over each RoI's flattened features, all with ReLU."""

    config: RoIConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "R P P C"]) -> Float[Array, "R c"]:
        config = self.config
        for i in range(1, config.box_convs + 1):
            conv = Conv(config.box_conv_channels, 3, norm=config.box_norm, dtype=self.dtype, name=f"conv{i}")
            x = relu(conv(x))
        x = x.reshape(x.shape[0], -1)
        for i, channels in enumerate(config.fc_channels, 1):
            x = relu(Dense(channels, self.dtype, name=f"fc{i}")(x))
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
    aligned: bool = True,
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
            aligned=aligned,
        )

    pooled = jax.vmap(one)(features.levels, boxes, level, jnp.stack(features.extents, axis=1))
    return pooled.reshape(-1, *pooled.shape[2:])


def unpooled(features: Features, side: int) -> Float[Array, "B P P C"]:
    """Zeros in the place of one RoI's features an image: of their shape, for none of RoIAlign's work."""
    finest = features.levels[0]
    return jnp.zeros((finest.shape[0], side, side, finest.shape[-1]), finest.dtype)


def select_class(values: Array, classes: Int[Array, "R"], axis: int = 1) -> Array:
    """Each row's values of its own class; of the only one where all classes share."""
    if values.shape[axis] == 1:
        return values.squeeze(axis)
    return select(values, jnp.minimum(classes, values.shape[axis] - 1), axis)
