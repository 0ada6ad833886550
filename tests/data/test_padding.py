"""What pads a sample: its memory goes to TensorFlow as it is."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.padding import _zeros


@pytest.mark.parametrize(
    ("shape", "dtype"), [((800, 700, 3), np.uint8), ((2, 333, 77), np.uint16), ((0,), np.int32)]
)
def test_zeros_go_to_tensorflow_without_a_copy(shape, dtype):
    made, seen = [], []

    def make():
        made.append(_zeros(shape, dtype))
        return made[-1]

    def see(array):
        seen.append(array.ctypes.data)
        return np.int32(0)

    @tf.function
    def there_and_back():
        return tf.numpy_function(see, [tf.numpy_function(make, [], dtype)], tf.int32)

    there_and_back()
    assert made[0].shape == shape and made[0].dtype == dtype and not made[0].any()
    assert made[0].size == 0 or seen == [made[0].ctypes.data]
