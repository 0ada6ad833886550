"""Initial weights from a file of any kind that we read."""

import os
from pathlib import Path

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.interop import detectron2, msra, torchvision
from maskrcnn_jax.interop.backbone_init import Report, initialize_layers
from maskrcnn_jax.interop.bundle import load_bundle
from maskrcnn_jax.interop.trees import Tree, flatten
from maskrcnn_jax.unpickling import load_tensors


def initialize_from(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> tuple[Tree, Report]:
    """Replaces what the file has of `params`.

    Args:
      path: an MSRA backbone archive (`.npz`); a Detectron2 backbone or model (`.pkl`, `.pth`); a ResNet of
        torchvision or timm (`.pth`, `.safetensors`); or a bundle's folder. Of a model of Detectron2 or a
        bundle, every layer is taken that fits by name and shape.
      config: of the model that `params` belong to.
      params: fresh parameters; not changed.

    Returns:
      The parameters, and a report of what was loaded and what was not.

    Raises:
      UserError: there is no such file, it is damaged, or it does not suit the model.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"init_from: {path} does not exist; check the path, or set it to '' for fresh weights"
        )
    if path.is_dir():
        return _from_bundle(path, config, params)
    if path.suffix == ".npz":
        return msra.initialize_from(path, config, params)
    if path.suffix == ".safetensors":
        return torchvision.initialize_from(path, config, params)
    if path.suffix in (".pkl", ".pth"):
        other = path.suffix == ".pth" and torchvision.is_torchvisions(load_tensors(path))
        return (torchvision if other else detectron2).initialize_from(path, config, params)
    raise UserError(
        f"init_from: {path} is none of an MSRA backbone archive (.npz), a Detectron2 file (.pkl or .pth), a "
        "ResNet of torchvision or timm (.pth or .safetensors) and a bundle (a folder)"
    )


def _from_bundle(folder: Path, config: MaskRCNNConfig, params: Tree) -> tuple[Tree, Report]:
    there, tree = load_bundle(folder)
    faults = [
        f"{name} is {ours}; the bundle has {theirs}"
        for name, ours, theirs in zip(_INPUT, _input(config), _input(there), strict=True)
        if ours != theirs
    ]
    if faults:
        title = f"init_from: {folder} was trained for another input or backbone; change these fields:"
        raise UserError("\n  ".join([title, *faults]))
    return initialize_layers(params, flatten(tree))


# Without these in common, weights that fit by name and shape mean something else.
_INPUT = ("channel_order", "pixel_mean", "pixel_std", "backbone.depth", "backbone.stride_in_1x1")


def _input(config: MaskRCNNConfig) -> tuple:
    backbone = config.backbone
    return (
        config.channel_order,
        config.pixel_mean,
        config.pixel_std,
        backbone.depth,
        backbone.stride_in_1x1,
    )
