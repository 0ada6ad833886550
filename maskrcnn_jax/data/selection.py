"""Rows and columns of label maps, as crops, nearest resizing and mirrors choose them; no pixel moves yet."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Int, UInt16

Layers = UInt16[tf.Tensor, "L H W"]


class Selection(NamedTuple):
    """Layers of which the `columns` of the `rows` are meant, each of which rise or fall throughout.

    In place of layers, the ops of `augment` take and return it. So an enlarged map costs no more than the
    window that it comes from.
    """

    layers: Layers
    rows: Int[tf.Tensor, "h"]
    columns: Int[tf.Tensor, "w"]


def whole(layers: Layers) -> Selection:
    """All rows and columns."""
    shape = tf.shape(layers)
    return Selection(layers, tf.range(shape[1]), tf.range(shape[2]))


def pick(
    layers: Layers | Selection, rows: Int[tf.Tensor, "h"], columns: Int[tf.Tensor, "w"]
) -> Layers | Selection:
    """Some of the rows and columns; of a selection, a selection."""
    if isinstance(layers, Selection):
        return Selection(layers.layers, tf.gather(layers.rows, rows), tf.gather(layers.columns, columns))
    # Rows are gathered as blocks of memory, columns pixel by pixel: turn the map to have rows both times.
    turned = tf.gather(tf.transpose(layers, [0, 2, 1]), columns, axis=1)
    return tf.gather(tf.transpose(turned, [0, 2, 1]), rows, axis=1)


def copied(layers: Layers | Selection) -> Layers:
    """The pixels themselves, for what does more than choose rows and columns."""
    return pick(*layers) if isinstance(layers, Selection) else layers


def like(given: Layers | Selection, layers: Layers) -> Layers | Selection:
    """Layers in the form of those that were given."""
    return whole(layers) if isinstance(given, Selection) else layers
