"""The former place; the readers are in `maskrcnn_jax.unpickling`."""

from maskrcnn_jax.unpickling import UnpickleError, load_tensors

__all__ = ["UnpickleError", "load_tensors"]
