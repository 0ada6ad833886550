"""Augmentation of colours: instances stay as they are, and so does what is drawn outside of them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float32, Int, UInt8, UInt16

from maskrcnn_jax.data.synthetic import EOSIN, HAEMATOXYLIN
from maskrcnn_jax.images import intensity

Image = UInt8[tf.Tensor, "H W 3"]
Layers = UInt16[tf.Tensor, "L H W"]
Seed = Int[tf.Tensor, "2"]

_ROWS = 64  # of an image that are rounded at once, so that they stay in the cache


def brightness_contrast(
    image: Image, layers: Layers, seed: Seed, *, brightness: float, contrast: float
) -> tuple[Image, Layers]:
    """Shifts all values by up to `brightness` of the range, and stretches them by up to `contrast`.

    The stretch is about the image's mean grey, which therefore moves by the shift alone.
    """
    shift_seed, stretch_seed = tf.unstack(tf.random.split(seed))
    shift = 255 * _uniform(shift_seed, -brightness, brightness)
    stretch = _uniform(stretch_seed, 1 - contrast, 1 + contrast)
    values = tf.cast(image, tf.float32)
    mean = tf.reduce_mean(values)
    return to_uint8((values - mean) * stretch + mean + shift), layers


def stain_jitter(
    image: Image, layers: Layers, seed: Seed, *, scale: float, shift: float
) -> tuple[Image, Layers]:
    """Changes how strongly haematoxylin and eosin have taken, each by itself (Tellez et al. 2018).

    Optical density d is split into the two stains and a rest (Ruifrok and Johnston 2001); of each stain
    d becomes a * d + b, a from 1 - scale to 1 + scale, b from -shift to shift. The rest stays. Without a
    shift, white stays white.
    """
    scale_seed, shift_seed = tf.unstack(tf.random.split(seed))
    factors = tf.concat([_uniform(scale_seed, 1 - scale, 1 + scale, [2]), [1.0]], axis=0)
    shifts = tf.concat([_uniform(shift_seed, -shift, shift, [2]), [0.0]], axis=0)
    stains = _stain_matrix()
    unmix = np.linalg.inv(stains).astype(np.float32)
    # In RGB: density @ unmix gives the stains, @ stains goes back; both at once, as a 3 x 3 matrix.
    mix = tf.matmul(unmix * factors, stains)
    density = tf.tensordot(_density(image), mix, 1) + tf.linalg.matvec(stains, shifts, transpose_a=True)
    return to_uint8(256 * tf.exp(-density * np.float32(np.log(10))) - 1), layers


def gamma(image: Image, layers: Layers, seed: Seed, *, spread: float) -> tuple[Image, Layers]:
    """Raises the values, as shares of 255, to a power between exp(-spread) and exp(spread)."""
    power = tf.exp(_uniform(seed, -spread, spread))
    return to_uint8(255 * (tf.cast(image, tf.float32) / 255) ** power), layers


def invert(image: Image, layers: Layers, seed: Seed, *, share: float) -> tuple[Image, Layers]:
    """Shows a `share` of the images as their negatives: bright nuclei become dark ones."""
    return tf.where(_uniform(seed, 0, 1) < share, 255 - image, image), layers


def to_grey(image: Image, layers: Layers, seed: Seed, *, share: float) -> tuple[Image, Layers]:
    """Takes the colour from a `share` of the images (luminance of ITU-R BT.601)."""

    def grey() -> Image:
        return tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=2)

    return tf.cond(_uniform(seed, 0, 1) < share, grey, lambda: image), layers


def channel_shuffle(image: Image, layers: Layers, seed: Seed, *, share: float) -> tuple[Image, Layers]:
    """Puts the channels of a `share` of the images into another order: another stain, as it were."""
    coin_seed, order_seed = tf.unstack(tf.random.split(seed))
    order = tf.random.experimental.stateless_shuffle(tf.range(3), order_seed)
    return tf.where(_uniform(coin_seed, 0, 1) < share, tf.gather(image, order, axis=2), image), layers


def tint(image: Image, layers: Layers, seed: Seed, *, share: float, least: float) -> tuple[Image, Layers]:
    """Dims each channel of a `share` of the images to between `least` and all: fluorescence in one colour."""
    coin_seed, gain_seed = tf.unstack(tf.random.split(seed))
    gains = _uniform(gain_seed, least, 1, [3])
    dimmed = to_uint8(tf.cast(image, tf.float32) * (gains / tf.reduce_max(gains)))
    return tf.where(_uniform(coin_seed, 0, 1) < share, dimmed, image), layers


def stretch_grey(image: Image, layers: Layers, seed: Seed) -> tuple[Image, Layers]:
    """Stretches images without colour between two percentiles, as `images.intensity` does for prediction."""
    stretched = tf.numpy_function(intensity.stretch_grey, [image], tf.uint8, stateful=False)
    return tf.ensure_shape(stretched, image.shape), layers


def to_uint8(values: Float32[tf.Tensor, "H W 3"], *, clip: bool = True) -> Image:
    """Rounds grey levels, halves to even, and clips them: by NumPy, several times as fast as `tf.round`.

    Means of grey levels need no clipping.
    """

    def convert(levels: Float32[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        whole = np.empty(levels.shape, np.uint8)
        for top in range(0, len(levels), _ROWS):
            rows = np.rint(levels[top : top + _ROWS])
            if clip:
                np.clip(rows, 0, 255, out=rows)
            np.copyto(whole[top : top + _ROWS], rows, casting="unsafe")
        return whole

    return tf.ensure_shape(tf.numpy_function(convert, [values], tf.uint8, stateful=False), values.shape)


def _stain_matrix() -> Float32[np.ndarray, "3 3"]:
    """Rows: density of haematoxylin, eosin and the direction across both, in R, G, B."""
    rest = np.cross(HAEMATOXYLIN, EOSIN)
    rows = np.stack([HAEMATOXYLIN, EOSIN, rest])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _density(image: Image) -> Float32[tf.Tensor, "H W 3"]:
    """Optical density, 0 for white; one is added so that black has one, too."""
    table = -np.log10((np.arange(256) + 1) / 256).astype(np.float32)
    return tf.gather(table, tf.cast(image, tf.int32))


def _uniform(seed: Seed, low: float, high: float, shape: list[int] | None = None) -> Float[tf.Tensor, "..."]:
    return tf.random.stateless_uniform(shape or [], seed, low, high)
