"""Mask R-CNN in JAX and Flax: reads Detectron2's weights, trains as one jitted step, evaluates purely.

Names are loaded on first use, so that `maskrcnn_jax.data` and `maskrcnn_jax.evaluation` can be used
without starting JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from maskrcnn_jax.errors import named_packages

if TYPE_CHECKING:  # What `__getattr__` loads, for editors and type checkers.
    from maskrcnn_jax import interop as interop
    from maskrcnn_jax.config import MaskRCNNConfig as MaskRCNNConfig
    from maskrcnn_jax.interop.bundle import load_bundle as load_bundle
    from maskrcnn_jax.interop.bundle import save_bundle as save_bundle
    from maskrcnn_jax.masks.result import Result as Result
    from maskrcnn_jax.models.mask_rcnn import MaskRCNN as MaskRCNN
    from maskrcnn_jax.prediction.predictor import Predictor as Predictor
    from maskrcnn_jax.structures import Batch as Batch
    from maskrcnn_jax.structures import Detections as Detections
    from maskrcnn_jax.zoo import load_model as load_model

_PUBLIC = {
    "Batch": "structures",
    "Detections": "structures",
    "Result": "masks.result",
    "MaskRCNN": "models.mask_rcnn",
    "MaskRCNNConfig": "config",
    "Predictor": "prediction.predictor",
    "load_bundle": "interop.bundle",
    "load_model": "zoo",
    "save_bundle": "interop.bundle",
}
_ROOMS = (
    *("commands", "data", "evaluation", "images", "interop", "masks"),
    *("models", "ops", "outputs", "prediction", "training", "zoo"),
)

__all__ = [
    "Batch",
    "Detections",
    "MaskRCNN",
    "MaskRCNNConfig",
    "Predictor",
    "Result",
    "load_bundle",
    "load_model",
    "save_bundle",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    with named_packages():
        if name in _PUBLIC:
            return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
