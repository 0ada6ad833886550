"""ImageNet ResNets of He et al. 2016 in their Caffe names (an `.npz`) as initial values of a backbone.

The archive holds convolutions as OIHW and batch norms as mean, var, gamma, beta with epsilon 1e-5.
The first convolution expects BGR, and the stride sits in the first 1x1 convolution of a stage.
"""

import os
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from maskrcnn_jax.config import BLOCKS, MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop.backbone_init import Report, initialize
from maskrcnn_jax.interop.trees import Flat, Tree, non_finite

_STATISTICS = {"mean": "mean", "var": "var", "gamma": "scale", "beta": "bias"}
_CONVS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}

# Blocks are a, b, c, ...; in the deep stages of ResNet-101 and 152 they are a, b1, b2, ...
_NAMES = [
    (r"conv1/w", lambda: "stem/conv1/kernel"),
    (r"bn_conv1/(mean|var|gamma|beta)", lambda s: f"stem/conv1/norm/{_STATISTICS[s]}"),
    (
        r"res([2-5])([a-z]|b\d+)_branch(1|2[abc])/w",
        lambda stage, block, conv: f"res{stage}/{_block(block)}/{_CONVS[conv]}/kernel",
    ),
    (
        r"bn([2-5])([a-z]|b\d+)_branch(1|2[abc])/(mean|var|gamma|beta)",
        lambda stage, block, conv, s: f"res{stage}/{_block(block)}/{_CONVS[conv]}/norm/{_STATISTICS[s]}",
    ),
]
# The classifier, the training mean, and a bias of conv1 that is below 1e-8 and that Detectron2 drops too.
_IGNORED = re.compile(r"fc1000/[wb]|mean_image.*|conv1/b")


def initialize_from(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> tuple[Tree, Report]:
    """Initialises the backbone of `params` from an MSRA archive.

    Raises:
      UserError: the file is unreadable, or made for another input or another place of the stride.
    """
    faults = []
    if config.backbone.depth not in (50, 101, 152):
        depths = [depth for depth in BLOCKS if depth >= 50]
        faults.append(f"backbone.depth is {config.backbone.depth}; MSRA weights exist for {depths}")
    if config.channel_order != "BGR":
        faults.append(f"channel_order is {config.channel_order}; MSRA weights expect BGR")
    if any(std != 1 for std in config.pixel_std):
        faults.append(f"pixel_std is {config.pixel_std}; MSRA weights expect 1: it is in their conv1")
    if not config.backbone.stride_in_1x1:
        faults.append("backbone.stride_in_1x1 is off; MSRA weights were trained with it on")
    if faults:
        raise UserError("\n  ".join([f"{path} does not suit this config; change these fields:", *faults]))
    return initialize(params, load(path))


def load(path: str | os.PathLike) -> Flat:
    """Reads an MSRA archive.

    Returns:
      Tensors by backbone path (`res2/block0/conv1/kernel`), convolutions as HWIO, float32.

    Raises:
      UserError: no such file or no `.npz`, names that no ResNet has, or values that are not finite.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            source = {name: archive[name] for name in archive.files if not _IGNORED.fullmatch(name)}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: check the path of the initial weights") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is no readable .npz of plain arrays ({error})") from error
    named = {name: _path(name) for name in source}
    faults = [
        f"{name}: not a name of a ResNet in MSRA's Caffe naming" for name, ours in named.items() if not ours
    ]
    axes = {name: "O I H W" if name.endswith("/w") else "C" for name in source}
    faults += [
        f"{name}: {array.dtype} {array.shape} where float32 ({axes[name]}) belongs"
        for name, array in source.items()
        if array.dtype != np.float32 or array.ndim != len(axes[name].split())
    ]
    faults += non_finite({name: array for name, array in source.items() if array.dtype == np.float32})
    if faults:
        raise UserError("\n  ".join([f"{path} cannot initialise a backbone:", *faults]))
    return {named[name]: _layout(array) for name, array in source.items()}


def _path(name: str) -> str | None:
    """The backbone path of a Caffe name; None where no pattern fits."""
    for pattern, path in _NAMES:
        if match := re.fullmatch(pattern, name):
            return path(*match.groups())
    return None


def _block(letters: str) -> str:
    return f"block{letters[1:] or ord(letters) - ord('a')}"


def _layout(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if array.ndim == 4 else array
