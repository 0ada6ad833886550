"""Colours change as the stains' and the lamp's physics say, instances do not, and zero changes nothing."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.augment import OPS
from maskrcnn_jax.data.colour import to_uint8
from maskrcnn_jax.data.synthetic import EOSIN, HAEMATOXYLIN, draw_records

NOTHING = {
    "brightness_contrast": {"brightness": 0, "contrast": 0},
    "stain_jitter": {"scale": 0, "shift": 0},
    "gamma": {"spread": 0},
    "invert": {"share": 0},
    "to_grey": {"share": 0},
    "channel_shuffle": {"share": 0},
    "tint": {"share": 0, "least": 0},
    "stretch_grey": {},
}
STRONG = {
    "brightness_contrast": {"brightness": 0.3, "contrast": 0.3},
    "stain_jitter": {"scale": 0.5, "shift": 0.2},
}


def seeds(count):
    return [tf.constant([3, i], tf.int64) for i in range(count)]


def stained(rng, size=(30, 40), rest=0.0):
    """An image of known densities (H, W, 2), as light through two stains: I = 256 * 10^-d - 1."""
    densities = rng.uniform(0.1, 0.7, (*size, 2))
    across = np.cross(HAEMATOXYLIN, EOSIN)
    rows = [row / np.linalg.norm(row) for row in (HAEMATOXYLIN, EOSIN, across)]
    density = densities @ np.stack(rows[:2]) + rest * rows[2]
    return np.clip(np.rint(256 * 10.0**-density - 1), 0, 255).astype(np.uint8), densities


def unmix(image):
    """Densities by least squares on the two stains alone."""
    density = -np.log10((image.reshape(-1, 3) + 1.0) / 256)
    stains = np.stack([row / np.linalg.norm(row) for row in (HAEMATOXYLIN, EOSIN)])
    return np.linalg.lstsq(stains.T, density.T, rcond=None)[0].T


@pytest.mark.parametrize("name", NOTHING)
def test_zero_changes_nothing_on_any_colour(name, rng):
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    layers = rng.integers(0, 9, (2, 64, 64)).astype(np.uint16)
    out, maps = OPS[name](image, layers, seeds(1)[0], **NOTHING[name])
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(maps, layers)


@pytest.mark.parametrize("name", STRONG)
def test_instances_stay_and_pixels_change_by_their_colour_alone(name, rng):
    """No pixel looks at its neighbours: shuffling pixels before or after is the same."""
    (record,) = draw_records(1, seed=0, size=32)
    order = rng.permutation(32 * 32)
    for seed in seeds(5):
        out, maps = OPS[name](record.image, record.layers, seed, **STRONG[name])
        assert out.dtype == tf.uint8
        np.testing.assert_array_equal(maps, record.layers)
        shuffled = record.image.reshape(-1, 3)[order].reshape(32, 32, 3)
        again, _ = OPS[name](shuffled, record.layers, seed, **STRONG[name])
        difference = again.numpy().reshape(-1, 3).astype(int) - out.numpy().reshape(-1, 3)[order]
        assert np.abs(difference).max() <= 1, "the mean may be summed in another order"


def test_brightness_shifts_and_contrast_stretches_about_the_mean(rng):
    image = rng.integers(100, 150, (20, 20, 3), np.uint8)
    values = image.astype(float)
    shifts, stretches = [], []
    for seed in seeds(60):
        out = OPS["brightness_contrast"](image, image[None, ..., 0], seed, brightness=0.1, contrast=0.4)[0]
        out = out.numpy().astype(float)
        stretch = ((out - out.mean()) * (values - values.mean())).mean() / values.var()
        expected = (values - values.mean()) * stretch + out.mean()
        assert np.abs(out - expected).max() < 1
        shifts.append(out.mean() - values.mean())
        stretches.append(stretch)
    assert -25.6 < min(shifts) < -15 and 15 < max(shifts) < 25.6
    assert 0.59 < min(stretches) < 0.75 and 1.25 < max(stretches) < 1.41


def test_each_stain_is_scaled_and_shifted_by_itself(rng):
    image, densities = stained(rng)
    factors, shifts = [], []
    for seed in seeds(60):
        out, _ = OPS["stain_jitter"](image, image[None, ..., 0], seed, scale=0.3, shift=0.05)
        found = unmix(out.numpy())
        for k in range(2):
            slope, intercept = np.polyfit(densities[..., k].ravel(), found[:, k], 1)
            np.testing.assert_allclose(found[:, k], slope * densities[..., k].ravel() + intercept, atol=0.04)
            factors.append(slope)
            shifts.append(intercept)
    assert 0.69 < min(factors) < 0.8 and 1.2 < max(factors) < 1.31
    assert -0.06 < min(shifts) < -0.03 and 0.03 < max(shifts) < 0.06
    assert abs(np.corrcoef(factors[::2], factors[1::2])[0, 1]) < 0.4, "the stains move independently"


def test_white_stays_white_without_a_shift():
    white = np.full((5, 5, 3), 255, np.uint8)
    for seed in seeds(5):
        out, _ = OPS["stain_jitter"](white, white[None, ..., 0], seed, scale=0.9, shift=0)
        np.testing.assert_array_equal(out, white)


def test_what_is_no_stain_stays(rng):
    """The density across both stains is the same before and after."""
    image, _ = stained(rng, rest=0.05)
    across = np.cross(HAEMATOXYLIN, EOSIN)
    across /= np.linalg.norm(across)

    def rest(pixels):
        return -np.log10((pixels.reshape(-1, 3) + 1.0) / 256) @ across

    out, _ = OPS["stain_jitter"](image, image[None, ..., 0], seeds(3)[2], scale=0.3, shift=0.0)
    assert np.abs(rest(out.numpy()) - rest(image)).max() < 0.02
    assert abs(rest(out.numpy()).mean() - 0.05) < 0.002


def test_a_negative_is_the_complement_and_grey_has_equal_channels(rng):
    image = rng.integers(0, 256, (20, 20, 3), np.uint8)
    layers = np.zeros((1, 20, 20), np.uint16)
    np.testing.assert_array_equal(OPS["invert"](image, layers, seeds(1)[0], share=1.0)[0], 255 - image)
    grey = OPS["to_grey"](image, layers, seeds(1)[0], share=1.0)[0].numpy()
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], image @ [0.299, 0.587, 0.114], atol=1)


def test_shuffled_channels_are_the_same_channels_in_every_order(rng):
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    layers = np.zeros((1, 8, 8), np.uint16)
    orders = set()
    for seed in seeds(60):
        out = OPS["channel_shuffle"](image, layers, seed, share=1.0)[0].numpy()
        places = [[np.array_equal(out[..., c], image[..., k]) for k in range(3)] for c in range(3)]
        assert np.array(places).sum(axis=0).tolist() == [1, 1, 1]
        orders.add(tuple(np.argmax(places, axis=1).tolist()))
    assert len(orders) == 6


def test_gamma_keeps_black_white_and_the_order_of_greys():
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    layers = np.zeros((1, 1, 256), np.uint16)
    middles = []
    for seed in seeds(20):
        out = OPS["gamma"](image, layers, seed, spread=0.5)[0].numpy()[0, :, 0].astype(int)
        assert out[0] == 0 and out[255] == 255 and (np.diff(out) >= 0).all()
        middles.append(out[128])
    low, high = (255 * (128 / 255) ** np.exp(p) for p in (0.5, -0.5))
    assert low - 1 <= min(middles) < 120 and 136 < max(middles) <= high + 1


def test_a_tint_leaves_one_channel_whole_and_dims_the_others(rng):
    image = rng.integers(50, 256, (20, 20, 3), np.uint8)
    layers = np.zeros((1, 20, 20), np.uint16)
    for seed in seeds(10):
        out = OPS["tint"](image, layers, seed, share=1.0, least=0.2)[0].numpy()
        gains = out.reshape(-1, 3).mean(axis=0) / image.reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(gains.max(), 1.0, atol=1e-3)
        assert (gains > 0.19).all()


def test_grey_levels_are_clipped_and_halves_go_to_even(rng):
    values = rng.uniform(-300, 600, (130, 7, 3)).astype(np.float32)  # more rows than are rounded at once
    values[0, :, 0] = [-0.5, 0.5, 1.5, 2.5, 254.5, 255.5, 300]
    found = to_uint8(tf.constant(values))
    assert found[0, :, 0].numpy().tolist() == [0, 0, 2, 2, 254, 255, 255]
    np.testing.assert_array_equal(found, tf.round(tf.clip_by_value(values, 0, 255)))
