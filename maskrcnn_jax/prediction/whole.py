"""Prediction as one pure function of the pixels: what `Predictor` does on device and host, all on the device.

It is what an exported model is made of. The shape of the images is fixed, their number need not be.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from maskrcnn_jax.config import MaskRCNNConfig
from maskrcnn_jax.images import intensity
from maskrcnn_jax.interop.trees import Tree
from maskrcnn_jax.models.chunks import map_valid
from maskrcnn_jax.models.mask_rcnn import MaskRCNN
from maskrcnn_jax.ops.boxes import grow
from maskrcnn_jax.ops.containment import not_contained
from maskrcnn_jax.ops.pasting import paste, whole_frames
from maskrcnn_jax.ops.resizing import interpolate, resize
from maskrcnn_jax.prediction.resize import enlargement, scaled
from maskrcnn_jax.structures import Detections

Masks = Literal["image", "boxes"]
Found = dict[str, Array]

_CHUNK = 16  # masks at a time; each is pasted through an array of the image's height


def whole_prediction(
    config: MaskRCNNConfig, size: tuple[int, int], *, masks: Masks = "image"
) -> Callable[[Tree, UInt8[Array, "B H W 3"]], Found]:
    """The function from parameters and RGB images of one size to their objects.

    Its result, by name, best first, with zeros behind the first `count` of an image:

    - `boxes` (B, D, 4) float32: XYXY in pixels of the image;
    - `scores` (B, D) float32 and `classes` (B, D) int32, from 0;
    - `masks`: (B, D, H, W) bool, or of probabilities over boxes (B, D, M, M) float32;
    - `mask_boxes` (B, D, 4) float32, with the latter: where each lies, which may be larger than its box;
    - `count` (B,) int32: the number of objects.

    Args:
      config: of the model. All that it says of prediction is done: `stretch_grey`, `test_resize`,
        `test_zoom`, and `detection`, but for `min_score`, which is left to who reads the scores.
      size: height and width of the images in pixels.
      masks: pasted into the image, or as the model gives them, over boxes.
    """
    model, seen = MaskRCNN(config), scaled(size, enlargement(config, size))
    resized = interpolate if config.test_resize_method == "bilinear" else resize

    def predict(params: Tree, images: UInt8[Array, "B H W 3"]) -> Found:
        if config.stretch_grey:
            images = jax.vmap(stretch_grey)(images)
        images = jax.vmap(partial(resized, size=seen))(images)
        sizes = jnp.broadcast_to(jnp.array(seen, jnp.int32), (images.shape[0], 2))
        detections = model.apply({"params": params}, images, sizes, method="detect")
        return _finish(config, detections, seen, size, masks)

    return predict


def stretch_grey(image: UInt8[Array, "H W 3"]) -> UInt8[Array, "H W 3"]:
    """`images.intensity.stretch_grey` on the device."""
    wide = image.astype(jnp.int32)
    apart = jnp.maximum(jnp.abs(wide[..., 0] - wide[..., 1]), jnp.abs(wide[..., 1] - wide[..., 2]))
    levels = jnp.sort(wide[..., 1].reshape(-1))
    # The first level up to which so large a share of the pixels lies.
    low, high = (levels[math.ceil(share * len(levels)) - 1] for share in (intensity.LOW, intensity.HIGH))
    tables = np.stack([intensity.stretched(np.arange(256), max(span, 1)) for span in range(256)])
    span = jnp.maximum(high - low, intensity.LEAST_SPAN[1])
    table = jnp.asarray(tables)[span]
    return jnp.where(jnp.max(apart) <= intensity.COLOURLESS, table[jnp.maximum(wide - low, 0)], image)


def _finish(config: MaskRCNNConfig, found: Detections, seen, size, masks: Masks) -> Found:
    """From the model's frame to the image's own: `to_result`, on the device."""
    options, (height, width) = config.detection, size
    scale, offset, border = (
        np.array([[[x, y, x, y]]], np.float32)
        for x, y in ((width / seen[1], height / seen[0]), options.offset, (width, height))
    )
    boxes = jnp.clip(found.boxes * scale + offset, 0.0, border)
    keep = found.valid & jnp.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    found = _first(keep, found._replace(boxes=boxes))
    if options.containment < 1:
        found = _first(_not_contained(config, found, size), found)
    pixels, mask_boxes = _frames(config, found)
    result = {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}
    count = found.valid.sum(axis=1).astype(jnp.int32)
    if masks == "boxes":
        result |= {"masks": pixels, "mask_boxes": jnp.where(found.valid[..., None], mask_boxes, 0.0)}
    else:
        result["masks"] = _per_mask(lambda pasted: pasted, pixels, mask_boxes, jnp.max(count), size)
    return result | {"count": count}


def _frames(config: MaskRCNNConfig, found: Detections) -> tuple[Array, Array]:
    """Masks (B, D, M, M), and the boxes (B, D, 4) over which they are to be stretched."""
    boxes = grow(found.boxes, config.roi.mask_margin)
    whole = config.detection.pasting == "whole_pixels"
    return whole_frames(found.masks, boxes) if whole else (found.masks, boxes)


def _per_mask(function: Callable[[Array], Array], masks, boxes, count, size) -> Array:
    """`function` of the pasted masks (B, r, H, W), a few at a time; zeros for all past the first `count`."""

    def some(masks, boxes):
        return (function(jax.vmap(partial(paste, size=size))(masks, boxes)),)

    return map_valid(some, (masks, boxes), count, chunk=_CHUNK)[0]


def _first(keep: Bool[Array, "B D"], found: Detections) -> Detections:
    """The detections to keep, in their order, and zeros behind them."""

    def one(keep, found):
        order = jnp.argsort(~keep)  # which is stable

        def take(field):
            stays = keep[order].reshape(-1, *[1] * (field.ndim - 1))
            return jnp.where(stays, field[order], jnp.zeros_like(field))

        return jax.tree.map(take, found)

    return jax.vmap(one)(keep, found._replace(valid=keep))


def _not_contained(config: MaskRCNNConfig, found: Detections, size) -> Bool[Array, "B D"]:
    masks, boxes = _frames(config, found)
    most = jnp.max(found.valid.sum(axis=1)).astype(jnp.int32)

    def area(pasted: Bool[Array, "B r H W"]) -> Int[Array, "B r"]:
        return pasted.sum(axis=(2, 3)).astype(jnp.int32)

    def one(masks, areas, boxes, classes, valid):
        def pixels(d):
            return paste(masks[d][None], boxes[d][None], size)[0]

        return not_contained(pixels, areas, boxes, classes, valid, config.detection.containment)

    areas = _per_mask(area, masks, boxes, most, size)
    return jax.vmap(one)(masks, areas, boxes, found.classes, found.valid)
