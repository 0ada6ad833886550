"""Augmentation: each op moves an image and its instances together, as TensorFlow graph code.

An op is one function of (image, layers, seed): uint8 in, uint8 out, random only through `seed`. One that
moves pixels also returns where they went, so that annotated boxes can follow. Layers that are given as a
`Selection` come back as one. A list of ops is written in a config as
`({"op": "random_crop", "size": 500}, ...)`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from jaxtyping import Int

from maskrcnn_jax.data import colour, degrade
from maskrcnn_jax.data.affine import random_affine
from maskrcnn_jax.data.colour import Image, Layers, Seed
from maskrcnn_jax.data.motion import Motion, Path, linear
from maskrcnn_jax.data.selection import copied, like, pick
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.plain_values import nearest

Augmentation = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, Path]]
Moved = tuple[Image, Layers, Motion]


def random_crop(image: Image, layers: Layers, seed: Seed, *, size: int) -> Moved:
    """Cuts out a square of `size` pixels, each place equally likely; what is there of a smaller image."""
    height, width = _size(image)
    crop_height, crop_width = tf.minimum(size, height), tf.minimum(size, width)
    top_seed, left_seed = tf.unstack(tf.random.split(seed))
    top = _uniform_int(top_seed, height - crop_height + 1)
    left = _uniform_int(left_seed, width - crop_width + 1)
    return crop(image, layers, top, left, crop_height, crop_width)


def resize_shortest_edge(
    image: Image, layers: Layers, seed: Seed, *, sizes: Sequence[int], longest: int
) -> Moved:
    """Scales the shorter side to one of `sizes`, unless the longer one would pass `longest`.

    As Detectron2's ResizeShortestEdge, its rounding included.
    """
    height, width = _size(image)
    shortest = tf.constant(tuple(sizes))[_uniform_int(seed, len(sizes))]
    return resize(image, layers, *shortest_edge_size(height, width, shortest, longest))


def scale_jitter(image: Image, layers: Layers, seed: Seed, *, smallest: float, largest: float) -> Moved:
    """Scales both sides by one factor; halving is as likely as doubling, if both are in the range."""
    height, width = _size(image)
    factor = tf.exp(tf.random.stateless_uniform([], seed, math.log(smallest), math.log(largest)))
    sides = tf.cast(tf.stack([height, width]), tf.float32) * factor
    rounded = tf.maximum(tf.cast(tf.round(sides), tf.int32), 1)
    return resize(image, layers, rounded[0], rounded[1])


def flip_horizontal(image: Image, layers: Layers, seed: Seed) -> Moved:
    """Mirrors left and right in half of the cases."""
    height, width = _size(image)
    return tf.cond(
        _coin(seed),
        lambda: (
            tf.reverse(image, [1]),
            pick(layers, tf.range(height), tf.range(width - 1, -1, -1)),
            linear((-1, 0, width), (0, 1, 0)),
        ),
        lambda: (image, layers, linear()),
    )


def flip_vertical(image: Image, layers: Layers, seed: Seed) -> Moved:
    """Mirrors top and bottom in half of the cases."""
    height, width = _size(image)
    return tf.cond(
        _coin(seed),
        lambda: (
            tf.reverse(image, [0]),
            pick(layers, tf.range(height - 1, -1, -1), tf.range(width)),
            linear((1, 0, 0), (0, -1, height)),
        ),
        lambda: (image, layers, linear()),
    )


def rotate90(image: Image, layers: Layers, seed: Seed) -> Moved:
    """Turns by 0, 90, 180 or 270 degrees, each equally likely."""

    def turned(x: tf.Tensor, rows: int, columns: int, order: list[int]) -> list[Callable[[], tf.Tensor]]:
        return [
            lambda: x,
            lambda: tf.reverse(tf.transpose(x, order), [rows]),
            lambda: tf.reverse(x, [rows, columns]),
            lambda: tf.transpose(tf.reverse(x, [rows]), order),
        ]

    quarter = _uniform_int(seed, 4)
    height, width = _size(image)
    motions = (
        linear(),
        linear((0, 1, 0), (-1, 0, width)),
        linear((-1, 0, width), (0, -1, height)),
        linear((0, -1, height), (1, 0, 0)),
    )
    images, maps = turned(image, 0, 1, [1, 0, 2]), turned(copied(layers), 1, 2, [0, 2, 1])
    cases = [lambda k=k: (images[k](), maps[k](), motions[k]) for k in range(4)]
    image, pixels, motion = tf.switch_case(quarter, cases)
    return image, like(layers, pixels), motion


OPS = {
    op.__name__: op
    for op in (
        random_crop,
        resize_shortest_edge,
        scale_jitter,
        flip_horizontal,
        flip_vertical,
        rotate90,
        random_affine,
        colour.brightness_contrast,
        colour.stain_jitter,
        colour.stretch_grey,
        colour.gamma,
        colour.invert,
        colour.to_grey,
        colour.channel_shuffle,
        colour.tint,
        degrade.blur,
        degrade.noise,
    )
}


def compose(specs: Sequence[Mapping[str, Any]]) -> Augmentation:
    """One function from a config's list of ops, which run in that order with a seed each.

    Args:
      specs: mappings with the op's name under "op" and its arguments under theirs.

    Raises:
      UserError: lists every op and argument that is unknown, missing or out of range.
    """
    require_ops(specs)
    steps = [(OPS[spec["op"]], {k: v for k, v in spec.items() if k != "op"}) for spec in specs]

    def augment(image: Image, layers: Layers, seed: Seed) -> tuple[Image, Layers, Path]:
        path = []
        for i, (op, arguments) in enumerate(steps):
            image, layers, *motion = op(image, layers, tf.random.fold_in(seed, i), **arguments)
            path += [(matrix, tf.shape(image)[:2]) for matrix in motion]
        return image, layers, path

    return augment


def require_ops(specs: Sequence[Mapping[str, Any]]) -> None:
    """Raises as `compose`, before there is any image."""
    faults = [f"augment[{i}]: {fault}" for i, spec in enumerate(specs) for fault in _spec_faults(spec)]
    if faults:
        raise UserError("these augmentations cannot run:\n  " + "\n  ".join(faults))


def crop(
    image: Image, layers: Layers, top: tf.Tensor, left: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> Moved:
    """The window of `height` x `width` pixels at (`top`, `left`), which must lie inside."""
    window = image[top : top + height, left : left + width]
    chosen = pick(layers, top + tf.range(height), left + tf.range(width))
    return window, chosen, linear((1, 0, -left), (0, 1, -top))


def resize(image: Image, layers: Layers, height: tf.Tensor, width: tf.Tensor) -> Moved:
    """Scales to `height` x `width` pixels as Pillow does.

    The image is BILINEAR: corners stay corners, and what shrinks is averaged over its area; values are
    within one grey level of Pillow's, which rounds between its two passes. Layers are NEAREST, exactly.
    """
    size = tf.stack([height, width])
    shrinks = tf.reduce_any(size < tf.shape(image)[:2])
    levels = tf.cast(image, tf.float32)  # of which TensorFlow reads four neighbours faster than of uint8
    scaled = tf.cond(
        shrinks,
        lambda: tf.image.resize(levels, size, "bilinear", antialias=True),
        lambda: tf.image.resize(levels, size, "bilinear"),
    )
    old_height, old_width = _size(image)
    layers = pick(layers, _nearest(height, old_height), _nearest(width, old_width))
    motion = linear((width / old_width, 0, 0), (0, height / old_height, 0))
    return colour.to_uint8(scaled, clip=False), layers, motion


def shortest_edge_size(
    height: tf.Tensor, width: tf.Tensor, shortest: tf.Tensor, longest: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width after scaling the shorter side to `shortest`, the longer to `longest` at most."""
    sides = tf.cast(tf.stack([height, width]), tf.float64)
    sides *= tf.cast(shortest, tf.float64) / tf.reduce_min(sides)
    limit = tf.cast(longest, tf.float64)
    sides *= tf.minimum(limit / tf.reduce_max(sides), tf.ones_like(limit))
    rounded = tf.cast(sides + 0.5, tf.int32)
    return rounded[0], rounded[1]


def _nearest(new: tf.Tensor, old: tf.Tensor) -> Int[tf.Tensor, "new"]:
    """The source of each new pixel along one axis, from Pillow's own sum.

    Pillow adds the float64 step pixel by pixel for 8-bit masks. A centre that falls on the edge of two
    pixels goes to the side where the sum's rounding takes it, so a product would differ.
    """
    scale = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    steps = tf.concat([[scale * 0.5], tf.fill([new - 1], scale)], axis=0)
    return tf.minimum(tf.cast(tf.cumsum(steps), tf.int32), old - 1)


def _size(image: Image) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(image)
    return shape[0], shape[1]


def _coin(seed: Seed) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed) < 0.5


def _uniform_int(seed: Seed, count: tf.Tensor | int) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, 0, count, tf.int32)


def _spec_faults(spec: Mapping[str, Any]) -> list[str]:
    name = spec.get("op")
    if name not in OPS:
        return [f"no op {name!r}{nearest(str(name), OPS)}; the ops are {', '.join(OPS)}"]
    parameters = inspect.signature(OPS[name]).parameters.values()
    known = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    given = {argument: value for argument, value in spec.items() if argument != "op"}
    faults = [f"{name} has no argument {a!r}{nearest(a, known)}" for a in given if a not in known]
    faults += [f"{name} needs {a!r}" for a in known if a not in given]
    for argument in known.keys() & given.keys():
        values = given[argument] if isinstance(given[argument], Sequence) else [given[argument]]
        fault = _FAULTS.get(known[argument], _pixel_fault)(values)
        faults += [f"{name}.{argument} is {given[argument]!r}, {fault}"] if fault else []
    if "smallest" in known and not faults and not 0 < spec["smallest"] <= spec["largest"]:
        faults.append(f"{name} goes from {spec['smallest']} to {spec['largest']}, not from small to large")
    return faults


def _pixel_fault(values: Sequence[Any]) -> str | None:
    right = values and all(isinstance(v, int) and v > 0 for v in values)
    return None if right else "not a positive number of pixels"


def _share_fault(values: Sequence[Any]) -> str | None:
    right = len(values) == 1 and isinstance(values[0], int | float) and 0 <= values[0] < math.inf
    return None if right else "not a number from 0 on"


def _signed_fault(values: Sequence[Any]) -> str | None:
    right = len(values) == 1 and isinstance(values[0], int | float) and math.isfinite(values[0])
    return None if right else "not a number"


_FAULTS = {"float": _share_fault, "Signed": _signed_fault}
