"""A model for dense nuclei that a laptop trains in about an hour: ImageNet features, boxes at stride 4.

Chosen on the four validation images. Half of the nuclei are smaller than 20 px, so anchors and RoIs read
the finest pyramid level; res5 is left out, since nothing here is as large as its cells.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.config import (
    BackboneConfig,
    DetectionConfig,
    FPNConfig,
    MaskRCNNConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn_jax.experiment import DataConfig, Experiment, OptimizerConfig, ScheduleConfig, sibling

BACKBONES = {
    "imagenet": BackboneConfig(depth=50, last_stage=4),
    "scratch": BackboneConfig(depth=18, last_stage=4, res2_channels=64, norm="group", freeze_at=0),
}


def small_model(backbone: BackboneConfig, *, pyramid: int = 128, fc_channels: int = 256) -> MaskRCNNConfig:
    """Anchors and RoIs at stride 4, 8 and 16; `pyramid` channels in each level."""
    return MaskRCNNConfig(
        backbone=backbone,
        fpn=FPNConfig(channels=pyramid, extra_levels=0),
        rpn=RPNConfig(
            anchor_sizes=((10, 16), (24, 36), (56, 90)),
            anchor_ratios=(1.0,),
            positive_iou=0.5,
            pre_nms=(1000, 6000),
            post_nms=(500, 4000),
        ),
        roi=RoIConfig(
            samples=128,
            positive_fraction=0.4,
            bins=7,
            fc_channels=(fc_channels, fc_channels),
            mask_bins=14,
            mask_convs=2,
            mask_channels=64,
        ),
        detection=DetectionConfig(max_detections=2000),
    )


def get_config(start: str = "imagenet") -> ConfigDict:
    """`--config configs/nuclei_small.py:scratch` needs no weights: everything learns, with group norm."""
    if start not in BACKBONES:
        raise ValueError(f"configs/nuclei_small.py:{start}: choose one of {', '.join(BACKBONES)}")
    return Experiment(
        model=small_model(BACKBONES[start]),
        init_from="../shared/weights/msra_resnet50_partial.npz" if start == "imagenet" else "",
        data=DataConfig(
            **sibling(__file__, "nuclei_r50_c4").IMAGES,
            augment=(
                {"op": "random_crop", "size": 224},
                {"op": "resize_shortest_edge", "sizes": (192, 224, 256), "longest": 256},
                {"op": "flip_horizontal"},
                {"op": "rotate90"},
            ),
            canvas=(256, 256),
            max_instances=200,
        ),
        batch_size=2,
        steps=1200,
        schedule=ScheduleConfig(base=0.015, warmup=100, milestones=(900, 1100)),
        optimizer=OptimizerConfig(clip_norm=10.0, ema=0.998),
    ).to_config()
