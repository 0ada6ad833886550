"""The rules of merging, one by one, on two tiles side by side: columns 0 to 100 and 80 to 180."""

import numpy as np
import pytest

from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result, concatenate
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.prediction.merge import Tile, merge_tiles

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
