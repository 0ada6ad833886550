"""Boxes follow every op that moves pixels: those that no border cuts stay tight around their instances."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.augment import OPS, compose
from maskrcnn_jax.data.motion import follow, linear
from maskrcnn_jax.data.runs import tight_boxes

AFFINE = {"op": "random_affine", "size": 90, "offset_x": -0.4, "offset_y": 0.7}
EXACT = {
    "random_crop": [{"op": "random_crop", "size": 17}],
    "resize_shortest_edge": [{"op": "resize_shortest_edge", "sizes": (48,), "longest": 500}],
    "scale_jitter": [{"op": "scale_jitter", "smallest": 2.0, "largest": 2.0}],
    "flip_horizontal": [{"op": "flip_horizontal"}],
    "flip_vertical": [{"op": "flip_vertical"}],
    "rotate90": [{"op": "rotate90"}],
    "random_affine": [{**AFFINE, "smallest": 2.0, "largest": 2.0, "degrees": 0.0}],
    "several": [{"op": "random_crop", "size": 17}, {"op": "flip_vertical"}, {"op": "rotate90"}],
}


def pictures():
    """Rectangles on even places, three pixels apart: enlarged twice, tight boxes are exact."""
    layers = np.zeros((1, 24, 30), np.uint16)
    for n in range(12):
        top, left = 6 * (n // 4) + 1, 7 * (n % 4) + 1
        layers[0, top : top + 3 + n % 2, left : left + 4] = n + 1
    return np.zeros((24, 30, 3), np.uint8), layers


def moved(ops, seed):
    image, layers = pictures()
    before, _ = tight_boxes(layers, 12)
    _, after, path = compose(ops)(image, layers, tf.constant([seed, 1], tf.int64))
    boxes, right = follow(before, tf.constant(image.shape[:2]), path)
    return boxes.numpy(), right.numpy(), *tight_boxes(np.asarray(after), 12)


@pytest.mark.parametrize("name", EXACT)
def test_boxes_stay_tight(name):
    seen = []
    for seed in range(8):
        boxes, right, tight, present = moved(EXACT[name], seed)
        np.testing.assert_allclose(boxes[right], tight[right], atol=1e-3)
        assert present[right].all() and right.any()
        seen.append(right.mean())
    assert (min(seen) < 1) == (name in ("random_crop", "several"))


def test_a_turn_that_is_no_quarter_leaves_no_box():
    ops = [{**AFFINE, "smallest": 1.0, "largest": 1.0, "degrees": 45.0}]
    assert not any(moved(ops, seed)[1].any() for seed in range(4))


def test_every_op_that_moves_labels_says_where_to():
    image, layers = pictures()
    arguments = {
        spec["op"]: {k: v for k, v in spec.items() if k != "op"} for ops in EXACT.values() for spec in ops
    }
    for name in arguments:
        assert len(OPS[name](image, layers, tf.constant([0, 1], tf.int64), **arguments[name])) == 3
    still = [{"op": "gamma", "spread": 0.4}, {"op": "noise", "share": 1.0, "largest": 0.05}]
    assert compose(still)(image, layers, tf.constant([0, 1], tf.int64))[2] == []


def test_what_a_first_crop_cut_no_later_step_makes_whole():
    boxes = tf.constant([[2.0, 2.0, 8.0, 8.0], [np.nan] * 4])
    crop = linear((1, 0, -4), (0, 1, 0))
    back = linear((1, 0, 4), (0, 1, 0))
    size = tf.constant([20, 20])
    assert follow(boxes, size, [])[1].numpy().tolist() == [True, False]
    assert not follow(boxes, size, [(crop, size), (back, size)])[1].numpy().any()
