"""The report's experiment with a ResNet-50-C4: its crops, scales, anchors, schedule and thresholds.

The backbone starts from MSRA's ImageNet weights and keeps its frozen batch norm. Those weights lack most
of res5, so the RoI head's stage is fresh and learns with group norm.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig, RoIConfig
from maskrcnn_jax.experiment import DataConfig, Experiment, ScheduleConfig

INITIAL_WEIGHTS = {
    50: "../shared/weights/msra_resnet50_partial.npz",
    101: "weights/mask_rcnn_R_101_C4_3x.pkl",
}
# 1000 x 1000 pixels, as they lie beside a developer's checkout; other nuclei configs read them, too.
IMAGES = {
    "format": "mask_folder",
    "path": "../shared/data/vrdl/train",
    "validation_images": 4,
    "test_images": "../shared/data/vrdl/test",
    "test_ids": "../shared/data/vrdl/test_img_ids.json",
}


def get_config(depth: int = 50) -> ConfigDict:
    model = MaskRCNNConfig(
        dtype="bfloat16",  # for a GPU; `--config.model.dtype=float32` elsewhere
        backbone=BackboneConfig(depth=depth),  # conv1 and res2 frozen, features res4 at stride 16
        # 28 x 28 masks, as the report has them.
        roi=RoIConfig(norm="group" if depth == 50 else "frozen_bn", mask_deconvs=2),
    )
    return Experiment(
        model=model,
        init_from=INITIAL_WEIGHTS[depth],
        data=DataConfig(
            **IMAGES,
            augment=(
                {"op": "random_crop", "size": 500},
                {
                    "op": "resize_shortest_edge",
                    "sizes": (608, 640, 672, 704, 736, 768, 800),
                    "longest": 800,
                },
                {"op": "flip_horizontal"},
            ),
            canvas=(800, 800),
            max_instances=800,  # the densest crop seen holds 689
        ),
        batch_size=1,
        steps=2400,
        schedule=ScheduleConfig(base=0.01, warmup=72, milestones=(480, 1200, 1920, 2160)),
    ).to_config()
