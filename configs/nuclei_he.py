"""The shipped model `nuclei-he`: nuclei in H&E at about 0.25 micrometres a pixel; starts from `nuclei`.

    python train.py --config configs/nuclei_he.py --workdir runs/nuclei_he
    python train.py --config configs/nuclei_he.py:further --workdir runs/nuclei_he_further
    python train.py --config configs/nuclei_he.py:longer --workdir runs/nuclei_he_longer
    python train.py --config configs/nuclei_he.py:longest --workdir runs/nuclei_he_longest
    python train.py --config configs/nuclei_he.py:all --workdir runs/nuclei_he_all

Each run goes on from the bundle of the one before; the first one started from `nuclei` of 2,000 steps. With
`:few` a short run for a few images of your own, whose labels lie where the nuclei are (docs/fine_tune.md).
Its images are CC BY-NC-SA: the weights are for research. Trained on 20 of the 24 images, of which the last
four by name validate, until everything was chosen; `:all` then learns from all 24 and has nothing left to
validate on.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.experiment import sibling


def get_config(part: str = "first") -> ConfigDict:
    if part not in ("first", "further", "longer", "longest", "all", "few"):
        raise ValueError(f"configs/nuclei_he.py:{part}: choose first, further, longer, longest, all or few")
    config = _first()
    if part == "further":
        config.init_from = "runs/nuclei_he/bundle"
        config.steps = 800
        config.schedule.update({"warmup": 60, "milestones": (540, 720)})
    if part == "longer":
        config.init_from = "runs/nuclei_he_further/bundle"
        config.seed = 3
        config.steps = 1600
        config.schedule.update({"warmup": 60, "milestones": (1200, 1480)})
    if part == "longest":
        config.init_from = "runs/nuclei_he_longer/bundle"
        config.seed = 4
        config.steps = 5000
        config.schedule.update({"warmup": 60, "milestones": (3700, 4600)})
    if part == "all":
        config.init_from = "runs/nuclei_he_longest/bundle"
        config.seed = 5
        config.data.validation_images = 0
        config.steps = 3000
        config.schedule.update({"warmup": 60, "milestones": (2200, 2760)})
    if part == "few":
        config.steps = 200
        config.checkpoint_every = 50
        config.schedule.update({"warmup": 40, "milestones": (150, 185)})
        move = next(step for step in config.data.augment if step["op"] == "random_affine")
        move.update({"offset_x": 0.0, "offset_y": 0.0})
    return config


def _first() -> ConfigDict:
    config = sibling(__file__, "nuclei").get_config()
    config.init_from = "nuclei"
    config.model.roi.mask_margin = 0.1
    config.model.update({"test_zoom": 1.4, "mpp": 0.25})
    config.model.detection.update(
        {"nms_iou": 0.4, "containment": 0.85, "mask_weight": 2.0, "mask_threshold": 0.5, "min_score": 0.4}
    )
    config.data.shares = ConfigDict()
    config.data.update(
        {
            "format": "mask_folder",
            "path": "../shared/data/vrdl/train",
            "validation_images": 4,
            "validation_path": "",
            # Labels lie above and to the left of what the images show: `maskrcnn-jax check` measures it.
            "augment": (
                {
                    "op": "random_affine",
                    "size": 224,
                    "smallest": 1.0,
                    "largest": 1.7,
                    "degrees": 180.0,
                    "offset_x": -0.4,
                    "offset_y": -0.7,
                },
                {"op": "stain_jitter", "scale": 0.3, "shift": 0.05},
                {"op": "brightness_contrast", "brightness": 0.08, "contrast": 0.2},
                {"op": "gamma", "spread": 0.2},
                {"op": "blur", "share": 0.3, "largest": 1.5},
                {"op": "noise", "share": 0.3, "largest": 0.03},
            ),
            "test_images": "../shared/data/vrdl/test",
            "test_ids": "../shared/data/vrdl/test_img_ids.json",
        }
    )
    config.steps = 1000
    config.schedule.update({"base": 0.01, "warmup": 100, "milestones": (740, 920)})
    return config
