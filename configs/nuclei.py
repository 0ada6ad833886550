"""The shipped model `nuclei`: nuclei in fluorescence, bright field and H&E, from CC0 images alone.

python benchmarks/nuclei_sets.py --out runs/data/nuclei DSB2018_FOLDER ...
python train.py --config configs/nuclei.py
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
from maskrcnn_jax.experiment import DataConfig, Experiment, OptimizerConfig, ScheduleConfig


def get_config() -> ConfigDict:
    model = MaskRCNNConfig(
        backbone=BackboneConfig(depth=50, last_stage=4),
        fpn=FPNConfig(channels=96, extra_levels=0),
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
            fc_channels=(160, 160),
            mask_bins=14,
            mask_convs=2,
            mask_channels=64,
        ),
        detection=DetectionConfig(max_detections=2000),
        stretch_grey=True,
    )
    return Experiment(
        model=model,
        init_from="../shared/weights/msra_resnet50_partial.npz",
        data=DataConfig(
            format="labels",
            path="runs/data/nuclei/train",
            validation_path="runs/data/nuclei/validation",
            shares={"fluorescence": 0.5, "colour": 0.4, "grey": 0.1},
            augment=(
                {"op": "stretch_grey"},
                {
                    "op": "random_affine",
                    "size": 224,
                    "smallest": 0.6,
                    "largest": 1.8,
                    "degrees": 180.0,
                    "offset_x": 0.0,
                    "offset_y": 0.0,
                },
                {"op": "stain_jitter", "scale": 0.25, "shift": 0.05},
                {"op": "brightness_contrast", "brightness": 0.1, "contrast": 0.25},
                {"op": "gamma", "spread": 0.4},
                {"op": "channel_shuffle", "share": 0.05},
                {"op": "tint", "share": 0.15, "least": 0.0},
                {"op": "invert", "share": 0.1},
                {"op": "to_grey", "share": 0.1},
                {"op": "blur", "share": 0.3, "largest": 1.5},
                {"op": "noise", "share": 0.3, "largest": 0.05},
            ),
            canvas=(224, 224),
            max_instances=250,
        ),
        batch_size=2,
        steps=2000,
        schedule=ScheduleConfig(base=0.015, warmup=200, milestones=(1600, 1880)),
        optimizer=OptimizerConfig(clip_norm=10.0, ema=0.998),
        checkpoint_every=100,
    ).to_config()
