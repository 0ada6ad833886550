"""Pasting against one that samples every pixel of the image, against Detectron2, and at the borders."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from pycocotools import mask as coco
from scipy.ndimage import map_coordinates

from maskrcnn_jax.masks import pasting
from maskrcnn_jax.masks.pasting import paste
from maskrcnn_jax.masks.rle import crop_of_rle


def encode(mask):
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def paste_rle(masks, boxes, size):
    return paste(masks, boxes, size).rles(size)


def paste_everywhere(mask, box, size):
    """Every pixel of the image from its four nearest cells, in float64; cells outside the mask are 0."""
    x0, y0, x1, y1 = box.astype(np.float64)
    cells = np.pad(mask.astype(np.float64), 1)
    pasted = np.zeros(size)
    for i, j in np.ndindex(size):
        v = (i + 0.5 - y0) / (y1 - y0) * len(mask) + 0.5
        u = (j + 0.5 - x0) / (x1 - x0) * len(mask) + 0.5
        if 0 <= u < len(mask) + 1 and 0 <= v < len(mask) + 1:
            row, column = int(v), int(u)
            down, right = v - row, u - column
            near = cells[row : row + 2, column : column + 2]
            pasted[i, j] = [1 - down, down] @ near @ [1 - right, right]
    return pasted


coordinates = st.floats(-30, 60, width=32)
sides = st.one_of(st.floats(0.0625, 3, width=32), st.floats(3, 60, width=32))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), coordinates, coordinates, sides, sides)
def test_equals_pasting_into_the_whole_image(seed, x, y, width, height):
    mask = np.random.default_rng(seed).uniform(0, 1, (5, 5)).astype(np.float32)
    box, size = np.array([x, y, x + width, y + height], np.float32), (23, 31)
    soft = paste_everywhere(mask, box, size)
    assume((np.abs(soft - 0.5) > 1e-4).all())
    assert paste_rle(mask[None], box[None], size) == [encode(soft > 0.5)]


def test_several_masks_keep_their_order(rng):
    masks = rng.uniform(0, 1, (4, 6, 6)).astype(np.float32)
    boxes = np.array([[1, 2, 9, 8], [0, 0, 20, 15], [-4, 3, 5, 30], [2, 2, 3, 3]], np.float32)
    alone = [paste_rle(mask[None], box[None], (15, 20))[0] for mask, box in zip(masks, boxes, strict=True)]
    assert paste_rle(masks, boxes, (15, 20)) == alone


def test_sizes_and_company_change_nothing(rng, monkeypatch):
    """Masks are pasted in groups of similar size: each as it is alone, however many a group has."""
    corners, sides = rng.uniform(-20, 200, (60, 2)), rng.choice([0.5, 6, 15, 70, 150], (60, 2))
    boxes = np.concatenate([corners, corners + sides * rng.uniform(0.8, 1.2, (60, 2))], axis=1).astype(
        np.float32
    )
    masks = rng.uniform(0, 1, (60, 14, 14)).astype(np.float32)
    alone = [paste_rle(mask[None], box[None], (190, 210))[0] for mask, box in zip(masks, boxes, strict=True)]
    for chunk in (pasting._CHUNK, 1, 3000):
        monkeypatch.setattr(pasting, "_CHUNK", chunk)
        assert paste_rle(masks, boxes, (190, 210)) == alone


@pytest.mark.parametrize("side", [3, 20, 61, 140])
def test_bits_are_those_of_all_pixels_computed(rng, side):
    """At the sizes that models have: every pixel of every box by SciPy, noise included."""
    masks = rng.uniform(0, 1, (12, 28, 28)).astype(np.float32)
    corners = rng.uniform(-side / 2, 150, (12, 2))
    boxes = np.concatenate([corners, corners + side * rng.uniform(0.7, 1.3, (12, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    crops = paste(masks, boxes, (160, 170))
    for n, (mask, (x0, y0, x1, y1)) in enumerate(zip(masks, boxes.astype(float), strict=True)):
        top, left, bottom, right = crops.rectangles[n]
        found = np.zeros((160, 170), bool)
        found[top:bottom, left:right] = crops.pixels(n)
        v = (np.arange(160) + 0.5 - y0) / (y1 - y0) * 28 - 0.5
        u = (np.arange(170) + 0.5 - x0) / (x1 - x0) * 28 - 0.5
        soft = map_coordinates(
            np.pad(mask.astype(float), 1), np.meshgrid(v + 1, u + 1, indexing="ij"), order=1
        )
        clear = np.abs(soft - 0.5) > 1e-5
        np.testing.assert_array_equal((soft > 0.5)[clear], found[clear])
        assert clear.mean() > 0.99


def test_no_detections():
    assert paste_rle(np.zeros((0, 14, 14), np.float32), np.zeros((0, 4), np.float32), (20, 30)) == []


@pytest.mark.parametrize(
    "box",
    [
        [-20, -20, -5, -5],
        [40, 5, 60, 15],
        [5, 20, 15, 30],
        [0, 0, 0, 0],
        [7, 7, 7, 12],
        [9, 4, 6, 8],
        [10.6, 10.6, 11.4, 11.4],  # between pixel centres
        [np.nan] * 4,
    ],
)
def test_nothing_to_paste_is_an_empty_mask(box):
    code = paste_rle(np.ones((1, 7, 7)), np.array([box]), (20, 40))[0]
    assert code["size"] == [20, 40] and coco.area(code) == 0


def test_thinner_than_a_pixel():
    """A box that is a sliver still marks the pixels whose centres it holds."""
    code = paste_rle(np.ones((1, 7, 7)), np.array([[3.4, 2, 3.6, 6]]), (9, 9))[0]
    expected = np.zeros((9, 9), np.uint8)
    expected[2:6, 3] = 1
    assert code == encode(expected)


@pytest.mark.parametrize("cells", [14, 28])
def test_bits_are_detectron2s(golden, cells):
    data = golden("comp_paste")
    found = paste_rle(data[f"probs_{cells}"], data["boxes"], (70, 90))
    assert found == [encode(bits) for bits in data[f"bits_{cells}"]]


def paste_whole(mask, box, size):
    """torchvision's way, pixel by pixel: a rim of zeros, whole pixels, bilinear with the border held."""
    cells = np.pad(mask.astype(np.float64), 1)
    scale = len(cells) / len(mask)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    (x0, y0), (x1, y1) = np.trunc(centre - half).astype(int), np.trunc(centre + half).astype(int)
    pasted = np.zeros(size)
    for i, j in np.ndindex(size):
        if y0 <= i <= y1 and x0 <= j <= x1:
            v = (i - y0 + 0.5) * len(cells) / (y1 - y0 + 1) - 0.5
            u = (j - x0 + 0.5) * len(cells) / (x1 - x0 + 1) - 0.5
            pasted[i, j] = map_coordinates(cells, [[v], [u]], order=1, mode="nearest")[0]
    return pasted


def test_whole_pixels_as_torchvision_pastes(rng):
    size, masks = (30, 40), rng.random((6, 5, 5)).astype(np.float32)
    boxes = np.array(
        [
            (3.3, 4.6, 20.2, 17.9),
            (-3.5, -2.2, 12.5, 9.1),
            (30, 20, 40, 30),
            (5.5, 6.25, 6.0, 7.0),
            (0, 0, 40, 30),
            (10.1, 2, 11.9, 29.5),
        ],
        np.float32,
    )
    pasted = paste(masks, boxes, size, whole_pixels=True).rles(size)
    for rle, mask, box in zip(pasted, masks, boxes, strict=True):
        expected = paste_whole(mask, box.astype(np.float64), size)
        sure = np.abs(expected - 0.5) > 1e-5
        crop, top, left = crop_of_rle(rle)
        whole = np.zeros(size, bool)
        whole[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        np.testing.assert_array_equal(whole[sure], (expected >= 0.5)[sure])
