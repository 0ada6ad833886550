"""Detectron2's `mask_rcnn_R_50_C4_3x` for COCO 2017: its model, scales, schedule and initial weights.

Put COCO into `coco/` as it comes (`annotations/`, `train2017/`, `val2017/`) and MSRA's ResNet-50,
Detectron2's `R-50.pkl`, into `weights/`. The training set does not fit in memory, so it is written once as
shards into `coco/prepared` and read from there. A step has 16 images, which Detectron2 spreads over eight
GPUs; with fewer, scale by hand: 2 images, `--config.batch_size=2 --config.schedule.base=0.0025` and eight
times the steps, milestones and warm-up. Detectron2 leaves out images without annotations, which teach
background only; here they stay. Neither this nor the pyramid has been trained on COCO by us.

To score Detectron2's own checkpoint, or any bundle, without the training set:

    maskrcnn-jax convert --detectron2 mask_rcnn_R_50_C4_3x.yaml --weights model_final.pkl --out bundle
    python evaluate.py --config configs/coco_r50_c4.py --bundle bundle --config.data.path= \\
        --config.data.prepared=coco/prepared_val
"""

from ml_collections import ConfigDict

from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.experiment import DataConfig, Experiment, ScheduleConfig


def get_config() -> ConfigDict:
    model = MaskRCNNConfig.c4(
        num_classes=80,
        dtype="bfloat16",  # for a GPU; `--config.model.dtype=float32` elsewhere
        test_resize=(800, 1333),
        rpn=RPNConfig(anchor_sizes=((32, 64, 128, 256, 512),), smooth_l1_beta=0.0),
        # Samples as many as a RoI is wide; plain L1; no layers between the pooled vector and the outputs.
        roi=RoIConfig(sampling=0, smooth_l1_beta=0.0, fc_channels=()),
        detection=DetectionConfig(max_detections=100),
    )
    return Experiment(
        model=model,
        init_from="weights/R-50.pkl",
        data=DataConfig(
            format="coco",
            # train2017 and val2017 are found beside `annotations`.
            path="coco/annotations/instances_train2017.json",
            validation_path="coco/annotations/instances_val2017.json",
            prepared="coco/prepared",
            augment=(
                {"op": "resize_shortest_edge", "sizes": (640, 672, 704, 736, 768, 800), "longest": 1333},
                {"op": "flip_horizontal"},
            ),
            canvas=(1344, 1344),  # of a landscape and a portrait, in whole cells of stride 64
            max_instances=100,  # were it too few, the log would say what was cut
        ),
        batch_size=16,
        steps=270_000,
        schedule=ScheduleConfig(base=0.02, warmup=1000, milestones=(210_000, 250_000), warmup_factor=0.001),
        checkpoint_every=5000,
    ).to_config()
