"""Mask R-CNN in JAX and Flax: reads Detectron2's weights, trains as one jitted step, evaluates purely.

Names are loaded on first use, so that `maskrcnn_jax.data` and `maskrcnn_jax.evaluation` can be used
without starting JAX.
"""

import importlib

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

__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
