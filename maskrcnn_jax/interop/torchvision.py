"""torchvision's Mask R-CNN in and out: the same numbers under other names, no torch needed.

What torchvision does otherwise than Detectron2 stands in the config that `load` gives, and nowhere else.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.files import atomic
from maskrcnn_jax.interop import torchvision_names as names
from maskrcnn_jax.interop.backbone_init import Report, initialize
from maskrcnn_jax.interop.checkpoints import as_float32, read_tensors, write_torch
from maskrcnn_jax.interop.torchvision_config import (
    MEAN,
    STD,
    TorchvisionError,
    depth_of,
    foreign,
    read_off,
    refuse,
)
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
_CLASSIFIER = re.compile(r"(module\.)?fc\.(weight|bias)")


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
    config = read_off(title, shapes(tensors), 1e-5 if norm_epsilon is None else norm_epsilon)
    if num_classes not in (None, config.num_classes):
        raise TorchvisionError(
            f"{title} has {config.num_classes} classes without the background, not {num_classes}"
        )
    expected = expected_shapes(config)
    paths = {names.model_name(path, config): path for path in expected}
    there = {name: names.shape_there(path, expected[path]) for name, path in paths.items()}
    refuse(f"{title}: no Mask R-CNN of torchvision", mismatches(there, shapes(tensors)))
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
    refuse(f"{path} cannot initialise a backbone", unknown)
    flat = {
        paths[name]: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        for name, array in tensors.items()
    }
    refuse(f"{path} does not suit this config; change these fields", _unsuited(config, flat))
    return initialize(params, flat)


def _unsuited(config: MaskRCNNConfig, flat: Flat) -> list[str]:
    """What in a config these weights, by backbone path, were not trained with."""
    backbone, depth = config.backbone, _depth(flat)
    mean, std = (tuple(255 * number for number in numbers) for numbers in (MEAN, STD))
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
    return depth_of(blocks, "res2/block0/conv3/kernel" in flat)


def save(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> None:
    """Writes a state dict for torchvision: a `.pth` that `torch.load` reads, or a `.safetensors`.

    The background's box and mask, which torchvision never reads, are zeros. Thresholds, limits, anchors' and
    images' sizes, mean and deviation are arguments of torchvision's constructor, and are not in the file.

    Raises:
      TorchvisionError: torchvision has no such model, or `params` are not this config's.
    """
    flat = flatten(params)
    faults = foreign(config) or mismatches(expected_shapes(config), shapes(flat)) or non_finite(flat)
    refuse(f"{path}: this model cannot be written for torchvision", faults)
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
