"""Detectron2's checkpoints in and out: the same numbers under other names, no torch needed."""

import logging
import os
import pickle
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from maskrcnn_jax.config import BackboneConfig, MaskRCNNConfig
from maskrcnn_jax.interop import names
from maskrcnn_jax.interop.backbone_init import Report, initialize, initialize_layers
from maskrcnn_jax.interop.checkpoints import read_tensors
from maskrcnn_jax.interop.detectron2_config import read_config
from maskrcnn_jax.interop.detectron2_yaml import Detectron2Error
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
from maskrcnn_jax.models.parameters import init_params

# What only a whole model has.
_HEADS = ("proposal_generator.", "roi_heads.", "backbone.fpn_")
# With Detectron2's epsilon this is exactly 1 in float32: batch norm that is folded stays as it is.
_FOLDED_VARIANCE = np.float32(1) - np.float32(1e-5)


def load(
    config_yaml: str | os.PathLike, weights: str | os.PathLike, *, key: PRNGKeyArray | None = None
) -> tuple[MaskRCNNConfig, Tree]:
    """Reads a Detectron2 model.

    Args:
      config_yaml: resolved, or with `_BASE_` on top of Detectron2's defaults.
      weights: `model_final.pth`, a `.pkl` of the model zoo, or a backbone's (`R-50.pkl`). For a backbone,
        everything else is drawn from `key`, and a warning is logged that says what.
      key: for parameters that the file does not have; by default of seed 0.

    Returns:
      The model's configuration and its parameters, nested dicts of float32 NumPy arrays.

    Raises:
      Detectron2Error: the YAML switches on what is not supported, or tensors are missing, unexpected,
        misshapen or not finite; all of them are named.
      UnpickleError: the weights' file is damaged or holds more than tensors.
    """
    config = read_config(config_yaml)
    tensors = _read(weights)
    if not _is_model(tensors):
        backbone = _backbone(tensors, weights)
        fresh = init_params(config, jax.random.key(0) if key is None else key)
        params, report = initialize(fresh, backbone)
        _require_body(report, weights)
        logging.getLogger(__name__).warning("%s is a backbone; all else is random. %s", weights, report)
        return config, params
    expected = expected_shapes(config)
    paths = {names.detectron2_name(path, config): path for path in expected}
    there = {name: names.shape_there(path, expected[path]) for name, path in paths.items()}
    _raise(f"{weights} does not fit {config_yaml}", mismatches(there, shapes(tensors)))
    return config, nest({path: names.to_here(path, tensors[name], config) for name, path in paths.items()})


def initialize_from(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> tuple[Tree, Report]:
    """Initialises `params` from a file of a backbone, as `R-50.pkl`, or of a model, as `model_final.pth`.

    Of a model every layer is taken that fits by name and shape: those that count classes may differ. The
    input's normalisation and channel order, and the place of the stride, must be those that the weights
    were trained with; such files do not say.

    Returns:
      New parameters (NumPy arrays), and what was and was not loaded.

    Raises:
      Detectron2Error: a backbone's file holds tensors that no ResNet has, or values are not finite.
      UnpickleError: the file is damaged or holds more than tensors.
    """
    tensors = _read(path)
    if not _is_model(tensors):
        return initialize(params, _backbone(tensors, path))
    loaded = {}
    for place, array in flatten(params).items():
        tensor = tensors.pop(names.detectron2_name(place, config), None)
        if tensor is not None:
            fits = tensor.shape == names.shape_there(place, array.shape)
            loaded[place] = names.to_here(place, tensor, config) if fits else tensor
    return initialize_layers(params, loaded | tensors)


def save(path: str | os.PathLike, config: MaskRCNNConfig, params: Tree) -> None:
    """Writes a `.pkl` that Detectron2 loads: its names and layouts, NumPy arrays and nothing else.

    What `load` gave comes back bit for bit.

    Raises:
      Detectron2Error: Detectron2 has no such model, or `params` are not this config's.
    """
    flat = flatten(params)
    faults = _foreign(config) or mismatches(expected_shapes(config), shapes(flat))
    _raise(f"{path}: this model cannot be written for Detectron2", faults or non_finite(flat))
    model = {
        names.detectron2_name(name, config): names.to_there(name, array.astype(np.float32), config)
        for name, array in flat.items()
    }
    # Protocol 3 names its globals in plain text, so that NumPy 1 can be given the name that both know.
    data = pickle.dumps({"model": model, "__author__": "maskrcnn_jax"}, protocol=3)
    data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _read(path: str | os.PathLike) -> Flat:
    """The tensors of a file that have a place in a model, as finite float32."""
    return read_tensors(path, names.is_ignored, Detectron2Error)


def _is_model(tensors: Flat) -> bool:
    return any(name.startswith(_HEADS) for name in tensors)


def _backbone(tensors: Flat, weights: str | os.PathLike) -> Flat:
    """A backbone's tensors by path in a ResNet; batch norm that was folded gets neutral statistics."""
    paths = {name: names.backbone_path(name) for name in tensors}
    _raise(f"{weights} is no ResNet", [f"{name}: unexpected" for name, path in paths.items() if path is None])
    flat = {}
    for name, path in paths.items():
        flat[path] = tensors[name].transpose(2, 3, 1, 0) if tensors[name].ndim == 4 else tensors[name]
        if name.endswith("_bn_s"):
            layer = path.removesuffix("scale")
            flat.setdefault(f"{layer}mean", np.zeros_like(tensors[name]))
            flat.setdefault(f"{layer}var", np.full_like(tensors[name], _FOLDED_VARIANCE))
    return flat


def _require_body(report: Report, weights: str | os.PathLike) -> None:
    """A model without its pretrained body is no Detectron2 model; its head may be fresh."""
    faults = [f"{path}: {reason}" for path, reason in report.missing if _is_body(path)]
    _raise(f"{weights} does not hold the whole backbone", faults)


def _is_body(path: str) -> bool:
    """Whether a backbone's file must have it: offsets of deformable convolutions begin anew."""
    return path.startswith("backbone/") and "/offset/" not in path


def _foreign(config: MaskRCNNConfig) -> list[str]:
    """What in a config Detectron2's Mask R-CNN cannot be."""
    backbone, standard = config.backbone, BackboneConfig()
    strides = (1, 2, 2, 2 if backbone.res5_dilation == 1 else 1)
    wants = [
        ("backbone.stage_strides", backbone.stage_strides, strides),
        ("backbone.stem_pool", backbone.stem_pool, True),
        ("roi.norm", config.roi.norm, backbone.norm),
        ("roi.mask_deconvs", config.roi.mask_deconvs, 1),
    ]
    if config.has_residual_head:
        wants.append(("backbone.last_stage", backbone.last_stage, standard.last_stage))
        wants.append(("backbone.depth", max(backbone.depth, 50), backbone.depth))
    return [f"{name} is {found}; Detectron2 has {wanted}" for name, found, wanted in wants if found != wanted]


def _raise(title: str, faults: list[str]) -> None:
    if faults:
        raise Detectron2Error("\n  ".join([f"{title}:", *faults]))
