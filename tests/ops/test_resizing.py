"""Resizing on the device gives the pixels of the host: Pillow's, or those between its own."""

import jax
import numpy as np
import pytest
from PIL import Image

from maskrcnn_jax.ops.resizing import interpolate, resize
from maskrcnn_jax.prediction import resize as on_host


@pytest.mark.parametrize("size", [(5, 9), (13, 7), (40, 31), (1, 1), (10, 7)], ids=str)
def test_pixels_are_pillows(rng, size):
    image = rng.integers(0, 256, (13, 9, 3), np.uint8)
    expected = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    found = jax.jit(resize, static_argnums=1)(image, size)
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_a_white_image_stays_white():
    assert (np.asarray(resize(np.full((7, 5, 3), 255, np.uint8), (11, 3))) == 255).all()


@pytest.mark.parametrize("size", [(5, 9), (40, 31)], ids=str)
def test_between_pixels_are_the_hosts(rng, size):
    image = rng.integers(0, 256, (13, 9, 3), np.uint8)
    found = jax.jit(interpolate, static_argnums=1)(image, size)
    np.testing.assert_allclose(found, on_host.interpolate(image, size), atol=1e-4)
