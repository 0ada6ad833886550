"""torchvision's Mask R-CNN as a config: read off the shapes of its tensors, and what of ours it cannot be."""

import re
from collections.abc import Mapping
from typing import Any

from maskrcnn_jax.config import BLOCKS, MaskRCNNConfig
from maskrcnn_jax.errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What every Mask R-CNN of torchvision has.
_REQUIRED = (
    "backbone.body.conv1.weight",
    "backbone.body.layer1.0.conv1.weight",
    "backbone.fpn.inner_blocks.0.0.weight",
    "rpn.head.conv.0.0.weight",
    "rpn.head.cls_logits.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.mask_head.0.0.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.weight",
)
# Fields that no argument of torchvision's constructor could change.
_FIXED = (
    "channel_order",
    "backbone.last_stage backbone.stem_pool backbone.stage_strides backbone.stride_in_1x1",
    "backbone.res5_dilation backbone.norm",
    "fpn.first_stage fpn.extra_levels fpn.fuse",
    "rpn.anchor_offset rpn.anchor_rounding rpn.anchor_spacing",
    "roi.aligned roi.class_agnostic_boxes roi.class_agnostic_masks roi.mask_margin roi.mask_deconvs",
    "detection.containment detection.offset detection.pasting",
)


class TorchvisionError(UserError):
    """Tensors are not those of a torchvision model, or a model cannot be written as one; says which."""


def read_off(title: str, found: Mapping[str, tuple[int, ...]], norm_epsilon: float) -> MaskRCNNConfig:
    """torchvision's settings with the widths, depths and norms of these tensors.

    Args:
      title: what the tensors are called in errors.
      found: the tensors' shapes, by torchvision's names.
      norm_epsilon: of the backbone's batch norms.

    Raises:
      TorchvisionError: tensors are missing, or of no ResNet or anchors that are known.
    """
    refuse(f"{title}: no Mask R-CNN of torchvision", [f"{n}: missing" for n in _REQUIRED if n not in found])
    anchors = found["rpn.head.cls_logits.weight"][0]
    if anchors != 3:
        refuse(
            title, [f"rpn.head.cls_logits has {anchors} anchors a cell; torchvision's default of 3 is known"]
        )
    return MaskRCNNConfig.from_dict(
        {
            "num_classes": found["roi_heads.box_predictor.cls_score.weight"][0] - 1,
            "pixel_mean": [255 * mean for mean in MEAN],
            "pixel_std": [255 * deviation for deviation in STD],
            "channel_order": "RGB",
            "test_resize": (800, 1333),
            "test_resize_method": "bilinear",
            "backbone": _backbone(title, found) | {"norm_epsilon": norm_epsilon},
            "fpn": {
                "channels": found["backbone.fpn.inner_blocks.0.0.weight"][0],
                "norm": _norm(found, "backbone.fpn.inner_blocks.0.1.weight"),
            },
            "rpn": _rpn(found),
            "roi": _roi(found),
            "detection": {"max_detections": 100, "min_size": 1e-2, "pasting": "whole_pixels"},
        }
    )


def _backbone(title: str, found: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    body = "backbone.body."
    blocks = tuple(
        len(_numbers(found, rf"backbone\.body\.layer{n}\.(\d+)\.conv1\.weight")) for n in range(1, 5)
    )
    bottlenecks = f"{body}layer1.0.conv3.weight" in found
    depth = depth_of(blocks, bottlenecks)
    if depth is None:
        refuse(title, [f"{body}layer1 to layer4 have {blocks} blocks; no ResNet-18 to 152 has"])
    width = found[f"{body}layer1.0.conv1.weight"][0]
    last = "conv3" if bottlenecks else "conv2"
    fields = {
        "depth": depth,
        "last_stage": 5,
        "stem_channels": found[f"{body}conv1.weight"][0],
        "res2_channels": found[f"{body}layer1.0.{last}.weight"][0],
        "stride_in_1x1": False,
    }
    if bottlenecks:
        fields |= {"bottleneck_channels": width, "groups": width // found[f"{body}layer1.0.conv2.weight"][1]}
    return fields


def depth_of(blocks: tuple[int, ...], bottlenecks: bool) -> int | None:
    """Of the ResNet with so many blocks in res2 to res5; None if there is none."""
    depths = [depth for depth in BLOCKS if BLOCKS[depth] == blocks and (depth >= 50) == bottlenecks]
    return depths[0] if depths else None


def _rpn(found: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    outputs, inputs, *_ = found["rpn.head.conv.0.0.weight"]
    return {
        "anchor_sizes": ((32,), (64,), (128,), (256,), (512,)),
        "anchor_rounding": True,
        "anchor_spacing": "content",
        "convs": len(_numbers(found, r"rpn\.head\.conv\.(\d+)\.0\.weight")),
        "channels": None if outputs == inputs else outputs,
        "pre_nms": (2000, 1000),
        "post_nms": (2000, 1000),
        "min_size": 1e-3,
        "loss_count": "drawn",
        "smooth_l1_beta": 1 / 9,
    }


def _roi(found: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    box, mask = "roi_heads.box_head.", "roi_heads.mask_head."
    convs = _numbers(found, r"roi_heads\.box_head\.(\d+)\.0\.weight")
    dense = [f"{box}{n}.weight" for n in _numbers(found, r"roi_heads\.box_head\.((?:fc)?\d+)\.weight")]
    fields = {
        "bins": 7,
        "aligned": False,
        "level_slack": 1e-6,
        "box_convs": len(convs),
        "box_norm": _norm(found, f"{box}0.1.weight"),
        "fc_channels": [found[name][0] for name in dense],
        "smooth_l1_beta": 1 / 9,
        "mask_bins": 14,
        "mask_convs": len(_numbers(found, r"roi_heads\.mask_head\.(\d+)\.0\.weight")),
        "mask_channels": found[f"{mask}0.0.weight"][0],
        "mask_norm": _norm(found, f"{mask}0.1.weight"),
        "mask_targets": "soft",
    }
    if convs:
        fields["box_conv_channels"] = found[f"{box}0.0.weight"][0]
    return fields


def _numbers(found: Mapping[str, tuple[int, ...]], pattern: str) -> list[str]:
    """What the pattern's group matches in the names, in their order."""
    return [match[1] for name in found if (match := re.fullmatch(pattern, name))]


def _norm(found: Mapping[str, tuple[int, ...]], name: str) -> str | None:
    return "frozen_bn" if name in found else None


def foreign(config: MaskRCNNConfig) -> list[str]:
    """What in a config torchvision's Mask R-CNN cannot be."""
    if config.fpn is None:
        return ["fpn is None; torchvision has a pyramid"]
    standard = MaskRCNNConfig.resnet_fpn().to_dict()
    wanted = standard | {"channel_order": "RGB"}
    wanted["backbone"] |= {"stride_in_1x1": False}
    wanted["rpn"] |= {"anchor_rounding": True, "anchor_spacing": "content"}
    wanted["roi"] |= {"aligned": False}
    wanted["detection"] |= {"pasting": "whole_pixels"}
    pairs = [
        (name, _field(config.to_dict(), name), _field(wanted, name)) for name in " ".join(_FIXED).split()
    ]
    return [f"{name} is {here!r}; torchvision has {there!r}" for name, here, there in pairs if here != there]


def _field(values: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def refuse(title: str, faults: list[str]) -> None:
    """Raises a `TorchvisionError` that lists the faults, if there are any."""
    if faults:
        raise TorchvisionError("\n  ".join([f"{title}:", *faults]))
