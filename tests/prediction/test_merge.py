"""The rules of merging, one by one, on two tiles side by side: columns 0 to 100 and 80 to 180."""

import tracemalloc

import numpy as np
import pytest

from maskrcnn_jax.masks.crops import crops_of, crops_of_pixels
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.prediction import merge
from maskrcnn_jax.prediction.merge import merge_tiles, settle_tiles
from maskrcnn_jax.prediction.seams import Tile
from maskrcnn_jax.prediction.tiling import tile_grid

SIZE = (60, 180)
LEFT, RIGHT = Tile(0, 0, 60, 100), Tile(0, 80, 60, 100)


def detections(*rows):
    """A result of rectangles: (x0, x1, score), or with y0, y1 and class."""
    rows = [(*row, 20, 30, 0)[:6] if len(row) == 3 else row for row in rows]
    boxes = np.array([(x0, y0, x1, y1) for x0, x1, _, y0, y1, _ in rows], np.float32).reshape(-1, 4)
    masks = [rle_of_crop(np.ones((y1 - y0, x1 - x0), bool), y0, x0, SIZE) for x0, x1, _, y0, y1, _ in rows]
    scores, classes = (np.array([row[i] for row in rows]) for i in (2, 5))
    return Result(boxes, scores.astype(np.float32), classes.astype(np.int32), crops_of(masks), SIZE)


def merged(left, right, tiles=(LEFT, RIGHT)):
    result = merge_tiles([detections(*left), detections(*right)], tiles, SIZE)
    return [
        (int(x0), int(x1), round(float(score), 4))
        for (x0, _, x1, _), score in zip(result.boxes, result.scores, strict=True)
    ]


def test_best_first():
    assert merged([(5, 15, 0.3), (30, 40, 0.9)], [(120, 130, 0.5)]) == [
        (30, 40, 0.9),
        (120, 130, 0.5),
        (5, 15, 0.3),
    ]


def test_cut_ones_belong_to_the_neighbour_that_sees_them_whole():
    assert merged([(94, 100, 0.9)], [(94, 108, 0.4)]) == [(94, 108, 0.4)]
    assert merged([(70, 84, 0.4)], [(80, 84, 0.9)]) == [(70, 84, 0.4)]
    # Also if the neighbour, which sees better, does not find anything there.
    assert merged([(94, 100, 0.9)], []) == []


def test_the_tile_with_more_clearance_owns_what_both_see():
    assert merged([(84, 88, 0.1)], [(84, 88, 0.9)]) == [(84, 88, 0.1)]
    assert merged([(92, 96, 0.9)], [(92, 96, 0.1)]) == [(92, 96, 0.1)]


def test_in_the_middle_the_better_score_stays():
    assert merged([(86, 94, 0.7)], [(87, 94, 0.8)]) == [(87, 94, 0.8)]
    assert merged([(86, 94, 0.8)], [(87, 94, 0.7)]) == [(86, 94, 0.8)]
    # One tile sees two where the other sees one.
    assert merged([(85, 95, 0.8)], [(86, 90, 0.7), (90, 94, 0.6)]) == [(85, 95, 0.8)]


def test_neighbours_that_overlap_a_little_are_two():
    assert len(merged([(86, 94, 0.7, 10, 20, 0)], [(86, 94, 0.7, 18, 28, 0)])) == 2


def test_what_one_tile_tells_apart_stays_apart():
    pair = [(86, 94, 0.9), (87, 94, 0.8)]
    assert merged(pair, []) == merged(pair, [(86, 94, 0.7)]) == pair


def test_what_both_tiles_tell_apart_stays_apart():
    """A small one on a large one, of which each tile is the owner of one."""
    large, small = (85, 95, 0.9), (90, 94, 0.5, 22, 26, 0)
    assert merged([large, small], [(85, 95, 0.8), small]) == [large, small[:3]]
    assert merged([large], [small]) == [large]


def test_classes_do_not_meet():
    assert len(merged([(86, 94, 0.7, 20, 30, 0)], [(86, 94, 0.7, 20, 30, 1)])) == 2
    assert len(merged([(40, 100, 0.7, 20, 30, 0)], [(80, 160, 0.7, 20, 30, 1)])) == 2


def test_pieces_of_one_object_become_one():
    found = merged([(40, 100, 0.9)], [(80, 160, 0.5)])
    assert found == [(40, 160, round((0.9 * 60 + 0.5 * 80) / 140, 4))]
    # A box that ends a little before the border has been cut, too.
    assert merged([(40, 97, 0.5)], [(82, 160, 0.5)]) == [(40, 160, 0.5)]


def test_pieces_that_differ_are_two():
    """They share less than half of what both tiles saw of them."""
    assert len(merged([(40, 100, 0.9, 10, 20, 0)], [(80, 160, 0.5, 16, 26, 0)])) == 2


def test_a_piece_without_a_partner_stays():
    assert merged([(40, 100, 0.9)], []) == [(40, 100, 0.9)]


def test_whole_ones_before_cut_ones():
    """The right tile has cut what the left one sees just so, and is surer of it."""
    assert merged([(60, 95, 0.3)], [(80, 95, 0.9)]) == [(60, 95, 0.3)]


def test_tiles_without_a_neighbour_keep_all():
    """The neighbour was blank glass and has not been looked at."""
    result = merge_tiles([detections((94, 100, 0.9), (2, 9, 0.1))], [LEFT], SIZE)
    assert result.scores.tolist() == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_detections(count):
    tiles = [LEFT, RIGHT][:count]
    result = merge_tiles([detections()] * count, tiles, SIZE)
    assert len(result) == 0 and result.boxes.shape == (0, 4) and result.size == SIZE


def test_masks_without_pixels_do_not_disturb():
    empty = detections((90, 90, 0.5))
    result = merge_tiles([empty, detections((87, 94, 0.8))], [LEFT, RIGHT], SIZE)
    assert result.scores.tolist() == pytest.approx([0.8, 0.5])


def test_four_tiles_meet_in_a_corner():
    size = (180, 180)
    tiles = [Tile(top, left, 100, 100) for top in (0, 80) for left in (0, 80)]
    disc = np.hypot(*(np.mgrid[:180, :180] - 89.5)) <= 30
    parts = []
    for tile in tiles:
        seen = np.zeros(size, bool)
        window = slice(tile.top, tile.top + 100), slice(tile.left, tile.left + 100)
        seen[window] = disc[window]
        y, x = np.nonzero(seen)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        parts.append(
            Result(
                box,
                np.full(1, 0.5, np.float32),
                np.zeros(1, np.int32),
                crops_of([rle_of_crop(seen, 0, 0, size)]),
                size,
            )
        )
    result = merge_tiles(parts, tiles, size)
    assert result.masks == [rle_of_crop(disc, 0, 0, size)]
    assert result.boxes.tolist() == [[60, 60, 120, 120]]


def test_take_and_concatenate():
    both = concatenate([detections((1, 2, 0.1)), detections(), detections((3, 5, 0.2), (6, 7, 0.3))], SIZE)
    swapped = both.take(np.array([2, 0]))
    assert swapped.boxes[:, 0].tolist() == [6, 1] and swapped.masks == [both.masks[2], both.masks[0]]
    assert (swapped.scores.dtype, swapped.classes.dtype) == (np.float32, np.int32)


def jittered(rng, tiles, size, count, radius):
    """Ellipses that each tile sees a little elsewhere, or not at all; few scores, two classes."""
    centres, radii = rng.uniform(0, size, (count, 2)), rng.uniform(1, radius, (count, 2))
    for tile in tiles:
        y, x = np.mgrid[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        places = centres + rng.normal(0, 1.5, (count, 2))
        masks = [
            ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
            for (cy, cx), (ry, rx) in zip(places, radii, strict=True)
        ]
        masks = [mask for mask in masks if mask.any() and rng.random() < 0.9]
        crops = crops_of_pixels(masks, [(tile.top, tile.left)] * len(masks))
        boxes = crops.rectangles[:, [1, 0, 3, 2]].astype(np.float32)
        scores = rng.choice(np.array([0.25, 0.5, 0.75], np.float32), len(masks))
        yield Result(boxes, scores, rng.integers(0, 2, len(masks), np.int32), crops, size)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_settled_early_is_as_at_the_end(seed, monkeypatch):
    """The same objects in the same order, whether seams are looked at tile by tile or all at once."""
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(60, 300, 2).tolist())
    tiles = tile_grid(size, int(rng.integers(50, 100)), int(rng.integers(0, 25)))
    parts = list(jittered(rng, tiles, size, int(rng.integers(1, 60)), rng.choice([5, 12, 40])))
    monkeypatch.setattr(merge, "_FRESH", 1)
    early = merge_tiles(iter(parts), tiles, size)
    monkeypatch.setattr(merge, "_FRESH", 1 << 40)
    late = merge_tiles(iter(parts), tiles, size)
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(early, name), getattr(late, name))
    assert early.masks == late.masks


def test_memory_does_not_grow_with_the_rows_of_tiles(rng, monkeypatch):
    """Four times as many objects, the same peak; all are found, once."""
    monkeypatch.setattr(merge, "_FRESH", 50)
    square, peaks = np.ones((6, 6), bool), []
    inside = [(top, left) for top in range(1, 60, 8) for left in range(1, 60, 8)]  # as far as a tile shows it
    crops = crops_of_pixels([square[: 64 - top, : 64 - left] for top, left in inside], inside)
    for rows in (10, 10, 40):  # The first time, things are imported.
        size = (64 + 32 * (rows - 1), 128)
        tiles = tile_grid(size, 64, 32)

        def parts(tiles=tiles, size=size):
            for tile in tiles:
                there = crops.moved(tile.top, tile.left)
                boxes, some = there.rectangles[:, [1, 0, 3, 2]].astype(np.float32), np.zeros(len(there))
                yield Result(boxes, some.astype(np.float32), some.astype(np.int32), there, size)

        tracemalloc.start()
        found = sum(len(some.result) for some in settle_tiles(parts(), tiles, size))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(tiles) == 3 * rows and found == (size[0] // 8) * (size[1] // 8)
    assert peaks[2] < peaks[1] * 1.1
