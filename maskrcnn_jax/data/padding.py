"""One augmented image and its instances in the fixed shapes of a batch: NumPy, in one call from the graph.

Four calls, with TensorFlow's own ops between them, were slower.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float32, Int, Int32, UInt8, UInt16

from maskrcnn_jax.data.runs import boxes_of, find_runs, renumbered
from maskrcnn_jax.data.selection import Selection
from maskrcnn_jax.structures import Batch

_CELLS = 4  # along each side: instances beyond `max_instances` become a region in each of 4 x 4 parts
REGIONS = _CELLS**2  # rows of a batch past `max_instances`
_ALIGNMENT = 64  # bytes: what TensorFlow takes over without a copy begins at a multiple


def pad_sample(
    index: tf.Tensor,
    image: UInt8[tf.Tensor, "h w 3"],
    selection: Selection,
    annotated: Float32[tf.Tensor, "N 4"],
    classes: Int32[tf.Tensor, "N"],
    crowd: Bool[tf.Tensor, "N"],
    layer: Int32[tf.Tensor, "N"],
    *,
    canvas: tuple[int, int],
    depth: int,
    max_instances: int,
) -> Batch:
    """A Batch without its first axis.

    Args:
      index: of the record.
      image: as augmented. What is beyond the canvas is cut off.
      selection: of the record's layers, what the image shows.
      annotated: boxes of the instances, XYXY in pixels of the image; NaN where the tight ones are meant.
      classes, crowd, layer: of the record's instances.
      canvas: height and width.
      depth: layers of the instance map.
      max_instances: that stay, the first that have pixels; those beyond become regions to ignore.
    """
    rows = max_instances + REGIONS
    kinds = Batch(
        images=(tf.uint8, (*canvas, 3)),
        sizes=(tf.int32, (2,)),
        boxes=(tf.float32, (rows, 4)),
        classes=(tf.int32, (rows,)),
        valid=(tf.bool, (rows,)),
        crowd=(tf.bool, (rows,)),
        layers=(tf.int32, (rows,)),
        instance_map=(tf.uint16, (depth, *canvas)),
        index=(tf.int32, ()),
        cut=(tf.int32, ()),
    )
    pad = partial(_padded, shape=(depth, *canvas), max_instances=max_instances)
    inputs = [tf.cast(index, tf.int32), image, *selection, annotated, classes, crowd, layer]
    fields = tf.numpy_function(pad, inputs, [dtype for dtype, _ in kinds], stateful=False)
    return Batch(*(tf.ensure_shape(x, shape) for x, (_, shape) in zip(fields, kinds, strict=True)))


def _padded(
    index: np.int32,
    image: UInt8[np.ndarray, "h w 3"],
    layers: UInt16[np.ndarray, "L H W"],
    rows: Int32[np.ndarray, "h"],
    columns: Int32[np.ndarray, "w"],
    annotated: Float32[np.ndarray, "N 4"],
    classes: Int32[np.ndarray, "N"],
    crowd: Bool[np.ndarray, "N"],
    layer: Int32[np.ndarray, "N"],
    *,
    shape: tuple[int, int, int],
    max_instances: int,
) -> Batch:
    size = np.array(image.shape[:2], np.int32)
    runs = find_runs(layers, rows, columns)
    tight, present = boxes_of(runs, len(annotated))
    boxes = np.where(np.isnan(annotated), tight, annotated)
    rank = np.cumsum(present)
    stays, beyond = present & (rank <= max_instances), present & (rank > max_instances)
    regions = _regions(boxes[beyond], size)

    def rows_of(field: np.ndarray, last: np.ndarray | int = 0) -> np.ndarray:
        """Those that stay, zeros after them, and the regions' at the end."""
        column = np.zeros((max_instances + REGIONS, *field.shape[1:]), field.dtype)
        column[: np.count_nonzero(stays)] = field[stays]
        column[max_instances:] = last
        return column

    return Batch(
        images=_on_canvas(image, shape[1:]),
        sizes=size,
        boxes=rows_of(boxes, regions),
        classes=rows_of(classes),
        valid=rows_of(~crowd),
        crowd=rows_of(crowd, regions[:, 2] > 0),
        layers=rows_of(layer),
        instance_map=renumbered(runs, np.where(stays, rank, 0), _zeros(shape, np.uint16)),
        index=np.int32(index),
        cut=np.int32(np.count_nonzero(beyond)),
    )


def _regions(boxes: Float32[np.ndarray, "N 4"], size: Int[np.ndarray, "2"]) -> Float32[np.ndarray, "R 4"]:
    """Boxes around those of `boxes` whose middles lie in one part of the image; 0 where there are none."""
    middles = (boxes[:, 1::-1] + boxes[:, :1:-1]) / 2
    place = np.minimum((_CELLS * middles / size.astype(np.float32)).astype(int), _CELLS - 1)
    part = place[:, 0] * _CELLS + place[:, 1]
    around = np.zeros((REGIONS, 4), np.float32)
    around[:, :2] = np.inf
    np.minimum.at(around[:, :2], part, boxes[:, :2])
    np.maximum.at(around[:, 2:], part, boxes[:, 2:])
    return np.where(around[:, 2:3] > 0, around, 0)


def _on_canvas(image: UInt8[np.ndarray, "h w 3"], canvas: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Zeros after the content."""
    placed = _zeros((*canvas, 3), np.uint8)
    content = image[: canvas[0], : canvas[1]]
    placed[: content.shape[0], : content.shape[1]] = content
    return placed


def _zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """As `np.zeros`, at an address that TensorFlow takes."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(count + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + count].view(dtype).reshape(shape)
