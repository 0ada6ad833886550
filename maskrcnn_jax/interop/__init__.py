"""Weights in and out: bundles and other projects' checkpoints. Nothing here ever runs code from a file."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # What `__getattr__` loads, for editors and type checkers.
    from maskrcnn_jax.interop import bundle, detectron2, export, msra, torchvision

__all__ = ["bundle", "detectron2", "export", "msra", "torchvision"]


def __getattr__(name: str):
    """Loads a module on first use, so that `maskrcnn_jax.interop.detectron2.load` needs no other import."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
