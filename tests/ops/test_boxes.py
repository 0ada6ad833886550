"""Boxes against plain NumPy, against Detectron2, and with padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.boxes import area, clip, decode, encode, grow, pairwise_iou

WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]


def random_boxes(rng, count, size=100.0):
    corner = rng.uniform(0, size, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 30, (count, 2))], axis=1).astype(np.float32)


def covered(box, shape):
    """The pixels of a box with whole-number corners."""
    x0, y0, x1, y1 = box.astype(int)
    pixels = np.zeros(shape, bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def test_area_counts_pixels():
    boxes = np.array([[2, 3, 7, 5], [0, 0, 1, 1], [0, 0, 0, 0], [4, 1, 4, 9]], np.float32)
    assert area(boxes).tolist() == [covered(b, (10, 10)).sum() for b in boxes]
    assert area(boxes[:, None]).shape == (4, 1)


def test_iou_counts_pixels(rng):
    corner = rng.integers(0, 12, (30, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 8, (30, 2))], axis=1).astype(np.float32)
    pixels = [covered(b, (20, 20)) for b in boxes]
    expected = [[(p & q).sum() / (p | q).sum() for q in pixels] for p in pixels[:7]]
    np.testing.assert_allclose(pairwise_iou(boxes[:7], boxes), expected, rtol=1e-6)


def test_iou_of_padding_is_zero():
    padding = np.zeros((2, 4), np.float32)
    boxes = np.array([[0, 0, 5, 5], [0, 0, 0, 0], [3, 3, 3, 9], [1e-30, 0, 2e-30, 1e-30]], np.float32)
    iou = pairwise_iou(np.concatenate([padding, boxes[1:]]), boxes)
    assert not iou.any()


def test_iou_of_touching_boxes_is_zero():
    assert pairwise_iou(np.array([[0, 0, 4, 4.0]]), np.array([[4, 0, 8, 4.0]])) == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_iou_is_detectron2s_to_the_bit(golden, compiled):
    iou = jax.jit(pairwise_iou) if compiled else pairwise_iou
    data = golden("comp_iou")
    np.testing.assert_array_equal(iou(data["a"], data["b"]), data["iou"])
    for model in ("c4_train", "fpn_train"):
        data = golden(model)
        quality = iou(data["gt_boxes"], data["anchors"])
        np.testing.assert_array_equal(quality.max(axis=0), data["anchor_iou_max"])


def test_iou_does_not_depend_on_compilation(rng):
    """A fused multiply-add would change the last bit, and with it the ties that matching looks for."""
    a, b = random_boxes(rng, 50), random_boxes(rng, 500)
    np.testing.assert_array_equal(jax.jit(pairwise_iou)(a, b), pairwise_iou(a, b))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_decode_inverts_encode(rng, weights):
    boxes, anchors = random_boxes(rng, 40), random_boxes(rng, 40)
    np.testing.assert_allclose(decode(encode(boxes, anchors, weights), anchors, weights), boxes, atol=1e-4)


def test_encode_in_closed_form():
    """A box of twice the width and half the height, moved by a quarter of the anchor's width."""
    anchor, box = np.array([0, 0, 8, 8.0]), np.array([-2, 2, 14, 6.0])
    expected = [10 * 2 / 8, 0, 5 * np.log(2), -5 * np.log(2)]
    np.testing.assert_allclose(encode(box, anchor, WEIGHTS[1]), expected, rtol=1e-6)


def test_padding_encodes_to_finite_and_decodes_to_zero():
    padding, box = np.zeros((1, 4), np.float32), np.array([[1, 2, 30, 40]], np.float32)
    for pair in ((padding, padding), (box, padding), (padding, box)):
        assert np.isfinite(encode(*pair, WEIGHTS[1])).all()
    assert not decode(np.full((1, 4), 9, np.float32), padding, WEIGHTS[0]).any()


def test_decode_limits_growth_and_stays_finite():
    huge = np.array([[0, 0, 1e6, 1e6]], np.float32)
    x0, y0, x1, y1 = decode(huge, np.array([[0, 0, 16, 16]], np.float32), WEIGHTS[0])[0]
    np.testing.assert_allclose([x1 - x0, y1 - y0], [1000, 1000], rtol=1e-5)


def test_decode_broadcasts_over_classes(rng):
    deltas = rng.normal(size=(6, 3, 4)).astype(np.float32)
    anchors = random_boxes(rng, 6)
    together = decode(deltas, anchors[:, None], WEIGHTS[1])
    for k in range(3):
        np.testing.assert_allclose(together[:, k], decode(deltas[:, k], anchors, WEIGHTS[1]), rtol=1e-6)


def test_gradient_of_decode_is_finite_at_the_limit():
    anchor = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    gradient = jax.grad(lambda d: decode(d, anchor, WEIGHTS[0]).sum())(jnp.full((1, 4), 1e4))
    assert np.isfinite(gradient).all()


def test_clip_cuts_at_each_border():
    boxes = np.array([[-5, -5, 5, 5], [95, 45, 105, 55], [1, 2, 3, 4], [200, 60, 210, 70]], np.float32)
    clipped = jax.jit(clip)(boxes, jnp.array([50, 100]))
    assert clipped.tolist() == [[0, 0, 5, 5], [95, 45, 100, 50], [1, 2, 3, 4], [100, 50, 100, 50]]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_box_deltas_are_detectron2s(golden, weights):
    data, name = golden("comp_box_deltas"), "_".join(str(int(w)) for w in weights).replace("1_1_1_1", "1111")
    deltas = encode(data["dst"], data["src"], weights)
    np.testing.assert_allclose(deltas, data[f"deltas_{name}"], rtol=1e-5, atol=1e-5)
    decoded = decode(data[f"rand_deltas_{name}"], data["src"], weights)
    np.testing.assert_allclose(decoded, data[f"decoded_{name}"], rtol=1e-5, atol=1e-3)
    multi = decode(data[f"multi_deltas_{name}"].reshape(-1, 3, 4), data["src"][:, None], weights)
    np.testing.assert_allclose(multi.reshape(-1, 12), data[f"multi_decoded_{name}"], rtol=1e-5, atol=1e-3)


def test_grown_boxes_keep_their_middle_and_padding_stays_zero(rng):
    corners = rng.uniform(0, 90, (20, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 50, (20, 2))], axis=1).astype(np.float32)
    boxes[3] = 0
    grown = np.asarray(grow(jnp.asarray(boxes), 0.1))
    np.testing.assert_allclose(grown[:, 2:] - grown[:, :2], 1.2 * (boxes[:, 2:] - boxes[:, :2]), rtol=1e-4)
    np.testing.assert_allclose(grown[:, 2:] + grown[:, :2], boxes[:, 2:] + boxes[:, :2], rtol=1e-5)
    assert not grown[3].any()
    np.testing.assert_array_equal(grow(boxes, 0.1), grown)
    np.testing.assert_array_equal(grow(boxes, 0.0), boxes)
