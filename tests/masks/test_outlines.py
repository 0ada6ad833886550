"""Polygons of masks against shapely: valid, of the mask's area, and the same mask when drawn again."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from maskrcnn_jax.masks.outlines import outlines

RING = np.ones((3, 3), bool)
RING[1, 1] = False


def polygons(mask):
    return [shapely.Polygon(rings[0], rings[1:]) for rings in outlines(mask)]


def drawn(shapes, size):
    """Whether the centre of each pixel lies in one of them."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return shapely.contains_xy(shapely.MultiPolygon(shapes), x.ravel(), y.ravel()).reshape(size)


@settings(max_examples=500, deadline=None)
@example(~np.eye(5, dtype=bool))  # a chain of holes that touch each other and the border
@example(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool))  # a hole that touches the outside
@example(np.kron(np.array([[1, 0], [0, 1]], bool), RING))  # two rings that touch
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_polygons_are_valid_and_are_the_mask(mask):
    shapes = polygons(mask)
    assert len(shapes) == ndimage.label(mask)[1]
    assert shapely.MultiPolygon(shapes).is_valid
    for shape in shapes:
        assert shape.is_valid and shape.exterior.is_ccw
        assert not any(hole.is_ccw for hole in shape.interiors)
    assert sum(shape.area for shape in shapes) == mask.sum()
    np.testing.assert_array_equal(drawn(shapes, mask.shape), mask)


def test_corners_are_the_only_points():
    assert outlines(np.ones((2, 3), bool)) == [[[(0, 0), (3, 0), (3, 2), (0, 2), (0, 0)]]]
    assert outlines(np.array([[False, True]])) == [[[(1, 0), (2, 0), (2, 1), (1, 1), (1, 0)]]]


def test_hole_and_what_lies_in_it():
    mask = np.pad(np.pad(np.ones((1, 1), bool), 1), 1, constant_values=True)
    outer, inner = sorted(polygons(mask), key=lambda shape: -shape.area)
    assert (outer.area, outer.interiors[0].envelope.area, inner.area) == (16, 9, 1)


@pytest.mark.parametrize("shape", [(0, 0), (3, 4)])
def test_nothing_has_no_polygons(shape):
    assert outlines(np.zeros(shape, bool)) == []
