"""Grey images come to one range whatever it was; what has colour, and what is empty, is left alone."""

import numpy as np
import pytest

from maskrcnn_jax.images.intensity import grey_table, is_grey, stretch_grey


def grey(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def test_the_percentiles_become_black_and_white(rng):
    values = rng.normal(60, 8, (200, 200)).clip(0, 255)
    out = stretch_grey(grey(values))[..., 0]
    assert abs((out == 0).mean() - 0.01) < 0.01 and abs((out == 255).mean() - 0.002) < 0.003
    low, high = np.percentile(np.uint8(values), [1, 99.8])
    expected = np.clip((np.floor(values) - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(out, expected, atol=256 / (high - low))


def test_brightness_and_contrast_of_a_microscope_do_not_matter(rng):
    values = rng.integers(0, 60, (100, 100))
    once, other = stretch_grey(grey(values)), stretch_grey(grey(30 + 3 * values))
    np.testing.assert_allclose(once.astype(int), other.astype(int), atol=3)


def test_an_empty_image_stays_empty(rng):
    noise = stretch_grey(grey(rng.integers(4, 7, (100, 100))))
    assert noise.max() <= 2 * 255 / 16 + 1
    np.testing.assert_array_equal(stretch_grey(grey(np.zeros((9, 9)))), 0)


def test_colour_stays_as_it_is(rng):
    image = rng.integers(0, 256, (20, 20, 3), np.uint8)
    assert not is_grey(image)
    assert stretch_grey(image) is image


def test_channels_that_a_jpeg_moved_apart_are_grey_still(rng):
    image = grey(rng.integers(10, 240, (20, 20)))
    assert is_grey(image + rng.integers(0, 4, image.shape).astype(np.uint8))


@pytest.mark.parametrize("form", [lambda v: v, lambda v: v[..., None], lambda v: np.dstack([v] * 4)])
def test_sixteen_bits_are_stretched_at_their_full_depth(rng, form):
    """A camera's 12 bits in 16 have 16 high bytes and more than 200 levels after."""
    values = rng.gamma(4, 200, (200, 200)).clip(0, 4095).astype(np.uint16)
    out = stretch_grey(form(values))
    assert out.dtype == np.uint8 and len(np.unique(out)) > 200
    low, high = np.percentile(values, [1, 99.8])
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(out, form(expected), atol=1.5)


def test_an_empty_image_of_sixteen_bits_stays_empty(rng):
    assert stretch_grey(rng.poisson(100, (100, 100)).astype(np.uint16)).max() < 100


def test_parts_give_the_table_of_the_whole(rng):
    values = rng.normal(60, 20, (90, 70)).clip(0, 255).astype(np.uint8)
    table = grey_table([values[:31], values[31:]])
    np.testing.assert_array_equal(table[values], stretch_grey(values))
    assert grey_table([values, rng.integers(0, 256, (5, 5, 3), np.uint8)]) is None
