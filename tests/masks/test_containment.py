"""Suppression of parts against comparing each mask with all better ones, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskrcnn_jax.masks.containment import not_contained
from maskrcnn_jax.masks.crops import crops_of


def crops(masks):
    return crops_of([coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks])


def slow(masks, scores, classes, share):
    kept = []
    for n in np.argsort(-scores, kind="stable"):
        better = [m for m in kept if classes[m] == classes[n]]
        if not any((masks[n] & masks[m]).sum() > share * masks[n].sum() for m in better):
            kept.append(n)
    return sorted(kept)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 14), st.sampled_from([0.01, 0.5, 0.7, 1.0]))
def test_equals_comparing_each_with_all_better_ones(seed, count, share):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, 20, 24), bool)
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in mask.shape)
        mask[top:bottom, left:right] = True
    scores = rng.choice([0.2, 0.5, 0.9], count)  # ties
    classes = rng.integers(0, 2, count)
    kept = not_contained(crops(masks), scores, classes, share)
    assert kept.tolist() == slow(masks, scores, classes, share)
    if share == 1:
        assert len(kept) == count


@pytest.mark.parametrize("share, kept", [(0.7, [0, 2]), (0.8, [0, 1, 2])])
def test_a_part_goes_where_more_than_the_share_lies_inside(share, kept):
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10] = True
    masks[1, 2:12, 5] = True  # 8 of 10 pixels inside
    masks[2, 15:] = True
    assert not_contained(crops(masks), np.array([0.9, 0.8, 0.7]), np.zeros(3, int), share).tolist() == kept


def test_what_is_gone_drops_nothing_and_a_better_part_stays():
    masks = np.zeros((3, 10, 10), bool)
    masks[0, :, :6] = True
    masks[1, :, 2:8] = True  # two thirds inside the first
    masks[2, :, 6:8] = True  # inside the second alone
    scores, classes = np.array([0.9, 0.8, 0.7]), np.zeros(3, int)
    assert not_contained(crops(masks), scores, classes, 0.6).tolist() == [0, 2]
    assert not_contained(crops(masks), scores[::-1], classes, 0.6).tolist() == [1, 2]
