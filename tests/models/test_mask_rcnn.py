"""Whole models, C4 and FPN: compiled once, then asked about padding, batches, missing truths, gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import C4, CANVAS, CONFIGS, FPN, QUICK, SIZES, Model

from maskrcnn_jax.models.mask_rcnn import LOSSES, MaskRCNN, normalize
from maskrcnn_jax.models.parameters import param_shapes
from maskrcnn_jax.structures import Batch


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return Model(CONFIGS[request.param])


@pytest.fixture(scope="module")
def images():
    """Two images of different odd sizes on one canvas, rubbish in the rest of it."""
    return np.random.default_rng(1).integers(0, 256, (2, *CANVAS, 3), np.uint8)


@pytest.fixture(scope="module")
def batch(images):
    """Three instances an image, of which the last is padding in the second image."""
    boxes = np.array([[[5, 6, 30, 34], [40, 10, 60, 40], [20, 20, 28, 60]]] * 2, np.float32)
    valid = np.array([[True] * 3, [True, True, False]])
    instance_map = np.zeros((2, 2, *CANVAS), np.uint16)
    for g, (x0, y0, x1, y1) in enumerate(boxes[0].astype(int)):
        instance_map[:, g // 2, y0:y1, x0:x1] = g + 1
    return Batch(
        images=images,
        sizes=SIZES,
        boxes=boxes,
        classes=np.array([[0, 1, 1]] * 2, np.int32),
        valid=valid,
        crowd=np.zeros((2, 3), bool),
        layers=np.array([[0, 0, 1]] * 2, np.int32),
        instance_map=instance_map,
        index=np.arange(2, dtype=np.int32),
        cut=np.zeros(2, np.int32),
    )


def test_detections_are_sorted_clipped_and_padded(model, images):
    found = model.detect(images, SIZES)
    side = model.config.mask_size
    assert found.masks.shape == (2, 10, side, side) and found.boxes.shape == (2, 10, 4)
    for i, (height, width) in enumerate(SIZES):
        count = found.valid[i].sum()
        assert count > 3 and found.valid[i, :count].all()
        boxes = found.boxes[i, :count]
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        assert (np.diff(found.scores[i, :count]) <= 0).all() and found.scores[i].max() <= 1
        assert not found.boxes[i, count:].any() and not found.scores[i, count:].any()
    assert ((found.classes >= 0) & (found.classes < model.config.num_classes)).all()
    assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_each_image_is_found_as_if_it_were_alone_and_unpadded(model, images):
    """The second one, 61 x 83: neither its neighbour, the canvas, nor the rubbish on it play a part."""
    together = model.detect(images, SIZES)
    height, width = SIZES[1]
    alone = model.detect(images[1:, :height, :width], SIZES[1:])
    for name, expected in alone._asdict().items():
        np.testing.assert_allclose(getattr(together, name)[1], expected[0], atol=2e-3, err_msg=name)


def test_losses_and_gradients_are_finite_and_all_that_learns_gets_one(model, batch):
    losses, gradients = model.losses(batch)
    assert sorted(losses) == sorted(LOSSES)
    assert all(np.isfinite(loss) and loss > 0 and loss.dtype == np.float32 for loss in losses.values())
    frozen = tuple(f"backbone/{stage}/" for stage in ("stem", "res2")[: model.config.backbone.freeze_at])
    affine = model.config.backbone.norm == "frozen_bn"
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        stands = path.startswith(frozen) or (affine and "/norm/" in path)
        assert gradient.any() != stands, path


def test_losses_do_not_see_the_padding(model, batch):
    """Neither pixels beyond an image's size, nor what stands in the rows of padded instances."""
    blank = batch.images.copy()
    for image, (height, width) in zip(blank, SIZES, strict=True):
        image[height:], image[:, width:] = 0, 0
    boxes, classes, layers = batch.boxes.copy(), batch.classes.copy(), batch.layers.copy()
    boxes[1, 2], classes[1, 2], layers[1, 2] = [7, 7, 50, 50], 0, 0
    expected = model.losses(batch)
    found = model.losses(batch._replace(images=blank, boxes=boxes, classes=classes, layers=layers))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


WIDER = (CANVAS[0] + 21, CANVAS[1] + 16)


@functools.cache
def some_batch(seed, crowds):
    """Boxes up to the last row and column of two images, whose sizes are no multiples of a stride."""
    rng = np.random.default_rng(seed)
    sizes = np.array([rng.integers(37, CANVAS[0], 2), rng.integers(37, CANVAS[1], 2)], np.int32).T
    corner = rng.uniform(0, 0.8, (2, 4, 2)) * sizes[:, None]
    corner = np.concatenate([corner, corner + rng.uniform(6, 40, (2, 4, 2))], axis=2)
    ends = np.tile(sizes[:, None], 2)
    boxes = np.minimum(np.round(corner), ends)[..., [1, 0, 3, 2]].astype(np.float32)
    boxes[:, 0, 2:] = sizes[:, ::-1]  # One ends in the corner.
    crowd = np.zeros((2, 4), bool)
    crowd[:, 2] = crowds
    instance_map = np.zeros((2, 2, *CANVAS), np.uint16)
    for i, g in np.ndindex(2, 4):
        x0, y0, x1, y1 = boxes[i, g].astype(int)
        instance_map[i, g % 2, y0:y1, x0:x1] = g + 1
    return Batch(
        images=rng.integers(0, 256, (2, *CANVAS, 3), np.uint8),
        sizes=sizes,
        boxes=boxes,
        classes=rng.integers(0, 2, (2, 4)).astype(np.int32),
        valid=~crowd & (np.arange(4) < [[4], [3]]),
        crowd=crowd,
        layers=np.tile(np.array([0, 1, 0, 1], np.int32), (2, 1)),
        instance_map=instance_map,
        index=np.arange(2, dtype=np.int32),
        cut=np.zeros(2, np.int32),
    )


def on_wider_canvas(batch):
    """The same images and instances, but other rubbish, and more of it, right of them and below."""
    maps = np.full((2, 2, *WIDER), 1, np.uint16)  # As if the first instance went on there.
    pixels = np.random.default_rng(9).integers(0, 256, (2, *WIDER, 3), np.uint8)
    for i, (height, width) in enumerate(batch.sizes):
        pixels[i, :height, :width] = batch.images[i, :height, :width]
        maps[i, :, :height, :width] = batch.instance_map[i, :, :height, :width]
    return batch._replace(images=pixels, instance_map=maps)


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_depends_on_the_canvas(model, seed, crowds):
    """Losses, gradients and detections, whatever the sizes, with and without crowds."""
    batch = some_batch(seed, crowds)
    wider = on_wider_canvas(batch)
    losses, gradients = model.losses(batch)
    found, found_gradients = model.losses(wider)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, losses)
    for path, gradient in gradients.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(found_gradients[path], gradient, atol=1e-3 * scale + 1e-6, err_msg=path)
    expected, detections = (model.detect(b.images, b.sizes) for b in (batch, wider))
    for name, values in expected._asdict().items():
        np.testing.assert_allclose(getattr(detections, name), values, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("images_without", [[0], [0, 1]])
def test_losses_without_ground_truth(model, batch, images_without):
    valid = batch.valid.copy()
    valid[images_without] = False
    losses, gradients = model.losses(batch._replace(valid=valid))
    assert all(np.isfinite(loss) for loss in losses.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    only_background = {name for name, loss in losses.items() if loss == 0}
    everywhere = {"loss_box_reg", "loss_mask", "loss_rpn_loc"}
    assert only_background == (everywhere if len(images_without) == 2 else set())


def test_losses_without_images(model, batch):
    """Sizes of zero: no valid anchor, no proposal, no ground truth, no NaN."""
    empty = batch._replace(sizes=np.zeros((2, 2), np.int32), valid=np.zeros((2, 3), bool))
    losses, gradients = model.losses(empty)
    assert all(loss == 0 for loss in losses.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_losses_are_a_function_of_the_key(model, batch):
    first, again, other = (model.losses(batch, key)[0] for key in (0, 0, 1))
    assert first == again
    assert first["loss_cls"] != other["loss_cls"] or first["loss_rpn_cls"] != other["loss_rpn_cls"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("c4", {"dtype": "bfloat16"}),
        ("fpn", {"dtype": "bfloat16"}),
        ("c4", {"class_agnostic_boxes": True, "class_agnostic_masks": True, "bins": 5}),
        ("fpn", {"mask_deconvs": 2, "bins": 5, "mask_sampling": 1}),
    ],
)
def test_shapes_and_types_of_variants(name, changes, batch):
    """Whatever the network computes in: boxes, scores, masks and losses are float32."""
    whole = {key: value for key, value in changes.items() if key == "dtype"}
    roi = {key: value for key, value in changes.items() if key != "dtype"}
    base = CONFIGS[name]
    config = dataclasses.replace(base, roi=dataclasses.replace(base.roi, **roi), **whole)
    model, params = MaskRCNN(config), param_shapes(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}

    def run(params, batch, key):
        losses = model.apply({"params": params}, batch, key, method="losses")
        return losses, model.apply({"params": params}, batch.images, batch.sizes, method="detect")

    losses, found = jax.eval_shape(run, params, batch, jax.random.key(0))
    assert {(loss.shape, loss.dtype) for loss in losses.values()} == {((), jnp.dtype(jnp.float32))}
    side = config.mask_size
    assert found.masks.shape == (2, 10, side, side) and found.masks.dtype == jnp.float32
    assert found.boxes.dtype == found.scores.dtype == jnp.float32
    if "mask_deconvs" in changes:
        assert side == 2 * base.mask_size


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_normalisation(order, images):
    """Mean and deviation are in the order of the weights' channels; zeros fill all but the image."""
    config = dataclasses.replace(
        FPN, channel_order=order, pixel_mean=(1.0, 2.0, 3.0), pixel_std=(1.0, 2.0, 4.0)
    )
    pixels, extents = normalize(config, jnp.asarray(images), jnp.asarray(SIZES))
    assert config.divisibility == 8 and pixels.shape == (2, 72, 96, 3)
    assert extents.tolist() == [[72, 96], [64, 88]]
    source = images[1, :61, :83] if order == "RGB" else images[1, :61, :83, ::-1]
    np.testing.assert_allclose(
        pixels[1, :61, :83], (source.astype(np.float32) - [1, 2, 3]) / [1, 2, 4], rtol=1e-6
    )
    assert not pixels[1, 61:].any() and not pixels[1, :, 83:].any()


def test_the_canvas_is_padded_to_whole_strides():
    images, sizes = jnp.ones((1, 61, 83, 3), jnp.uint8), jnp.array([[61, 83]], jnp.int32)
    pixels, extents = normalize(FPN, images, sizes)
    assert pixels.shape == (1, 64, 88, 3) and extents.tolist() == [[64, 88]]
    pixels, extents = normalize(C4, images, sizes)
    assert pixels.shape == (1, 61, 83, 3) and extents.tolist() == [[61, 83]]


def test_the_mask_branch_sees_more_than_its_box(images):
    """With a margin, masks are those that the same model without one draws in boxes that are larger."""
    plain, wide = (
        Model(FPN),
        Model(dataclasses.replace(FPN, roi=dataclasses.replace(FPN.roi, mask_margin=0.25))),
    )
    found = wide.detect(images, SIZES)
    sides = np.tile(found.boxes[..., 2:] - found.boxes[..., :2], 2)
    grown = found.boxes + 0.25 * sides * np.array([-1, -1, 1, 1], np.float32)

    def masks(params, boxes, classes, valid):
        model = MaskRCNN(FPN).bind({"params": params})
        return model.detect_masks(model.features(images, jnp.asarray(SIZES)), boxes, classes, valid)

    expected = jax.jit(masks, compiler_options=QUICK)(plain.params, grown, found.classes, found.valid)
    np.testing.assert_allclose(found.masks, expected, atol=1e-5)
    assert np.abs(found.masks - plain.detect(images, SIZES).masks).max() > 1e-3


def test_a_c4_head_has_no_margin():
    with pytest.raises(ValueError, match=r"roi.mask_margin is 0.1: it must be 0 for a C4 model"):
        dataclasses.replace(C4, roi=dataclasses.replace(C4.roi, mask_margin=0.1))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_gpus_gradient_scatters_into_nothing_but_the_drawn_anchors(config, batch):
    """A scatter adds in no fixed order; of the drawn anchors' logits and deltas no two have one place."""

    def total(params, batch, key):
        return sum(MaskRCNN(config).apply({"params": params}, batch, key, method="losses").values())

    def scatters(function):
        traced = jax.jit(function).trace(param_shapes(config), batch, jax.random.key(0))
        return traced.lower(lowering_platforms=("cuda",)).as_text().count('"stablehlo.scatter"')

    assert scatters(jax.grad(total)) - scatters(total) == 2


def test_masks_are_cut_where_the_config_says(images):
    """What has the probability of the threshold comes out as one half; boxes stay."""
    strict = dataclasses.replace(FPN, detection=dataclasses.replace(FPN.detection, mask_threshold=0.8))
    plain, found = (Model(config).detect(images, SIZES) for config in (FPN, strict))
    np.testing.assert_array_equal(found.boxes, plain.boxes)
    odds, expected = (masks / (1 - masks) for masks in (found.masks[found.valid], plain.masks[plain.valid]))
    np.testing.assert_allclose(odds, expected / 4, rtol=1e-4)
