"""Arrays out of pickles of strangers: nothing in such a file is ever run."""

from maskrcnn_jax.unpickling.faults import UnpickleError
from maskrcnn_jax.unpickling.mapping import load_mapping
from maskrcnn_jax.unpickling.tensors import load_tensors

__all__ = ["UnpickleError", "load_mapping", "load_tensors"]
