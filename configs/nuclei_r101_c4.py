"""The report's experiment with a ResNet-101-C4; everything else as in `nuclei_r50_c4.py`.

Starts from Detectron2's COCO-trained `mask_rcnn_R_101_C4_3x`, as the report does: download that
`model_final_*.pkl` from Detectron2's model zoo and give its path as `--config.init_from`. Its res5 is
trained too, so the head keeps frozen batch norm; the layers that count classes start fresh.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    # Config files are run by their path, not imported as a package.
    path = Path(__file__).with_name("nuclei_r50_c4.py")
    spec = importlib.util.spec_from_file_location("nuclei_r50_c4", path)
    base = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(base)
    return base.get_config(depth=101)
