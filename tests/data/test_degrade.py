"""Blur spreads light evenly and loses none, noise has the deviation asked for, a share of 0 does nothing."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.degrade import blur, noise


def seeds(count):
    return [tf.constant([9, i], tf.int64) for i in range(count)]


def test_a_point_of_light_becomes_a_round_spot_of_the_same_light():
    image = np.zeros((31, 31, 3), np.uint8)
    image[10:21, 10:21] = 200
    widths = []
    for seed in seeds(12):
        out = blur(image, np.zeros((1, 31, 31), np.uint16), seed, share=1.0, largest=2.0)[0].numpy()
        spot = out[..., 0].astype(float)
        np.testing.assert_allclose(spot.sum(), 200 * 121, rtol=0.02)
        np.testing.assert_allclose(spot, spot.T, atol=1)
        np.testing.assert_allclose(spot, spot[::-1], atol=1)
        profile = spot.sum(axis=0) / spot.sum()
        variance = (profile * (np.arange(31) - 15) ** 2).sum()
        widths.append(np.sqrt(max(variance - 10, 0)))  # a square of 11 px has variance 10
    assert 0.9 < max(widths) <= 2.1 and min(widths) < 0.9


def test_noise_has_no_mean_and_at_most_the_deviation():
    image = np.full((64, 64, 3), 128, np.uint8)
    deviations = []
    for seed in seeds(12):
        out = noise(image, np.zeros((1, 64, 64), np.uint16), seed, share=1.0, largest=0.1)[0].numpy()
        assert abs(out.mean() - 128) < 1
        deviations.append(out.std())
    assert max(deviations) < 0.1 * 255 * 1.05 and max(deviations) > 10 > min(deviations)


@pytest.mark.parametrize("op", [blur, noise])
def test_a_share_of_the_images_is_touched(op, rng):
    image = rng.integers(0, 256, (20, 20, 3), np.uint8)
    layers = rng.integers(0, 9, (1, 20, 20)).astype(np.uint16)
    for share, least, most in ((0.0, 0, 0), (0.5, 8, 32), (1.0, 30, 40)):
        results = [op(image, layers, seed, share=share, largest=1.0) for seed in seeds(40)]
        changed = sum(not np.array_equal(out, image) for out, _ in results)
        assert least <= changed <= most
        assert all(np.array_equal(maps, layers) for _, maps in results)
