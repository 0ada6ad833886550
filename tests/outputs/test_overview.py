"""Overviews: what is drawn smaller against a slow loop over squares, and the bar with the classes."""

import numpy as np
import pytest

from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.outputs import overview
from maskrcnn_jax.outputs.colours import PALETTE
from maskrcnn_jax.outputs.overlay import draw_overlay
from maskrcnn_jax.outputs.overview import draw_overview, overview_factor


def result(masks, size, classes=None):
    count = len(masks)
    return Result(
        np.zeros((count, 4), np.float32),
        np.linspace(1, 0.5, count, dtype=np.float32),
        np.zeros(count, np.int32) if classes is None else np.array(classes, np.int32),
        crops_of([rle_of_crop(mask, 0, 0, size) for mask in masks]),
        size,
    )


@pytest.fixture
def small_pictures(monkeypatch):
    """Overviews of at most 10 pixels, read in squares of 8."""
    monkeypatch.setattr(overview, "_MAX_SIDE", 10)
    monkeypatch.setattr(overview, "_READ", 8)


@pytest.mark.parametrize(
    ("size", "factor"), [((1, 1), 1), ((4000, 10), 1), ((10, 4001), 2), ((20_000, 9), 5), ((99_999, 1), 25)]
)
def test_no_side_is_longer_than_4000(size, factor):
    assert overview_factor(size) == factor


@pytest.mark.parametrize("size", [(29, 23), (30, 30), (11, 3)])
def test_a_square_is_drawn_where_an_object_has_a_pixel(rng, small_pictures, size):
    """One-pixel objects anywhere, borders included, are seen; thick ones keep their inside."""
    image = np.full((*size, 3), 128, np.uint8)
    masks = [rng.random(size) < 0.01 for _ in range(8)]
    shown = draw_overview(open_source(image), result(masks, size))
    factor = overview_factor(size)
    expected = np.zeros(shown.shape[:2], bool)
    for y, x in np.argwhere(np.any(masks, axis=0)):
        expected[y // factor, x // factor] = True
    np.testing.assert_array_equal((shown != 128).any(axis=2), expected)
    whole = np.ones(size, bool)
    inside = draw_overview(open_source(image), result([whole], size))[1:-1, 1:-1]
    assert (inside == 128).all()


def test_pixels_are_averages_of_their_squares(rng, small_pictures):
    image = rng.integers(0, 256, (29, 24, 3), np.uint8)
    shown = draw_overview(open_source(image), result([], (29, 24)))
    assert shown.shape == (10, 8, 3)
    for y, x in np.ndindex(10, 8):
        mean = image[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(shown[y, x], mean, atol=1)


def test_the_better_object_is_on_top(small_pictures):
    masks = np.ones((2, 20, 20), bool)
    shown = draw_overview(
        open_source(np.zeros((20, 20, 3), np.uint8)), result(masks, (20, 20), [1, 0]), classes="ab"
    )
    np.testing.assert_array_equal(shown[0, 0], PALETTE[1])


def test_small_images_are_drawn_as_overlays(rng):
    image, mask = rng.integers(0, 256, (40, 60, 3), np.uint8), np.zeros((40, 60), bool)
    mask[3:20, 5:30] = True
    found = result([mask], (40, 60))
    np.testing.assert_array_equal(draw_overview(open_source(image), found), draw_overlay(image, found.masks))


@pytest.mark.parametrize("width", [40, 900])
def test_classes_have_their_colours_and_are_named_below(width):
    """As many lines as it takes: all colours are in the bar."""
    size = (30, width)
    masks = np.zeros((2, *size), bool)
    masks[0, 2:12, 2:12] = masks[1, 15:25, 15:25] = True
    image = np.zeros((*size, 3), np.uint8)
    names = ["tumour", "lymphocyte", "Epithel äußen"]
    shown = draw_overview(open_source(image), result(masks, size, [2, 0]), classes=names)
    plain = draw_overlay(image, result(masks, size).masks, colors=[2, 0])
    np.testing.assert_array_equal(shown[: len(plain)], plain)
    bar = shown[len(plain) :].reshape(-1, 3)
    for hue in PALETTE[:3]:
        assert (bar == hue).all(axis=1).any()
