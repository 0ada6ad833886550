"""Detectron2's `mask_rcnn_R_50_FPN_3x` for COCO 2017: a feature pyramid, everything else as `coco_r50_c4.py`.

Its notes on the data, the batch size and how to score Detectron2's checkpoint hold here, too.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.experiment import sibling


def get_config() -> ConfigDict:
    usual = MaskRCNNConfig.resnet_fpn(
        num_classes=80,
        dtype="bfloat16",  # for a GPU; `--config.model.dtype=float32` elsewhere
        test_resize=(800, 1333),
        detection=DetectionConfig(max_detections=100),
    )
    model = replace(
        usual,
        rpn=replace(usual.rpn, smooth_l1_beta=0.0),
        roi=replace(usual.roi, sampling=0, mask_sampling=0, smooth_l1_beta=0.0),
    )
    config = sibling(__file__, "coco_r50_c4").get_config()
    config.model = ConfigDict(model.to_dict())
    return config
