"""Detectron2's `mask_rcnn_R_50_FPN_3x` for COCO 2017: a feature pyramid, everything else as `coco_r50_c4.py`.

Its notes on the data, the batch size and how to score Detectron2's checkpoint hold here, too.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig


def get_config() -> ConfigDict:
    # Config files are run by their path, not imported as a package.
    path = Path(__file__).with_name("coco_r50_c4.py")
    spec = importlib.util.spec_from_file_location("coco_r50_c4", path)
    base = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(base)
    usual = MaskRCNNConfig.resnet_fpn(
        num_classes=80, test_resize=(800, 1333), detection=DetectionConfig(max_detections=100)
    )
    model = replace(
        usual,
        rpn=replace(usual.rpn, smooth_l1_beta=0.0),
        roi=replace(usual.roi, sampling=0, mask_sampling=0, smooth_l1_beta=0.0),
    )
    return ConfigDict(base.get_config().to_dict() | {"model": model.to_dict()})
