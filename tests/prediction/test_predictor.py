"""The predictor around a model of known answers, and around a small real one."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from maskrcnn_jax.config import BackboneConfig, DetectionConfig, MaskRCNNConfig, RoIConfig, RPNConfig
from maskrcnn_jax.images.sources import open_source
from maskrcnn_jax.models.parameters import init_params
from maskrcnn_jax.prediction import predictor as module
from maskrcnn_jax.prediction.predictor import Predictor, to_result
from maskrcnn_jax.prediction.tiling import predict_tiled
from maskrcnn_jax.structures import Detections


class Fake:
    """Finds the left half of each image, an empty box and the whole image; scores it by its mean pixel."""

    traces = 0

    def __init__(self, config):
        pass

    def apply(self, variables, images, sizes, *, method):
        assert method == "detect" and images.dtype == jnp.uint8
        Fake.traces += 1
        height, width = (sizes[:, None, None, i].astype(jnp.float32) for i in (0, 1))
        shares = jnp.array([[0, 0, 0.5, 1], [0.3, 0.3, 0.3, 0.9], [0, 0, 1, 1], [0, 0, 0, 0]])[None]
        boxes = shares * jnp.concatenate([width, height, width, height], axis=-1)
        total = images.astype(jnp.float32).sum(axis=(1, 2, 3)) * variables["params"]["scale"]
        scores = jnp.broadcast_to(total[:, None] / (3 * height * width)[:, 0], boxes.shape[:2])
        valid = jnp.broadcast_to(jnp.array([[True, True, True, False]]), scores.shape)
        classes = jnp.broadcast_to(jnp.arange(4)[None], scores.shape)
        return Detections(boxes, scores, classes, jnp.ones((*scores.shape, 6, 6)), valid)


@pytest.fixture
def fake(monkeypatch):
    """Builds a Predictor around the fake model and counts its compilations."""
    monkeypatch.setattr(module, "MaskRCNN", Fake)
    monkeypatch.setattr(Fake, "traces", 0)

    def build(test_resize=None, *, test_zoom=1.0, detection=None, **options):
        config = MaskRCNNConfig(
            test_resize=test_resize, test_zoom=test_zoom, detection=detection or DetectionConfig()
        )
        return Predictor(config, {"scale": np.float32(1)}, **options)

    return build


def assert_halves(result, height, width, mean):
    """What the fake model finds, in the image's own pixels."""
    assert result.size == (height, width) and len(result) == 2
    np.testing.assert_allclose(result.boxes, [[0, 0, width / 2, height], [0, 0, width, height]], rtol=1e-6)
    np.testing.assert_allclose(result.scores, [mean, mean], rtol=1e-3)
    assert result.classes.tolist() == [0, 2]
    assert (result.boxes.dtype, result.scores.dtype, result.classes.dtype) == (
        np.float32,
        np.float32,
        np.int32,
    )
    tight = [[0, 0, -(-width // 2), height], [0, 0, width, height]]
    assert coco.toBbox(result.masks).tolist() == tight


@pytest.mark.parametrize(("zoom", "shape"), [(1.0, (80, 60)), (0.5, (80, 60)), (0.5, (81, 59))])
def test_images_in_fewer_pixels_have_results_of_their_own_size(fake, rng, zoom, shape):
    """Of a level of a pyramid the result is that of the finest; the model sees what it would have seen."""
    predict = fake(buckets=(64, 128))
    image = rng.integers(0, 256, (40, 30, 3), np.uint8)
    (result,) = predict.batch([image], zoom=zoom, shapes=[shape])
    assert_halves(result, *shape, image.mean()) if zoom == 0.5 else None
    whole = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.NEAREST))
    (expected,) = predict.batch([whole], zoom=zoom)
    np.testing.assert_array_equal(result.boxes, expected.boxes)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=0.02)


@pytest.mark.parametrize(
    "shape", [(40, 30), (1, 1), (1, 2), (64, 64), (65, 10), (300, 500), (1, 2000), (999, 3)]
)
def test_boxes_and_masks_are_in_the_images_own_pixels(fake, shape):
    image = np.full((*shape, 3), 50, np.uint8)
    assert_halves(fake(buckets=(64, 128))(image), *shape, 50)


def test_resized_before_the_model_and_back_after_it(fake):
    image = np.full((100, 60, 3), 80, np.uint8)
    assert_halves(fake(test_resize=(33, 50))(image), 100, 60, 80)


def test_grey_alpha_and_16_bits_become_rgb(fake, rng):
    predict = fake()
    grey = rng.integers(0, 256, (20, 24), np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    rgba = np.concatenate([rgb, np.zeros((20, 24, 1), np.uint8)], axis=-1)
    deep = grey.astype(np.uint16) * 256 + rng.integers(0, 256, grey.shape, np.uint16)
    for image in (grey, grey[..., None], rgb, rgba, deep, np.stack([deep] * 3, axis=-1)):
        assert_halves(predict(image), 20, 24, grey.mean())


def test_all_faults_come_in_one_error(fake):
    good = np.zeros((4, 4, 3), np.uint8)
    bad = [
        good / 2,
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2]],
        np.zeros(3, np.uint8),
    ]
    with pytest.raises(ValueError) as error:
        fake().batch([good, *bad])
    lines = str(error.value).splitlines()[1:]
    wanted = [
        "image 1: .*float64",
        "image 2: .*4, 4, 2",
        "image 3: .*no pixels",
        "image 4: .*list",
        "image 5: ",
    ]
    assert len(lines) == len(wanted)
    for line, words in zip(lines, wanted, strict=True):
        assert re.match(rf"\s*{words}", line), line


@pytest.mark.parametrize("buckets", [(), (0, 256)])
def test_buckets_are_checked(fake, buckets):
    with pytest.raises(ValueError, match="buckets"):
        fake(buckets=buckets)


def test_compiles_once_for_each_bucket(fake, rng):
    predict = fake(buckets=(32, 64))
    seen = set()
    assert predict.compilations == 0
    for height, width in rng.integers(1, 65, (50, 2)).tolist():
        predict(np.zeros((height, width, 3), np.uint8))
        seen.add((height > 32, width > 32))
        assert Fake.traces == predict.compilations == len(seen)
    assert len(seen) == 4


def test_sides_beyond_the_buckets_are_rounded_up(fake):
    predict = fake(buckets=(32,))
    for side in (257, 400, 512):
        assert_halves(predict(np.full((20, side, 3), 9, np.uint8)), 20, side, 9)
    assert Fake.traces == 1


def test_a_batch_equals_one_by_one_and_compiles_for_powers_of_two(fake, rng):
    predict = fake(buckets=(32, 64))
    sides = (2 * rng.integers(1, 33, (13, 2))).tolist()
    images = [np.full((*side, 3), 10 + i, np.uint8) for i, side in enumerate(sides)]
    for i, result in enumerate(predict.batch(images)):
        assert_halves(result, *sides[i], 10 + i)
    assert predict.batch([]) == []
    Fake.traces = 0
    for count in (16, 15, 7, 5, 1, 12):
        predict.batch([np.zeros((20, 20, 3), np.uint8)] * count)
    assert Fake.traces <= 5  # 1, 2, 4, 8, 16


def test_parts_of_a_frame_share_its_bucket_and_its_scale(fake, rng):
    predict = fake(test_resize=(32, 100), buckets=(16, 32, 64))
    for shape in ((64, 64), (64, 60), (20, 64), (1, 1)):
        image = np.full((*shape, 3), 40, np.uint8)
        assert_halves(predict.batch([image], frame=(64, 64))[0], *shape, 40)
    assert predict.compilations == 1
    seen = []
    predict._detect = lambda params, images, sizes: seen.append((images.shape, sizes)) or stop()
    with pytest.raises(InterruptedError):
        predict.batch([np.zeros((20, 61, 3), np.uint8)], frame=(64, 128), zoom=2)
    assert seen[0][0] == (1, 64, 256, 3) and seen[0][1].tolist() == [[20, 61]]


def stop():
    raise InterruptedError


@pytest.mark.parametrize("test_resize", [None, (33, 50)])
def test_zoom_changes_what_the_model_sees_and_not_the_frame_of_results(fake, test_resize):
    predict = fake(test_resize)
    for zoom in (0.5, 1.25, 3):
        image = np.full((40, 30, 3), 70, np.uint8)
        assert_halves(predict.batch([image], zoom=zoom)[0], 40, 30, 70)


def test_the_configs_zoom_multiplies(fake):
    image = np.full((45, 30, 3), 70, np.uint8)
    predict = fake((20, 100), test_zoom=3.0, buckets=(8,))
    seen = []
    predict._detect = lambda params, images, sizes: seen.append(sizes.tolist()) or stop()
    for zoom in (1.0, 0.5):
        with pytest.raises(InterruptedError):
            predict.batch([image], zoom=zoom)
    assert seen == [[[90, 60]], [[45, 30]]]
    assert_halves(fake((20, 100), test_zoom=3.0)(image), 45, 30, 70)


def test_the_configs_offset_moves_boxes_and_masks(fake):
    image = np.full((40, 30, 3), 70, np.uint8)
    detection = DetectionConfig(offset=(2.0, -3.0))
    for predict in (fake(detection=detection), fake(test_zoom=2.0, detection=detection)):
        result = predict(image)
        np.testing.assert_allclose(result.boxes, [[2, 0, 17, 37], [2, 0, 30, 37]], rtol=1e-6)
        assert coco.toBbox(result.masks).tolist() == [[2, 0, 15, 37], [2, 0, 28, 37]]


def test_parts_inside_better_detections_go(fake):
    class OneClass(Fake):
        def apply(self, *arguments, **options):
            found = super().apply(*arguments, **options)
            order = jnp.array([2, 0, 1, 3])  # the whole image first, then its half
            return Detections(
                found.boxes[:, order], found.scores, found.classes * 0, found.masks, found.valid[:, order]
            )

    image = np.full((40, 30, 3), 70, np.uint8)
    for containment, count in ((1.0, 2), (0.7, 1)):
        predict = fake(detection=DetectionConfig(containment=containment))
        predict._detect = lambda p, *a: OneClass(None).apply(
            {"params": p}, *map(jnp.asarray, a), method="detect"
        )
        result = predict(image)
        assert len(result) == count and result.boxes[0].tolist() == [0, 0, 30, 40]
    predict = fake(detection=DetectionConfig(containment=0.7))
    assert len(predict(image)) == 2  # of another class


def test_fingerprint_is_the_models(tiny):
    config, params = tiny
    same, narrow = Predictor(config, params), Predictor(config, params, buckets=(64,))
    moved = jax.tree.map(lambda leaf: leaf + 1e-6, params)
    fewer = dataclasses.replace(config, detection=DetectionConfig(max_detections=9))
    others = Predictor(config, moved), Predictor(fewer, params)
    assert same.fingerprint == narrow.fingerprint
    assert len({same.fingerprint, *(other.fingerprint for other in others)}) == 3


def differing_pixels(a, b):
    b = {**b, "counts": b["counts"].encode()}
    return coco.area(a) + coco.area(b) - 2 * coco.area(coco.merge([a, b], intersect=True))


def test_result_is_detectron2s(golden, shared):
    """From the golden boxes and probabilities to boxes and masks at the input's size and at another."""
    data, masks = golden("c4_test"), json.loads((shared / "goldens" / "c4_test_masks.json").read_text())
    count = len(data["det_boxes"])
    padding = ((0, 7), (0, 0))
    detections = Detections(
        np.pad(data["det_boxes"], padding),
        np.pad(data["det_scores"], padding[0]),
        np.pad(data["det_classes"], padding[0]),
        np.pad(data["mask_probs"], (padding[0], (0, 0), (0, 0))),
        np.arange(count + 7) < count,
    )
    size = data["image_bgr"].shape[:2]
    for name, original in (("final", size), ("scaled", data["scaled_size"])):
        result = to_result(detections, size, original)
        np.testing.assert_allclose(result.boxes, data[f"{name}_boxes"], rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(result.scores, data[f"{name}_scores"])
        np.testing.assert_array_equal(result.classes, data[f"{name}_classes"])
        expected = [item["segmentation"] for item in masks[name]]
        assert sum(differing_pixels(a, b) for a, b in zip(result.masks, expected, strict=True)) <= 4


@pytest.fixture(scope="module")
def tiny():
    """A real model that is small enough to compile within seconds."""
    config = MaskRCNNConfig(
        backbone=BackboneConfig(
            depth=18, stem_channels=8, res2_channels=8, norm="group", freeze_at=0, last_stage=2
        ),
        rpn=RPNConfig(anchor_sizes=((12, 24),), channels=8, pre_nms=(50, 50), post_nms=(20, 20)),
        roi=RoIConfig(bins=4, norm="group", mask_channels=8),
        detection=DetectionConfig(score_threshold=0.0, max_detections=10),
    )
    return config, init_params(config, jax.random.key(0))


def test_a_real_model_does_not_see_the_padding(tiny, rng):
    image = rng.integers(0, 256, (50, 60, 3), np.uint8)
    close, wide = (Predictor(*tiny, buckets=(side,))(image) for side in (64, 96))
    assert len(close) == len(wide) == 10
    np.testing.assert_allclose(close.boxes, wide.boxes, atol=1e-2)
    np.testing.assert_allclose(close.scores, wide.scores, atol=1e-4)
    assert close.size == (50, 60) and {tuple(code["size"]) for code in close.masks} == {(50, 60)}


def test_a_real_model_takes_slivers(tiny, rng):
    predictor = Predictor(*tiny, buckets=(96,))
    for shape in ((1, 1), (1, 90), (70, 2, 1)):
        result = predictor(rng.integers(0, 65536, shape, np.uint16))
        assert result.size == shape[:2]
        assert (result.boxes >= 0).all() and (result.boxes <= [*shape[1::-1]] * 2).all()


def test_tiles_of_a_real_model_compile_once(tiny, rng):
    """Whatever the image's size; one that fits into a tile gets what it gets alone."""
    predictor = Predictor(*tiny, buckets=(64, 96))
    for shape in ((200, 150), (97, 64), (50, 70), (1, 1)):
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        tiled = predict_tiled(predictor, open_source(image), tile=96, overlap=32, tissue=None)
        assert tiled.size == shape and {tuple(code["size"]) for code in tiled.masks} <= {shape}
        if max(shape) <= 96:
            alone = predictor.batch([image], frame=(96, 96))[0]
            np.testing.assert_array_equal(tiled.boxes, alone.boxes)
            assert tiled.masks == alone.masks
    assert predictor.compilations == 1


def test_a_mask_with_a_margin_reaches_beyond_its_box():
    """A disc that fills the inner half of a mask of margin 1/2 is pasted onto the box itself."""
    rows, columns = np.mgrid[:40, :40] + 0.5
    disc = ((rows - 20) ** 2 + (columns - 20) ** 2 <= 10**2).astype(np.float32)
    detections = Detections(
        np.array([[20, 30, 60, 70]], np.float32), np.ones(1), np.zeros(1, int), disc[None], np.ones(1, bool)
    )
    result = to_result(detections, (100, 100), (100, 100), mask_margin=0.5)
    mask = result.label_map() == 1
    y, x = np.mgrid[:100, :100] + 0.5
    expected = (y - 50) ** 2 + (x - 40) ** 2 <= 20**2
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95
    np.testing.assert_array_equal(result.boxes, [[20, 30, 60, 70]])
