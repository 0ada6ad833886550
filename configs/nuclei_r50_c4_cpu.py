"""The report's experiment where there is no GPU: `nuclei_r50_c4` with 128 RoIs an image, in float32.

    python train.py --config configs/nuclei_r50_c4_cpu.py --workdir runs/nuclei_r50_c4_cpu

All else is as there: images, crops, scales, schedule, 2,400 steps of one image.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.experiment import sibling


def get_config() -> ConfigDict:
    config = sibling(__file__, "nuclei_r50_c4").get_config()
    config.model.dtype = "float32"
    config.model.roi.samples = 128
    return config
