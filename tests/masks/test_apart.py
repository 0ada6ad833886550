"""Masks apart: a pixel has one owner, and nothing small is left over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from maskrcnn_jax.masks.apart import apart
from maskrcnn_jax.masks.crops import pack

SIZE = (20, 26)


def crops(masks):
    return pack(np.asarray(masks), np.zeros((len(masks), 2), int))


def drawn(crops):
    full = np.zeros((len(crops), *SIZE), bool)
    for n, (top, left, bottom, right) in enumerate(crops.rectangles.tolist()):
        full[n, top:bottom, left:right] = crops.pixels(n)
    return full


def blank(count):
    return np.zeros((count, *SIZE), bool)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 8))
def test_each_pixel_has_one_owner_and_no_object_is_a_sliver(seed, count):
    rng = np.random.default_rng(seed)
    masks = blank(count)
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in SIZE)
        mask[top:bottom, left:right] = True
    found = drawn(apart(crops(masks)))
    assert (found.sum(axis=0) <= 1).all() and (found <= masks).all()
    taken = np.zeros(SIZE, bool)
    for mask, one in zip(masks, found, strict=True):
        free = mask & ~taken
        assert ndimage.label(one)[1] <= 1
        assert not one.any() or one.sum() >= mask.sum() / 5
        pieces = ndimage.label(free)[0]
        largest = np.bincount(pieces.ravel())[1:].max(initial=0)
        assert one.sum() in (largest, 0) and (one.any() or largest < mask.sum() / 5 or not mask.any())
        taken |= one


@pytest.mark.parametrize(("rows", "stays"), [(15, True), (17, False)])
def test_less_than_a_fifth_goes(rows, stays):
    masks = blank(2)
    masks[0, :rows] = masks[1] = True
    assert drawn(apart(crops(masks)))[1].any() == stays


def test_slivers_on_the_far_side_go_and_are_free_for_the_next():
    masks = blank(3)
    masks[0, :, 10:14] = True
    masks[1, 5:10, 8:20] = True  # two columns on one side of the first, six on the other
    masks[2, :, 6:10] = True
    found = drawn(apart(crops(masks)))
    assert found[1].sum() == 30 and not found[1][:, :10].any()
    np.testing.assert_array_equal(found[2], masks[2])


def test_what_nobody_contests_stays_even_in_pieces():
    masks = blank(2)
    masks[0, 2, [3, 9]] = masks[1, 5] = True
    np.testing.assert_array_equal(drawn(apart(crops(masks))), masks)
