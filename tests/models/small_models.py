"""Two small whole models, C4 and FPN, whose parameters spread their answers, compiled when first asked."""

import dataclasses
import functools

import jax
import numpy as np
from flax import traverse_util

from maskrcnn_jax.config import (
    BackboneConfig,
    DetectionConfig,
    FPNConfig,
    MaskRCNNConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.models.parameters import param_shapes

_BODY = {"depth": 18, "stem_channels": 4, "res2_channels": 4}
_PIXELS = {"pixel_mean": (120.0, 130.0, 140.0), "pixel_std": (64.0, 64.0, 64.0)}
_RPN = {"channels": 6, "samples": 12, "pre_nms": (40, 60), "post_nms": (16, 20)}
_ROI = {"samples": 8, "mask_channels": 5, "smooth_l1_beta": 0.5}
C4 = MaskRCNNConfig(
    num_classes=3,
    backbone=BackboneConfig(last_stage=2, norm="frozen_bn", freeze_at=2, **_BODY),
    rpn=RPNConfig(anchor_sizes=((12, 24),), **_RPN),
    roi=RoIConfig(bins=4, sampling=0, **_ROI),
    detection=DetectionConfig(score_threshold=0.0, max_detections=10),
    **_PIXELS,
)
FPN = MaskRCNNConfig(
    num_classes=2,
    channel_order="RGB",
    backbone=BackboneConfig(last_stage=3, norm="group", freeze_at=1, **_BODY),
    fpn=FPNConfig(channels=6),
    rpn=RPNConfig(anchor_sizes=((8,), (16,), (32,)), **_RPN),
    roi=RoIConfig(bins=3, mask_bins=4, mask_convs=1, fc_channels=(9,), class_agnostic_masks=True, **_ROI),
    detection=DetectionConfig(score_threshold=0.0, max_detections=10),
    **_PIXELS,
)
CONFIGS = {"c4": C4, "fpn": FPN}
CANVAS, SIZES = (72, 96), np.array([[72, 90], [61, 83]], np.int32)
# These models run for milliseconds and compile for seconds.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass
class Model:
    """A config with random parameters, and its compiled functions."""

    config: MaskRCNNConfig

    @functools.cached_property
    def params(self):
        """Such that scores spread and boxes move; norms and biases are random too."""
        rng = np.random.default_rng(3)

        def leaf(path, shape):
            spread = {"objectness": 3.0, "deltas": 0.5, "cls_score": 2.0, "bbox_pred": 1.0}.get(
                path[-2].key, 1.0
            )
            if path[-1].key in ("scale", "var"):
                return rng.uniform(0.7, 1.3, shape.shape).astype(np.float32)
            fan = max(int(np.prod(shape.shape[:-1])), 1)
            return rng.normal(0, spread / np.sqrt(fan), shape.shape).astype(np.float32)

        return jax.tree_util.tree_map_with_path(leaf, param_shapes(self.config))

    @functools.cached_property
    def detect(self):
        model = MaskRCNN(self.config)
        run = jax.jit(
            lambda p, i, s: model.apply({"params": p}, i, s, method="detect"), compiler_options=QUICK
        )
        return lambda images, sizes: jax.device_get(run(self.params, images, sizes))

    @functools.cached_property
    def losses(self):
        """Losses and gradients of their sum."""
        model = MaskRCNN(self.config)

        def total(params, batch, key):
            losses = model.apply({"params": params}, batch, key, method="losses")
            return sum(losses.values()), losses

        run = jax.jit(jax.grad(total, has_aux=True), compiler_options=QUICK)

        def both(batch, key=0):
            gradients, losses = jax.device_get(run(self.params, batch, jax.random.key(key)))
            return losses, traverse_util.flatten_dict(gradients, sep="/")

        return both
