"""A shift between labels and image is measured to a fraction of a pixel, and told only where it is one."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from maskrcnn_jax.data.label_shift import common_shift, measure_shift
from maskrcnn_jax.data.synthetic import draw_records


@pytest.fixture(scope="module")
def drawn():
    return draw_records(6, seed=3, size=128)


def moved(record, down, right):
    """The record with its picture, not its labels, moved up and left."""
    picture = ndimage.shift(record.image.astype(float), (-down, -right, 0), order=3, mode="nearest")
    return dataclasses.replace(record, image=np.clip(np.rint(picture), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (-0.7, -0.4), (0.5, 1.25), (3, -2.5)])
@pytest.mark.parametrize("fluorescence", [False, True])
def test_a_known_shift_is_measured(drawn, down, right, fluorescence):
    for record in drawn:
        if fluorescence:  # one channel alone gives light
            light = 255 - record.image[..., :1]
            record = dataclasses.replace(record, image=light * np.array([0, 0, 1], np.uint8))
        zero = np.array(measure_shift(record))
        found = np.array(measure_shift(moved(record, down, right)))
        np.testing.assert_allclose(found - zero, (down, right), atol=0.08)
        np.testing.assert_allclose(zero, 0, atol=0.25)


def test_the_common_shift_is_told_with_its_error(drawn):
    found = common_shift([measure_shift(moved(record, -0.7, -0.4)) for record in drawn])
    assert (found.down, found.right) == pytest.approx((-0.7, -0.4), abs=0.1)
    assert found.images == 6 and found.error < 0.1
    assert common_shift([measure_shift(record) for record in drawn]) is None


def test_what_is_small_or_chance_or_seen_in_few_images_is_no_shift(rng):
    assert common_shift([(-0.7, -0.4)] * 4) is None and common_shift([(-0.7, -0.4)] * 5) is not None
    assert common_shift([(0.15, -0.15)] * 50) is None
    assert common_shift([(0.3, 0.0)] * 50) is not None
    scattered = [tuple(shift) for shift in rng.normal(0.4, 2, (30, 2))]
    assert common_shift(scattered) is None


def test_images_that_do_not_show_their_labels_are_left_out(drawn, rng):
    record = drawn[0]
    noise = dataclasses.replace(record, image=rng.integers(0, 256, record.image.shape, np.uint8))
    flat = dataclasses.replace(record, image=np.full_like(record.image, 200))
    other = dataclasses.replace(record, image=drawn[1].image)
    nothing = dataclasses.replace(
        record, layers=record.layers * 0, classes=record.classes[:0], crowd=None, annotated=None
    )
    tiny = dataclasses.replace(
        nothing, image=np.zeros((9, 9, 3), np.uint8), layers=np.zeros((1, 9, 9), np.uint16)
    )
    for wrong in (noise, flat, other, nothing, tiny):
        assert measure_shift(wrong) is None
