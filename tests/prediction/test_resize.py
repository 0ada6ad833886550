"""Resizing: the sides that come out, and Detectron2's pixels."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from maskrcnn_jax.prediction.resize import interpolate, resize_shortest_edge, target_size_down


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


@pytest.mark.parametrize("size", [(20, 30), (33, 47), (9, 70), (1, 1)])
def test_torchvisions_pixels_lie_between_four(rng, size):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    points = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, image.shape, strict=False)]
    rows, columns = np.meshgrid(*points, indexing="ij")
    expected = [
        map_coordinates(image[..., c].astype(float), [rows, columns], order=1, mode="nearest")
        for c in range(3)
    ]
    resized = interpolate(image, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, np.stack(expected, axis=-1), atol=1e-3)


def test_torchvision_rounds_sides_down():
    assert target_size_down(96, 118, 128, 1333) == (128, 157)  # 157.3
    assert target_size_down(100, 300, 800, 1333) == (444, 1333)  # 444.3
    assert target_size_down(3, 2, 5, 100) == (7, 5)
