"""torchvision's names of Mask R-CNN's tensors, and the places of its classes, beside ours.

Layouts are torch's, as Detectron2's are. What differs is the background: torchvision has it first and gives
it a box and a mask, which nothing ever reads; here it is last, and has neither.
"""

import re
from collections.abc import Mapping

import numpy as np

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop import names
from maskrcnn_jax.interop.trees import Flat

# A ResNet's layers: torchvision's, and its norm's.
_BODY = [
    (r"stem/conv1", "conv1", "bn1"),
    (r"res(\d)/block(\d+)/conv(\d)", "layer{}.{}.conv{}", "layer{}.{}.bn{}"),
    (r"res(\d)/block(\d+)/shortcut", "layer{}.{}.downsample.0", "layer{}.{}.downsample.1"),
]
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_NORM_LEAVES = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_BODY_NAME = re.compile(
    r"(?:layer([1-4])\.(\d+)\.)?(conv(?=[1-3])|bn(?=[1-3])|(?<=\.)downsample\.(?=[01]))([0-3])\.(weight|bias|running_mean|running_var)"
)
_PREDICTOR = "roi_heads/box_predictor/"
_CLASSES, _BOXES, _MASKS = (
    f"{_PREDICTOR}cls_score/",
    f"{_PREDICTOR}bbox_pred/",
    "roi_heads/mask_head/predictor/",
)
# Before 0.13 some layers had no place of their own in a Sequential.
_OLD = [
    (r"backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)", r"backbone.fpn.\1_blocks.\2.0.\3"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
]
_OLD_MASK = re.compile(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)")


def body_name(path: str) -> str | None:
    """torchvision's name of a ResNet's parameter, `layer1.0.bn2.weight`; None where it has none.

    Args:
      path: in the backbone, `res2/block0/conv2/norm/scale`.
    """
    layer, leaf = _split(path)
    for pattern, conv, norm in _BODY:
        if match := re.fullmatch(pattern, layer.removesuffix("/norm")):
            stage, *rest = match.groups() or ("",)
            places = (int(stage) - 1, *rest) if stage else ()
            return f"{(norm if layer.endswith('/norm') else conv).format(*places)}.{_LEAVES[leaf]}"
    return None


def body_path(name: str) -> str | None:
    """The inverse of `body_name`; timm's ResNets have the same names. None for others."""
    if (match := _BODY_NAME.fullmatch(name)) is None:
        return None
    stage, block, kind, number, leaf = match.groups()
    shortcut = kind.startswith("downsample")
    norm = kind == "bn" or (shortcut and number == "1")
    layer = "shortcut" if shortcut else f"conv{number}"
    place = f"res{int(stage) + 1}/block{block}/{layer}" if stage else f"stem/{layer}"
    leaf = _NORM_LEAVES[leaf] if norm else {"weight": "kernel"}.get(leaf)
    return leaf and f"{place}{'/norm' if norm else ''}/{leaf}"


def model_name(path: str, config: MaskRCNNConfig) -> str:
    """torchvision's name of a parameter: `roi_heads.box_head.fc6.weight`."""
    if path.startswith("backbone/") and (name := body_name(path.removeprefix("backbone/"))):
        return f"backbone.body.{name}"
    layer, leaf = _split(path)
    norm = layer.endswith("/norm")
    layer = layer.removesuffix("/norm")
    if match := re.fullmatch(r"neck/(lateral|output)(\d)", layer):
        kind = "inner" if match[1] == "lateral" else "layer"
        name = f"backbone.fpn.{kind}_blocks.{int(match[2]) - config.fpn.first_stage}.{int(norm)}"
    elif match := re.fullmatch(r"rpn/conv(\d*)", layer):
        name = f"rpn.head.conv.{int(match[1] or 1) - 1}.0"
    elif match := re.fullmatch(r"roi_heads/box_head/(conv|fc)(\d+)", layer):
        name = _box_head_name(match[1], int(match[2]), norm, config)
    elif match := re.fullmatch(r"roi_heads/mask_head/mask_fcn(\d+)", layer):
        name = f"roi_heads.mask_head.{int(match[1]) - 1}.{int(norm)}"
    elif (name := _OTHERS.get(layer)) is None:
        raise UserError(f"{path} has no name in torchvision")
    return f"{name}.{_LEAVES[leaf]}"


_OTHERS = {
    "rpn/objectness": "rpn.head.cls_logits",
    "rpn/deltas": "rpn.head.bbox_pred",
    "roi_heads/box_predictor/cls_score": "roi_heads.box_predictor.cls_score",
    "roi_heads/box_predictor/bbox_pred": "roi_heads.box_predictor.bbox_pred",
    "roi_heads/mask_head/deconv": "roi_heads.mask_predictor.conv5_mask",
    "roi_heads/mask_head/predictor": "roi_heads.mask_predictor.mask_fcn_logits",
}


def _box_head_name(kind: str, number: int, norm: bool, config: MaskRCNNConfig) -> str:
    convs = config.roi.box_convs
    if kind == "conv":
        return f"roi_heads.box_head.{number - 1}.{int(norm)}"
    if convs:  # After the convolutions and a Flatten, each dense layer is followed by a ReLU.
        return f"roi_heads.box_head.{convs + 1 + 2 * (number - 1)}"
    return f"roi_heads.box_head.fc{number + 5}"


def modern(tensors: Mapping[str, np.ndarray]) -> Flat:
    """The tensors by the names of today's torchvision, without counters of batches."""
    renamed = {}
    for name, array in tensors.items():
        for pattern, new in _OLD:
            name = re.sub(f"^{pattern}$", new, name)
        if match := _OLD_MASK.fullmatch(name):
            name = f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}"
        if not name.endswith(".num_batches_tracked"):
            renamed[name] = array
    return renamed


def shape_there(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that torchvision has for a parameter of our shape."""
    rows, *rest = names.shape_there(path, shape)
    return (rows + _background_rows(path), *rest)


def to_here(path: str, array: np.ndarray, config: MaskRCNNConfig) -> np.ndarray:
    """torchvision's tensor in our layout, the background last or left out."""
    if path.startswith(_CLASSES):
        array = np.roll(array, -1, axis=0)
    return names.to_here(path, array[_background_rows(path) :], config)


def to_there(path: str, array: np.ndarray, config: MaskRCNNConfig) -> np.ndarray:
    """A parameter in torchvision's layout; the background's box and mask are zeros."""
    array = names.to_there(path, array, config)
    if path.startswith(_CLASSES):
        return np.roll(array, 1, axis=0)
    return np.concatenate([np.zeros((_background_rows(path), *array.shape[1:]), array.dtype), array])


def _background_rows(path: str) -> int:
    """Outputs for the background that torchvision has and we have not."""
    return 4 if path.startswith(_BOXES) else 1 if path.startswith(_MASKS) else 0


def _split(path: str) -> tuple[str, str]:
    layer, _, leaf = path.rpartition("/")
    return layer, leaf
