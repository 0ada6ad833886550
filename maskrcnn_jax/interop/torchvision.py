"""torchvision's Mask R-CNN in and out: the same numbers under other names, no torch needed.

What torchvision does otherwise than Detectron2 stands in the config that `load` gives, and nowhere else.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from maskrcnn_jax.config import BLOCKS, MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.files import atomic
from maskrcnn_jax.interop import torchvision_names as names
from maskrcnn_jax.interop.backbone_init import Report, initialize
from maskrcnn_jax.interop.checkpoints import as_float32, read_tensors, write_torch
from maskrcnn_jax.interop.trees import (
    Flat,
    Tree,
    expected_shapes,
    flatten,
    mismatches,
    nest,
    non_finite,
    shapes,
)

# COCO_V1's file, as torchvision checks it: it alone was trained with another epsilon.
_COCO_V1_SHA256 = "bf2d0c1e"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLASSIFIER = re.compile(r"(module\.)?fc\.(weight|bias)")
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


def load(
    source: str | os.PathLike | Mapping[str, np.ndarray],
    num_classes: int | None = None,
    *,
    norm_epsilon: float | None = None,
) -> tuple[MaskRCNNConfig, Tree]:
    """Reads a state dict of `maskrcnn_resnet50_fpn` or `_v2`, or of a `MaskRCNN` on another ResNet with FPN.

    Widths, depths and norms are read off the tensors; all else is torchvision's default.

    Args:
      source: a file of `torch.save(model.state_dict(), path)`, a `.safetensors`, or arrays by name.
      num_classes: without the background, as everywhere here: one less than torchvision's. None takes what
        the file has.
      norm_epsilon: of the backbone's batch norms. None is torchvision's 1e-5, or 0 where the file is
        `MaskRCNN_ResNet50_FPN_Weights.COCO_V1`. A model that was fine-tuned from it has 0 as well, which a
        state dict does not say.

    Returns:
      The model's configuration and its parameters, nested dicts of float32 NumPy arrays. Batch norms are
      frozen, as they are in torchvision's evaluation mode.

    Raises:
      TorchvisionError: tensors are missing, unexpected, misshapen or not finite; all of them are named.
      UserError: the file is missing or damaged, or holds more than tensors.
    """
    if isinstance(source, Mapping):
        title = "these tensors"
        arrays = {name: np.asarray(array) for name, array in source.items() if not _counts(name)}
        tensors = as_float32(arrays, title, TorchvisionError)
    else:
        title, tensors = str(source), read_tensors(source, _counts, TorchvisionError)
        if norm_epsilon is None and _is_coco_v1(Path(source)):
            norm_epsilon = 0.0
    tensors = names.modern(tensors)
    config = _config(title, shapes(tensors), 1e-5 if norm_epsilon is None else norm_epsilon)
    if num_classes not in (None, config.num_classes):
        raise TorchvisionError(
            f"{title} has {config.num_classes} classes without the background, not {num_classes}"
        )
    expected = expected_shapes(config)
    paths = {names.model_name(path, config): path for path in expected}
    there = {name: names.shape_there(path, expected[path]) for name, path in paths.items()}
    _raise(f"{title}: no Mask R-CNN of torchvision", mismatches(there, shapes(tensors)))
    return config, nest({path: names.to_here(path, tensors[name], config) for name, path in paths.items()})


def is_torchvisions(tensors: Iterable[str]) -> bool:
    """Whether tensors of these names are of a ResNet of torchvision or timm, or of a model on one."""
    return any(
        re.fullmatch(r"(module\.)?(backbone\.body\.)?layer1\.0\.conv1\.weight", name) for name in tensors
    )


def initialize_from(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> tuple[Tree, Report]:
    """Initialises the backbone of `params` from a ResNet-18 to 152 of torchvision or timm.

    Of torchvision's Mask R-CNN the backbone is taken as well, and nothing else.

    Returns:
      New parameters (NumPy arrays), and what was and was not loaded.

    Raises:
      UserError: the file is unreadable, holds no such ResNet, or was made for another input, depth or place
        of the stride.
    """
    tensors = read_tensors(path, lambda name: _counts(name) or _CLASSIFIER.fullmatch(name) is not None)
    if whole := [name for name in tensors if name.startswith("backbone.body.")]:
        tensors = {name.removeprefix("backbone.body."): tensors[name] for name in whole}
    paths = {name: names.body_path(name) for name in tensors}
    unknown = [
        f"{name}: no layer of a ResNet of torchvision or timm" for name, ours in paths.items() if not ours
    ]
    _raise(f"{path} cannot initialise a backbone", unknown)
    flat = {
        paths[name]: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for name, array in tensors.items()
    }
    _raise(f"{path} does not suit this config; change these fields", _unsuited(config, flat))
    return initialize(params, flat)


def _unsuited(config: MaskRCNNConfig, flat: Flat) -> list[str]:
    """What in a config these weights, by backbone path, were not trained with."""
    backbone, depth = config.backbone, _depth(flat)
    mean, std = (tuple(255 * number for number in numbers) for numbers in (_MEAN, _STD))
    wants = [
        ("backbone.depth", backbone.depth, depth or "no ResNet-18 to 152"),
        ("channel_order", config.channel_order, "RGB"),
        ("pixel_mean", config.pixel_mean, mean),
        ("pixel_std", config.pixel_std, std),
    ]
    if backbone.depth >= 50:
        wants.append(("backbone.stride_in_1x1", backbone.stride_in_1x1, False))
    return [
        f"{name} is {here}; these weights have {there}"
        for name, here, there in wants
        if here != there and not (isinstance(here, tuple) and np.allclose(here, there))
    ]


def _depth(flat: Flat) -> int | None:
    blocks = tuple(
        sum(re.fullmatch(rf"res{n}/block\d+/conv1/kernel", path) is not None for path in flat)
        for n in range(2, 6)
    )
    bottlenecks = "res2/block0/conv3/kernel" in flat
    depths = [d for d in BLOCKS if BLOCKS[d] == blocks and (d >= 50) == bottlenecks]
    return depths[0] if depths else None


def save(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> None:
    """Writes a state dict for torchvision: a `.pth` that `torch.load` reads, or a `.safetensors`.

    The background's box and mask, which torchvision never reads, are zeros. Thresholds, limits, anchors' and
    images' sizes, mean and deviation are arguments of torchvision's constructor, and are not in the file.

    Raises:
      TorchvisionError: torchvision has no such model, or `params` are not this config's.
    """
    flat = flatten(params)
    faults = _foreign(config) or mismatches(expected_shapes(config), shapes(flat)) or non_finite(flat)
    _raise(f"{path}: this model cannot be written for torchvision", faults)
    tensors = {
        names.model_name(name, config): names.to_there(name, array.astype(np.float32), config)
        for name, array in flat.items()
    }
    if Path(path).suffix == ".safetensors":
        with atomic(path) as temporary:
            save_file(tensors, temporary)
    else:
        write_torch(path, tensors)


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _is_coco_v1(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(_COCO_V1_SHA256)


def _config(title: str, found: Mapping[str, tuple[int, ...]], norm_epsilon: float) -> MaskRCNNConfig:
    """torchvision's settings with the widths, depths and norms of these tensors."""
    _raise(f"{title}: no Mask R-CNN of torchvision", [f"{n}: missing" for n in _REQUIRED if n not in found])
    anchors = found["rpn.head.cls_logits.weight"][0]
    if anchors != 3:
        _raise(
            title, [f"rpn.head.cls_logits has {anchors} anchors a cell; torchvision's default of 3 is known"]
        )
    return MaskRCNNConfig.from_dict(
        {
            "num_classes": found["roi_heads.box_predictor.cls_score.weight"][0] - 1,
            "pixel_mean": [255 * mean for mean in _MEAN],
            "pixel_std": [255 * deviation for deviation in _STD],
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
    depths = [depth for depth in BLOCKS if BLOCKS[depth] == blocks and (depth >= 50) == bottlenecks]
    if not depths:
        _raise(title, [f"{body}layer1 to layer4 have {blocks} blocks; no ResNet-18 to 152 has"])
    width = found[f"{body}layer1.0.conv1.weight"][0]
    last = "conv3" if bottlenecks else "conv2"
    fields = {
        "depth": depths[0],
        "last_stage": 5,
        "stem_channels": found[f"{body}conv1.weight"][0],
        "res2_channels": found[f"{body}layer1.0.{last}.weight"][0],
        "stride_in_1x1": False,
    }
    if bottlenecks:
        fields |= {"bottleneck_channels": width, "groups": width // found[f"{body}layer1.0.conv2.weight"][1]}
    return fields


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


def _foreign(config: MaskRCNNConfig) -> list[str]:
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


def _raise(title: str, faults: list[str]) -> None:
    if faults:
        raise TorchvisionError("\n  ".join([f"{title}:", *faults]))
