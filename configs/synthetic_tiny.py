"""A small C4 model on nuclei that the program draws itself: minutes on two CPU cores."""

from ml_collections import ConfigDict

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.experiment import DataConfig, Experiment, OptimizerConfig, ScheduleConfig


def get_config() -> ConfigDict:
    model = MaskRCNNConfig(
        pixel_mean=(180.0, 140.0, 170.0),
        pixel_std=(50.0, 50.0, 50.0),
        channel_order="RGB",
        backbone=BackboneConfig(
            depth=18,
            last_stage=3,
            stem_channels=24,
            res2_channels=24,
            stage_strides=(1, 2, 1, 1),
            norm="group",
            freeze_at=0,
        ),
        rpn=RPNConfig(
            anchor_sizes=((14, 24),),
            anchor_ratios=(1.0,),
            positive_iou=0.5,
            pre_nms=(1000, 1000),
            post_nms=(256, 256),
            samples=128,
        ),
        roi=RoIConfig(samples=64, positive_fraction=0.5, bins=7, norm="group", mask_channels=48),
        detection=DetectionConfig(max_detections=100),
    )
    return Experiment(
        model=model,
        data=DataConfig(
            format="synthetic",
            size=256,
            train_images=200,
            validation_images=24,
            augment=({"op": "random_crop", "size": 192}, {"op": "flip_horizontal"}, {"op": "flip_vertical"}),
            canvas=(192, 192),
            max_instances=64,
        ),
        batch_size=4,
        steps=400,
        schedule=ScheduleConfig(base=0.02, warmup=50, milestones=(300, 370)),
        optimizer=OptimizerConfig(clip_norm=5.0, ema=0.98),
    ).to_config()
