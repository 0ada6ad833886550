"""A whole experiment that is small enough for tests: a model of a few channels on four drawn images."""

from ml_collections import ConfigDict

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.experiment import DataConfig, Experiment, OptimizerConfig, ScheduleConfig


def get_config() -> ConfigDict:
    model = MaskRCNNConfig(
        pixel_mean=(180.0, 140.0, 170.0),
        pixel_std=(50.0, 50.0, 50.0),
        channel_order="RGB",
        backbone=BackboneConfig(
            depth=18, last_stage=2, stem_channels=8, res2_channels=8, norm="group", freeze_at=1
        ),
        rpn=RPNConfig(
            anchor_sizes=((16,),),
            anchor_ratios=(1.0,),
            positive_iou=0.5,
            pre_nms=(64, 64),
            post_nms=(32, 32),
            samples=32,
        ),
        roi=RoIConfig(samples=16, positive_fraction=0.5, bins=4, norm="group", mask_channels=8),
        detection=DetectionConfig(max_detections=20),
    )
    return Experiment(
        model=model,
        data=DataConfig(
            format="synthetic",
            size=96,
            train_images=4,
            validation_images=2,
            augment=({"op": "random_crop", "size": 64}, {"op": "flip_horizontal"}),
            canvas=(64, 64),
            max_instances=32,
        ),
        batch_size=2,
        steps=80,
        schedule=ScheduleConfig(base=0.1, warmup=5, milestones=(70,)),
        optimizer=OptimizerConfig(clip_norm=5.0, ema=0.9),
        log_every=10,
        checkpoint_every=40,
    ).to_config()
