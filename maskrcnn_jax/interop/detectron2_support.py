"""What a Detectron2 configuration may ask of us, and what its layout is; the rest is named."""

from typing import Any

Fields = dict[str, Any]

# Batch norm that Detectron2 would go on training is frozen here, with the statistics of the file.
NORMS = {"FrozenBN": "frozen_bn", "BN": "frozen_bn", "SyncBN": "frozen_bn", "GN": "group"}
POOLERS = {"ROIAlignV2": True, "ROIAlign": False}  # whether aligned
_BOX_LOSSES = ("smooth_l1", "giou")
# Fields that must have one of these values, and what another value would need.
_SUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "INPUT.FORMAT": (("BGR", "RGB"), "another image format"),
    "MODEL.ANCHOR_GENERATOR.NAME": (("DefaultAnchorGenerator",), "another anchor generator"),
    "MODEL.BACKBONE.NAME": (("build_resnet_backbone", "build_resnet_fpn_backbone"), "another backbone"),
    "MODEL.FPN.FUSE_TYPE": (("sum", "avg"), "another way to join levels"),
    "MODEL.FPN.NORM": (("", *NORMS), "another norm"),
    "MODEL.KEYPOINT_ON": ((False,), "keypoints"),
    "MODEL.LOAD_PROPOSALS": ((False,), "precomputed proposals"),
    "MODEL.MASK_ON": ((True,), "a model without masks"),
    "MODEL.META_ARCHITECTURE": (("GeneralizedRCNN",), "another architecture"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": ((0,), "a smallest proposal"),
    "MODEL.PROPOSAL_GENERATOR.NAME": (("RPN",), "another proposal generator"),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": ((1,), "offsets for several groups"),
    "MODEL.RESNETS.DEPTH": ((18, 34, 50, 101, 152), "another depth"),
    "MODEL.RESNETS.NORM": (tuple(NORMS), "another norm"),
    "MODEL.RESNETS.RES5_DILATION": ((1, 2), "another dilation"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": (_BOX_LOSSES, "another box loss"),
    "MODEL.ROI_BOX_HEAD.NORM": (("", *NORMS), "another norm"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": (tuple(POOLERS), "another RoI pooling"),
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": ((False,), "federated loss"),
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": ((False,), "sigmoid class scores"),
    "MODEL.ROI_HEADS.IOU_LABELS": (([0, 1],), "other RoI labels"),
    "MODEL.ROI_HEADS.NAME": (
        ("Res5ROIHeads", "StandardROIHeads", "CascadeROIHeads"),
        "other RoI heads (PointRend, DensePose, ...)",
    ),
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": ((True,), "ground truths kept from the proposals"),
    "MODEL.ROI_MASK_HEAD.NAME": (("MaskRCNNConvUpsampleHead",), "another mask head"),
    "MODEL.ROI_MASK_HEAD.NORM": (("", *NORMS), "another norm"),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": (_BOX_LOSSES, "another box loss"),
    "MODEL.RPN.HEAD_NAME": (("StandardRPNHead",), "another RPN head"),
    "MODEL.RPN.IOU_LABELS": (([0, -1, 1],), "other anchor labels"),
}


def unsupported(fields: Fields) -> list[str]:
    """A line for each field, by its name, that asks for what we lack or does not go with the others."""
    faults = [
        f"{name}: {fields[name]!r} is not supported ({what}); supported: {' or '.join(map(repr, values))}"
        for name, (values, what) in _SUPPORTED.items()
        if fields[name] not in values
    ]
    heads = fields["MODEL.ROI_HEADS.NAME"]
    if heads in _LAYOUTS:
        faults += _LAYOUTS[heads](fields)
    return faults + _rpn_faults(fields)


def has_pyramid(fields: Fields) -> bool:
    return has_own_heads(fields) and fields["MODEL.BACKBONE.NAME"] == "build_resnet_fpn_backbone"


def has_own_heads(fields: Fields) -> bool:
    """Whether each branch has layers of its own, and no residual stage is shared."""
    return fields["MODEL.ROI_HEADS.NAME"] != "Res5ROIHeads"


def pyramid_stages(fields: Fields) -> tuple[int, int]:
    """First and last stage of the pyramid; (1, 0) where it names none."""
    known = [stage for stage in range(2, 6) if f"res{stage}" in fields["MODEL.FPN.IN_FEATURES"]]
    return (min(known), max(known)) if known else (1, 0)


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
    faults = _pyramid_faults(fields) if has_pyramid(fields) else _stage_faults(fields)
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
    first, last = pyramid_stages(fields)
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
