"""Anchors: their order, their shapes, and Detectron2's numbers."""

import numpy as np
import pytest

from maskrcnn_jax.ops.anchors import grid_anchors


def test_shapes_and_centres():
    anchors = np.asarray(
        grid_anchors(2, 3, stride=16, sizes=(8, 32), ratios=(0.5, 1, 2), offset=0.5), np.float64
    )
    anchors = anchors.reshape(2, 3, 2, 3, 4)  # row, column, size, ratio
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = (anchors[..., 2:] + anchors[..., :2]) / 2
    for row, column, size, ratio in np.ndindex(2, 3, 2, 3):
        width, height = sides[row, column, size, ratio]
        assert width * height == pytest.approx((8, 32)[size] ** 2, rel=1e-5)
        assert height / width == pytest.approx((0.5, 1, 2)[ratio], rel=1e-5)
        expected = [(column + 0.5) * 16, (row + 0.5) * 16]
        np.testing.assert_allclose(centres[row, column, size, ratio], expected, atol=1e-5)


def test_without_offset_the_first_anchor_is_centred_on_the_corner():
    assert grid_anchors(1, 1, stride=4, sizes=(10,), ratios=(1,)).tolist() == [[-5, -5, 5, 5]]


def test_an_empty_map_has_no_anchors():
    assert grid_anchors(0, 5, stride=4, sizes=(10,), ratios=(1,)).shape == (0, 4)


def test_anchors_are_detectron2s_to_the_bit(golden):
    data = golden("comp_anchors")
    one = grid_anchors(3, 4, stride=16, sizes=(8, 16, 32, 64, 128), ratios=(0.5, 1, 2))
    np.testing.assert_array_equal(one, data["seed_anchors"])
    fine = grid_anchors(4, 3, stride=4, sizes=(32,), ratios=(0.5, 1, 2), offset=0.5)
    coarse = grid_anchors(2, 2, stride=8, sizes=(64,), ratios=(0.5, 1, 2), offset=0.5)
    np.testing.assert_array_equal(np.concatenate([fine, coarse]), data["two_levels_anchors"])


@pytest.mark.parametrize(
    "model, strides, sizes",
    [
        ("c4_train", [16], [(8, 16, 32, 64, 128)]),
        ("fpn_train", [4, 8, 16, 32, 64], [(16,), (32,), (64,), (128,), (256,)]),
    ],
)
def test_anchors_of_whole_models_are_detectron2s(golden, model, strides, sizes):
    levels = [
        grid_anchors(256 // stride, 320 // stride, stride=stride, sizes=size, ratios=(0.5, 1, 2))
        for stride, size in zip(strides, sizes, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(levels), golden(model)["anchors"])


def test_whole_pixels_and_two_strides():
    """torchvision rounds corners around a cell's centre, and may step by other numbers down and across."""
    anchors = grid_anchors(2, 2, stride=np.array([48, 64]), sizes=(32,), ratios=(0.5,), rounding=True)
    width, height = 32 / 0.5**0.5 / 2, 32 * 0.5**0.5 / 2  # 22.63 and 11.31
    assert (round(width), round(height)) == (23, 11)
    one = np.array([-23, -11, 23, 11])
    expected = [one + np.array([x, y, x, y]) for y in (0, 48) for x in (0, 64)]
    np.testing.assert_array_equal(anchors, expected)
