"""What `maskrcnn-jax` can do, a module each: `add_arguments(parser)` and `run(arguments)`.

They are imported when they are asked for, and import what is slow (JAX, TensorFlow) within `run`.
"""
