"""From records to padded batches: an endless, indexed stream that any step can be entered at.

Sample i of step s depends on (seed, s, i) alone. All samples are numbered through: number
s * batch_size + i names the epoch, the place in that epoch's permutation, and the augmentation's seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int, UInt8

from maskrcnn_jax.data.augment import Augmentation, compose
from maskrcnn_jax.data.motion import follow
from maskrcnn_jax.data.order import make_deck, permuted
from maskrcnn_jax.data.record_tensors import Read, in_memory, on_demand
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.data.runs import boxes_of, find_runs, renumbered
from maskrcnn_jax.data.selection import whole
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.structures import Batch

_CELLS = 4  # along each side: instances beyond `max_instances` become a region in each of 4 x 4 parts
REGIONS = _CELLS**2  # rows of a batch past `max_instances`


def batches(
    records: Sequence[Record],
    *,
    augment: Sequence[Mapping[str, Any]],
    canvas: tuple[int, int],
    batch_size: int,
    max_instances: int,
    seed: int,
    shares: Mapping[str, float] | None = None,
    start_step: int = 0,
    steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Shuffles, augments, pads and batches records; every epoch is a new permutation.

    Args:
      records: all of the training set. Those in a list or tuple are copied once and held in memory. Any
        other sequence is read record by record, and says in `depth` how many layers a record has at most.
      augment: the ops and their arguments, as `augment.compose` takes them.
      canvas: height and width to which every image is padded.
      batch_size: images of one step, over all processes.
      max_instances: of an image with more instances the first stay, and `Batch.cut` says how many were not
        among them. These become regions to ignore, as crowds are: rows for them follow, so that a batch
        has G = max_instances + 16.
      seed: of the order and of the augmentation.
      shares: by beginning of the records' names, which share of the draws they get, each of them as often
        as the next; None draws all records equally often.
      start_step: the first step; a run that resumes there gets what it would have got.
      steps: how many to give, None for no end.
      process_index, process_count: each process gets its own equal slice of every step's batch.
      prefetch: batches that are prepared ahead.

    Returns:
      Batches of NumPy arrays; `Batch.index` is the position in `records`.

    Raises:
      UserError: there are no records, the batch cannot be shared out, an augmentation is unknown, or,
        once it comes up, an image is larger than the canvas.
    """
    _require(len(records) > 0, "there are no records to make batches of: check the data set's path and split")
    _require(
        batch_size % process_count == 0,
        f"batch_size {batch_size} must be a multiple of the {process_count} processes",
    )
    hide_gpus_from_tensorflow()
    share = batch_size // process_count
    failures: list[Exception] = []
    held = isinstance(records, list | tuple)
    read, depth = in_memory(records) if held else on_demand(records, failures)
    has_boxes = not held or any(np.isfinite(record.annotated_boxes).any() for record in records)
    deck = make_deck([record.name for record in records], shares) if shares else np.arange(len(records))
    make_sample = _sampler(read, deck, depth, has_boxes, compose(augment), canvas, max_instances, seed)

    @tf.autograph.experimental.do_not_convert
    def numbered(k: tf.Tensor) -> Batch:
        step, i = k // share, k % share
        return make_sample(step * batch_size + process_index * share + i)

    dataset = tf.data.Dataset.range(start_step * share, np.iinfo(np.int64).max)
    dataset = dataset.map(numbered, num_parallel_calls=os.cpu_count(), deterministic=True)
    dataset = dataset.batch(share, drop_remainder=True).prefetch(prefetch)
    # Nothing is left to tune, and the end of a tuned stream waits for the tuner's thread to wake up.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return islice(_checked(dataset, records, canvas, failures), steps)


def hide_gpus_from_tensorflow() -> None:
    """Keeps TensorFlow on the CPU, or it would take the memory that JAX needs.

    Raises:
      RuntimeError: TensorFlow has a GPU already.
    """
    if not tf.config.get_visible_devices("GPU"):
        return
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        message = "TensorFlow has started on a GPU: call hide_gpus_from_tensorflow() before its first use"
        raise RuntimeError(message) from error


def _sampler(
    read: Read,
    deck: Int[np.ndarray, "draws"],
    depth: int,
    has_boxes: bool,
    augment: Augmentation,
    canvas: tuple[int, int],
    max_instances: int,
    seed: int,
) -> Callable[[tf.Tensor], Batch]:
    """Graph code that makes one sample, a Batch without its first axis, from its number."""
    rows = max_instances + REGIONS

    def make_sample(number: tf.Tensor) -> Batch:
        index = tf.gather(tf.constant(deck), permuted(number, len(deck), seed))
        image, layers, annotated, *fields = read(index)
        key = tf.stack([tf.constant(seed, tf.int64), number])
        before = tf.shape(image)[:2]
        image, selection, path = augment(image, whole(layers), key)
        size = tf.shape(image)[:2]
        runs = find_runs(selection)
        boxes, present = boxes_of(runs, tf.shape(annotated)[0])
        if has_boxes:
            followed, right = follow(annotated, before, path)
            boxes = tf.where(right[:, None], followed, boxes)
        rank = tf.cumsum(tf.cast(present, tf.int32))
        stays, beyond = present & (rank <= max_instances), present & (rank > max_instances)
        regions = _regions(tf.boolean_mask(boxes, beyond), size)
        boxes, classes, crowd, layer = (tf.boolean_mask(field, stays) for field in (boxes, *fields))
        return Batch(
            images=_on_canvas(image, canvas),
            sizes=size,
            boxes=tf.concat([_pad(boxes, (max_instances, 4)), regions], axis=0),
            classes=_pad(classes, (rows,)),
            valid=_pad(~crowd, (rows,)),
            crowd=tf.concat([_pad(crowd, (max_instances,)), regions[:, 2] > 0], axis=0),
            layers=_pad(layer, (rows,)),
            instance_map=renumbered(runs, tf.where(stays, rank, 0), (depth, *canvas)),
            index=tf.cast(index, tf.int32),
            cut=tf.reduce_sum(tf.cast(beyond, tf.int32)),
        )

    return make_sample


def _regions(boxes: Float32[tf.Tensor, "N 4"], size: tf.Tensor) -> Float32[tf.Tensor, "R 4"]:
    """Boxes around those of `boxes` whose middles lie in one part of the image; 0 where there are none."""
    middles = tf.reverse(boxes[:, :2] + boxes[:, 2:], [1]) / 2
    place = tf.cast(_CELLS * middles / tf.cast(size, tf.float32), tf.int32)
    place = tf.minimum(place, _CELLS - 1)
    part = place[:, 0] * _CELLS + place[:, 1]
    low = tf.math.unsorted_segment_min(boxes[:, :2], part, REGIONS)
    high = tf.math.unsorted_segment_max(boxes[:, 2:], part, REGIONS)
    return tf.where(high[:, :1] > 0, tf.concat([low, high], axis=1), 0.0)


def _on_canvas(image: tf.Tensor, canvas: tuple[int, int]) -> UInt8[tf.Tensor, "H W 3"]:
    """Zeros after the content: by NumPy, three times as fast as `tf.pad`.

    Too large images are cut here and refused by `_checked`, which knows their names.
    """

    def place(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        placed = np.zeros((*canvas, 3), np.uint8)
        content = pixels[: canvas[0], : canvas[1]]
        placed[: content.shape[0], : content.shape[1]] = content
        return placed

    return tf.ensure_shape(tf.numpy_function(place, [image], tf.uint8, stateful=False), (*canvas, 3))


def _pad(values: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Zeros after the content, up to a static shape."""
    missing = tf.constant(shape) - tf.shape(values)
    return tf.ensure_shape(tf.pad(values, tf.stack([tf.zeros_like(missing), missing], axis=1)), shape)


def _checked(
    dataset: tf.data.Dataset,
    records: Sequence[Record],
    canvas: tuple[int, int],
    failures: list[Exception],
) -> Iterator[Batch]:
    """The batches, once it is clear that their images fit; what failed in a thread is raised as it was."""
    try:
        for batch in dataset.as_numpy_iterator():
            for index, size in zip(batch.index, batch.sizes, strict=True):
                if (size > canvas).any():
                    raise UserError(_misfit(records[index].name, size, canvas))
            yield batch
    except tf.errors.OpError:
        if failures:
            raise failures[0] from None
        raise


def _misfit(name: str, size: Sequence[int], canvas: tuple[int, int]) -> str:
    found = f"image {name!r} has {size[0]} x {size[1]} pixels after augmentation"
    remedy = f"the canvas {canvas[0]} x {canvas[1]}: raise `canvas`, or crop or resize to less in `augment`"
    return f"{found}, more than {remedy}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
