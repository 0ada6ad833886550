"""Every instance segmentation config of Detectron2's zoo loads, or is refused for a reason that is named."""

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2_zoo import ZOO, outcome, section, tree

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop import detectron2, names
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.trees import expected_shapes, flatten, nest

REFUSED = {name for name in ZOO if "panoptic" in name or "keypoint" in name}


@pytest.mark.parametrize("name", ZOO)
def test_loads_or_says_why_not(name):
    result = outcome(name)
    assert isinstance(result, MaskRCNNConfig) == (name not in REFUSED)
    if name in REFUSED:
        assert "another architecture" in str(result) or "keypoints" in str(result)


def test_what_the_best_and_the_oddest_are():
    best = outcome("COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x")
    assert (best.backbone.groups, best.backbone.bottleneck_channels) == (32, 256)
    dilated = outcome("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x")
    assert dilated.levels == (16,) and dilated.backbone.res5_dilation == 2 and not dilated.has_residual_head
    cascade = outcome("Misc/cascade_mask_rcnn_R_50_FPN_3x")
    assert cascade.roi.cascade_ious == (0.6, 0.7) and cascade.roi.stage(2).box_weights == (30, 30, 15, 15)
    assert not outcome("Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x").roi.aligned


def test_the_documentation_has_this_table():
    document = (Path(__file__).parents[2] / "docs" / "parity.md").read_text()
    assert section() in document


# A model of each kind, and some names that only it has.
KINDS = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x": {
        "backbone.res5.0.conv2.weight": (32, 32, 3, 3),
        "roi_heads.mask_head.mask_fcn4.bias": (6,),
    },
    "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x": {
        "backbone.bottom_up.res2.0.conv2.weight": (4, 2, 3, 3),
        "backbone.bottom_up.res4.22.conv2.norm.running_var": (16,),
    },
    "Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5": {
        "backbone.bottom_up.res3.3.conv2_offset.weight": (18, 8, 3, 3),
        "backbone.bottom_up.res5.0.conv2_offset.bias": (18,),
    },
    "Misc/mask_rcnn_R_50_FPN_3x_gn": {
        "backbone.fpn_lateral2.norm.weight": (5,),
        "roi_heads.box_head.conv4.norm.bias": (6,),
        "roi_heads.box_head.fc1.weight": (7, 6 * 49),
        "roi_heads.mask_head.mask_fcn1.norm.weight": (6,),
    },
    "Misc/mask_rcnn_R_50_FPN_3x_syncbn": {"backbone.fpn_output5.norm.running_mean": (5,)},
    "Misc/cascade_mask_rcnn_R_50_FPN_3x": {
        "roi_heads.box_head.2.fc1.weight": (7, 5 * 49),
        "roi_heads.box_predictor.1.bbox_pred.weight": (4, 7),
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name, tmp_path, rng):
    """With few channels; the names are those that Detectron2's modules have."""
    document = copy.deepcopy(tree(name))
    model, groups = document["MODEL"], document["MODEL"].get("RESNETS", {}).get("NUM_GROUPS", 1)
    small = {"STEM_OUT_CHANNELS": 4, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 2 if groups > 1 else 4}
    model.setdefault("RESNETS", {}).update(small | ({"NUM_GROUPS": 2} if groups > 1 else {}))
    model.setdefault("FPN", {})["OUT_CHANNELS"] = 5
    model["ROI_BOX_HEAD"] |= {"FC_DIM": 7, "CONV_DIM": 6}
    model["ROI_MASK_HEAD"] |= {"CONV_DIM": 6}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    config = read_config(tmp_path / "config.yaml")
    flat = {p: rng.normal(size=shape).astype(np.float32) for p, shape in expected_shapes(config).items()}
    there = {names.detectron2_name(p, config): names.shape_there(p, a.shape) for p, a in flat.items()}
    assert len(there) == len(flat) and KINDS[name].items() <= there.items()
    detectron2.save(tmp_path / "model.pkl", config, nest(flat))
    again, params = detectron2.load(tmp_path / "config.yaml", tmp_path / "model.pkl")
    assert again == config
    for path, array in flatten(params).items():
        assert array.tobytes() == flat[path].tobytes(), path
