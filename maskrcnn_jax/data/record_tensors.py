"""Records as tensors that a graph reads by their index: held in memory, or read one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from maskrcnn_jax.data.records import Record

# From a record's index to its image, layers, annotated boxes, classes, crowd, and the layer of each instance.
Read = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def in_memory(records: Sequence[Record]) -> tuple[Read, int]:
    """All records end to end in one tensor per field: what cuts one out by its index, and the most layers.

    The tensors are eager: the graph refers to them, so that nothing is copied into it.
    """

    def field(arrays: list[np.ndarray]) -> tuple[tf.Tensor, tf.Tensor]:
        ends = np.cumsum([0] + [array.size for array in arrays])
        return tf.constant(np.concatenate([array.ravel() for array in arrays])), tf.constant(ends)

    images = field([record.image for record in records])
    layers = field([record.layers for record in records])
    boxes = field([record.annotated_boxes for record in records])
    classes = field([record.classes for record in records])
    crowd = field([record.crowd for record in records])
    layer = field([record.layer for record in records])
    shapes = tf.constant([record.layers.shape for record in records])

    def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        fields = (images, layers, boxes, classes, crowd, layer)
        flat = [values[ends[index] : ends[index + 1]] for values, ends in fields]
        depth, height, width = tf.unstack(shapes[index])
        shapes_of = ([height, width, 3], [depth, height, width], [-1, 4])
        return *map(tf.reshape, flat, shapes_of), *flat[3:]

    return read, max(len(record.layers) for record in records)


def on_demand(records: Sequence[Record], failures: list[Exception]) -> tuple[Read, int]:
    """As `in_memory`, but each record is read when its turn comes; `failures` gets what that raises."""
    kinds = ((tf.uint8, (None, None, 3)), (tf.uint16, (None, None, None)), (tf.float32, (None, 4)))
    kinds += ((tf.int32, (None,)), (tf.bool, (None,)), (tf.int32, (None,)))

    def load(index: np.int64) -> tuple[np.ndarray, ...]:
        try:
            record = records[int(index)]
        except Exception as error:
            failures.append(error)
            raise
        boxes = record.annotated_boxes
        return record.image, record.layers, boxes, record.classes, record.crowd, record.layer

    def read(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        fields = tf.numpy_function(load, [index], [dtype for dtype, _ in kinds], stateful=False)
        return tuple(tf.ensure_shape(x, shape) for x, (_, shape) in zip(fields, kinds, strict=True))

    return read, records.depth
