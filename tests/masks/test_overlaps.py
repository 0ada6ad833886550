"""Sparse overlaps against comparing each mask with each, pixel by pixel."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskrcnn_jax.masks import overlaps
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.overlaps import cut, overlapping, shared_pixels, vote


def encode(mask):
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def random_masks(seed, count, size=(24, 31)):
    """Rectangles full of holes; some are empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in size)
        part = mask[top:bottom, left:right]
        part[:] = rng.random(part.shape) < rng.choice([0, 0.3, 1])
    return masks


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 12))
def test_pairs_and_their_pixels(seed, count):
    masks = random_masks(seed, count)
    crops = crops_of([encode(mask) for mask in masks])
    pairs = overlapping(crops.rectangles)
    found = dict(zip(map(tuple, pairs.tolist()), shared_pixels(crops, pairs).tolist(), strict=True))
    assert len(found) == len(pairs)
    for n in range(count):
        for m in range(n + 1, count):
            assert found.get((n, m), 0) == (masks[n] & masks[m]).sum()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([1, 4, 256]))
def test_pairs_are_those_with_common_area(monkeypatch, seed, rows):
    """However many bands a rectangle is in."""
    monkeypatch.setattr(overlaps, "_ROWS", rows)
    rng = np.random.default_rng(seed)
    rectangles = np.sort(rng.integers(0, 12, (15, 2, 2)), axis=1).reshape(15, 4)  # some without area
    expected = []
    for n in range(15):
        for m in range(n + 1, 15):
            low = np.maximum(rectangles[n, :2], rectangles[m, :2])
            high = np.minimum(rectangles[n, 2:], rectangles[m, 2:])
            if (high > low).all():
                expected.append([n, m])
    assert sorted(overlapping(rectangles).tolist()) == expected


def test_chunks_change_nothing(monkeypatch, rng):
    corners = rng.integers(0, 100, (300, 2))
    rectangles = np.concatenate([corners, corners + rng.integers(0, 12, (300, 2))], axis=1)
    at_once = overlapping(rectangles)
    assert len(at_once) > 300
    for chunk in (1, 7, 299, 300):
        monkeypatch.setattr(overlaps, "_CHUNK", chunk)
        np.testing.assert_array_equal(overlapping(rectangles), at_once)
    assert overlapping(np.zeros((0, 4), np.int64)).shape == (0, 2)


def test_rows_of_many_words(rng):
    """Masks wider than the bits of a word, at all places within a byte."""
    masks = np.zeros((9, 5, 400), bool)
    for n, mask in enumerate(masks):
        mask[n // 3 : 4, 13 * n : 250 + 7 * n] = rng.random((4 - n // 3, 250 - 6 * n)) < 0.8
    crops = crops_of([encode(mask) for mask in masks])
    pairs = np.array([(n, m) for n in range(9) for m in range(n)])
    assert shared_pixels(crops, pairs).tolist() == [(masks[n] & masks[m]).sum() for n, m in pairs]


def test_cut_keeps_what_lies_in_the_window(rng):
    mask = np.zeros((20, 20), bool)
    mask[5:12, 3:9] = rng.random((7, 6)) < 0.5
    mask[5, 3] = mask[11, 8] = True
    crops = crops_of([encode(mask)])
    for top, left, bottom, right in (
        (0, 0, 20, 20),
        (6, 0, 8, 5),
        (7, 7, 20, 20),
        (0, 0, 3, 3),
        (13, 10, 20, 20),
    ):
        assert cut(crops, 0, (top, left, bottom, right)).sum() == mask[top:bottom, left:right].sum()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0, 0.3, 0.5, 1]))
def test_vote(seed, share):
    masks = random_masks(seed, 4)
    weights = np.random.default_rng(seed).integers(1, 4, 4) / 10
    votes = (weights[:, None, None] * masks).sum(axis=0)
    expected = votes > 0 if share == 0 else votes >= share * weights.sum() - 1e-6
    found = vote(crops_of([encode(m) for m in masks]), range(4), weights, share)
    assert found.rles((24, 31)) == [encode(expected)]
