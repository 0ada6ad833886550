"""A window under a similarity: exact where nothing is resampled, true to scale, labels inside the image."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn_jax.data.affine import random_affine
from maskrcnn_jax.data.runs import tight_boxes

STILL = {"smallest": 1.0, "largest": 1.0, "degrees": 0.0, "offset_x": 0.0, "offset_y": 0.0}


def seeds(count):
    return [tf.constant([5, i], tf.int64) for i in range(count)]


def pictures(rng, size=(40, 40), layers=2):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    return image, rng.integers(0, 60000, (layers, *size)).astype(np.uint16)


def test_a_window_that_is_not_turned_is_a_part_of_the_image_or_its_mirror_image(rng):
    image, layers = pictures(rng)
    mirrored = set()
    for seed in seeds(20):
        out, maps, _ = random_affine(image, layers, seed, size=40, **STILL)
        flip = not np.array_equal(out, image)
        mirrored.add(flip)
        np.testing.assert_array_equal(out, image[:, ::-1] if flip else image)
        np.testing.assert_array_equal(maps, layers[:, :, ::-1] if flip else layers)
    assert mirrored == {False, True}


def test_windows_lie_everywhere_in_the_image_and_stay_inside(rng):
    layers = np.arange(1, 1601, dtype=np.uint16).reshape(1, 40, 40)
    image = np.zeros((40, 40, 3), np.uint8)
    seen = np.zeros(1601, bool)
    for seed in seeds(60):
        _, maps, _ = random_affine(image, layers, seed, size=16, **STILL)
        seen[maps.numpy()] = True
    assert not seen[0], "a window left the image"
    assert seen[1:].mean() > 0.8


@pytest.mark.parametrize(("scale", "degrees"), [(0.5, 0.0), (2.0, 180.0), (1.3, 180.0)])
def test_a_disc_keeps_its_shape_and_takes_the_scale(scale, degrees):
    rows, columns = np.mgrid[:80, :80]
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 <= 12**2
    image = np.repeat((disc * 200).astype(np.uint8)[..., None], 3, axis=2)
    arguments = STILL | {"smallest": scale, "largest": scale, "degrees": degrees}
    size = int(80 * scale)
    for seed in seeds(6):
        out, maps, _ = random_affine(image, disc[None].astype(np.uint16), seed, size=size, **arguments)
        boxes, present = tight_boxes(maps.numpy(), 1)
        sides = boxes[0, 2:] - boxes[0, :2]
        assert present[0]
        np.testing.assert_allclose(sides, 25 * scale, atol=1 + scale)
        np.testing.assert_allclose(maps.numpy().sum() / disc.sum(), scale**2, rtol=0.08)
        marked = maps.numpy()[0] == 1
        assert out.numpy()[..., 0][marked].mean() > 180 and out.numpy()[..., 0][~marked].mean() < 10


def test_what_lies_outside_the_image_carries_no_label(rng):
    image, layers = pictures(rng, layers=1)
    layers = np.maximum(layers, 1)
    turned = STILL | {"degrees": 180.0}
    shares = [(random_affine(image, layers, s, size=40, **turned)[1].numpy() == 0).mean() for s in seeds(20)]
    assert max(shares) > 0.1, "no corner ever left the image"
    assert max(shares) <= 1 - np.pi / 4 + 0.02, "more is missing than the corners of a turned square"


def test_the_offset_moves_the_image_to_where_its_labels_lie(rng):
    """Labels lie 2 px to the right of and 1 px above what they mark: both agree afterwards."""
    layers = np.zeros((1, 40, 40), np.uint16)
    layers[0, 10:20, 12:30] = 1
    image = np.repeat(np.roll(layers[0], (1, -2), (0, 1))[..., None] * 100, 3, axis=2).astype(np.uint8)
    for seed in seeds(6):
        arguments = STILL | {"offset_x": 2.0, "offset_y": -1.0}
        out, maps, _ = random_affine(image, layers, seed, size=40, **arguments)
        np.testing.assert_array_equal(out[..., 0] == 100, maps[0] == 1)
