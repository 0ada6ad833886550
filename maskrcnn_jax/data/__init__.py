"""From files to padded batches: NumPy and TensorFlow, without JAX."""
