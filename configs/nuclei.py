"""The shipped model `nuclei`: nuclei in fluorescence, bright field and H&E, from CC0 images alone.

    python benchmarks/nuclei_sets.py --out runs/data/nuclei DSB2018_FOLDER ...
    python train.py --config configs/nuclei.py --workdir runs/nuclei
    python train.py --config configs/nuclei.py:further --workdir runs/nuclei_further
    python train.py --config configs/nuclei.py:longer --workdir runs/nuclei_longer

Each run goes on from the bundle of the one before, at the first rate.
"""

from dataclasses import replace

from ml_collections import ConfigDict

from maskrcnn_jax.config import BackboneConfig, DetectionConfig
from maskrcnn_jax.experiment import DataConfig, Experiment, OptimizerConfig, ScheduleConfig, sibling


def get_config(part: str = "first") -> ConfigDict:
    if part not in ("first", "further", "longer"):
        raise ValueError(f"configs/nuclei.py:{part}: choose first, further or longer")
    config = _first()
    if part == "further":
        config.init_from = "runs/nuclei/bundle"
        config.steps = 1700
        config.schedule.update({"warmup": 150, "milestones": (1200, 1560)})
        config.optimizer.ema = 0.999
    if part == "longer":
        config.init_from = "runs/nuclei_further/bundle"
        config.seed = 3
        config.model.roi.mask_margin = 0.1
        config.steps = 6000
        config.schedule.update({"warmup": 60, "milestones": (4400, 5500)})
        config.optimizer.ema = 0.999
        config.model.detection.min_score = 0.5
    return config


def _first() -> ConfigDict:
    backbone = BackboneConfig(depth=50, last_stage=4)
    model = sibling(__file__, "nuclei_small").small_model(backbone, pyramid=96, fc_channels=160)
    return Experiment(
        model=replace(
            model,
            stretch_grey=True,
            # Chosen on the validation images, after training: docs/results.md.
            detection=DetectionConfig(
                max_detections=2000,
                nms_iou=0.3,
                containment=0.7,
                mask_weight=1.0,
                mask_threshold=0.55,
                min_score=0.4,
            ),
        ),
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
