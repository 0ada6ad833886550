"""Image and instances move together to the pixel, resizing equals Pillow, wrong lists name every fault."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maskrcnn_jax.data.augment import OPS, compose, crop, resize, shortest_edge_size
from maskrcnn_jax.data.runs import tight_boxes

ARGUMENTS = {
    "random_crop": {"size": 20},
    "resize_shortest_edge": {"sizes": (15, 62), "longest": 80},
    "flip_horizontal": {},
    "flip_vertical": {},
    "rotate90": {},
    "scale_jitter": {"smallest": 1.0, "largest": 2.5},
    "brightness_contrast": {"brightness": 0.2, "contrast": 0.3},
    "stain_jitter": {"scale": 0.4, "shift": 0.1},
    "random_affine": {
        "size": 24,
        "smallest": 2.5,
        "largest": 3.0,
        "degrees": 180.0,
        "offset_x": 0.0,
        "offset_y": 0.0,
    },
    "stretch_grey": {},
    "gamma": {"spread": 0.5},
    "invert": {"share": 0.5},
    "to_grey": {"share": 0.5},
    "channel_shuffle": {"share": 0.5},
    "tint": {"share": 0.5, "least": 0.1},
    "blur": {"share": 0.5, "largest": 2.0},
    "noise": {"share": 0.5, "largest": 0.1},
}
GEOMETRY = (
    "random_crop",
    "resize_shortest_edge",
    "scale_jitter",
    "flip_horizontal",
    "flip_vertical",
    "rotate90",
    "random_affine",
)


def seeds(count):
    return [tf.constant([7, i], tf.int64) for i in range(count)]


def blocks(rng, height=30, width=40):
    """Two layers of 5 px squares, and an image with each square's number in the first as its grey level."""
    numbers = rng.permutation((height // 5) * (width // 5)).astype(np.uint16) + 1
    layer = np.kron(numbers.reshape(height // 5, width // 5), np.ones((5, 5), np.uint16))
    image = np.repeat(layer.astype(np.uint8)[..., None], 3, axis=2)
    return tf.constant(image), tf.constant(np.stack([layer, layer[::-1]]))


@pytest.mark.parametrize("name", GEOMETRY)
def test_marks_on_the_image_move_with_their_instances(name, rng):
    """Where the image is not between two squares, its grey level is still the first layer's number."""
    image, layers = blocks(rng)
    augment = compose([{"op": name, **ARGUMENTS[name]}])
    outputs = set()
    for seed in seeds(12):
        out, maps = (x.numpy() for x in augment(image, layers, seed)[:2])
        assert out.dtype == np.uint8 and maps.dtype == np.uint16
        assert out.shape[:2] == maps.shape[1:] and len(maps) == 2
        pure = maps[0] > 0  # outside of the image nothing is marked
        blur = {"resize_shortest_edge": 1, "scale_jitter": 2, "random_affine": 3}.get(name, 0)  # pixels
        for shift, axis in itertools.product(range(-blur, blur + 1), (0, 1)):
            pure &= maps[0] == np.roll(maps[0], shift, axis)
        assert pure.any()
        np.testing.assert_array_equal(out[..., 0][pure], maps[0][pure])
        outputs.add(out.tobytes())
    assert len(outputs) > 1, "the seed changes nothing"


@pytest.mark.parametrize("name", OPS)
def test_an_op_is_a_function_of_its_seed(name, rng):
    image, layers = blocks(rng)
    augment = compose([{"op": name, **ARGUMENTS[name]}])
    graph = tf.function(augment)
    for seed in seeds(3):
        first = augment(image, layers, seed)
        for again in (augment(image, layers, seed), graph(image, layers, seed)):
            np.testing.assert_array_equal(first[0], again[0])
            np.testing.assert_array_equal(first[1], again[1])


def test_flips_and_turns_are_the_symmetries_they_say(rng):
    image, layers = blocks(rng)
    expected = {
        "flip_horizontal": [image, image[:, ::-1]],
        "flip_vertical": [image, image[::-1]],
        "rotate90": [np.rot90(image, k) for k in range(4)],
    }
    for name, images in expected.items():
        found = {OPS[name](image, layers, seed)[0].numpy().tobytes() for seed in seeds(40)}
        assert found == {np.ascontiguousarray(x).tobytes() for x in images}


def test_both_layers_turn_alike(rng):
    image, layers = blocks(rng)
    for seed in seeds(12):
        _, maps, _ = OPS["rotate90"](image, layers, seed)
        k = next(k for k in range(4) if np.array_equal(np.rot90(layers[0], k), maps[0]))
        np.testing.assert_array_equal(np.rot90(layers[1], k), maps[1])


def test_crops_reach_every_border():
    places = np.arange(6 * 7, dtype=np.uint16).reshape(1, 6, 7)
    image = np.zeros((6, 7, 3), np.uint8)
    corners = {int(OPS["random_crop"](image, places, seed, size=5)[1][0, 0, 0]) for seed in seeds(100)}
    assert corners == {7 * row + col for row in range(2) for col in range(3)}


def test_a_crop_takes_what_is_there_of_a_smaller_image(rng):
    image, layers = blocks(rng)
    out, maps, _ = OPS["random_crop"](image, layers, seeds(1)[0], size=35)
    assert out.shape == (30, 35, 3) and maps.shape == (2, 30, 35)
    out, maps, _ = OPS["random_crop"](image, layers, seeds(1)[0], size=500)
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(maps, layers)


@pytest.mark.parametrize("size", [(1, 1), (64, 85), (97, 111), (160, 224), (301, 7), (60, 80), (30, 160)])
def test_resize_equals_pillow(size, rng):
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (80, 60), Image.Resampling.BICUBIC
    )
    labels = rng.integers(0, 256, (60, 80), np.uint8)
    image, layers, _ = resize(np.asarray(smooth), labels[None].astype(np.uint16), *map(tf.constant, size))
    expected = np.asarray(smooth.resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(image.numpy().astype(int) - expected).max() <= 1
    nearest = np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(layers[0], nearest)


@pytest.mark.parametrize("size", [(97, 111), (30, 160), (21, 34)])
def test_resize_equals_tensorflow(size, rng):
    image = tf.constant(rng.integers(0, 256, (60, 80, 3), np.uint8))
    found, *_ = resize(image, tf.zeros((1, 60, 80), tf.uint16), *map(tf.constant, size))
    expected = tf.image.resize(image, size, "bilinear", antialias=size < (60, 80))
    np.testing.assert_array_equal(found, np.rint(expected.numpy()))


def test_nearest_equals_pillow_where_a_centre_falls_on_an_edge():
    """Then the rounding of Pillow's running sum decides, and a closed formula would differ."""
    for old in (4, 16, 96, 250):
        labels = np.arange(old, dtype=np.uint8)[None]
        image, layers = np.zeros((1, old, 3), np.uint8), labels[None].astype(np.uint16)
        for new in range(1, 1000, 23):
            _, scaled, _ = resize(image, layers, tf.constant(1), tf.constant(new))
            expected = np.asarray(Image.fromarray(labels).resize((new, 1), Image.Resampling.NEAREST))
            np.testing.assert_array_equal(scaled[0], expected)


@pytest.mark.parametrize(
    ("size", "shortest", "longest", "expected"),
    [
        ((100, 140), 150, 1333, (150, 210)),
        ((100, 140), 150, 180, (129, 180)),
        ((140, 100), 37, 1333, (52, 37)),
        ((500, 500), 608, 1333, (608, 608)),
        ((1, 1000), 800, 1333, (1, 1333)),
    ],
)
def test_shortest_edge_size_rounds_as_detectron2(size, shortest, longest, expected):
    out = shortest_edge_size(*map(tf.constant, size), tf.constant(shortest), longest)
    assert tuple(map(int, out)) == expected


def test_scale_jitter_keeps_the_shape_and_halves_as_often_as_it_doubles():
    image, layers = np.zeros((40, 60, 3), np.uint8), np.zeros((1, 40, 60), np.uint16)
    heights = []
    for seed in seeds(150):
        out, maps, _ = OPS["scale_jitter"](image, layers, seed, smallest=0.5, largest=2.0)
        assert out.shape[:2] == maps.shape[1:] and abs(out.shape[1] - 1.5 * out.shape[0]) <= 1
        heights.append(out.shape[0])
    assert 20 <= min(heights) < 23 and 72 < max(heights) <= 80
    assert 0.35 < np.mean(np.array(heights) < 40) < 0.65


def test_a_wrong_list_names_every_fault():
    specs = [
        {"op": "random_corp", "size": 5},
        {"op": "random_crop", "sise": 5},
        {"op": "resize_shortest_edge", "sizes": (), "longest": 0},
        {"op": "flip_horizontal"},
        {"size": 3},
        {"op": "stain_jitter", "scale": -0.1, "shift": (0.1, 0.2)},
        {"op": "scale_jitter", "smallest": 2.0, "largest": 0.5},
        {"op": "scale_jitter", "smallest": 0, "largest": 0.5},
    ]
    with pytest.raises(ValueError) as caught:
        compose(specs)
    message = str(caught.value)
    for part in (
        "augment[0]: no op 'random_corp' (did you mean 'random_crop'?)",
        "augment[1]: random_crop has no argument 'sise' (did you mean 'size'?)",
        "augment[1]: random_crop needs 'size'",
        "augment[2]: resize_shortest_edge.sizes is ()",
        "augment[2]: resize_shortest_edge.longest is 0",
        "augment[4]: no op None",
        "augment[5]: stain_jitter.scale is -0.1, not a number from 0 on",
        "augment[5]: stain_jitter.shift is (0.1, 0.2), not a number from 0 on",
        "augment[6]: scale_jitter goes from 2.0 to 0.5, not from small to large",
        "augment[7]: scale_jitter goes from 0 to 0.5",
    ):
        assert part in message
    assert "augment[3]" not in message


def test_no_augmentation_changes_nothing(rng):
    image, layers = blocks(rng)
    out = compose([])(image, layers, seeds(1)[0])
    assert out[0] is image and out[1] is layers


def test_resize_golden(golden):
    arrays = golden("comp_resize")
    image = arrays["image_bgr"]
    for name in arrays.files:
        if not name.startswith("short"):
            continue
        shortest, longest = (int(part.lstrip("shortmax")) for part in name.split("_"))
        size = shortest_edge_size(*map(tf.constant, image.shape[:2]), tf.constant(shortest), longest)
        out, *_ = resize(image, arrays["label_map"][None].astype(np.uint16), *size)
        assert out.shape == arrays[name].shape
        assert np.abs(out.numpy().astype(int) - arrays[name]).max() <= 1
    expected = arrays["label_map_nearest"]
    _, layers, _ = resize(
        image, arrays["label_map"][None].astype(np.uint16), *map(tf.constant, expected.shape)
    )
    np.testing.assert_array_equal(layers[0], expected)


def test_crop_resize_flip_golden(golden):
    """One instance a layer, since the golden has whole masks."""
    arrays = golden("comp_augment")
    numbers = np.arange(1, len(arrays["masks"]) + 1, dtype=np.uint16)
    layers = arrays["masks"] * numbers[:, None, None]
    left, top, width, height = map(int, arrays["crop_xywh"])
    image, layers, _ = crop(arrays["image_bgr"], layers, top, left, height, width)
    size = shortest_edge_size(*map(tf.constant, (height, width)), tf.constant(int(arrays["short_edge"])), 800)
    image, layers, _ = resize(image, layers, *size)
    flipped = (OPS["flip_horizontal"](image, layers, seed) for seed in seeds(20))
    image, layers, _ = next(moved for moved in flipped if not np.array_equal(moved[1], layers))
    assert np.abs(image.numpy().astype(int) - arrays["out_image_bgr"]).max() <= 1
    boxes, present = tight_boxes(layers.numpy(), len(numbers))
    kept = np.flatnonzero(present)
    np.testing.assert_array_equal(kept, arrays["kept"])
    np.testing.assert_array_equal(layers.numpy()[kept] > 0, arrays["out_masks"] > 0)
    np.testing.assert_array_equal(boxes[kept], arrays["out_boxes"])
