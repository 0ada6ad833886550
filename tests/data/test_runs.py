"""A selection of rows and columns, its boxes and its numbers are those of the pixels that it stands for."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.augment import compose
from maskrcnn_jax.data.runs import boxes_of, find_runs, renumbered
from maskrcnn_jax.data.selection import Selection, copied, whole

CROP = {"op": "random_crop", "size": 17}
FLIPS = ({"op": "flip_horizontal"}, {"op": "flip_vertical"})


@pytest.fixture
def layers(rng):
    """Ragged instances, some in several pieces, some across a row's end."""
    coarse = rng.integers(0, 12, (2, 7, 9)) * (rng.random((2, 7, 9)) < 0.6)
    coarse[1] += 12 * (coarse[1] > 0)
    return coarse.repeat(3, axis=1).repeat(4, axis=2).astype(np.uint16)


@pytest.mark.parametrize(
    "ops",
    [
        (),
        (CROP, {"op": "resize_shortest_edge", "sizes": (40,), "longest": 80}, *FLIPS),
        ({"op": "scale_jitter", "smallest": 0.3, "largest": 0.9}, *FLIPS, CROP),
        (*FLIPS, {"op": "scale_jitter", "smallest": 0.7, "largest": 1.6}, *FLIPS),
        (CROP, {"op": "rotate90"}, {"op": "resize_shortest_edge", "sizes": (30,), "longest": 60}),
        ({"op": "random_crop", "size": 1}, {"op": "resize_shortest_edge", "sizes": (5,), "longest": 9}),
    ],
)
def test_nothing_depends_on_the_form_of_the_layers(layers, ops):
    image, augment = tf.zeros((*layers.shape[1:], 3), tf.uint8), compose(ops)
    values = np.arange(24)[::-1] % 7
    for seed in range(4):
        key = tf.constant([seed, 1], tf.int64)
        _, pixels, _ = augment(image, tf.constant(layers), key)
        _, selection, _ = augment(image, whole(tf.constant(layers)), key)
        assert isinstance(selection, Selection)
        np.testing.assert_array_equal(copied(selection), pixels)
        runs = find_runs(*(x.numpy() for x in selection))
        boxes, present = boxes_of(runs, 24)
        for n, (box, there) in enumerate(zip(boxes, present, strict=True)):
            _, rows, columns = np.nonzero(pixels == n + 1)
            assert there == (len(rows) > 0)
            if there:
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected = np.concatenate([[0], values])[pixels.numpy()]
        for canvas in ((90, 100), (9, 11)):  # more than the image, and less
            painted = renumbered(runs, values, np.zeros((3, *canvas), np.uint16))
            height, width = np.minimum(canvas, pixels.shape[1:])
            np.testing.assert_array_equal(painted[:2, :height, :width], expected[:, :height, :width])
            assert painted.shape == (3, *canvas) and painted.sum() == painted[:2, :height, :width].sum()
