"""The pytrees that cross rooms on a device: plain named tuples, which JAX, NumPy and TensorFlow all take.

Axis letters, here and everywhere: B batch, H W C height, width, channels, N boxes, R RoIs, G ground
truths, K classes, D detections, P bins, M mask cells, L layers.

Boxes are XYXY in image pixels with continuous coordinates: pixel (row i, column j) covers
[j, j + 1] x [i, i + 1], so a one-pixel instance has a box of area 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `data` and `evaluation` import this file and must not pull in JAX.
    from jax import Array
    from jaxtyping import Bool, Float, Int, UInt8, UInt16


class Batch(NamedTuple):
    """One step's input, padded to fixed shapes.

    Attributes:
      images: RGB, content at the top left, zeros elsewhere.
      sizes: height and width of each image's content, in pixels.
      boxes: of the instances, in pixels, as annotated where no border cut them, else tight; zeros where
        there are neither instances nor crowds.
      classes: from 0; the background is not a class here.
      valid: False marks padding and crowds among the instances.
      crowd: True marks a region of many objects that nobody has told apart (COCO's `iscrowd`), or of those
        for which there was no room: it is no ground truth, and what is found in it counts neither as right
        nor as wrong.
      layers: the layer of `instance_map` that holds each instance.
      instance_map: value g + 1 marks a pixel of instance g (row g of `boxes`), 0 background.
        Instances that overlap are in different layers, so nothing is lost.
      index: each image's position in its data set, so that a message can name the image.
      cut: how many instances of each image found no room and became part of regions to ignore.
    """

    images: UInt8[Array, "B H W 3"]
    sizes: Int[Array, "B 2"]
    boxes: Float[Array, "B G 4"]
    classes: Int[Array, "B G"]
    valid: Bool[Array, "B G"]
    crowd: Bool[Array, "B G"]
    layers: Int[Array, "B G"]
    instance_map: UInt16[Array, "B L H W"]
    index: Int[Array, "B"]
    cut: Int[Array, "B"]


class Term(NamedTuple):
    """One loss of some images as a sum, and what the sum of all images is to be divided by.

    Apart, so that the parts of a batch, on several devices or one after the other, add up to the whole.
    """

    total: Float[Array, "*B"]
    count: Float[Array, "*B"]

    @property
    def mean(self) -> Float[Array, "*B"]:
        """The loss; 0 where there is nothing to average over."""
        return self.total / self.count.clip(1.0)


class Proposals(NamedTuple):
    """What the RPN hands to the RoI heads: best first, clipped to the image, padded at the end."""

    boxes: Float[Array, "B R 4"]
    logits: Float[Array, "B R"]
    valid: Bool[Array, "B R"]


class Detections(NamedTuple):
    """What the model finds: best first, padded at the end (score 0, box 0, `valid` False).

    `masks` are probabilities over each detection's box, M x M cells; `masks.pasting` puts them
    into the image.
    """

    boxes: Float[Array, "B D 4"]
    scores: Float[Array, "B D"]
    classes: Int[Array, "B D"]
    masks: Float[Array, "B D M M"]
    valid: Bool[Array, "B D"]
