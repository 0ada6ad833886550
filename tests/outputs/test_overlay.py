"""Overlays: which pixels are drawn, and that captions and colours tell the truth."""

import numpy as np
import pytest

from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.outputs.colours import NEIGHBOURS, PALETTE
from maskrcnn_jax.outputs.overlay import draw_overlay, side_by_side


def square(top, left, side, size=(40, 60)):
    return rle_of_crop(np.ones((side, side), bool), top, left, size)


def grey(size=(40, 60)):
    return np.full((*size, 3), 128, np.uint8)


def drawn(picture):
    return (picture != 128).any(axis=2)


def result(masks, scores, size=(40, 60)):
    count = len(masks)
    return Result(
        np.zeros((count, 4), np.float32),
        np.array(scores, np.float32),
        np.zeros(count, np.int32),
        crops_of(masks),
        size,
    )


def test_outline_is_the_instance_minus_its_inside():
    picture = draw_overlay(grey(), [square(5, 10, 8)], scale=1, thickness=1)
    expected = np.zeros((40, 60), bool)
    expected[5:13, 10:18] = True
    expected[6:12, 11:17] = False
    np.testing.assert_array_equal(drawn(picture), expected)
    np.testing.assert_array_equal(picture[5, 10], PALETTE[0])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("corner", [(0, 0), (0, 52), (32, 0), (32, 52), (20, 20)])
def test_enlarged_outline_stays_inside_the_enlarged_instance(scale, corner):
    """Also in the image's corners; rounding may take the square's own corners, but not its sides."""
    top, left = (scale * c for c in corner)
    side = 8 * scale
    picture = draw_overlay(grey(), [square(*corner, 8)], scale=scale, thickness=1)
    assert picture.shape == (40 * scale, 60 * scale, 3)
    rows, columns = np.nonzero(drawn(picture))
    assert (rows.min(), columns.min()) == (top, left)
    assert (rows.max(), columns.max()) == (top + side - 1, left + side - 1)


def test_touching_instances_keep_their_outlines():
    picture = draw_overlay(grey(), [square(5, 10, 8), square(5, 18, 8)], scale=1)
    assert (picture[6:12, 17] == PALETTE[0]).all()
    assert (picture[6:12, 18] == PALETTE[1]).all()


def test_neighbours_have_different_colours():
    """The first and the one that would be next in turn for its colour touch."""
    far = [square(30, 7 * n, 4) for n in range(NEIGHBOURS - 1)]
    picture = draw_overlay(grey(), [square(5, 10, 8), *far, square(5, 18, 8)], scale=1)
    assert (picture[6, 17] == PALETTE[0]).all()
    assert (picture[6, 18] != PALETTE[0]).any()


def test_a_crowd_of_more_than_all_colours_is_drawn():
    masks = [square(5, 5, 12)] * 20
    assert drawn(draw_overlay(grey(), masks, scale=1)).any()


@pytest.mark.parametrize("side", [1, 2])
def test_instances_without_inside_are_filled(side):
    assert drawn(draw_overlay(grey(), [square(3, 3, side)], scale=1)).sum() == side**2


def test_nothing_to_draw_leaves_the_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(draw_overlay(image, [], scale=1), image)
    empty = rle_of_crop(np.zeros((0, 0), bool), 0, 0, (40, 60))
    np.testing.assert_array_equal(draw_overlay(image, [empty], scale=1), image)


def test_default_scale_enlarges_small_images_only():
    assert draw_overlay(grey((100, 300)), []).shape == (300, 900, 3)
    assert draw_overlay(grey((20, 20)), []).shape == (80, 80, 3)
    assert draw_overlay(grey((30, 2500)), []).shape == (30, 2500, 3)


@pytest.mark.parametrize(
    ("side", "image_side", "scale"), [(20, 1000, 2), (60, 1000, 1), (20, 2000, 2), (20, 2001, 1)]
)
def test_small_objects_are_enlarged_while_the_picture_stays_handy(side, image_side, scale):
    size = (60, image_side)
    picture = draw_overlay(grey(size), [square(0, 0, side, size)] * 3)
    assert picture.shape[1] == scale * image_side


def test_boxes_end_before_their_last_edge():
    empty = rle_of_crop(np.zeros((0, 0), bool), 0, 0, (40, 60))
    rows, columns = np.nonzero(
        drawn(draw_overlay(grey(), [empty], boxes=np.array([[10, 5, 18, 13]]), scale=2))
    )
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 25, 20, 35)


def test_scores_are_written_above():
    masks = [square(20, 10, 8), square(0, 40, 8)]
    plain = draw_overlay(grey(), masks, scale=1)
    scored = draw_overlay(grey(), masks, scores=np.array([0.25, 1.0]), scale=1)
    rows, columns = np.nonzero((plain != scored).any(axis=2))
    assert (rows[columns < 40] < 21).all()
    assert {c >= 40 for c in columns} == {True, False}


def test_all_faults_of_an_overlay_are_in_one_error():
    with pytest.raises(ValueError, match="cannot be drawn") as error:
        draw_overlay(
            grey(), [square(0, 0, 3), square(0, 0, 3, (60, 40))], scores=np.ones(3), boxes=np.ones((1, 4))
        )
    for part in ("masks [1]", "(40, 60)", "[60, 40]", "scores: 3 for 2 masks", "boxes: 1 for 2 masks"):
        assert part in str(error.value)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_image_that_is_not_rgb_is_refused(image):
    with pytest.raises(ValueError, match="RGB uint8"):
        draw_overlay(image, [])


def test_panels_show_the_same_instance_in_the_same_colour():
    truth = [square(2, 2, 8), square(20, 20, 8), square(2, 40, 8)]
    picture = side_by_side(grey(), truth, result([truth[2], truth[0]], [0.9, 0.8]), scale=1)
    panel = picture[-40:]
    assert panel.shape[1] == 60 + 8 + 60
    np.testing.assert_array_equal(panel[2, 40], PALETTE[2])
    np.testing.assert_array_equal(panel[2, 68 + 40], PALETTE[2])
    np.testing.assert_array_equal(panel[2, 68 + 2], PALETTE[0])
    assert not drawn(panel[20:28, 68 + 20 : 68 + 28]).any(), "the second nucleus was not found"


def test_weak_detections_are_left_out():
    masks = [square(2, 2, 8), square(20, 20, 8)]
    strong = side_by_side(grey(), masks, result(masks[:1], [0.7]))
    np.testing.assert_array_equal(side_by_side(grey(), masks, result(masks, [0.7, 0.3])), strong)
    both = side_by_side(grey(), masks, result(masks, [0.7, 0.3]), min_score=0.3)
    assert (both != strong).any()


def test_captions_name_the_numbers(monkeypatch):
    written = []
    monkeypatch.setattr(
        "maskrcnn_jax.outputs.overlay._captioned", lambda panel, text: written.append(text) or panel
    )
    masks = [square(2, 2, 8), square(20, 20, 8)]
    side_by_side(grey(), masks, result(masks[:1], [0.7]), ap50=0.5, titles=("by hand", "Mask R-CNN"))
    assert written == ["by hand: 2 nuclei", "Mask R-CNN: 1 nuclei   AP50 0.500"]


@pytest.mark.parametrize("count", [0, 2])
def test_empty_sides(count):
    masks = [square(2, 2, 8), square(20, 20, 8)]
    for truth, found in ((masks[:count], []), ([], masks[:count])):
        picture = side_by_side(grey(), truth, result(found, [0.9] * len(found)), scale=1)
        assert picture.shape[1] == 128
