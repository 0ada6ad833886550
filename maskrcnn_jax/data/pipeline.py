"""From records to padded batches: an endless, indexed stream that any step can be entered at.

Sample i of step s depends on (seed, s, i) alone. All samples are numbered through: number
s * batch_size + i names the epoch, the place in that epoch's permutation, and the augmentation's seed.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Int

from maskrcnn_jax.data.augment import Augmentation, compose
from maskrcnn_jax.data.motion import follow
from maskrcnn_jax.data.order import make_deck, permuted
from maskrcnn_jax.data.padding import pad_sample
from maskrcnn_jax.data.record_tensors import Read, in_memory, on_demand
from maskrcnn_jax.data.records import Record
from maskrcnn_jax.data.selection import whole
from maskrcnn_jax.errors import UserError
from maskrcnn_jax.structures import Batch


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
    iterator = [dataset.with_options(options).as_numpy_iterator()]
    stream = _checked(iterator, records, canvas, failures)
    # At the program's end, too: its threads would wait for Python, which is gone, and TensorFlow for them.
    weakref.finalize(stream, iterator.clear)
    return islice(stream, steps)


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
    sizes = {"canvas": canvas, "depth": depth, "max_instances": max_instances}

    def make_sample(number: tf.Tensor) -> Batch:
        index = tf.gather(tf.constant(deck), permuted(number, len(deck), seed))
        image, layers, boxes, *fields = read(index)
        key = tf.stack([tf.constant(seed, tf.int64), number])
        before = tf.shape(image)[:2]
        image, selection, path = augment(image, whole(layers), key)
        if has_boxes:
            boxes, right = follow(boxes, before, path)
            boxes = tf.where(right[:, None], boxes, np.nan)
        return pad_sample(index, image, selection, boxes, *fields, **sizes)

    return make_sample


def _checked(
    iterator: list[Iterator[Batch]],
    records: Sequence[Record],
    canvas: tuple[int, int],
    failures: list[Exception],
) -> Iterator[Batch]:
    """The batches, once it is clear that their images fit; what failed in a thread is raised as it was."""
    try:
        for batch in iter(lambda: next(iterator[0], None), None):
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
