"""Views come back to the image's frame, and what they agree on becomes one detection."""

import numpy as np
import pytest
from painted import Painted, contents, discs, find, paint
from pycocotools import mask as coco

from maskrcnn_jax.config import DetectionConfig, MaskRCNNConfig
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.masks.crops import crops_of
from maskrcnn_jax.masks.result import Result
from maskrcnn_jax.masks.rle import rle_of_crop
from maskrcnn_jax.prediction.test_time import Augmented, fuse
from maskrcnn_jax.prediction.tiling import predict_tiled

SIZE = (40, 60)


def view(*rows):
    """What one view shows: (x0, x1, score), or with y0, y1 and class."""
    rows = [(*row, 10, 20, 0)[:6] if len(row) == 3 else row for row in rows]
    boxes = np.array([(x0, y0, x1, y1) for x0, x1, _, y0, y1, _ in rows], np.float32).reshape(-1, 4)
    masks = [rle_of_crop(np.ones((y1 - y0, x1 - x0), bool), y0, x0, SIZE) for x0, x1, _, y0, y1, _ in rows]
    scores, classes = (np.array([row[i] for row in rows]) for i in (2, 5))
    return Result(boxes, scores.astype(np.float32), classes.astype(np.int32), crops_of(masks), SIZE)


def fused(*views, **options):
    result = fuse([view(*rows) for rows in views], **options)
    boxes, scores = result.boxes.tolist(), result.scores.tolist()
    return [
        (round(x0, 3), round(x1, 3), round(s, 4)) for (x0, _, x1, _), s in zip(boxes, scores, strict=True)
    ]


@pytest.mark.parametrize("shape", [(61, 47), (1, 9), (30, 30)])
@pytest.mark.parametrize("flips, turns", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 2.0)])
def test_views_that_agree_change_nothing(rng, shape, flips, turns, scales):
    images = [paint(shape, discs(rng, shape, 30, 8)) for _ in range(2)]
    predict = Augmented(Painted(), flips=flips, turns=turns, scales=scales)
    for found, image in zip(predict.batch(images), images, strict=True):
        expected = find(image)
        assert len(found) == len(expected) > 0 and found.size == shape
        assert [mask["counts"] for mask in found.masks] == [mask["counts"] for mask in expected.masks]
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
        np.testing.assert_array_equal(found.classes, expected.classes)


@pytest.mark.parametrize("turns", [False, True])
def test_answers_are_moved_in_the_frame_of_the_image(rng, turns):
    """A data set whose labels lie beside its images does so in one direction, however they are shown."""

    def moved(image, x, y):
        shown = np.full_like(image, 255)
        shown[10 + y : -10 + y, 10 + x : -10 + x] = image[10:-10, 10:-10]
        return shown

    class Moving(Painted):
        config = MaskRCNNConfig(detection=DetectionConfig(offset=(3.0, -2.0)))

        def batch(self, images, *, offset, **options):
            return super().batch([moved(image, *map(int, offset)) for image in images], **options)

    image = moved(paint((60, 47), discs(rng, (60, 47), 20, 8)), 0, 0)
    found, expected = Augmented(Moving(), turns=turns)(image), find(moved(image, 3, -2))
    assert {mask["counts"] for mask in found.masks} == {mask["counts"] for mask in expected.masks} != set()
    order, wanted = np.lexsort(found.boxes.T), np.lexsort(expected.boxes.T)
    np.testing.assert_allclose(found.boxes[order], expected.boxes[wanted], atol=1e-4)


def test_what_the_model_is_shown(rng):
    image = rng.integers(0, 200, (5, 4), np.uint8)
    seen = []

    class Camera(Painted):
        def batch(self, images, **options):
            seen.extend((picture.tolist(), options["frame"], options["zoom"]) for picture in images)
            return super().batch([np.full((*images[0].shape, 3), 255, np.uint8)])

    Augmented(Camera(), scales=(1, 1.5)).batch([image], frame=(8, 9), zoom=2)
    turned = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    assert seen == [(picture.tolist(), (8, 9), zoom) for picture in turned for zoom in (2, 3)]
    seen.clear()
    Augmented(Camera(), flips=False, turns=True).batch([image], frame=(8, 9))
    assert seen == [(image.tolist(), (8, 9), 1), (image.T.tolist(), (9, 8), 1)]


def test_tiles_of_views(rng):
    image = paint((150, 130), discs(rng, (150, 130), 60, 10))
    tiled = predict_tiled(Augmented(Painted()), open_source(image), tile=64, overlap=24)
    assert {row[3] for row in contents(tiled)} == {row[3] for row in contents(find(image))}


def test_scores_are_means_over_all_views():
    assert fused([(5, 15, 0.9)], [(5, 15, 0.5)]) == [(5, 15, 0.7)]
    assert fused([(5, 15, 0.9)], [], [], []) == [(5, 15, 0.225)]
    # Boxes are means by score: (5 * 0.6 + 7 * 0.2) / 0.8
    assert fused([(5, 15, 0.6)], [(7, 15, 0.2)]) == [(5.5, 15, 0.4)]


def test_masks_are_cut_at_one_half_of_the_scores():
    """Columns 4 to 15: of three views of 0.4, 0.3 and 0.2, those beyond 0.45 in all stay."""
    result = fuse([view((4, 14, 0.4)), view((5, 15, 0.3)), view((6, 14, 0.2))])
    assert coco.toBbox(result.masks).tolist() == [[5, 10, 9, 10]]


def test_each_view_gives_one_detection_to_an_object():
    """The second view has split the object: the part that fits less is left alone."""
    assert fused([(10, 30, 0.8)], [(10, 24, 0.6), (24, 30, 0.4)]) == [
        (10, round((30 * 0.8 + 24 * 0.6) / 1.4, 3), 0.7),
        (24, 30, 0.2),
    ]


def test_groups_that_are_the_same_object_are_not_counted_twice():
    """Of two detections of one view that both fit, one is left over and goes."""
    assert fused([(10, 20, 0.8)], [(10, 20, 0.6), (11, 21, 0.5)]) == [(10, 20, 0.7)]


def test_classes_do_not_meet():
    assert len(fused([(10, 20, 0.8, 10, 20, 0)], [(10, 20, 0.6, 10, 20, 1)])) == 2


def test_limits_are_kept():
    views = [(5, 15, 0.9), (30, 40, 0.2), (50, 60, 0.5)], [(5, 15, 0.9)]
    assert fused(*views, threshold=0.1) == [(5, 15, 0.9), (50, 60, 0.25)]
    assert fused(*views, most=1) == [(5, 15, 0.9)]


def test_nothing_found():
    result = fuse([view(), view()])
    assert len(result) == 0 and result.boxes.shape == (0, 4) and result.size == SIZE
    assert Augmented(Painted()).batch([]) == []


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,)])
def test_scales_are_checked(scales):
    with pytest.raises(ValueError, match="scales must be one or more positive factors"):
        Augmented(Painted(), scales=scales)


def test_fingerprint_is_that_of_model_and_views():
    other = Painted()
    other.fingerprint = "other"
    options = [
        (Painted(), {}),
        (other, {}),
        (Painted(), {"flips": False}),
        (Painted(), {"turns": True}),
        (Painted(), {"scales": (1, 2)}),
    ]
    assert len({Augmented(predict, **option).fingerprint for predict, option in options}) == 5
    assert Augmented(Painted()).fingerprint == Augmented(Painted()).fingerprint
