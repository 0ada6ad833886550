"""Encodings from crops and label maps against pycocotools' encoding of the full masks."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskrcnn_jax.masks.rle import crop_of_rle, rle_of_crop, rles_of_labels

sides = st.integers(0, 9)
image_sides = st.integers(1, 9)
masks = arrays.arrays(bool, st.tuples(sides, sides))


def encode(mask):
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def paste(crop, top, left, size):
    """One pixel at a time."""
    full = np.zeros(size, bool)
    for (i, j), value in np.ndenumerate(crop):
        if 0 <= top + i < size[0] and 0 <= left + j < size[1]:
            full[top + i, left + j] = value
    return full


@settings(max_examples=500, deadline=None)
@given(masks, st.integers(-12, 12), st.integers(-12, 12), st.tuples(image_sides, image_sides))
def test_crop_encodes_as_the_pasted_mask_does(crop, top, left, size):
    assert rle_of_crop(crop, top, left, size) == encode(paste(crop, top, left, size))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (5, 6)])
@pytest.mark.parametrize("value", [False, True])
def test_crop_that_is_the_whole_image(size, value):
    mask = np.full(size, value)
    assert rle_of_crop(mask, 0, 0, size) == encode(mask)


def test_crop_of_a_large_image_in_its_last_corner():
    """Runs longer than 16 bits, and an empty last run."""
    size = (1200, 1000)
    crop = np.ones((3, 4), bool)
    assert rle_of_crop(crop, 1197, 996, size) == encode(paste(crop, 1197, 996, size))


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 4)))
def test_label_map_encodes_each_instance(labels):
    expected = [encode(labels == n + 1) for n in range(4)]
    assert rles_of_labels(labels[None], 4) == expected


def test_layers_hold_instances_that_overlap():
    layers = np.zeros((2, 6, 5), np.uint16)
    layers[0, 1:4, 1:4] = 2
    layers[1, 2:6, 0:3] = 1
    layers[1, 0, 4] = 3
    expected = [encode(layers[1] == 1), encode(layers[0] == 2), encode(layers[1] == 3)]
    assert rles_of_labels(layers, 3) == expected


def test_no_instances():
    assert rles_of_labels(np.zeros((1, 4, 4), np.uint16), 0) == []


def test_label_above_the_count_is_refused():
    with pytest.raises(ValueError, match="label 3 is above the number of instances, 2"):
        rles_of_labels(np.full((1, 2, 2), 3, np.uint16), 2)


def test_instance_in_two_layers_is_refused():
    with pytest.raises(ValueError, match=r"labels \[1\] have pixels in more than one layer"):
        rles_of_labels(np.ones((2, 2, 2), np.uint16), 1)


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(bool, st.tuples(image_sides, image_sides)))
def test_crop_of_rle_is_the_tight_crop(mask):
    crop, top, left = crop_of_rle(encode(mask))
    np.testing.assert_array_equal(paste(crop, top, left, mask.shape), mask)
    if mask.any():
        assert all(side.any() for side in (crop[0], crop[-1], crop[:, 0], crop[:, -1]))
    else:
        assert crop.size == 0


def test_crop_of_rle_reads_long_runs_and_text(rng):
    mask = rng.random((1500, 1100)) < 0.001
    mask[200:700, 300:900] = True
    code = encode(mask)
    crop, top, left = crop_of_rle({**code, "counts": code["counts"].decode()})
    full = np.zeros_like(mask)
    full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    np.testing.assert_array_equal(full, mask)


@pytest.mark.parametrize("corner", [(0, 0), (94_000, 99_990), (41_000, 70_123)])
def test_slides_of_more_pixels_than_32_bits_count(rng, corner):
    mask = rng.random((30, 10)) < 0.7
    mask[[0, -1]] = mask[:, [0, -1]] = True  # so that its tight box is known
    crop, top, left = crop_of_rle(rle_of_crop(mask, *corner, (95_000, 100_000)))
    assert (top, left) == corner
    np.testing.assert_array_equal(crop, mask)
