"""Losses against their definitions in float64, Detectron2's sums, and at extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.losses import (
    generalized_iou_loss,
    sigmoid_cross_entropy,
    smooth_l1,
    softmax_cross_entropy,
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("beta", [0.0, 0.11, 1.0])
def test_smooth_l1_and_its_gradient(beta):
    difference = np.array([-3, -1, -0.2, -0.11, -0.05, 0, 1e-4, 0.11, 0.5, 1, 40], np.float32)
    value, gradient = jax.vmap(jax.value_and_grad(lambda d: smooth_l1(d, beta)))(difference)
    size = np.abs(difference.astype(np.float64))
    square = size < beta
    safe = beta or 1
    np.testing.assert_allclose(value, np.where(square, size**2 / 2 / safe, size - beta / 2), atol=1e-6)
    slope = np.where(square, difference / safe, np.sign(difference))
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_sigmoid_cross_entropy_and_its_gradient(target):
    logits = np.array([-20, -3, -0.1, 0, 0.1, 3, 20], np.float32)
    loss = jax.vmap(jax.value_and_grad(sigmoid_cross_entropy), (0, None))
    value, gradient = loss(logits, jnp.float32(target))
    p = sigmoid(logits.astype(np.float64))
    np.testing.assert_allclose(value, -target * np.log(p) - (1 - target) * np.log(1 - p), rtol=1e-5)
    np.testing.assert_allclose(gradient, p - target, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_sigmoid_cross_entropy_of_extreme_logits(target):
    logits = jnp.array([-1e30, -500.0, 500.0, 1e30])
    loss = jax.vmap(jax.value_and_grad(sigmoid_cross_entropy), (0, None))
    value, gradient = loss(logits, jnp.float32(target))
    wrong = (logits > 0) != bool(target)
    np.testing.assert_array_equal(value, jnp.where(wrong, jnp.abs(logits), 0))
    np.testing.assert_array_equal(gradient, np.asarray(wrong) * (1 - 2 * target))


def test_softmax_cross_entropy_and_its_gradient(rng):
    logits = rng.normal(0, 3, (20, 5)).astype(np.float32)
    labels = rng.integers(0, 5, 20)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    value = softmax_cross_entropy(logits, labels)
    gradient = jax.grad(lambda x: softmax_cross_entropy(x, labels).sum())(logits)
    np.testing.assert_allclose(value, -np.log(p[np.arange(20), labels]), rtol=1e-5)
    np.testing.assert_allclose(gradient, p - np.eye(5)[labels], atol=1e-6)


def test_softmax_cross_entropy_of_extreme_logits():
    logits = jnp.array([[1e30, -1e30, 0.0], [1e30, -1e30, 0.0], [500.0, 500.0, -500.0]])
    labels = jnp.array([0, 1, 1])
    value = softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(value, [0, 2e30, np.log(2)], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: softmax_cross_entropy(x, labels).sum())(logits)).all()


def test_nothing_in_nothing_out():
    none = jnp.zeros((0, 4))
    assert smooth_l1(none, 1.0).shape == sigmoid_cross_entropy(none, none).shape == (0, 4)
    assert softmax_cross_entropy(none, jnp.zeros(0, jnp.int32)).shape == (0,)


def test_sums_are_detectron2s(golden):
    data = golden("comp_losses")
    for beta in (0.0, 0.11):
        total = smooth_l1(data["pred"] - data["target"], beta).sum()
        np.testing.assert_allclose(total, data[f"smooth_l1_{beta}"], rtol=1e-6)
    binary = sigmoid_cross_entropy(data["bin_logits"], data["bin_targets"])
    np.testing.assert_allclose(binary.sum(), data["bce_sum"], rtol=1e-6)
    np.testing.assert_allclose(binary.mean(), data["bce_mean"], rtol=1e-6)
    rows = softmax_cross_entropy(data["logits"], data["labels"])
    np.testing.assert_allclose(rows.mean(), data["cross_entropy_mean"], rtol=1e-6)


def test_generalized_iou_of_pairs(rng):
    """1 - IoU + the empty share of the box around both, in float64; no area gives no NaN."""
    corners = rng.uniform(0, 30, (40, 2, 2, 2))
    boxes, targets = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=2).transpose(1, 0, 2)
    targets[0] = boxes[0]
    low, high = np.maximum(boxes, targets)[:, :2], np.minimum(boxes, targets)[:, 2:]
    overlap = np.prod(np.maximum(high - low, 0), axis=1)
    union = sum(np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, targets)) - overlap
    around = np.prod(np.maximum(boxes, targets)[:, 2:] - np.minimum(boxes, targets)[:, :2], axis=1)
    expected = 1 - overlap / union + (around - union) / around
    found = generalized_iou_loss(boxes.astype(np.float32), targets.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found[0]) < 1e-5 and 1 < found.max() <= 2
    nothing = jax.grad(lambda b: generalized_iou_loss(b, jnp.zeros((3, 4))).sum())(jnp.zeros((3, 4)))
    assert jnp.isfinite(nothing).all()
