"""Weights in and out: bundles and other projects' checkpoints. Nothing here ever runs code from a file."""

import importlib

_PUBLIC = ("bundle", "detectron2", "msra")

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    """Loads a module on first use, so that `maskrcnn_jax.interop.detectron2.load` needs no other import."""
    if name in _PUBLIC:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
