"""Augmentation by what optics and sensors do: blur and noise."""

from __future__ import annotations

import tensorflow as tf

from maskrcnn_jax.data.colour import Image, Layers, Seed, to_uint8

_REACH = 6  # pixels to each side that a blur reads; sigma stays below half of it


def blur(image: Image, layers: Layers, seed: Seed, *, share: float, largest: float) -> tuple[Image, Layers]:
    """Blurs a `share` of the images by a Gaussian whose sigma is up to `largest` pixels (3 at most)."""
    coin_seed, sigma_seed = tf.unstack(tf.random.split(seed))
    sigma = tf.random.stateless_uniform([], sigma_seed, 0.1, max(min(largest, _REACH / 2), 0.1))

    def blurred() -> Image:
        steps = tf.range(-_REACH, _REACH + 1, dtype=tf.float32)
        weights = tf.exp(-0.5 * (steps / sigma) ** 2)
        weights = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], [1, 1, 3, 1])
        values = tf.cast(image, tf.float32)[None]
        for axis, kernel in ((1, weights), (2, tf.transpose(weights, [1, 0, 2, 3]))):
            margin = [[0, 0]] * axis + [[_REACH, _REACH]] + [[0, 0]] * (3 - axis)
            values = tf.pad(values, margin, "SYMMETRIC")
            values = tf.nn.depthwise_conv2d(values, kernel, [1, 1, 1, 1], "VALID")
        return to_uint8(values[0])

    return tf.cond(tf.random.stateless_uniform([], coin_seed) < share, blurred, lambda: image), layers


def noise(image: Image, layers: Layers, seed: Seed, *, share: float, largest: float) -> tuple[Image, Layers]:
    """Adds normal noise to a `share` of the images, its deviation up to `largest` of the range."""
    coin_seed, deviation_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    deviation = 255 * tf.random.stateless_uniform([], deviation_seed, 0.0, largest)

    def noisy() -> Image:
        values = tf.cast(image, tf.float32)
        values += deviation * tf.random.stateless_normal(tf.shape(image), noise_seed)
        return to_uint8(values)

    return tf.cond(tf.random.stateless_uniform([], coin_seed) < share, noisy, lambda: image), layers
