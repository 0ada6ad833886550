"""Detectron2's instance segmentation configs: what each sets beside its base, and what becomes of it here.

    python benchmarks/detectron2_zoo.py --out docs/parity.md

writes the table of docs/parity.md; a test holds it to this list.
"""

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import yaml
from parity_document import replace_section

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error

Tree = dict[str, Any]
_STAGES = ["res2", "res3", "res4", "res5"]
# configs/Base-RCNN-C4.yaml, -DilatedC5.yaml and -FPN.yaml, by what a model's numbers depend on.
BASES: dict[str, Tree] = {
    "C4": {
        "RPN": {"PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000},
        "ROI_HEADS": {"NAME": "Res5ROIHeads"},
    },
    "DC5": {
        "RESNETS": {"OUT_FEATURES": ["res5"], "RES5_DILATION": 2},
        "RPN": {"IN_FEATURES": ["res5"], "PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["res5"]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NUM_CONV": 4, "POOLER_RESOLUTION": 14},
    },
    "FPN": {
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": _STAGES},
        "FPN": {"IN_FEATURES": _STAGES},
        "ANCHOR_GENERATOR": {
            "SIZES": [[32], [64], [128], [256], [512]],
            "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        },
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 2000,
            "PRE_NMS_TOPK_TEST": 1000,
            "POST_NMS_TOPK_TRAIN": 1000,
            "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NUM_CONV": 4, "POOLER_RESOLUTION": 14},
    },
}
_R101, _RESNEXT_STD = {"RESNETS": {"DEPTH": 101}}, [57.375, 57.12, 58.395]
_X101 = {
    "PIXEL_STD": _RESNEXT_STD,
    "RESNETS": {"STRIDE_IN_1X1": False, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEPTH": 101},
}
_LVIS_05 = {"ROI_HEADS": {"NUM_CLASSES": 1230, "SCORE_THRESH_TEST": 0.0001}}
_LVIS_1 = {"ROI_HEADS": {"NUM_CLASSES": 1203, "SCORE_THRESH_TEST": 0.0001}}
_CASCADE = {
    "ROI_HEADS": {"NAME": "CascadeROIHeads"},
    "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True},
    "RPN": {"POST_NMS_TOPK_TRAIN": 2000},
}
_DEFORMABLE = {"RESNETS": {"DEFORM_ON_PER_STAGE": [False, True, True, True]}}
_SCRATCH = {"BACKBONE": {"FREEZE_AT": 0}}


def _normed(norm: str) -> Tree:
    return {
        "RESNETS": {"NORM": norm, "STRIDE_IN_1X1": False},
        "FPN": {"NORM": norm},
        "ROI_BOX_HEAD": {"NUM_CONV": 4, "NUM_FC": 1, "NORM": norm},
        "ROI_MASK_HEAD": {"NORM": norm},
    }


_X152 = {
    "RESNETS": {
        **{"STRIDE_IN_1X1": False, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8, "DEPTH": 152},
        **_DEFORMABLE["RESNETS"],
    },
    "ROI_BOX_HEAD": {"NUM_CONV": 4, "NUM_FC": 1, "NORM": "GN"},
    "ROI_MASK_HEAD": {"NUM_CONV": 8, "NORM": "GN"},
}
_UNALIGNED = {"POOLER_SAMPLING_RATIO": 2, "POOLER_TYPE": "ROIAlign"}
# Of each config its base, and what it sets on top of it, one after the other.
ZOO: dict[str, tuple[str, *tuple[Tree, ...]]] = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": ("C4",),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x": ("C4",),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x": ("C4", _R101),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x": ("DC5",),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_3x": ("DC5",),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_DC5_3x": ("DC5", _R101),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": ("FPN",),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x_giou": (
        "FPN",
        {"ROI_BOX_HEAD": {"BBOX_REG_LOSS_TYPE": "giou", "BBOX_REG_LOSS_WEIGHT": 10.0}},
    ),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": ("FPN",),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": ("FPN", _R101),
    "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x": ("FPN", _X101),
    "Cityscapes/mask_rcnn_R_50_FPN": ("FPN", {"ROI_HEADS": {"NUM_CLASSES": 8}}),
    "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x": (
        "FPN",
        {
            "RPN": {"SMOOTH_L1_BETA": 0.1111},
            "ROI_BOX_HEAD": {"SMOOTH_L1_BETA": 1.0, **_UNALIGNED},
            "ROI_MASK_HEAD": _UNALIGNED,
        },
    ),
    "Detectron1-Comparisons/keypoint_rcnn_R_50_FPN_1x": ("FPN", {"KEYPOINT_ON": True, "MASK_ON": False}),
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": ("FPN", _LVIS_05),
    "LVISv0.5-InstanceSegmentation/mask_rcnn_R_101_FPN_1x": ("FPN", _R101, _LVIS_05),
    "LVISv0.5-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_1x": ("FPN", _X101, _LVIS_05),
    "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": ("FPN", _LVIS_1),
    "LVISv1-InstanceSegmentation/mask_rcnn_R_101_FPN_1x": ("FPN", _R101, _LVIS_1),
    "LVISv1-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_1x": ("FPN", _X101, _LVIS_1),
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": ("FPN", _CASCADE),
    "Misc/cascade_mask_rcnn_R_50_FPN_3x": ("FPN", _CASCADE),
    "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv": ("FPN", _CASCADE, _X152),
    "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic": (
        "FPN",
        {"ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True}, "ROI_MASK_HEAD": {"CLS_AGNOSTIC_MASK": True}},
    ),
    "Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5": ("FPN", _DEFORMABLE),
    "Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5": ("FPN", _DEFORMABLE),
    "Misc/mask_rcnn_R_50_FPN_3x_gn": ("FPN", _normed("GN")),
    "Misc/mask_rcnn_R_50_FPN_3x_syncbn": ("FPN", _normed("SyncBN")),
    "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn": ("FPN", _normed("GN"), _SCRATCH),
    "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn": ("FPN", _normed("GN"), _SCRATCH, {"PIXEL_STD": _RESNEXT_STD}),
    "Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn": (
        "FPN",
        _normed("SyncBN"),
        _SCRATCH,
        {"PIXEL_STD": _RESNEXT_STD},
    ),
    "Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x": (
        "FPN",
        _CASCADE,
        {"META_ARCHITECTURE": "PanopticFPN", "RESNETS": {"DEPTH": 101, "NORM": "GN"}},
        _DEFORMABLE,
    ),
}
# Lazy configs are Python, which nothing here runs. Some have a YAML of the same model above.
PYTHON = (
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py",
    "COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py",
    "COCO-InstanceSegmentation/mask_rcnn_regnety_4gf_dds_fpn_1x.py",
    "Misc/mmdet_mask_rcnn_R_50_FPN_1x.py",
    "new_baselines/mask_rcnn_*_LSJ.py",
)


def tree(name: str) -> Tree:
    """The whole YAML document of a config."""
    base, *layers = ZOO[name]
    model: Tree = {"MASK_ON": True}
    for layer in (BASES[base], *layers):
        _merge(model, layer)
    document: Tree = {"VERSION": 2, "MODEL": model}
    if name.startswith("Cityscapes"):
        document["INPUT"] = {"MIN_SIZE_TEST": 1024, "MAX_SIZE_TEST": 2048}
    if name.startswith("LVIS"):
        document["TEST"] = {"DETECTIONS_PER_IMAGE": 300}
    return document


def _merge(below: Tree, layer: Tree) -> None:
    for key, value in layer.items():
        if isinstance(value, dict):
            _merge(below.setdefault(key, {}), value)
        else:
            below[key] = copy.deepcopy(value)


def outcome(name: str) -> MaskRCNNConfig | Detectron2Error:
    """Our config of one of Detectron2's, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(yaml.safe_dump(tree(name)))
        try:
            return read_config(path)
        except Detectron2Error as error:
            return error


def section() -> str:
    """The table for people, and how it was made."""
    lines = [f"| {name}.yaml | {_verdict(outcome(name))} |" for name in ZOO]
    lines += [f"| {name} | refused: a config in Python; nothing from a file is run |" for name in PYTHON]
    return (
        "Every instance segmentation config of Detectron2's `configs/`, and what becomes of it.\n"
        "Batch norm that Detectron2 would go on training (SyncBN) is frozen here, with its numbers.\n\n"
        "    python benchmarks/detectron2_zoo.py --out docs/parity.md\n\n"
        "| config | here |\n|---|---|\n" + "\n".join(lines)
    )


def _verdict(result: MaskRCNNConfig | Detectron2Error) -> str:
    if isinstance(result, MaskRCNNConfig):
        return "loads"
    faults = [line.strip() for line in str(result).splitlines()[1:]]
    return "refused: " + "; ".join(_reason(fault) for fault in faults)


def _reason(fault: str) -> str:
    """`deformable convolution (MODEL.RESNETS.DEFORM_ON_PER_STAGE)`."""
    field, _, rest = fault.partition(": ")
    reason = rest.partition("(")[2].rpartition("); supported")[0] or rest
    return f"{reason} (`{field}`)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a Markdown file for the section")
    out = parser.parse_args().out
    if out is not None:
        replace_section(out, "Detectron2's zoo", section())
    print(section())


if __name__ == "__main__":
    main()
