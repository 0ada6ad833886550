"""What prediction on the device has of its own; `tests/interop/test_export.py` compares the whole of it."""

import jax
import numpy as np
import pytest

from maskrcnn_jax.images.intensity import stretch_grey as on_host
from maskrcnn_jax.prediction.whole import stretch_grey


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(stretch_grey)


@pytest.mark.parametrize("levels", [(0, 256), (30, 90), (100, 104), (7, 8)], ids=str)
def test_grey_is_stretched_as_on_the_host(rng, compiled, levels):
    """Over the whole range, a part of it, less than the least span, and of one level alone."""
    image = np.repeat(rng.integers(*levels, (31, 23, 1)), 3, axis=2).astype(np.uint8)
    image[0, 0, 0] += image[0, 0, 0] < 253  # not quite without colour, as after JPEG
    np.testing.assert_array_equal(compiled(image), on_host(image))


def test_colour_stays(rng, compiled):
    image = rng.integers(0, 256, (31, 23, 3), np.uint8)
    np.testing.assert_array_equal(compiled(image), image)
