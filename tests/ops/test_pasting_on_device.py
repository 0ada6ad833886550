"""Pasting on the device gives the pixels of pasting on the host."""

import jax
import numpy as np
import pytest

from maskrcnn_jax.masks.pasting import paste as paste_on_host
from maskrcnn_jax.ops.pasting import paste, whole_frames


@pytest.mark.parametrize("whole_pixels", [False, True])
def test_pixels_are_those_of_the_host(rng, whole_pixels):
    """Boxes inside, at the border, beyond it, thinner than a pixel, without area, and padding."""
    size, masks = (23, 17), rng.random((24, 7, 7), np.float32)
    boxes = rng.uniform(-4, 20, (24, 4)).astype(np.float32)
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + rng.uniform(0.2, 18, (24, 2))], 1, dtype=np.float32)
    boxes[:3] = [[0, 0, 17, 23], [3, 4, 3, 9], [0, 0, 0, 0]]
    framed = whole_frames(masks, boxes) if whole_pixels else (masks, boxes)
    found = np.asarray(jax.jit(paste, static_argnums=2)(*framed, size))
    crops = paste_on_host(masks, boxes, size, whole_pixels=whole_pixels)
    expected = np.zeros_like(found)
    for d, (top, left, bottom, right) in enumerate(crops.rectangles):
        expected[d, top:bottom, left:right] = crops.pixels(d)
    assert expected.any(axis=(1, 2)).sum() > 15
    assert whole_pixels or not expected[1:3].any()  # torchvision makes a pixel of nothing
    # The two sum in another order: a pixel that is half covered may fall on either side.
    assert (found != expected).sum() <= 1
