"""The report's experiment where there is no GPU: `nuclei_r50_c4` with 128 RoIs an image.

    python train.py --config configs/nuclei_r50_c4_cpu.py --workdir runs/nuclei_r50_c4_cpu

All else is as there: images, crops, scales, schedule, 2,400 steps of one image, in bfloat16. A processor with
AVX-512 BF16 takes three quarters of the time of float32; for one that does not multiply bfloat16 there is
`--config.model.dtype=float32`.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.experiment import sibling


def get_config() -> ConfigDict:
    config = sibling(__file__, "nuclei_r50_c4").get_config()
    config.model.roi.samples = 128
    return config
