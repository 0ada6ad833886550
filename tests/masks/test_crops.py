"""Masks as bits against the full masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskrcnn_jax.masks import crops as module
from maskrcnn_jax.masks.crops import crops_of, crops_of_pixels, crops_of_runs, join, pack

SIZE = (11, 30)


def encode(mask):
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))


def sparse(seed, count):
    """Masks of any extent, some empty, with holes."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *SIZE), bool)
    for mask in masks:
        (top, bottom), (left, right) = (np.sort(rng.integers(0, side + 1, 2)) for side in SIZE)
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0.1, 0.9])
    return masks


def drawn(crops):
    full = np.zeros((len(crops), *SIZE), bool)
    for n, (top, left, bottom, right) in enumerate(crops.rectangles.tolist()):
        full[n, top:bottom, left:right] = crops.pixels(n)
    return full


def assert_are(crops, masks):
    np.testing.assert_array_equal(drawn(crops), masks)
    assert crops.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
    assert crops.rles(SIZE) == [encode(mask) for mask in masks]
    for n, mask in enumerate(masks):
        y, x = np.nonzero(mask)
        tight = [y.min(), x.min(), y.max() + 1, x.max() + 1] if len(y) else [0] * 4
        assert crops.rectangles[n].tolist() == tight


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 6))
def test_from_run_lengths_windows_and_pixels(seed, count):
    masks = sparse(seed, count)
    crops = crops_of([encode(mask) for mask in masks])
    assert_are(crops, masks)
    assert_are(pack(masks, np.zeros((count, 2), int)), masks)
    parts = [crops.pixels(n) for n in range(count)]
    framed = [np.pad(part, 1) for part in parts]
    assert_are(crops_of_pixels(framed, crops.rectangles[:, :2] - 1), masks)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.data())
def test_taken_joined_and_moved(seed, data):
    masks = sparse(seed, 6)
    crops = crops_of([encode(mask) for mask in masks])
    rows = np.array(data.draw(st.lists(st.integers(0, 5), max_size=8)), int)
    assert_are(crops.take(rows), masks[rows])
    assert_are(join([crops.take(rows), join([]), crops]), np.concatenate([masks[rows], masks]))
    there = crops.moved(7, 90_000)
    solid = crops.areas > 0
    np.testing.assert_array_equal((there.rectangles - crops.rectangles)[solid] == [7, 90_000] * 2, True)
    assert_are(there.moved(-7, -90_000), masks)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 9))
def test_runs_of_pixels(seed, count):
    """Masks without runs, runs that end a row, and rows that end a word of bits."""
    masks = sparse(seed, count)
    steps = np.diff(masks.astype(np.int8), axis=2, prepend=0, append=0)
    (owner, row, start), (*_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    assert_are(crops_of_runs(owner, row, start, end, count), masks)


def test_many_are_taken_part_by_part(monkeypatch, rng):
    monkeypatch.setattr(module, "_TAKEN", 4)
    masks = sparse(7, 10)
    crops = crops_of([encode(mask) for mask in masks])
    for count in (0, 4, 9, 17):
        rows = rng.integers(0, 10, count)
        assert_are(crops.take(rows), masks[rows])
