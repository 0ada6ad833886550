"""The report's experiment with a ResNet-101-C4; everything else as in `nuclei_r50_c4.py`.

Starts from Detectron2's COCO-trained `mask_rcnn_R_101_C4_3x`, as the report does: download that
`model_final_*.pkl` from Detectron2's model zoo and give its path as `--config.init_from`. Its res5 is
trained too, so the head keeps frozen batch norm; the layers that count classes start fresh.
"""

from ml_collections import ConfigDict

from maskrcnn_jax.experiment import sibling


def get_config() -> ConfigDict:
    return sibling(__file__, "nuclei_r50_c4").get_config(depth=101)
