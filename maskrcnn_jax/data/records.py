"""One decoded image with its instances, and how overlapping masks become layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8, UInt16

from maskrcnn_jax.errors import DataError, Fault
from maskrcnn_jax.masks.crops import Crop

MAX_INSTANCES = np.iinfo(np.uint16).max  # of one record: a layer's values are uint16 and 0 is background


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its N instances. The arrays are shared, not copied: treat them as read-only.

    Attributes:
      image_id: the number that results refer to.
      name: what messages call the image, mostly its file's stem.
      image: RGB.
      layers: value n + 1 marks a pixel of instance n, 0 background. Each instance lies in one layer;
        instances that overlap lie in different ones.
      classes: of each instance, from 0.
      crowd: regions of many objects that nobody has told apart: what is found there counts neither as
        right nor as wrong. None means that there are no such regions.
      annotated: the box (x, y, width, height) and the area of each instance, in pixels, as their author
        wrote them down: COCO compares these, not those of the mask. NaN, or None for all, where nothing
        else was written than the mask says.

    Raises:
      DataError: an array has another shape or type than above, an instance has neither pixels nor an
        annotated box, or it is in several layers.
    """

    image_id: int
    name: str
    image: UInt8[np.ndarray, "H W 3"]
    layers: UInt16[np.ndarray, "L H W"]
    classes: Int32[np.ndarray, "N"]
    crowd: Bool[np.ndarray, "N"] | None = None
    annotated: Float64[np.ndarray, "N 5"] | None = None

    def __post_init__(self):
        if self.crowd is None:
            object.__setattr__(self, "crowd", np.zeros(len(self.classes), bool))
        if self.annotated is None:
            object.__setattr__(self, "annotated", np.full((len(self.classes), 5), np.nan))
        faults = _shape_faults(self)
        if not faults:
            faults = _instance_faults(self)
        if faults:
            raise DataError([Fault(f"record {self.name!r}", *fault) for fault in faults])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[:2]

    @cached_property
    def layer(self) -> Int32[np.ndarray, "N"]:
        """The layer that holds each instance."""
        return _pixel_counts(self.layers, len(self.classes)).argmax(axis=0).astype(np.int32)

    @cached_property
    def boxes(self) -> Float32[np.ndarray, "N 4"]:
        """Tight XYXY boxes in pixels; the far sides are the last pixel + 1. Without pixels a box is 0."""
        layer, rows, cols = np.nonzero(self.layers)
        instance = self.layers[layer, rows, cols] - 1
        low = np.full((2, len(self.classes)), np.iinfo(np.int64).max)
        high = np.zeros((2, len(self.classes)), np.int64)
        for axis, position in enumerate((cols, rows)):
            np.minimum.at(low[axis], instance, position)
            np.maximum.at(high[axis], instance, position + 1)
        low[:, high[0] == 0] = 0
        return np.concatenate([low, high]).T.astype(np.float32)

    @property
    def annotated_boxes(self) -> Float32[np.ndarray, "N 4"]:
        """XYXY boxes as annotated, cut at the image's border; NaN where there is none of any area."""
        low, sides = self.annotated[:, :2], self.annotated[:, 2:4]
        limit = np.array(self.size[::-1])
        boxes = np.concatenate([np.clip(low, 0, limit), np.clip(low + sides, 0, limit)], axis=1)
        boxes[(boxes[:, 2:] <= boxes[:, :2]).any(axis=1)] = np.nan
        return boxes.astype(np.float32)

    def mask(self, n: int) -> Bool[np.ndarray, "H W"]:
        """The pixels of instance n."""
        return self.layers[self.layer[n]] == n + 1


def encode_layers(
    masks: Sequence[Bool[np.ndarray, "H W"] | Crop], size: tuple[int, int]
) -> UInt16[np.ndarray, "L H W"]:
    """Puts masks into as few label maps as greedy colouring finds, losing no pixel.

    Args:
      masks: of the instances, in order: whole or as `Crop`s. They may overlap.
      size: height and width of the image.

    Returns:
      At least one layer; value n + 1 marks the pixels of mask n, which all lie in the first layer that
      was free there.

    Raises:
      DataError: a mask leaves the image, or there are too many for uint16.
    """
    crops = [mask if isinstance(mask, Crop) else Crop(0, 0, mask) for mask in masks]
    _require_inside(crops, size)
    layers = [np.zeros(size, np.uint16)]
    for value, (top, left, pixels) in enumerate(crops, start=1):
        window = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        free = next((layer for layer in layers if not layer[window][pixels].any()), None)
        if free is None:
            free = np.zeros(size, np.uint16)
            layers.append(free)
        free[window][pixels] = value
    return np.stack(layers)


def _require_inside(crops: Sequence[Crop], size: tuple[int, int]) -> None:
    faults = []
    if len(crops) > MAX_INSTANCES:
        faults.append(Fault("masks", f"{len(crops)} instances in one image", f"at most {MAX_INSTANCES} fit"))
    for n, (top, left, pixels) in enumerate(crops):
        end = (top + pixels.shape[0], left + pixels.shape[1])
        if min(top, left) < 0 or end[0] > size[0] or end[1] > size[1]:
            what = f"covers rows {top} to {end[0]}, columns {left} to {end[1]} of an image of {size}"
            faults.append(Fault(f"mask {n}", what, "masks must have the image's size or lie inside it"))
    if faults:
        raise DataError(faults)


def _shape_faults(record: Record) -> list[tuple[str, str]]:
    image, layers, classes = record.image, record.layers, record.classes
    faults = []
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        faults.append((f"image is {image.dtype} {image.shape}", "give (H, W, 3) uint8 RGB"))
    if (
        layers.dtype != np.uint16
        or layers.ndim != 3
        or layers.shape[1:] != image.shape[:2]
        or not len(layers)
    ):
        remedy = "give (L, H, W) uint16 of the image's size, L at least 1"
        faults.append((f"layers are {layers.dtype} {layers.shape} beside an image {image.shape}", remedy))
    if classes.dtype != np.int32 or classes.ndim != 1 or (classes < 0).any():
        found = f"classes are {classes.dtype} {classes.shape}"
        faults.append((found, "give (N,) int32, one class from 0 for each instance"))
    if record.crowd.dtype != np.bool_ or record.crowd.shape != classes.shape:
        found = f"crowd is {record.crowd.dtype} {record.crowd.shape}"
        faults.append((found, "give (N,) bool, one for each instance"))
    if record.annotated.dtype != np.float64 or record.annotated.shape != (*classes.shape, 5):
        found = f"annotated is {record.annotated.dtype} {record.annotated.shape}"
        faults.append((found, "give (N, 5) float64: x, y, width, height, area"))
    return faults


def _instance_faults(record: Record) -> list[tuple[str, str]]:
    count = len(record.classes)
    if record.layers.max() > count:
        found = f"layers hold instance {record.layers.max()}, classes {count} instances"
        return [(found, "give each instance a class")]
    places = (_pixel_counts(record.layers, count) > 0).sum(axis=0)
    empty = np.flatnonzero((places == 0) & np.isnan(record.annotated[:, :4]).any(axis=1))
    split = np.flatnonzero(places > 1)
    faults = [(f"instance {n} has no pixels", "leave it out") for n in empty]
    return faults + [(f"instance {n} is in several layers", "put it into one") for n in split]


def _pixel_counts(layers: UInt16[np.ndarray, "L H W"], count: int) -> Int32[np.ndarray, "L N"]:
    counts = [np.bincount(layer.ravel(), minlength=count + 1)[1:] for layer in layers]
    return np.stack(counts).astype(np.int32)
