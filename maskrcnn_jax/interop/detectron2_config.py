"""Detectron2's YAML configuration as ours; what we lack is refused by name."""

import os
from typing import Any

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop.detectron2_support import (
    NORMS,
    POOLERS,
    Fields,
    has_own_heads,
    has_pyramid,
    pyramid_stages,
    unsupported,
)
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error, read_yaml

_NO_NORM = {"": None}


def read_config(path: str | os.PathLike) -> MaskRCNNConfig:
    """The model that a Detectron2 YAML file describes: resolved, or on top of `_BASE_` and the defaults.

    Args:
      path: of a Mask R-CNN with C4 (`Res5ROIHeads`) or FPN (`StandardROIHeads`).

    Raises:
      Detectron2Error: the file is unreadable or switches on what is not supported; every such field is
        named.
    """
    fields = read_yaml(path)
    faults = unsupported(fields)
    if not faults:
        try:
            return MaskRCNNConfig.from_dict(_values(fields))
        except ValueError as error:
            faults.append(str(error))
    raise Detectron2Error("\n  ".join([f"{path} describes a model that is not supported:", *faults]))


def _values(fields: Fields) -> dict[str, Any]:
    """The tree of `MaskRCNNConfig.to_dict`, from fields without faults."""
    shortest, longest = fields["INPUT.MIN_SIZE_TEST"], fields["INPUT.MAX_SIZE_TEST"]
    fpn = _fpn(fields) if has_pyramid(fields) else None
    last = pyramid_stages(fields)[1] if fpn else 4
    if not fpn and has_own_heads(fields):
        last = int(fields["MODEL.RESNETS.OUT_FEATURES"][0].removeprefix("res"))
    return {
        "num_classes": fields["MODEL.ROI_HEADS.NUM_CLASSES"],
        "pixel_mean": fields["MODEL.PIXEL_MEAN"],
        "pixel_std": fields["MODEL.PIXEL_STD"],
        "channel_order": fields["INPUT.FORMAT"],
        "test_resize": None if shortest == 0 else (shortest, longest),
        "backbone": _backbone(fields, last),
        "fpn": fpn,
        "rpn": _rpn(fields, levels=len(fields["MODEL.RPN.IN_FEATURES"])),
        "roi": _roi(fields),
        "detection": {
            "score_threshold": fields["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
            "nms_iou": fields["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
            "max_detections": fields["TEST.DETECTIONS_PER_IMAGE"],
        },
    }


def _backbone(fields: Fields, last_stage: int) -> dict[str, Any]:
    deformable = fields["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    groups, dilation = fields["MODEL.RESNETS.NUM_GROUPS"], fields["MODEL.RESNETS.RES5_DILATION"]
    return {
        "depth": fields["MODEL.RESNETS.DEPTH"],
        "last_stage": last_stage,
        "stem_channels": fields["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        "res2_channels": fields["MODEL.RESNETS.RES2_OUT_CHANNELS"],
        "bottleneck_channels": groups * fields["MODEL.RESNETS.WIDTH_PER_GROUP"],
        "groups": groups,
        "stage_strides": (1, 2, 2, 2 if dilation == 1 else 1),
        "res5_dilation": dilation,
        "stride_in_1x1": fields["MODEL.RESNETS.STRIDE_IN_1X1"],
        "deformable": deformable,
        "deform_weights": any(deformable) and fields["MODEL.RESNETS.DEFORM_MODULATED"],
        "norm": NORMS[fields["MODEL.RESNETS.NORM"]],
        "freeze_at": max(0, min(fields["MODEL.BACKBONE.FREEZE_AT"], last_stage)),
    }


def _fpn(fields: Fields) -> dict[str, Any]:
    first, last = pyramid_stages(fields)
    return {
        "channels": fields["MODEL.FPN.OUT_CHANNELS"],
        "first_stage": first,
        "extra_levels": int(fields["MODEL.RPN.IN_FEATURES"][-1] == f"p{last + 1}"),
        "fuse": fields["MODEL.FPN.FUSE_TYPE"],
        "norm": (NORMS | _NO_NORM)[fields["MODEL.FPN.NORM"]],
    }


def _rpn(fields: Fields, levels: int) -> dict[str, Any]:
    def both(name: str) -> tuple[int, int]:
        return tuple(fields[f"MODEL.RPN.{name}_{mode}"] for mode in ("TRAIN", "TEST"))

    sizes = fields["MODEL.ANCHOR_GENERATOR.SIZES"]
    channels = fields["MODEL.RPN.CONV_DIMS"][0]
    negative, positive = fields["MODEL.RPN.IOU_THRESHOLDS"]
    weight = fields["MODEL.RPN.LOSS_WEIGHT"]
    return {
        "anchor_sizes": sizes * levels if len(sizes) == 1 else sizes,
        "anchor_ratios": fields["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"][0],
        "anchor_offset": fields["MODEL.ANCHOR_GENERATOR.OFFSET"],
        "convs": len(fields["MODEL.RPN.CONV_DIMS"]),
        "channels": None if channels == -1 else channels,
        "positive_iou": positive,
        "negative_iou": negative,
        "samples": fields["MODEL.RPN.BATCH_SIZE_PER_IMAGE"],
        "positive_fraction": fields["MODEL.RPN.POSITIVE_FRACTION"],
        "pre_nms": both("PRE_NMS_TOPK"),
        "post_nms": both("POST_NMS_TOPK"),
        "nms_iou": fields["MODEL.RPN.NMS_THRESH"],
        "box_weights": fields["MODEL.RPN.BBOX_REG_WEIGHTS"],
        "box_loss": fields["MODEL.RPN.BBOX_REG_LOSS_TYPE"],
        "smooth_l1_beta": fields["MODEL.RPN.SMOOTH_L1_BETA"],
        "loss_weights": (weight, weight * fields["MODEL.RPN.BBOX_REG_LOSS_WEIGHT"]),
    }


def _roi(fields: Fields) -> dict[str, Any]:
    own = has_own_heads(fields)
    dense, convs = (fields[f"MODEL.ROI_BOX_HEAD.NUM_{kind}"] if own else 0 for kind in ("FC", "CONV"))
    cascade = fields["MODEL.ROI_HEADS.NAME"] == "CascadeROIHeads"
    on_predicted = fields["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"]
    ious = fields["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"] if cascade else []
    weights = (
        fields["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"]
        if cascade
        else [fields["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]]
    )
    mask_convs, norms = fields["MODEL.ROI_MASK_HEAD.NUM_CONV"], NORMS | _NO_NORM
    return {
        "residual": not own or has_pyramid(fields),  # the default, where it means nothing
        "positive_iou": fields["MODEL.ROI_HEADS.IOU_THRESHOLDS"][0],
        "samples": fields["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        "positive_fraction": fields["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
        "bins": fields["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        "sampling": max(0, fields["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]),
        "aligned": POOLERS[fields["MODEL.ROI_BOX_HEAD.POOLER_TYPE"]],
        "norm": NORMS[fields["MODEL.RESNETS.NORM"]],
        "box_convs": convs,
        "box_conv_channels": fields["MODEL.ROI_BOX_HEAD.CONV_DIM"],
        "box_norm": norms[fields["MODEL.ROI_BOX_HEAD.NORM"] if convs else ""],
        "fc_channels": [fields["MODEL.ROI_BOX_HEAD.FC_DIM"]] * dense,
        "box_weights": weights[0],
        "cascade_ious": ious[1:],
        "cascade_box_weights": weights[1:],
        "class_agnostic_boxes": fields["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"],
        "class_agnostic_masks": fields["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"],
        "box_loss": fields["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"],
        "smooth_l1_beta": fields["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"],
        "box_loss_weight": fields["MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT"],
        "mask_bins": fields["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"],
        "mask_sampling": max(0, fields["MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO"]) if own else None,
        "mask_convs": mask_convs,
        "mask_channels": fields["MODEL.ROI_MASK_HEAD.CONV_DIM"],
        "mask_norm": norms[fields["MODEL.ROI_MASK_HEAD.NORM"] if mask_convs else ""],
        # Only StandardROIHeads look at this field.
        "mask_boxes": "predicted" if own and not cascade and on_predicted else "proposals",
    }
