"""The same masks stay on the device as on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.masks.containment import not_contained as on_host
from maskrcnn_jax.masks.crops import crops_of_pixels
from maskrcnn_jax.ops.containment import not_contained


def boxes_of(masks):
    """The tight box of each; zeros for an empty one."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for d, mask in enumerate(masks):
        if mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[d] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


@pytest.fixture(scope="module")
def compiled():
    def stay(masks, boxes, classes, valid, share):
        areas = masks.sum(axis=(1, 2)).astype(jnp.int32)
        return not_contained(lambda d: masks[d], areas, boxes, classes, valid, share)

    return jax.jit(stay)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_the_same_masks_stay_as_on_the_host(rng, compiled, share):
    """Rectangles within each other, chains of them, two classes, an empty mask, and padding."""
    masks = np.zeros((20, 24, 24), bool)
    for mask in masks[1:17]:
        top, left = rng.integers(0, 14, 2)
        mask[top : top + rng.integers(1, 12), left : left + rng.integers(1, 12)] = True
    masks[17] = masks[5]  # twice the same, and in padding
    masks[18] = True
    classes, valid = rng.integers(0, 2, 20).astype(np.int32), np.arange(20) < 18
    stay = compiled(masks, boxes_of(masks), classes, valid, np.float32(share))
    crops, scores = crops_of_pixels(list(masks[:18]), [(0, 0)] * 18), np.linspace(1, 0, 18)
    expected = on_host(crops, scores, classes[:18], share)
    assert 5 < len(expected) < 18
    np.testing.assert_array_equal(np.flatnonzero(stay), expected)


def test_nothing_stays_of_nothing(compiled):
    nothing = np.zeros((20, 24, 24), bool)
    stay = compiled(nothing, boxes_of(nothing), np.zeros(20, np.int32), np.zeros(20, bool), np.float32(0.5))
    assert not stay.any()
