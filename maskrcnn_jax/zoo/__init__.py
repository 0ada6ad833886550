"""Ready-made models: a folder each, a bundle with its card and licence beside it."""

from maskrcnn_jax.zoo.catalogue import DEFAULT, SAMPLES, Model, load_model, models, resolve

__all__ = ["DEFAULT", "SAMPLES", "Model", "load_model", "models", "resolve"]
