"""Resizing: the sides that come out, and Detectron2's pixels."""

import numpy as np
import pytest

from maskrcnn_jax.prediction.resize import resize_shortest_edge


@pytest.mark.parametrize(
    "shape, short, longest, expected",
    [
        ((100, 200), 50, 1000, (50, 100)),
        ((200, 100), 50, 1000, (100, 50)),
        ((100, 100), 130, 1000, (130, 130)),
        ((100, 200), 150, 240, (120, 240)),  # the longer side decides
        ((200, 100), 150, 240, (240, 120)),
        ((3, 2), 5, 100, (8, 5)),  # 7.5 rounds up
        ((1, 1), 1, 1, (1, 1)),
        ((1, 900), 10, 300, (1, 300)),  # a third of a pixel is one
    ],
)
def test_sides(shape, short, longest, expected):
    image = np.full((*shape, 3), 77, np.uint8)
    resized = resize_shortest_edge(image, short, longest)
    assert resized.shape == (*expected, 3) and resized.dtype == np.uint8
    assert (resized == 77).all()


def test_the_same_size_changes_nothing(rng):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(resize_shortest_edge(image, 20, 100), image)


@pytest.mark.parametrize(
    "short, longest", [(100, 1333), (64, 1333), (37, 1333), (160, 1333), (150, 180), (60, 70)]
)
def test_pixels_are_detectron2s(golden, short, longest):
    data = golden("comp_resize")
    resized = resize_shortest_edge(data["image_bgr"], short, longest)
    np.testing.assert_array_equal(resized, data[f"short{short}_max{longest}"])
