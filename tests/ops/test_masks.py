"""Mask targets from the layered map: the same as RoIAlign of every full mask, in both forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskrcnn_jax.ops.masks import mask_targets
from maskrcnn_jax.ops.roi_align import roi_align

SIZE = 7


def layered(masks):
    """A map of as few layers as greedy colouring needs, and the layer of each mask."""
    layers, where = [], []
    for value, mask in enumerate(np.asarray(masks, bool), 1):
        free = next((i for i, layer in enumerate(layers) if not layer[mask].any()), len(layers))
        if free == len(layers):
            layers.append(np.zeros(mask.shape, np.uint16))
        layers[free][mask] = value
        where.append(free)
    return np.stack(layers), np.array(where, np.int32)


def random_discs(rng, count, height, width):
    """Overlapping discs with rough borders, some cut by the image's border."""
    y, x = np.mgrid[:height, :width]
    centre, radius = rng.uniform(0, [height, width], (count, 2)), rng.uniform(2, 12, count)
    distance = np.hypot(y[None] - centre[:, :1, None], x[None] - centre[:, 1:, None])
    return distance + rng.uniform(-2, 2, distance.shape) < radius[:, None, None]


@functools.cache
def compiled(form, size):
    return jax.jit(functools.partial(whole_map, size=size))


def whole_map(instance_map, instance, layer, boxes, *, size):
    """Targets of an image that fills its canvas."""
    extent = jnp.array(instance_map.shape[-2:], jnp.int32)
    return mask_targets(instance_map, instance, layer, boxes, extent, size=size)


@jax.jit
def full_targets(masks, boxes):
    """Each RoI's own full bitmask, pooled alone."""

    def one(mask, box):
        return roi_align([mask[..., None]], box[None], strides=[1], bins=SIZE, samples=0)[0, ..., 0]

    return jax.vmap(one)(masks.astype(jnp.float32), boxes)


@pytest.fixture
def scene(rng):
    """Overlapping masks, and RoIs of each: around it, beside it, partly outside the image."""
    masks = random_discs(rng, 9, 40, 56)
    instance = np.tile(np.arange(9, dtype=np.int32), 5)
    corner = rng.uniform(-10, [50, 34], (len(instance), 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (len(instance), 2))], axis=1)
    return masks, instance, boxes.astype(np.float32)


def test_equals_pooling_of_every_full_mask(form, scene):
    """45 RoIs: of layers and instances in any order."""
    masks, instance, boxes = scene
    instance_map, layer = layered(masks)
    assert 1 < len(instance_map) < len(masks)
    soft = compiled(form, SIZE)(instance_map, instance, layer[instance], boxes)
    assert soft.shape == (len(boxes), SIZE, SIZE) and soft.dtype == jnp.float32
    np.testing.assert_allclose(soft, full_targets(masks[instance], boxes), atol=1e-5)
    assert soft.min() >= 0 and soft.max() <= 1 + 1e-6


def test_layers_do_not_matter(form, scene):
    """Every mask in a layer of its own gives the same as the fewest layers."""
    masks, instance, boxes = scene
    few, layer = layered(masks)
    many = np.stack([np.where(mask, i + 1, 0) for i, mask in enumerate(masks)]).astype(np.uint16)
    np.testing.assert_array_equal(
        compiled(form, SIZE)(few, instance, layer[instance], boxes),
        compiled(form, SIZE)(many, instance, instance, boxes),
    )


def test_padding_and_simple_boxes(form):
    """What is in no map is empty, and so are boxes without area or outside the image; the rest is known."""
    instance_map = np.zeros((1, 20, 30), np.uint16)
    instance_map[0, 4:12, 10:26] = 1
    boxes = [[0, 0, 9, 9], [12, 4, 12, 4], [13, 3, 13, 8], [50, 50, 60, 60], [11, 5, 25, 11], [10, 4, 42, 12]]
    instance = np.array([5, 0, 0, 0, 0, 0], np.int32)
    boxes, layer = np.array(boxes, np.float32), np.zeros(6, np.int32)
    soft = np.asarray(compiled(form, 4)(instance_map, instance, layer, boxes))
    assert not soft[:4].any()
    np.testing.assert_allclose(soft[4], 1.0)
    np.testing.assert_array_equal(soft[5] >= 0.5, np.tile([True, True, False, False], (4, 1)))
    outside = compiled(form, 4)(instance_map, instance, layer, boxes + 100)
    assert not outside.any()


def test_no_roi(form):
    none = np.zeros(0, np.int32)
    soft = mask_targets(
        jnp.ones((2, 10, 10), jnp.uint16), none, none, jnp.zeros((0, 4)), jnp.array([10, 10]), size=4
    )
    assert soft.shape == (0, 4, 4)


@pytest.mark.parametrize("canvas", [(41, 57), (64, 96)])
def test_the_padding_of_the_canvas_is_not_read(form, scene, canvas):
    """RoIs that reach beyond the image at its right and bottom see its border go on, whatever the canvas."""
    masks, instance, boxes = scene
    instance_map, layer = layered(masks)
    extent = jnp.array(instance_map.shape[1:], jnp.int32)
    padding = [(0, 0), *((0, side - size) for side, size in zip(canvas, masks.shape[1:], strict=True))]
    padded = jnp.pad(jnp.asarray(instance_map), padding, constant_values=1)  # Even rubbish plays no part.
    run = jax.jit(functools.partial(mask_targets, size=SIZE))
    found = run(padded, instance, layer[instance], boxes, extent)
    expected = compiled(form, SIZE)(instance_map, instance, layer[instance], boxes)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_vmap_equals_a_loop(form, scene):
    masks, instance, boxes = scene
    instance_map, layer = layered(masks)
    maps = np.stack([instance_map, instance_map[:, ::-1, ::-1]])
    inputs = (
        maps,
        np.stack([instance, instance[::-1]]),
        np.stack([layer[instance]] * 2),
        np.stack([boxes] * 2),
    )

    batched = jax.jit(jax.vmap(functools.partial(whole_map, size=SIZE)))(*inputs)
    loop = [compiled(form, SIZE)(*parts) for parts in zip(*inputs, strict=True)]
    np.testing.assert_allclose(batched, np.stack(loop), atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "tight_"])
def test_equals_detectron2(form, golden, prefix):
    """Real nuclei; the stored targets are the soft values >= 0.5, of which some stand on the threshold."""
    data = golden("comp_mask_targets")
    instance_map, layer = layered(data["masks"])
    boxes = data["tight_boxes" if prefix else "boxes"]
    index = np.arange(len(boxes), dtype=np.int32)
    sizes = [int(name.rsplit("_", 1)[1]) for name in data.files if name.startswith(f"{prefix}soft_")]
    assert sizes
    for size in sizes:
        soft = compiled(form, size)(instance_map, index, layer, boxes)
        np.testing.assert_allclose(soft, data[f"{prefix}soft_{size}"], atol=1e-5)
        np.testing.assert_array_equal(soft >= 0.5 - 1e-7, data[f"{prefix}target_{size}"])


def float32_points(low, high, size):
    """Detectron2's sampling points of each cell along an axis, every step rounded to float32: (M, n)."""
    low, high, size = np.float32(low) - np.float32(0.5), np.float32(high) - np.float32(0.5), np.float32(size)
    count = np.ceil((high - low) / size)
    start = low + np.arange(size)[:, None].astype(np.float32) * ((high - low) / size)
    return start + (np.arange(count, dtype=np.float32) + np.float32(0.5)) * ((high - low) / size) / count


def hat(points, cells):
    """Float64 mean over a cell's points of the linear weights of the pixels: (M, pixels)."""
    distance = np.clip(points, 0, cells - 1).astype(np.float64)[..., None] - np.arange(cells)
    return np.maximum(1 - abs(distance), 0).mean(axis=1)


@pytest.mark.parametrize("size", [14, 28])
def test_points_round_as_float32_does(form, rng, size):
    """Points that round otherwise move by 3e-5 pixels here: enough to carry a half covered cell across."""
    mask = random_discs(rng, 12, 320, 400).any(axis=0)
    corner = rng.integers(200, 290, (30, 2))
    boxes = np.concatenate([corner, corner + rng.integers(3, 30, (30, 2))], axis=1).astype(np.float32)
    zeros = np.zeros(30, np.int32)
    found = compiled(form, size)(mask[None].astype(np.int32), zeros, zeros, boxes)
    for covered, (x0, y0, x1, y1) in zip(found, boxes, strict=True):
        rows, cols = hat(float32_points(y0, y1, size), 320), hat(float32_points(x0, x1, size), 400)
        np.testing.assert_allclose(covered, rows @ mask @ cols.T, atol=1e-6, rtol=0)
