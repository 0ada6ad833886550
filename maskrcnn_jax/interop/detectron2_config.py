"""Detectron2's YAML configuration as ours; what we lack is refused by name."""

import os
from typing import Any

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error, read_yaml

Fields = dict[str, Any]

# Batch norm that Detectron2 would go on training is frozen here, with the statistics of the file.
_NORMS = {"FrozenBN": "frozen_bn", "BN": "frozen_bn", "SyncBN": "frozen_bn", "GN": "group"}
_NO_NORM = {"": None}
_BOX_LOSSES = ("smooth_l1", "giou")
_POOLERS = {"ROIAlignV2": True, "ROIAlign": False}  # whether aligned
# Fields that must have one of these values, and what another value would need.
_SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "INPUT.FORMAT": (("BGR", "RGB"), "another image format"),
    "MODEL.ANCHOR_GENERATOR.NAME": (("DefaultAnchorGenerator",), "another anchor generator"),
    "MODEL.BACKBONE.NAME": (("build_resnet_backbone", "build_resnet_fpn_backbone"), "another backbone"),
    "MODEL.FPN.FUSE_TYPE": (("sum", "avg"), "another way to join levels"),
    "MODEL.FPN.NORM": (("", *_NORMS), "another norm"),
    "MODEL.KEYPOINT_ON": ((False,), "keypoints"),
    "MODEL.LOAD_PROPOSALS": ((False,), "precomputed proposals"),
    "MODEL.MASK_ON": ((True,), "a model without masks"),
    "MODEL.META_ARCHITECTURE": (("GeneralizedRCNN",), "another architecture"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": ((0,), "a smallest proposal"),
    "MODEL.PROPOSAL_GENERATOR.NAME": (("RPN",), "another proposal generator"),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": ((1,), "offsets for several groups"),
    "MODEL.RESNETS.DEPTH": ((18, 34, 50, 101, 152), "another depth"),
    "MODEL.RESNETS.NORM": (tuple(_NORMS), "another norm"),
    "MODEL.RESNETS.RES5_DILATION": ((1, 2), "another dilation"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": (_BOX_LOSSES, "another box loss"),
    "MODEL.ROI_BOX_HEAD.NORM": (("", *_NORMS), "another norm"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": (tuple(_POOLERS), "another RoI pooling"),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": ((False,), "federated loss"),
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": ((False,), "sigmoid class scores"),
    "MODEL.ROI_HEADS.IOU_LABELS": (([0, 1],), "other RoI labels"),
    "MODEL.ROI_HEADS.NAME": (
        ("Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads"),
        "other RoI heads (PointRend, DensePose, ...)",
    ),
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": ((True,), "ground truths kept from the proposals"),
    "MODEL.ROI_MASK_HEAD.NAME": (("MaskRCNNConvUpsampleHead",), "another mask head"),
    "MODEL.ROI_MASK_HEAD.NORM": (("", *_NORMS), "another norm"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": (_BOX_LOSSES, "another box loss"),
    "MODEL.RPN.HEAD_NAME": (("StandardRPNHead",), "another RPN head"),
    "MODEL.RPN.IOU_LABELS": (([0, -1, 1],), "other anchor labels"),
}


def read_config(path: str | os.PathLike) -> MaskRCNNConfig:
    """The model that a Detectron2 YAML file describes: resolved, or on top of `_BASE_` and the defaults.

    Args:
      path: of a Mask R-CNN with C4 (`Res5ROIHeads`) or FPN (`StandardROIHeads`).

    Raises:
      Detectron2Error: the file is unreadable or switches on what is not supported; every such field is
        named.
    """
    fields = read_yaml(path)
    faults = [
        f"{name}: {fields[name]!r} is not supported ({what}); supported: {' or '.join(map(repr, values))}"
        for name, (values, what) in _SUPPORTED.items()
        if fields[name] not in values
    ]
    heads = fields["MODEL.ROI_HEADS.NAME"]
    if heads in _LAYOUTS:
        faults += _LAYOUTS[heads](fields)
    faults += _rpn_faults(fields)
    if not faults:
        try:
            return MaskRCNNConfig.from_dict(_values(fields))
        except ValueError as error:
            faults.append(str(error))
    raise Detectron2Error("\n  ".join([f"{path} describes a model that is not supported:", *faults]))


def _has_pyramid(fields: Fields) -> bool:
    return _has_own_heads(fields) and fields["MODEL.BACKBONE.NAME"] == "build_resnet_fpn_backbone"


def _has_own_heads(fields: Fields) -> bool:
    """Whether each branch has layers of its own, and no residual stage is shared."""
    return fields["MODEL.ROI_HEADS.NAME"] != "Res5ROIHeads"


def _c4_faults(fields: Fields) -> list[str]:
    """Res5ROIHeads builds bottlenecks of res5 on res4, whatever the depth."""
    faults = _differences(
        fields,
        {
            "MODEL.BACKBONE.NAME": "build_resnet_backbone",
            "MODEL.RPN.IN_FEATURES": ["res4"],
            "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
        },
    )
    if "res4" not in fields["MODEL.RESNETS.OUT_FEATURES"] or "res5" in fields["MODEL.RESNETS.OUT_FEATURES"]:
        faults.append("MODEL.RESNETS.OUT_FEATURES: with Res5ROIHeads the backbone must end with res4")
    if fields["MODEL.RESNETS.DEFORM_ON_PER_STAGE"][-1]:
        faults.append("MODEL.RESNETS.DEFORM_ON_PER_STAGE: Res5ROIHeads cannot build a deformable res5")
    if fields["MODEL.RESNETS.RES5_DILATION"] != 1:
        faults.append("MODEL.RESNETS.RES5_DILATION: Res5ROIHeads do not build a dilated res5; use 1")
    if fields["MODEL.RESNETS.DEPTH"] < 50:
        faults.append("MODEL.RESNETS.DEPTH: Res5ROIHeads on ResNet-18 or 34 mixes two kinds of blocks")
    return faults


def _standard_faults(fields: Fields) -> list[str]:
    """StandardROIHeads read a pyramid's levels, or the backbone's last stage (DC5)."""
    faults = _pyramid_faults(fields) if _has_pyramid(fields) else _stage_faults(fields)
    pooler = fields["MODEL.ROI_BOX_HEAD.POOLER_TYPE"]
    faults += _differences(
        fields, {"MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead", "MODEL.ROI_MASK_HEAD.POOLER_TYPE": pooler}
    )
    if fields["MODEL.ROI_BOX_HEAD.NUM_FC"] < 1:
        faults.append("MODEL.ROI_BOX_HEAD.NUM_FC: the box head needs at least one layer")
    return faults


def _cascade_faults(fields: Fields) -> list[str]:
    """What Detectron2 itself asks of a cascade, whose mask branch always learns on the first proposals."""
    faults, cascade = _standard_faults(fields), "MODEL.ROI_BOX_CASCADE_HEAD"
    ious, weights = fields[f"{cascade}.IOUS"], fields[f"{cascade}.BBOX_REG_WEIGHTS"]
    if not ious or len(ious) != len(weights):
        faults.append(f"{cascade}.BBOX_REG_WEIGHTS: {len(weights)} entries for {len(ious)} IOUS")
    elif ious[:1] != fields["MODEL.ROI_HEADS.IOU_THRESHOLDS"]:
        faults.append(f"{cascade}.IOUS: must begin with MODEL.ROI_HEADS.IOU_THRESHOLDS")
    return faults + _differences(fields, {"MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True})


def _stage_faults(fields: Fields) -> list[str]:
    """Without a pyramid, RPN and heads read the one stage that the backbone ends with."""
    stages = fields["MODEL.RESNETS.OUT_FEATURES"]
    if len(stages) != 1 or stages[0] not in _STAGES:
        return ["MODEL.RESNETS.OUT_FEATURES: without a pyramid, name one stage of res2 to res5"]
    return _differences(
        fields, {"MODEL.RPN.IN_FEATURES": stages, "MODEL.ROI_HEADS.IN_FEATURES": stages}
    )  # fmt: skip


def _pyramid_faults(fields: Fields) -> list[str]:
    """All stages up to the last must be in the pyramid, all its levels in the heads."""
    first, last = _stages(fields)
    stages = [f"res{stage}" for stage in range(first, last + 1)]
    levels = [f"p{stage}" for stage in range(first, last + 1)]
    if not stages:
        return ["MODEL.FPN.IN_FEATURES: names no stage of res2 to res5"]
    faults = _differences(
        fields,
        {
            "MODEL.FPN.IN_FEATURES": stages,
            "MODEL.ROI_HEADS.IN_FEATURES": levels,
            "MODEL.RESNETS.RES5_DILATION": 1,
        },
    )
    outputs = fields["MODEL.RESNETS.OUT_FEATURES"]
    if any(stage not in outputs for stage in stages) or any(f"res{n}" in outputs for n in range(last + 1, 6)):
        faults.append(f"MODEL.RESNETS.OUT_FEATURES: must have {stages} and nothing after {stages[-1]}")
    if fields["MODEL.RPN.IN_FEATURES"] not in (levels, [*levels, f"p{last + 1}"]):
        faults.append(f"MODEL.RPN.IN_FEATURES: must be {levels}, with or without p{last + 1} at the end")
    return faults


_LAYOUTS = {
    "Res5ROIHeads": _c4_faults,
    "StandardROIHeads": _standard_faults,
    "CascadeROIHeads": _cascade_faults,
}
_STAGES = ("res2", "res3", "res4", "res5")


def _rpn_faults(fields: Fields) -> list[str]:
    faults = []
    if fields["MODEL.RPN.BOUNDARY_THRESH"] >= 0:
        faults.append("MODEL.RPN.BOUNDARY_THRESH: leaving out anchors at the border is not supported; use -1")
    if len(set(fields["MODEL.RPN.CONV_DIMS"])) != 1:
        faults.append("MODEL.RPN.CONV_DIMS: several convolutions must have the same number of channels")
    ratios = fields["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]
    if not ratios or any(level != ratios[0] for level in ratios):
        faults.append("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: must be the same for all levels")
    if fields["TEST.DETECTIONS_PER_IMAGE"] < 0:
        faults.append("TEST.DETECTIONS_PER_IMAGE: detections without a limit are not supported; set one")
    for name, count in (("MODEL.RPN.IOU_THRESHOLDS", 2), ("MODEL.ROI_HEADS.IOU_THRESHOLDS", 1)):
        if len(fields[name]) != count:
            faults.append(f"{name}: {fields[name]!r} has not {count} value{'s' * (count > 1)}")
    return faults


def _differences(fields: Fields, supported: Fields) -> list[str]:
    heads = fields["MODEL.ROI_HEADS.NAME"]
    return [
        f"{name}: {fields[name]!r} is not supported with {heads}; supported: {value!r}"
        for name, value in supported.items()
        if fields[name] != value
    ]


def _stages(fields: Fields) -> tuple[int, int]:
    """First and last stage of the pyramid; (1, 0) where it names none."""
    known = [stage for stage in range(2, 6) if f"res{stage}" in fields["MODEL.FPN.IN_FEATURES"]]
    return (min(known), max(known)) if known else (1, 0)


def _values(fields: Fields) -> dict[str, Any]:
    """The tree of `MaskRCNNConfig.to_dict`, from fields without faults."""
    shortest, longest = fields["INPUT.MIN_SIZE_TEST"], fields["INPUT.MAX_SIZE_TEST"]
    fpn = _fpn(fields) if _has_pyramid(fields) else None
    last = _stages(fields)[1] if fpn else 4
    if not fpn and _has_own_heads(fields):
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
        "norm": _NORMS[fields["MODEL.RESNETS.NORM"]],
        "freeze_at": max(0, min(fields["MODEL.BACKBONE.FREEZE_AT"], last_stage)),
    }


def _fpn(fields: Fields) -> dict[str, Any]:
    first, last = _stages(fields)
    return {
        "channels": fields["MODEL.FPN.OUT_CHANNELS"],
        "first_stage": first,
        "extra_levels": int(fields["MODEL.RPN.IN_FEATURES"][-1] == f"p{last + 1}"),
        "fuse": fields["MODEL.FPN.FUSE_TYPE"],
        "norm": (_NORMS | _NO_NORM)[fields["MODEL.FPN.NORM"]],
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
    own = _has_own_heads(fields)
    dense, convs = (fields[f"MODEL.ROI_BOX_HEAD.NUM_{kind}"] if own else 0 for kind in ("FC", "CONV"))
    cascade = fields["MODEL.ROI_HEADS.NAME"] == "CascadeROIHeads"
    on_predicted = fields["MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES"]
    ious = fields["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"] if cascade else []
    weights = (
        fields["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"]
        if cascade
        else [fields["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]]
    )
    mask_convs, norms = fields["MODEL.ROI_MASK_HEAD.NUM_CONV"], _NORMS | _NO_NORM
    return {
        "residual": not own or _has_pyramid(fields),  # the default, where it means nothing
        "positive_iou": fields["MODEL.ROI_HEADS.IOU_THRESHOLDS"][0],
        "samples": fields["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        "positive_fraction": fields["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
        "bins": fields["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        "sampling": max(0, fields["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]),
        "aligned": _POOLERS[fields["MODEL.ROI_BOX_HEAD.POOLER_TYPE"]],
        "norm": _NORMS[fields["MODEL.RESNETS.NORM"]],
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
